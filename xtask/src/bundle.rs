//! CLAP and VST3 bundles from the plugin's one dynamic library, and the standalone application beside them. Our own few lines, not nice-plug-xtask: that one knows
//! no dev profile, wants a bundler.toml and overwrites in place, while a host may have the old file mapped.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Outcome;
use crate::cargo::{Profile, Workspace};
use crate::setup;

const NAME: &str = "Tiller";
const IDENTIFIER: &str = "org.tiller.tiller";

/// The application, as cargo and as people call it.
const APPLICATION: (&str, &str) = ("tiller-standalone", "tiller");

/// Where the two bundles and the application are.
pub struct Bundles {
    /// Tiller.clap.
    pub clap: PathBuf,
    /// Tiller.vst3.
    pub vst3: PathBuf,
    /// The application, where it was built.
    pub standalone: Option<PathBuf>,
}

impl Bundles {
    /// The files with the code, which a library of the plugin's has to lie beside.
    pub fn code(&self) -> Vec<PathBuf> {
        let bundles = [library_inside(&self.clap), library_inside_vst3(&self.vst3)];
        bundles.into_iter().chain(self.standalone.clone()).collect()
    }

    /// One line for a person.
    pub fn say(&self, verb: &str) {
        eprintln!("{verb} {} and {}", self.clap.display(), self.vst3.display());
        if let Some(standalone) = &self.standalone {
            eprintln!("{verb} {}", standalone.display());
        }
    }

    /// The JSON object of `bundle` and `install`.
    pub fn report(&self) -> Value {
        json!({ "ok": true, "clap": self.clap, "vst3": self.vst3, "standalone": self.standalone })
    }
}

/// Builds the plugin and makes both bundles: target/bundled for release, target/bundled/dev for dev. Beside them goes the
/// application, unless what it is built against is missing and cannot be installed: then the plugin alone is made.
pub fn bundle(workspace: &Workspace, profile: Profile) -> Outcome<Bundles> {
    let headers = setup::packages(&setup::SOUND_HEADERS);
    if let Err(why) = &headers {
        eprintln!("without the standalone application: {why}");
    }
    match (profile, headers.is_ok()) {
        // The whole workspace, as the tests build it: one resolution of features, so nothing is compiled twice.
        (Profile::Dev, true) => workspace.cargo(&["build", "--workspace"])?,
        (Profile::Dev, false) => workspace.cargo(&["build", "--workspace", "--exclude", APPLICATION.0])?,
        (Profile::Release, standalone) => {
            workspace.cargo(&["build", "--release", "-p", "tiller-plugin", "--lib"])?;
            if standalone {
                workspace.cargo(&["build", "--release", "-p", APPLICATION.0])?;
            }
        }
    }
    let bundles = from_library(workspace, profile)?;
    Ok(Bundles { standalone: bundles.standalone.filter(|_| headers.is_ok()), ..bundles })
}

/// Makes both bundles from the library that is already built, and puts the application beside them if it is built too.
pub fn from_library(workspace: &Workspace, profile: Profile) -> Outcome<Bundles> {
    let library = workspace.target.join(profile.folder()).join(library_name());
    let folder = match profile {
        Profile::Dev => workspace.target.join("bundled/dev"),
        Profile::Release => workspace.target.join("bundled"),
    };
    let bundles = lay_out(&library, &folder, &folder)?;
    let [built, standalone] = [workspace.target.join(profile.folder()).join(APPLICATION.0), folder.join(APPLICATION.1)]
        .map(|path| path.with_extension(std::env::consts::EXE_EXTENSION));
    // One of an older plugin stays where it is.
    let made = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if made(&built).is_none() || made(&built) < made(&library) {
        return Ok(bundles);
    }
    place(&built, &standalone)?;
    Ok(Bundles { standalone: Some(standalone), ..bundles })
}

/// Copies bundles into the user's plugin folders, or into `clap` and `vst3` under `to`.
pub fn install(bundles: &Bundles, to: Option<&Path>) -> Outcome<Bundles> {
    let (clap, vst3) = match to {
        Some(folder) => (folder.join("clap"), folder.join("vst3")),
        None => user_folders()?,
    };
    let library = library_inside(&bundles.clap);
    lay_out(&library, &clap, &vst3)
}

/// Writes the presets as `.vstpreset` files where VST3 hosts look for them, or into `vst3/presets` under `to`.
pub fn install_presets(workspace: &Workspace, to: Option<&Path>) -> Outcome<()> {
    let folder = to.map(|to| to.join("vst3/presets").join(NAME).join(NAME).display().to_string());
    let mut line = vec!["run", "--release", "--quiet", "-p", "tiller-plugin", "--bin", "tiller-presets", "--"];
    line.extend(folder.as_deref());
    workspace.cargo(&line)
}

fn library_name() -> String {
    format!("{}tiller{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The file with the code inside a CLAP bundle.
fn library_inside(clap: &Path) -> PathBuf {
    if cfg!(target_os = "macos") { clap.join("Contents/MacOS").join(NAME) } else { clap.to_path_buf() }
}

/// The file with the code inside a VST3 bundle, as Steinberg's "VST 3 Locations / Format" lays it out.
fn library_inside_vst3(vst3: &Path) -> PathBuf {
    let machine = std::env::consts::ARCH;
    if cfg!(target_os = "macos") {
        vst3.join("Contents/MacOS").join(NAME)
    } else if cfg!(windows) {
        vst3.join(format!("Contents/{machine}-win")).join(format!("{NAME}.vst3"))
    } else {
        vst3.join(format!("Contents/{machine}-linux")).join(format!("{NAME}.so"))
    }
}

fn lay_out(library: &Path, clap_folder: &Path, vst3_folder: &Path) -> Outcome<Bundles> {
    let clap = clap_folder.join(format!("{NAME}.clap"));
    let vst3 = vst3_folder.join(format!("{NAME}.vst3"));
    place(library, &library_inside(&clap))?;
    place(library, &library_inside_vst3(&vst3))?;
    if cfg!(target_os = "macos") {
        for bundle in [&clap, &vst3] {
            write(&bundle.join("Contents/Info.plist"), &property_list())?;
            write(&bundle.join("Contents/PkgInfo"), "BNDL????")?;
        }
    }
    Ok(Bundles { clap, vst3, standalone: None })
}

/// Copies beside the destination, then renames: a host that has the old file mapped keeps it.
pub fn place(from: &Path, to: &Path) -> Outcome<()> {
    let folder = to.parent().ok_or_else(|| format!("{} has no folder", to.display()))?;
    fs::create_dir_all(folder).map_err(|e| format!("{} could not be made: {e}", folder.display()))?;
    let beside = to.with_extension("partial");
    fs::copy(from, &beside)
        .map_err(|e| format!("{} could not be copied to {}: {e}", from.display(), beside.display()))?;
    fs::rename(&beside, to).map_err(|e| format!("{} could not be renamed to {}: {e}", beside.display(), to.display()))
}

fn write(to: &Path, text: &str) -> Outcome<()> {
    fs::write(to, text).map_err(|e| format!("{} could not be written: {e}", to.display()))
}

fn property_list() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>CFBundleExecutable</key><string>{NAME}</string>
<key>CFBundleIdentifier</key><string>{IDENTIFIER}</string>
<key>CFBundleName</key><string>{NAME}</string>
<key>CFBundlePackageType</key><string>BNDL</string>
<key>CFBundleSignature</key><string>????</string>
<key>CFBundleShortVersionString</key><string>{version}</string>
<key>CFBundleVersion</key><string>{version}</string>
</dict></plist>
"#
    )
}

/// The folders that hosts search for one user's plugins.
fn user_folders() -> Outcome<(PathBuf, PathBuf)> {
    let variable = if cfg!(windows) { "LOCALAPPDATA" } else { "HOME" };
    let home = std::env::var_os(variable).map(PathBuf::from).ok_or_else(|| {
        format!("{variable} is not set, so the plugin folders are unknown: `cargo xtask install --to FOLDER`")
    })?;
    Ok(if cfg!(target_os = "macos") {
        let plugins = home.join("Library/Audio/Plug-Ins");
        (plugins.join("CLAP"), plugins.join("VST3"))
    } else if cfg!(windows) {
        let common = home.join("Programs/Common");
        (common.join("CLAP"), common.join("VST3"))
    } else {
        (home.join(".clap"), home.join(".vst3"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_hold_the_library_and_replace_an_older_one() {
        let folder = std::env::temp_dir().join(format!("tiller-bundle-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let library = folder.join("library");
        for content in ["one", "two"] {
            fs::write(&library, content).unwrap();
            let bundles = lay_out(&library, &folder.join("a"), &folder.join("b")).unwrap();
            assert_eq!(fs::read_to_string(library_inside(&bundles.clap)).unwrap(), content);
            assert_eq!(fs::read_to_string(library_inside_vst3(&bundles.vst3)).unwrap(), content);
            let installed = install(&bundles, Some(&folder.join("user"))).unwrap();
            assert_eq!(fs::read_to_string(library_inside_vst3(&installed.vst3)).unwrap(), content);
        }
        let missing = lay_out(&folder.join("nothing"), &folder, &folder).err().unwrap();
        assert!(missing.contains("nothing"), "{missing}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
