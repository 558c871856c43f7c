//! Links RealtimeSanitizer into `tiller-rtsan` alone. The runtime is the Rust toolchain's own, so nothing is fetched.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(rtsan)");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    match runtime() {
        Some(runtime) => {
            println!("cargo::rustc-cfg=rtsan");
            let arguments = [
                "-Wl,--whole-archive".to_owned(),
                runtime.display().to_string(),
                "-Wl,--no-whole-archive".to_owned(),
                // The plugin, opened at run time, must find the interceptors in place of the C library's functions.
                "-Wl,--export-dynamic".to_owned(),
                "-lstdc++".to_owned(),
            ];
            for argument in arguments {
                println!("cargo::rustc-link-arg-bin=tiller-rtsan={argument}");
            }
        }
        None => {
            println!("cargo::warning=this Rust toolchain has no RealtimeSanitizer runtime: tests/realtime.rs will fail")
        }
    }
}

/// `librustc-CHANNEL_rt.rtsan.a` of the toolchain that compiles this.
fn runtime() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC")?;
    let target = std::env::var("TARGET").ok()?;
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let folder = sysroot.join("lib/rustlib").join(target).join("lib");
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_rt.rtsan.a")))
}
