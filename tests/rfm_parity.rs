//! The engine's recursive feature machine against the library xrfm on the same features (`tests/python/rfm`).

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tiller_engine::learn::rfm::{Bandwidth, Settings, fit};
use tiller_engine::learn::samples::{Samples, Task};
use tiller_engine::learn::search::Axis;

const FIXTURE: &str = "fixtures/rfm-xrfm.safetensors";

fn doubles(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let view = tensors.tensor(name).expect(name);
    assert_eq!(view.dtype(), Dtype::F64, "{name}");
    view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn agrees_with_xrfm() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIXTURE);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let metadata = header.metadata().as_ref().expect("metadata");
    let count = |name: &str| metadata[name].parse::<usize>().expect(name);
    let (train_rows, validation_rows) = (count("train"), count("validation"));
    let features = tensors.tensor("features").expect("features");
    let width = features.shape()[1];
    let features: Vec<f32> = features.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let (train_features, rest) = features.split_at(train_rows * width);
    let (validation_features, held_out) = rest.split_at(validation_rows * width);

    let cases: serde_json::Value = serde_json::from_str(&metadata["cases"]).expect("JSON");
    let cases = cases.as_array().expect("a list");
    assert_eq!(cases.len(), 4);
    for (index, case) in cases.iter().enumerate() {
        let number = |name: &str| case[name].as_f64().unwrap_or_else(|| panic!("{name} in case {index}"));
        let target = case["target"].as_str().expect("a name");
        let task = if target == "class" { Task::Class } else { Task::Level };
        let targets = doubles(&tensors, target);
        let (train_targets, rest) = targets.split_at(train_rows);
        let train = Samples::new(task, width, train_features, train_targets).expect("well formed");
        let validation = Samples::new(task, width, validation_features, &rest[..validation_rows]).expect("well formed");
        let bandwidth = number("bandwidth");
        let adaptive = case["adaptive"].as_bool().expect("yes or no");
        let settings = Settings {
            bandwidth: if adaptive { Bandwidth::Refitted(bandwidth) } else { Bandwidth::Fixed(bandwidth) },
            exponent: number("exponent"),
            ridge: number("ridge"),
            centred: case["centred"].as_bool().expect("yes or no"),
            iterations: number("iterations") as usize,
        };
        let found = fit(&train, &validation, &settings, &|_| Ok(())).expect("fits");
        assert_eq!(found.iteration, number("best_iteration") as usize, "case {index}");
        let bandwidth_error = found.predictor.bandwidth() / number("bandwidth_used") - 1.0;

        let wanted = doubles(&tensors, &format!("{index}.predictions"));
        let predictions = found.predictor.predict(held_out).expect("whole rows");
        assert_eq!(predictions.len(), wanted.len());
        let prediction_error = predictions.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);

        let wanted = doubles(&tensors, &format!("{index}.agop"));
        let product = found.outer_product.data();
        assert_eq!(product.len(), wanted.len());
        let product_error = norm(product.iter().zip(&wanted).map(|(a, b)| a - b)) / norm(wanted.iter().copied());

        let axis = Axis::of(&found, &train, &validation).expect("converges");
        let ratio = axis.eigenvalue_ratio;
        let wanted = doubles(&tensors, &format!("{index}.direction"));
        let cosine: f64 = axis.direction.iter().zip(&wanted).map(|(a, b)| f64::from(*a) * b).sum();

        println!(
            "case {index}: predictions within {prediction_error:.1e}, outer product within {product_error:.1e}, cosine \
             1 - {:.1e}, eigenvalue ratio {ratio:.3} and {:.3}",
            1.0 - cosine,
            number("ratio")
        );
        assert!(bandwidth_error.abs() < 1e-6, "case {index}: bandwidth {bandwidth_error:e}");
        assert!(prediction_error < 1e-4, "case {index}: predictions {prediction_error:e}");
        assert!(product_error < 1e-4, "case {index}: outer product {product_error:e}");
        assert!((ratio / number("ratio") - 1.0).abs() < 1e-3, "case {index}: ratio {ratio}");
        assert!(ratio >= 2.0, "case {index}: the fixture's first eigenvalue must stand out");
        assert!(cosine > 0.9999, "case {index}: cosine {cosine}");
    }
}
