//! Sums over vectors of any length, in an order that vectorises. Any thread.

wide! {
    /// `y += factor * x`
    pub fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += factor * x;
        }
    }
}

/// Sum of products, in eight sums side by side, which no compiler makes of one.
pub fn dot<T: Copy + Default + std::ops::AddAssign + std::ops::Mul<Output = T>>(x: &[T], y: &[T]) -> T {
    let (x, x_rest) = x.as_chunks::<8>();
    let (y, y_rest) = y.as_chunks::<8>();
    let mut sums = [T::default(); 8];
    for (x, y) in x.iter().zip(y) {
        (0..8).for_each(|i| sums[i] += x[i] * y[i]);
    }
    let mut total = T::default();
    sums.into_iter().for_each(|sum| total += sum);
    x_rest.iter().zip(y_rest).for_each(|(x, y)| total += *x * *y);
    total
}
