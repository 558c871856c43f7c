//! Activations over slices, in place. Any thread; no allocation, same bits on every instruction path.

use super::elementary::{erf, exp, exp_m1, sigmoid as sigmoid_one, tanh as tanh_one};

wide! {
    /// MusicGen's GELU, the erf form: `x / 2 (1 + erf(x / sqrt 2))`.
    pub fn gelu(x: &mut [f32]) {
        for x in x {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

wide! {
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    pub fn gelu_tanh(x: &mut [f32]) {
        for x in x {
            *x = 0.5 * *x * (1.0 + tanh_one(0.797_884_6 * (*x + 0.044_715 * *x * *x * *x)));
        }
    }
}

wide! {
    /// `max(x, 0)`.
    pub fn relu(x: &mut [f32]) {
        for x in x {
            *x = x.max(0.0);
        }
    }
}

wide! {
    /// `x sigmoid(x)`.
    pub fn silu(x: &mut [f32]) {
        for x in x {
            *x *= sigmoid_one(*x);
        }
    }
}

wide! {
    /// ELU with alpha 1: `x` above 0, `e^x - 1` below.
    pub fn elu(x: &mut [f32]) {
        for x in x {
            let below = exp_m1(x.min(0.0));
            *x = if *x > 0.0 { *x } else { below };
        }
    }
}

wide! {
    /// ELU with alpha 1 from one slice into another of the same length.
    pub fn elu_into(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            let below = exp_m1(x.min(0.0));
            *y = if x > 0.0 { x } else { below };
        }
    }
}

wide! {
    /// `1 / (1 + e^-x)`.
    pub fn sigmoid(x: &mut [f32]) {
        for x in x {
            *x = sigmoid_one(*x);
        }
    }
}

wide! {
    /// Hyperbolic tangent.
    pub fn tanh(x: &mut [f32]) {
        for x in x {
            *x = tanh_one(*x);
        }
    }
}

wide! {
    /// `x[i] = exp(x[i] - shift)`.
    pub fn exp_shifted(x: &mut [f32], shift: f32) {
        for x in x {
            *x = exp(*x - shift);
        }
    }
}

wide! {
    /// `x[i] *= factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

wide! {
    /// `y[i] += x[i]`.
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let run = |f: fn(&mut [f32]), x: f32| {
            let mut x = [x; 37];
            f(&mut x);
            assert!(x.iter().all(|v| v.to_bits() == x[0].to_bits()), "vector body and tail differ");
            x[0]
        };
        let close = |a: f32, b: f32| assert!((a - b).abs() < 2e-7, "{a} {b}");
        close(run(gelu, 1.0), 0.841_344_7);
        close(run(gelu, -0.5), -0.154_268_77);
        close(run(gelu_tanh, 1.0), 0.841_191_95);
        close(run(elu, -1.0), -0.632_120_55);
        close(run(elu, 2.5), 2.5);
        close(run(relu, -3.0), 0.0);
        close(run(silu, 1.0), 0.731_058_6);
        close(run(sigmoid, 0.5), 0.622_459_35);
        close(run(tanh, -0.75), -0.635_148_94);
    }
}
