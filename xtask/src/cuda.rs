//! The CUDA library (cuda/): its compiler from PyPI under the target folder, its kernels, the library with them inside, and the
//! folder that carries a check to a machine with a card. Nothing else needs any of it: `test` builds the library without
//! kernels, and runs it on the emulated driver.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bundle::place;
use crate::cargo::{Profile, Workspace, code, succeeded};
use crate::setup;

/// What is compiled for which cards: machine code for compute capability 9, PTX that the driver compiles for 8 and for later
/// ones. The names are those that cuda/build.rs looks for.
const IMAGES: [(&str, &[&str]); 3] = [
    ("sm_90.cubin", &["-cubin", "-gencode=arch=compute_90,code=sm_90"]),
    ("compute_90.ptx", &["-ptx", "-arch=compute_90"]),
    ("compute_80.ptx", &["-ptx", "-arch=compute_80"]),
];

/// The C++ compiler behind nvcc and the emulation.
const COMPILER: setup::Package = setup::Package { name: "g++", present: || runs("g++") };

fn runs(program: &str) -> bool {
    let quiet = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Builds the library with its kernels.
pub fn library(workspace: &Workspace) -> Outcome<PathBuf> {
    let kernels = kernels(workspace)?;
    let built = build(workspace, &workspace.target.join("cuda-library"), &kernels)?;
    eprintln!("built {}", built.display());
    Ok(built)
}

/// Builds the library and puts it beside the plugin's files in both bundles.
pub fn into_bundles(workspace: &Workspace, beside: &[PathBuf]) -> Outcome<PathBuf> {
    let library = library(workspace)?;
    for plugin in beside {
        let folder = plugin.parent().ok_or_else(|| format!("{} has no folder", plugin.display()))?;
        place(&library, &folder.join(file_name()))?;
    }
    Ok(library)
}

/// The library's file name on this system.
pub fn file_name() -> String {
    format!("{}tiller_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The compiled kernels' folder, made or renewed as needed.
fn kernels(workspace: &Workspace) -> Outcome<PathBuf> {
    let (sources, folder) = (workspace.root.join("cuda/kernels"), workspace.target.join("cuda-kernels"));
    let newest = newest(&sources)?;
    let fresh = |name: &str| modified(&folder.join(name)).is_some_and(|made| made > newest);
    if IMAGES.iter().all(|(name, _)| fresh(name)) {
        return Ok(folder);
    }
    setup::packages(&[COMPILER])?;
    let python = setup::cuda_environment(workspace)?;
    let output = Command::new(&python).args(["-c", "import nvidia; print(list(nvidia.__path__)[0])"]).output();
    let output = output.map_err(|e| format!("{} could not be started: {e}", python.display()))?;
    let nvcc = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("cu13/bin/nvcc");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for (name, target) in IMAGES {
        let (part, image) = (folder.join(format!("{name}.part")), folder.join(name));
        eprintln!("> nvcc {} ({name})", target.join(" "));
        let status = Command::new(&nvcc)
            .args(["-std=c++17", "-O3"])
            .args(target)
            .arg("-o")
            .arg(&part)
            .arg(sources.join("kernels.cu"))
            .stdout(std::io::stderr())
            .status();
        succeeded(status, &format!("{} of {name}", nvcc.display()))?;
        if name.ends_with(".ptx") {
            // A text that the driver reads up to its 0.
            let mut text = fs::read(&part).map_err(|e| format!("{}: {e}", part.display()))?;
            text.push(0);
            fs::write(&part, text).map_err(|e| format!("{}: {e}", part.display()))?;
        }
        fs::rename(&part, &image).map_err(|e| format!("{}: {e}", image.display()))?;
    }
    Ok(folder)
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|facts| facts.modified()).ok()
}

/// When the newest of a folder's files was changed.
fn newest(folder: &Path) -> Outcome<SystemTime> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let times = entries.flatten().filter_map(|entry| modified(&entry.path()));
    times.max().ok_or_else(|| format!("{} is empty", folder.display()))
}

/// Builds the library with the images of a folder, in a target folder of its own: the workspace's has the one without.
fn build(workspace: &Workspace, target: &Path, kernels: &Path) -> Outcome<PathBuf> {
    cargo(
        workspace,
        &[
            "build",
            "--release",
            "-p",
            "tiller-cuda",
            "--features",
            "kernels",
            "--target-dir",
            &target.to_string_lossy(),
        ],
        &[("TILLER_CUDA_KERNELS", kernels.as_os_str())],
    )?;
    Ok(target.join("release").join(file_name()))
}

fn cargo(workspace: &Workspace, arguments: &[&str], variables: &[(&str, &OsStr)]) -> Outcome<()> {
    eprintln!("> cargo {}", arguments.join(" "));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(&workspace.root)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdout(std::io::stderr())
        .status();
    succeeded(status, &format!("cargo {}", arguments.join(" ")))
}

/// Whether the emulated driver can be built here.
pub fn can_emulate() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64"))
}

/// Builds the driver that has no card, and runs the library's tests on it.
pub fn emulate(workspace: &Workspace) -> Outcome<()> {
    setup::packages(&[COMPILER])?;
    let (sources, folder) = (workspace.root.join("cuda/emulation"), workspace.target.join("cuda-emulated"));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let driver = folder.join("libcuda.so.1");
    eprintln!("> g++ {}", driver.display());
    let status = Command::new("g++")
        .args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function"])
        // As written: a card's own contraction is another matter.
        .args(["-ffp-contract=off", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(&driver)
        .args([sources.join("threads.cpp"), sources.join("driver.cpp")])
        .stdout(std::io::stderr())
        .status();
    succeeded(status, "g++ of the emulated driver")?;
    // It has the kernels itself: what it is asked to load is not looked at.
    for (name, _) in IMAGES {
        let image = folder.join(name);
        if !image.is_file() {
            fs::write(&image, b"emulated\0").map_err(|e| format!("{}: {e}", image.display()))?;
        }
    }
    let library = build(workspace, &folder.join("build"), &folder)?;
    cargo(
        workspace,
        // The whole workspace's resolution of features, or everything would be compiled once more.
        &["test", "--workspace", "--test", "card", "--", "--ignored", "--test-threads", "1"],
        &[("TILLER_EMULATED_DRIVER", driver.as_os_str()), ("TILLER_CUDA_LIBRARY", library.as_os_str())],
    )
}

/// Makes the folder that cuda/device-check.sh needs on a machine with a card, but no Rust and no network.
pub fn check_folder(workspace: &Workspace) -> Outcome<Value> {
    let library = library(workspace)?;
    workspace.cargo(&["build", "--release", "-p", "tiller-tests", "--bin", "tiller-cuda-check"])?;
    let folder = workspace.target.join("cuda-check");
    let program = format!("tiller-cuda-check{}", std::env::consts::EXE_SUFFIX);
    place(&workspace.target.join(Profile::Release.folder()).join(&program), &folder.join(&program))?;
    place(&library, &folder.join(file_name()))?;
    let sources = workspace.root.join("cuda");
    place(&sources.join("device-check.sh"), &folder.join("device-check.sh"))?;
    for name in ["library.py", "models.py", "parity.py", "bench.py", "summary.py"] {
        place(&sources.join("check").join(name), &folder.join("check").join(name))?;
    }
    let script = folder.join("device-check.sh");
    eprintln!("made {}: copy it, then run {} FOLDER OUT there", folder.display(), script.display());
    Ok(json!({ "ok": true, "folder": folder, "script": script }))
}

/// Whether `bench` is asked about a card, and its arguments without that.
pub fn bench_arguments(arguments: &[String]) -> Option<Vec<String>> {
    let place = arguments.iter().position(|argument| argument == "--device" || argument.starts_with("--device="))?;
    let mut rest = arguments.to_vec();
    let device = match arguments[place].strip_prefix("--device=") {
        Some(device) => device.to_owned(),
        None => rest.get(place + 1).cloned().unwrap_or_default(),
    };
    rest.drain(place..(place + if arguments[place].contains('=') { 1 } else { 2 }).min(rest.len()));
    (device != "cpu").then_some(rest)
}

/// `bench --device cuda`: the library against torch on this machine's card, and the stream through the player.
pub fn bench(workspace: &Workspace, arguments: &[String], json: bool) -> Outcome<ExitCode> {
    let library = library(workspace)?;
    let python = setup::model_environment(workspace)?;
    let mut torch = Command::new(&python);
    torch.arg(workspace.root.join("cuda/check/bench.py")).arg("--library").arg(&library);
    // `torch` is what the processor's bench calls it.
    let mut shape = "small".to_owned();
    let mut given = arguments.iter();
    while let Some(argument) = given.next() {
        match (argument.as_str(), given.clone().next()) {
            ("--peer", Some(peer)) if peer == "torch" => {
                given.next();
                torch.args(["--peer", "eager", "compiled"]);
            }
            ("--shape", Some(name)) => {
                given.next();
                shape.clone_from(name);
            }
            _ => {
                torch.arg(argument);
            }
        }
    }
    torch.args(["--shape", &shape]).env("PYTHONDONTWRITEBYTECODE", "1").env("HF_HUB_OFFLINE", "1");
    workspace.cargo(&["build", "--release", "-p", "tiller-tests", "--bin", "tiller-cuda-check"])?;
    let program = format!("tiller-cuda-check{}", std::env::consts::EXE_SUFFIX);
    let mut stream = Command::new(workspace.target.join(Profile::Release.folder()).join(program));
    stream.args(["--shape", &shape]).arg("--cache").arg(workspace.target.join("bench"));
    stream.env("TILLER_CUDA_LIBRARY", &library);
    let (mut results, mut worst) = (Vec::new(), ExitCode::SUCCESS);
    for command in [&mut torch, &mut stream] {
        let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{command:?}: {e}"))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match (json, serde_json::from_str::<Value>(line)) {
                (true, Ok(result)) => results.push(result),
                _ => println!("{line}"),
            }
        }
        if !output.status.success() {
            worst = code(output.status);
        }
    }
    if json {
        println!("{}", json!({ "device": "cuda", "shape": shape, "results": results }));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        bench_arguments(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn bench_knows_when_it_is_asked_about_a_card() {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(split("--shape large --peer torch"), None);
        assert_eq!(split("--device cpu --shape large"), None);
        assert_eq!(split("--shape large --device cuda --kv 500"), list(&["--shape", "large", "--kv", "500"]));
        assert_eq!(split("--device=cuda --variants"), list(&["--variants"]));
        assert_eq!(split("--device"), list(&[]));
    }

    #[test]
    fn images_are_what_the_library_embeds() {
        let script = include_str!("../../cuda/build.rs");
        for (name, _) in IMAGES {
            assert!(script.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
