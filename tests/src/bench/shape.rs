//! Which checkpoint is measured: the embedded one, a random one of a published shape, or a directory. Main thread.

use std::path::Path;

use tiller_engine::checkpoint::{CheckpointSource, Config};
use tiller_engine::embedded;
use tiller_engine::handle::ModelSource;

use super::progress::Progress;
use super::random_checkpoint;
use crate::host::Outcome;

/// Shapes that the bench knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// musicgen-small, random weights.
    Small,
    /// musicgen-medium, random weights.
    Medium,
    /// musicgen-large, random weights.
    Large,
    /// The checkpoint that is compiled in.
    Demo,
}

/// What the published checkpoints say, in the keys that matter here.
const GENERATION: &[u8] = br#"{
  "bos_token_id": 2048,
  "decoder_start_token_id": 2048,
  "do_sample": true,
  "guidance_scale": 3.0,
  "max_length": 1500,
  "pad_token_id": 2048
}
"#;

/// Configuration files of a shape, named as in a directory.
type Files = &'static [(&'static str, &'static [u8])];

const SMALL: Files =
    &[("config.json", include_bytes!("../../shapes/small.json")), ("generation_config.json", GENERATION)];
const MEDIUM: Files =
    &[("config.json", include_bytes!("../../shapes/medium.json")), ("generation_config.json", GENERATION)];
const LARGE: Files =
    &[("config.json", include_bytes!("../../shapes/large.json")), ("generation_config.json", GENERATION)];

impl Shape {
    /// As on the command line; also the folder's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Demo => "demo",
        }
    }

    /// Its configuration files.
    pub const fn files(self) -> Files {
        match self {
            Self::Small => SMALL,
            Self::Medium => MEDIUM,
            Self::Large => LARGE,
            Self::Demo => embedded::FILES,
        }
    }
}

/// The configuration of a shape.
///
/// # Errors
/// The engine refuses it.
pub fn config_of(shape: Shape) -> Outcome<Config> {
    let source = CheckpointSource::Embedded { name: shape.name(), files: shape.files() };
    Config::read(&source).map_err(|error| error.to_string())
}

/// A checkpoint that can be loaded.
pub struct Found {
    /// For `Model::load`.
    pub source: ModelSource,
    /// The same place, for reading files.
    pub files: CheckpointSource,
    /// Its configuration.
    pub config: Config,
    /// For people: the shape's name or the directory.
    pub name: String,
}

/// Finds the checkpoint: `directory` if there is one, else `shape`, whose random weights are written under `cache` the
/// first time.
///
/// # Errors
/// The directory is no checkpoint, or the weights cannot be written.
pub fn find(shape: Shape, directory: Option<&Path>, cache: &Path, progress: &Progress) -> Outcome<Found> {
    let (folder, name) = match (directory, shape) {
        (Some(folder), _) => (folder.to_owned(), folder.display().to_string()),
        (None, Shape::Demo) => {
            let files = CheckpointSource::Embedded { name: embedded::NAME, files: embedded::FILES };
            let config = config_of(shape)?;
            return Ok(Found { source: ModelSource::Embedded, files, config, name: shape.name().to_owned() });
        }
        (None, shape) => (random_checkpoint::ensure(shape, cache, progress)?, shape.name().to_owned()),
    };
    let files = CheckpointSource::directory(&folder);
    let config = Config::read(&files).map_err(|error| error.to_string())?;
    Ok(Found { source: ModelSource::Directory(folder), files, config, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_the_published_ones() {
        let of = |shape| {
            let config = config_of(shape).unwrap();
            (config.decoder.num_hidden_layers, config.decoder.hidden_size, config.generation.max_length)
        };
        assert_eq!(of(Shape::Small), (24, 1024, 1500));
        assert_eq!(of(Shape::Medium), (48, 1536, 1500));
        assert_eq!(of(Shape::Large), (48, 2048, 1500));
        assert_eq!(of(Shape::Demo), (6, 256, 784));
    }
}
