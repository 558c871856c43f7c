//! Layers in f32 and in 16 bits against plain sums, on every instruction path; the same bits for any rows and threads.

use super::super::quantised::tests::noise;
use super::*;

#[test]
fn equals_a_naive_f64_sum_on_every_path_and_shape() {
    for path in Path::all() {
        for (outputs, inputs) in
            [(1, 1), (1, 112), (5, 3), (16, 7), (17, 64), (64, 33), (96, 50), (100, 200), (256, 128)]
        {
            let (w, b) = (noise(outputs * inputs, 1), noise(outputs, 2));
            let linear = Linear::with_path(&w, Some(&b), outputs, inputs, path);
            for rows in [0, 1, 2, 3, 5, 8, 13] {
                let stride = inputs + 3;
                let x = noise(rows.max(1) * stride, 3);
                let mut y = vec![f32::NAN; rows * (outputs + 1)];
                linear.forward(&x, stride, rows, &mut y, outputs + 1);
                for r in 0..rows {
                    for n in 0..outputs {
                        let exact: f64 = (0..inputs)
                            .map(|k| f64::from(w[n * inputs + k]) * f64::from(x[r * stride + k]))
                            .sum::<f64>()
                            + f64::from(b[n]);
                        let got = f64::from(y[r * (outputs + 1) + n]);
                        assert!((got - exact).abs() < 2e-5, "{path:?} {outputs}x{inputs} row {r}: {got} {exact}");
                    }
                    assert!(y[r * (outputs + 1) + outputs].is_nan(), "wrote past the row");
                }
            }
        }
    }
}

#[test]
fn narrow_weights_give_the_bits_of_wide_ones() {
    for path in Path::all() {
        for (outputs, inputs) in [(5, 3), (64, 301), (130, 64), (256, 128)] {
            let wide = noise(outputs * inputs, 12);
            let f16: Vec<f32> = wide.iter().map(|w| (w * 1024.0).round() / 1024.0).collect();
            let bf16: Vec<f32> = wide.iter().map(|w| f32::from_bits(w.to_bits() & 0xffff_0000)).collect();
            // f16 has no room for these.
            let bf16: Vec<f32> = bf16.iter().map(|w| w * 2f32.powi(20)).collect();
            for (weights, is_f16) in [(f16, true), (bf16, false)] {
                let narrow = Linear::with_path(&weights, None, outputs, inputs, path);
                assert!(match &narrow.weight {
                    Packed::F32(_) => path == Path::Portable,
                    Packed::F16(_) => is_f16,
                    Packed::Bf16(_) => !is_f16,
                });
                let weight = Packed::F32(pack(&weights, (outputs, inputs, narrow.lines)));
                let wide = Linear { weight, bias: narrow.bias.clone(), ..narrow };
                for rows in [1, 2, 5, 8] {
                    let x = noise(rows * inputs, 13);
                    let run = |linear: &Linear| {
                        let mut y = vec![0.0; rows * outputs];
                        linear.forward(&x, inputs, rows, &mut y, outputs);
                        y
                    };
                    assert_eq!(run(&narrow), run(&wide), "{path:?} {outputs}x{inputs}, {rows} rows");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for path in Path::all() {
        for (outputs, inputs) in [(3, 40), (32, 40), (64, 301), (130, 64), (512, 77)] {
            let linear = Linear::with_path(&noise(outputs * inputs, 4), None, outputs, inputs, path);
            let x = noise(19 * inputs, 5);
            let mut alone = vec![0.0; 19 * outputs];
            for r in 0..19 {
                linear.forward(&x[r * inputs..], inputs, 1, &mut alone[r * outputs..], outputs);
            }
            for rows in 1..=19 {
                let mut together = vec![0.0; rows * outputs];
                linear.forward(&x, inputs, rows, &mut together, outputs);
                let equal = together.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(equal, "{path:?} {outputs}x{inputs}, {rows} rows");
            }
        }
    }
}

#[test]
fn tiles_computed_apart_have_the_bits_of_all_together() {
    for path in Path::all() {
        for (outputs, inputs) in [(3, 40), (130, 64), (512, 77)] {
            let linear = Linear::with_path(&noise(outputs * inputs, 4), None, outputs, inputs, path);
            let x = noise(5 * inputs, 5);
            let mut whole = vec![1.0; 5 * outputs];
            let mut parts = whole.clone();
            linear.forward_add(&x, inputs, 5, &mut whole, outputs);
            let columns = Columns::new(&mut parts, outputs);
            std::thread::scope(|scope| {
                for tile in 0..linear.tiles() {
                    let (columns, linear, x) = (&columns, &linear, &x);
                    // SAFETY: each thread has a tile of its own.
                    scope.spawn(move || unsafe {
                        linear.forward_tiles::<true>(x, inputs, 5, tile..tile + 1, columns);
                    });
                }
            });
            assert_eq!(parts, whole, "{path:?} {outputs}x{inputs}");
        }
    }
}

#[test]
fn a_pool_gives_the_bits_of_one_thread() {
    let pool = Pool::new(3);
    for (outputs, inputs, rows) in [(512, 700, 1), (512, 300, 9), (33, 64, 640), (64, 7, 3), (1, 448, 640)] {
        let linear = Linear::new(&noise(outputs * inputs, 4), None, outputs, inputs);
        let x = noise(rows * inputs, 5);
        let [mut alone, mut shared] = [vec![0.5; rows * outputs], vec![0.5; rows * outputs]];
        linear.forward_add(&x, inputs, rows, &mut alone, outputs);
        linear.forward_add_on(&pool, &x, inputs, rows, &mut shared, outputs);
        assert_eq!(alone, shared, "{outputs}x{inputs}, {rows} rows");
        linear.forward(&x, inputs, rows, &mut alone, outputs);
        linear.forward_on(&pool, &x, inputs, rows, &mut shared, outputs);
        assert_eq!(alone, shared, "{outputs}x{inputs}, {rows} rows");
    }
}

#[test]
fn overlapping_windows_make_a_convolution() {
    let (channels, taps, outputs, steps) = (6, 3, 20, 11);
    let linear = Linear::new(&noise(outputs * taps * channels, 6), None, outputs, taps * channels);
    let x = noise((steps + taps - 1) * channels, 7);
    let mut y = vec![0.0; steps * outputs];
    linear.forward(&x, channels, steps, &mut y, outputs);
    for t in 0..steps {
        let mut one = vec![0.0; outputs];
        linear.forward(&x[t * channels..][..taps * channels], taps * channels, 1, &mut one, outputs);
        assert_eq!(one, y[t * outputs..][..outputs]);
    }
}

#[test]
fn forward_add_adds_the_same_sum() {
    let linear = Linear::new(&noise(48 * 30, 8), Some(&noise(48, 9)), 48, 30);
    let (x, base) = (noise(3 * 30, 10), noise(3 * 48, 11));
    let (mut y, mut added) = (vec![0.0; 3 * 48], base.clone());
    linear.forward(&x, 30, 3, &mut y, 48);
    linear.forward_add(&x, 30, 3, &mut added, 48);
    for i in 0..y.len() {
        assert_eq!(added[i], base[i] + y[i]);
    }
}
