//! What holds for every weight format; the formats' own tests call these.

use super::*;

/// Evenly distributed in -1..1.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Sums of twelve are as good as normal.
pub fn normal(len: usize, seed: u32) -> Vec<f32> {
    noise(12 * len, seed).chunks(12).map(|parts| parts.iter().sum::<f32>() / 2.0).collect()
}

pub fn quantised(x: &[f32], rows: usize, inputs: usize) -> Activations {
    let mut activations = Activations::new(rows, inputs);
    activations.quantise(x, inputs, rows, inputs);
    activations
}

/// Distance of two vectors, relative to the norm of the first.
pub fn error(exact: &[f64], got: &[f32]) -> f64 {
    let square: f64 = exact.iter().map(|x| x * x).sum();
    let off: f64 = exact.iter().zip(got).map(|(x, y)| (x - f64::from(*y)).powi(2)).sum();
    (off / square.max(f64::MIN_POSITIVE)).sqrt()
}

/// `[rows][outputs]` in f64.
pub fn product(w: &[f32], x: &[f32], outputs: usize, inputs: usize) -> Vec<f64> {
    let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    x.chunks(inputs).flat_map(|x| w.chunks(inputs).map(move |w| dot(w, x))).take(x.len() / inputs * outputs).collect()
}

pub fn forward<F: Format>(layer: &Quantised<F>, x: &[f32], rows: usize) -> Vec<f32> {
    let mut y = vec![f32::NAN; rows * layer.outputs()];
    layer.forward_all(&quantised(x, rows, layer.inputs()), rows, &mut y, layer.outputs());
    y
}

/// The whole weight as the layer sees it, read back through the packing.
pub fn unpacked<F: Format>(layer: &Quantised<F>) -> Vec<f32> {
    let (outputs, inputs, lines) = (layer.outputs, layer.inputs, layer.lines);
    let groups = inputs.div_ceil(F::GROUP);
    let mut weights = Vec::new();
    for (n, k) in (0..outputs).flat_map(|n| (0..inputs).map(move |k| (n, k))) {
        let (tile, line, lane) = (n / (lines * LANES), n / LANES % lines, n % LANES);
        let (group, step) = (tile * groups + k / F::GROUP, k % F::GROUP / STEP);
        let at = (group * layer.depth + step / F::PARTS) * lines + line;
        let bits = 8 / F::PARTS;
        let cell = layer.weight[at].0[lane * STEP + k % STEP] >> (bits * (step % F::PARTS)) & (u8::MAX >> (8 - bits));
        let scale = f32::from_bits(u32::from(layer.scales[group * lines + line].0[lane]) << 16);
        weights.push(scale * (f32::from(cell) - f32::from(F::ZERO)));
    }
    weights
}

/// The activations as the format sees them.
fn seen<F: Format>(x: &Activations, rows: usize) -> Vec<f32> {
    let mut values = Vec::new();
    for (row, k) in (0..rows).flat_map(|row| (0..x.inputs()).map(move |k| (row, k))) {
        let (inputs, head) = (x.inputs_of(row, k / CHUNK, CHUNK / STEP), x.head(row, k / CHUNK));
        let (step, lane) = (k % CHUNK / STEP, k % STEP);
        // Told apart by the scale, as the dot products are by their bytes.
        let fine = F::seen(head).1 == head.scale;
        let steps = if fine { f32::from(inputs.whole[step][lane]) } else { f32::from(inputs.coarse[step][lane]) };
        values.push(F::seen(head).1 * steps);
    }
    values
}

/// Random shapes and the decoder's.
pub fn shapes() -> Vec<(usize, usize)> {
    let random = noise(80, 99).into_iter().map(|x| (x + 1.0) / 2.0).collect::<Vec<_>>();
    let mut shapes: Vec<_> =
        random.chunks(2).map(|x| (1 + (x[0] * 199.0) as usize, 1 + (x[1] * 299.0) as usize)).collect();
    shapes.extend([(1, 1), (16, 4), (17, 64), (32, 65), (64, 63), (200, 300), (256, 256), (1024, 256), (1024, 4096)]);
    shapes
}

/// What holds for every format: the arithmetic is that of the quantised values, whatever the shape and the path, and
/// the original product is within `bound`.
pub fn follows_its_own_numbers<F: Format>(bound: f64) {
    for (index, (outputs, inputs)) in shapes().into_iter().enumerate() {
        let (w, b) = (normal(outputs * inputs, index as u32), noise(outputs, 2));
        let rows = 1 + index % 9;
        let x = normal(rows * inputs, 3 + index as u32);
        let taken = quantised(&x, rows, inputs);
        for path in DotPath::all() {
            let layer = Quantised::<F>::with_path(&w, None, outputs, inputs, path);
            let got = forward(&layer, &x, rows);
            let (read, seen) = (unpacked(&layer), seen::<F>(&taken, rows));
            // Rounding scales with what is added up, not with what is left of it.
            let sizes = product(
                &read.iter().map(|w| w.abs()).collect::<Vec<_>>(),
                &seen.iter().map(|x| x.abs()).collect::<Vec<_>>(),
                outputs,
                inputs,
            );
            for ((own, got), size) in product(&read, &seen, outputs, inputs).iter().zip(&got).zip(sizes) {
                let off = (own - f64::from(*got)).abs();
                assert!(off <= 1e-6 * size, "{path:?} {outputs}x{inputs}: {got} for {own} of {size}");
            }
            // In small products one weight's rounding may be all of it.
            if outputs * rows * inputs >= 10_000 {
                let off = error(&product(&w, &x, outputs, inputs), &got);
                assert!(off < bound, "{path:?} {outputs}x{inputs}: {off}");
            }
            let biased = forward(&Quantised::<F>::with_path(&w, Some(&b), outputs, inputs, path), &x, rows);
            for (i, (y, got)) in biased.iter().zip(&got).enumerate() {
                assert_eq!(*y, got + b[i % outputs]);
            }
        }
    }
}

/// A row's bits depend neither on company nor on who has which tiles, and nothing past a row is written.
pub fn keeps_its_bits<F: Format>() {
    for path in DotPath::all() {
        for (outputs, inputs) in [(3, 40), (32, 64), (64, 301), (130, 64), (512, 77)] {
            let bias = noise(outputs, 7);
            let layer = Quantised::<F>::with_path(&noise(outputs * inputs, 4), Some(&bias), outputs, inputs, path);
            let x = noise(19 * inputs, 5);
            let alone: Vec<f32> = x.chunks(inputs).flat_map(|x| forward(&layer, x, 1)).collect();
            for rows in 1..=19 {
                let taken = quantised(&x, 19, inputs);
                let stride = outputs + 3;
                let (mut y, mut sum) = (vec![7.0; rows * stride], vec![0.25; rows * stride]);
                let split = rows * 5 % (layer.tiles() + 1);
                let (parts, sums) = (Columns::new(&mut y, stride), Columns::new(&mut sum, stride));
                std::thread::scope(|scope| {
                    for tiles in [0..split, split..layer.tiles()] {
                        let (layer, taken, parts, sums) = (&layer, &taken, &parts, &sums);
                        // SAFETY: the two ranges do not meet.
                        scope.spawn(move || unsafe {
                            layer.forward::<false>(taken, rows, tiles.clone(), parts);
                            layer.forward::<true>(taken, rows, tiles, sums);
                        });
                    }
                });
                for (i, (y, sum)) in y.iter().zip(&sum).enumerate() {
                    let (row, n) = (i / stride, i % stride);
                    let expected = if n < outputs { alone[row * outputs + n] } else { 7.0 };
                    assert_eq!(y.to_bits(), expected.to_bits(), "{path:?} {outputs}x{inputs}, {rows} rows");
                    assert_eq!(*sum, 0.25 + if n < outputs { expected } else { 0.0 });
                }
            }
        }
    }
}

/// Zeros stay zero, what is not finite is heard of, and single large weights or inputs harm their group alone.
pub fn survives_extremes<F: Format>() {
    let (outputs, inputs) = (40, 200);
    for path in DotPath::all() {
        let layer = |w: &[f32]| Quantised::<F>::with_path(w, None, outputs, inputs, path);
        let (w, x) = (noise(outputs * inputs, 1), noise(2 * inputs, 2));
        assert!(forward(&layer(&vec![0.0; w.len()]), &x, 2).iter().all(|y| *y == 0.0));
        assert!(forward(&layer(&w), &vec![0.0; x.len()], 2).iter().all(|y| *y == 0.0));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut w_odd, mut x_odd) = (w.clone(), x.clone());
            x_odd[inputs + 199] = odd;
            let (usual, y) = (forward(&layer(&w), &x, 2), forward(&layer(&w), &x_odd, 2));
            assert!(y[..outputs] == usual[..outputs] && y[outputs..].iter().all(|y| !y.is_finite()));
            w_odd[17 * inputs + 3] = odd;
            for (n, (y, usual)) in forward(&layer(&w_odd), &x, 2).iter().zip(&usual).enumerate() {
                assert!(if n % outputs == 17 { !y.is_finite() } else { y == usual });
            }
        }
        for value in [1.0, -3e-3, 1e-20, 1e20, f32::MIN_POSITIVE] {
            let y = forward(&layer(&vec![value; w.len()]), &vec![1.0; inputs], 1);
            let exact = f64::from(value) * inputs as f64;
            assert!(y.iter().all(|y| (f64::from(*y) - exact).abs() <= 0.01 * exact.abs() + 1e-27), "{value} {y:?}");
        }
        // The largest integers that a group can hold, of either sign.
        for (a, b) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            let y = forward(&layer(&vec![a; w.len()]), &vec![b; inputs], 1);
            assert!(y.iter().all(|y| (y - a * b * inputs as f32).abs() < 0.01 * inputs as f32));
        }
        let mut huge = w.clone();
        huge[5 * inputs + 9] = 1e8;
        let y = forward(&layer(&huge), &x, 2);
        assert!((y[5] / (1e8 * x[9]) - 1.0).abs() < 0.02 && y[6] == forward(&layer(&w), &x, 2)[6]);
    }
    assert!(forward(&Quantised::<F>::new(&[], None, 0, 5), &[1.0; 5], 1).is_empty());
    assert_eq!(forward(&Quantised::<F>::new(&[], Some(&[2.0]), 1, 0), &[], 2), [2.0, 2.0]);
}
