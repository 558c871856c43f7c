//! Writes the factory's presets, and the user's, as `.vstpreset` files where VST3 hosts look for them. `cargo xtask install` runs
//! it.

use std::path::PathBuf;
use std::process::ExitCode;

use tiller::presets::{Preset, PresetFolder};
use tiller::vst_preset;

/// `tiller-presets [FOLDER]`: without one, the user's own folder. With one, the factory's presets alone.
fn run() -> Result<(usize, PathBuf), String> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let own = if given.is_some() { Vec::new() } else { PresetFolder::user().read().0 };
    let folder =
        given.or_else(vst_preset::user_folder).ok_or("there is no home folder: name the folder to write to")?;
    let write = |preset: &Preset, own| vst_preset::write(&folder, preset, own).map_err(|error| error.to_string());
    let factory = Preset::factory();
    factory.iter().try_for_each(|preset| write(preset, false).map(drop))?;
    own.iter().try_for_each(|preset| write(preset, true).map(drop))?;
    Ok((factory.len() + own.len(), folder))
}

fn main() -> ExitCode {
    match run() {
        Ok((count, folder)) => {
            println!("{count} presets for VST3 hosts in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("tiller-presets: {why}");
            ExitCode::FAILURE
        }
    }
}
