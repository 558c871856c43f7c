//! The f32 arithmetic of the run path (decoder and codec): no allocation, and the same bits whatever rows share a call.
//! Any thread.

/// Compiles one loop three times (AVX-512, AVX2, baseline) and picks at run time.
///
/// The bodies hold no fused multiply-add and Rust never contracts or reorders, so all three give the same bits;
/// `target_feature` only lets LLVM use wider registers without `target-cpu=native`.
macro_rules! wide {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        pub fn $name($($arg: $kind),*) {
            #[inline(always)]
            fn body($($arg: $kind),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2")]
                fn avx512($($arg: $kind),*) {
                    body($($arg),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $kind),*) {
                    body($($arg),*);
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the feature was seen just now; the body is safe code.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*);
        }
    };
}

pub mod activation;
pub mod activations;
pub mod attention;
mod byte_cache;
pub mod columns;
mod dots;
pub mod elementary;
pub mod int4;
pub mod int8;
mod lanes;
pub mod layer;
pub mod linear;
pub mod norm;
mod pages;
mod quantised;
pub mod rounding;
pub mod vectors;

pub use lanes::nearest_half;
pub use linear::Linear;
