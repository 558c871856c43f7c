//! Finds the compiled kernels that are embedded. `cargo xtask bundle --cuda` compiles them and names their folder.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=TILLER_CUDA_KERNELS");
    if std::env::var_os("CARGO_FEATURE_KERNELS").is_none() {
        return;
    }
    let Some(folder) = std::env::var_os("TILLER_CUDA_KERNELS").map(PathBuf::from) else {
        println!("cargo::error=TILLER_CUDA_KERNELS names no folder: build with `cargo xtask bundle --cuda`");
        return;
    };
    for name in ["compute_80.ptx", "compute_90.ptx", "sm_90.cubin"] {
        let file = folder.join(name);
        println!("cargo::rerun-if-changed={}", file.display());
        if !file.is_file() {
            println!("cargo::error={} is missing: build with `cargo xtask bundle --cuda`", file.display());
        }
    }
    println!("cargo::rustc-env=TILLER_CUDA_KERNELS={}", folder.display());
}
