//! The directions file: one safetensors per checkpoint and concept family, refused for any other checkpoint.
//! Layout after MusicRFM's own artefacts (`method.md` 3.6). Read and written off the audio thread.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::block_weights::BlockWeights;
use super::class_set::ClassSet;
use super::doses::Lane;
use super::push::Manner;
use crate::model::directions_file;
use crate::whole_file;

/// Value of the `format` metadata key that this version writes and reads.
const FORMAT: &str = "tiller-directions-3";

/// Values of the `rows` metadata key.
const BOTH: &str = "both";
const CONDITIONAL: &str = "conditional";

/// Why a directions file was not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectionsError {
    /// The file could not be read or written.
    #[error("directions {file}: {source}")]
    Io { file: String, source: std::io::Error },
    /// The bytes are not a safetensors file.
    #[error("directions {file} is no safetensors file ({why}); learn the directions again with `cargo xtask learn`")]
    Malformed { file: String, why: String },
    /// A metadata key is missing or has another value.
    #[error(
        "directions {file}: metadata `{key}` should be {expected}, found {found}; learn the directions again with `cargo xtask learn`"
    )]
    Metadata { file: String, key: &'static str, expected: String, found: String },
    /// A tensor is missing or has another shape.
    #[error(
        "directions {file}: tensor `{tensor}` should be {expected}, found {found}; learn the directions again with `cargo xtask learn`"
    )]
    Shape { file: String, tensor: &'static str, expected: String, found: String },
    /// The file was learned on another checkpoint.
    #[error(
        "directions {file} belong to checkpoint {theirs} ({their_hash:.12}), but {ours} ({our_hash:.12}) is loaded; \
         learn directions for it with `cargo xtask learn`"
    )]
    OtherCheckpoint { file: String, theirs: String, their_hash: String, ours: String, our_hash: String },
}

/// Directions of one concept family for one checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// Concept family, for example "notes".
    pub concept: String,
    /// One name per class, in the order of `vectors`.
    pub classes: Vec<String>,
    /// Name of the checkpoint that they were learned on.
    pub checkpoint_name: String,
    /// SHA-256 of that checkpoint's weights, hex.
    pub checkpoint_hash: String,
    /// How they were found: "mean", "rfm", ...
    pub method: String,
    /// Decoder blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// `[class][block][hidden]`. Methods that find where to go give vectors of length 1; likelihood also finds how far, in shares
    /// of the dose, of which the mean over classes and blocks is 1.
    pub vectors: Vec<f32>,
    /// `[block]`: mean Euclidean norm of the block's output on the learning data.
    pub block_norms: Vec<f32>,
    /// `[class][block]`: held-out score of the direction, 0.5 = chance.
    pub scores: Vec<f32>,
    /// `[class][block][2]`: slope and offset of the detector over the projection on the direction; its value is the
    /// log-odds of the class, or the level in deviations.
    pub detectors: Vec<f32>,
    /// `[class][block][2]`: mean projection on the direction where the class is not there, and where it is; for levels, at the
    /// mean level and one deviation above it.
    pub levels: Vec<f32>,
    /// Whether a dose is added come what may, or only as far as is lacking.
    pub manner: Manner,
    /// What strength 1 does (the calibrated full dose). Added: a fraction of each block's mean norm. Held: how far the
    /// projection is brought, in steps from where the class is not there (0) to where it is (1).
    pub full_dose: f32,
    /// How much of it each block gets, by its score.
    pub block_weights: BlockWeights,
    /// Chance that a block is steered in a step, above 0; the paper throws a coin of 0.3, 1 is the same dose always.
    pub gate: f32,
    /// Steer the conditional guidance row only; otherwise both, as the paper does.
    pub conditional_only: bool,
    /// Where the data came from and what was measured, free JSON.
    pub provenance: String,
}

impl Directions {
    /// Reads a file's bytes; `file` names it in errors.
    pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Self, DirectionsError> {
        let malformed =
            |why: &dyn std::fmt::Display| DirectionsError::Malformed { file: file.to_owned(), why: why.to_string() };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(&e))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| malformed(&e))?;
        let empty = HashMap::new();
        let metadata = header.metadata().as_ref().unwrap_or(&empty);
        let value = |key: &'static str| {
            metadata.get(key).cloned().ok_or_else(|| DirectionsError::Metadata {
                file: file.to_owned(),
                key,
                expected: "present".to_owned(),
                found: "nothing".to_owned(),
            })
        };
        let format = value("format")?;
        if format != FORMAT {
            return Err(DirectionsError::Metadata {
                file: file.to_owned(),
                key: "format",
                expected: FORMAT.to_owned(),
                found: format,
            });
        }
        let full_dose = value("full_dose")?;
        let full_dose: f32 = match full_dose.parse() {
            Ok(dose) if f32::is_finite(dose) && dose > 0.0 => dose,
            _ => {
                return Err(DirectionsError::Metadata {
                    file: file.to_owned(),
                    key: "full_dose",
                    expected: "a positive number".to_owned(),
                    found: full_dose,
                });
            }
        };
        let found = value("gate")?;
        let gate = match found.parse() {
            Ok(gate) if gate > 0.0 && gate <= 1.0 => gate,
            _ => {
                return Err(DirectionsError::Metadata {
                    file: file.to_owned(),
                    key: "gate",
                    expected: "above 0 and at most 1".to_owned(),
                    found,
                });
            }
        };
        let found = value("manner")?;
        let manner = found.parse().map_err(|expected: String| DirectionsError::Metadata {
            file: file.to_owned(),
            key: "manner",
            expected,
            found,
        })?;
        let found = value("block_weights")?;
        let block_weights = found.parse().map_err(|expected: String| DirectionsError::Metadata {
            file: file.to_owned(),
            key: "block_weights",
            expected,
            found,
        })?;
        let classes: Vec<String> = value("classes")?.split(',').map(str::to_owned).collect();
        let shape = |tensor: &'static str| tensors.tensor(tensor).map(|view| view.shape().to_vec()).unwrap_or_default();
        let vectors_shape = shape("dir");
        let [count, blocks, hidden] = vectors_shape[..] else {
            return Err(shape_error(file, "dir", "[class, block, hidden]", &vectors_shape));
        };
        if count != classes.len() || blocks == 0 || hidden == 0 {
            return Err(shape_error(file, "dir", &format!("[{}, block, hidden]", classes.len()), &vectors_shape));
        }
        let read = |tensor: &'static str, expected: &[usize]| -> Result<Vec<f32>, DirectionsError> {
            let found = shape(tensor);
            let view =
                tensors.tensor(tensor).map_err(|_| shape_error(file, tensor, &format!("{expected:?}"), &found))?;
            if found != expected || view.dtype() != Dtype::F32 {
                return Err(shape_error(file, tensor, &format!("{expected:?} in f32"), &found));
            }
            let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err(malformed(&format!("tensor `{tensor}` holds numbers that are not finite"))),
            }
        };
        Ok(Self {
            vectors: read("dir", &[count, blocks, hidden])?,
            block_norms: read("norm", &[blocks])?,
            scores: read("score", &[count, blocks])?,
            detectors: read("detector", &[count, blocks, 2])?,
            levels: read("level", &[count, blocks, 2])?,
            manner,
            concept: value("concept")?,
            checkpoint_name: value("checkpoint_name")?,
            checkpoint_hash: value("checkpoint_sha256")?,
            method: value("method")?,
            provenance: value("provenance")?,
            block_weights,
            gate,
            conditional_only: value("rows")? == CONDITIONAL,
            classes,
            blocks,
            hidden,
            full_dose,
        })
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, DirectionsError> {
        let file = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => Self::from_bytes(&bytes, &file),
            Err(source) => Err(DirectionsError::Io { file, source }),
        }
    }

    /// Reads what a folder has for the lanes that can be played.
    ///
    /// # Errors
    /// When a file is there but cannot be used.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>, DirectionsError> {
        let paths = Lane::FAMILIES.iter().map(|lane| folder.join(directions_file(lane.concept())));
        paths.filter(|path| path.is_file()).map(|path| Self::read(&path)).collect()
    }

    /// Writes the file beside its place and renames it, so that a crash leaves the old one whole.
    pub fn write(&self, path: &Path) -> Result<(), DirectionsError> {
        let file = path.display().to_string();
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let tensors = [
            ("dir", vec![self.classes.len(), self.blocks, self.hidden], bytes(&self.vectors)),
            ("norm", vec![self.blocks], bytes(&self.block_norms)),
            ("score", vec![self.classes.len(), self.blocks], bytes(&self.scores)),
            ("detector", vec![self.classes.len(), self.blocks, 2], bytes(&self.detectors)),
            ("level", vec![self.classes.len(), self.blocks, 2], bytes(&self.levels)),
        ];
        let malformed =
            |e: safetensors::SafeTensorError| DirectionsError::Malformed { file: file.clone(), why: e.to_string() };
        let mut views = Vec::new();
        for (name, shape, data) in &tensors {
            views.push((*name, TensorView::new(Dtype::F32, shape.clone(), data).map_err(malformed)?));
        }
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("concept".to_owned(), self.concept.clone()),
            ("classes".to_owned(), self.classes.join(",")),
            ("checkpoint_name".to_owned(), self.checkpoint_name.clone()),
            ("checkpoint_sha256".to_owned(), self.checkpoint_hash.clone()),
            ("method".to_owned(), self.method.clone()),
            ("full_dose".to_owned(), self.full_dose.to_string()),
            ("block_weights".to_owned(), self.block_weights.to_string()),
            ("manner".to_owned(), self.manner.name().to_owned()),
            ("gate".to_owned(), self.gate.to_string()),
            ("rows".to_owned(), if self.conditional_only { CONDITIONAL } else { BOTH }.to_owned()),
            ("provenance".to_owned(), self.provenance.clone()),
        ]);
        let serialized = safetensors::serialize(views, Some(metadata)).map_err(malformed)?;
        whole_file::write(path, serialized).map_err(|source| DirectionsError::Io { file: file.clone(), source })
    }

    /// Refuses directions of another checkpoint, or of other sizes, naming both.
    pub fn check(
        &self,
        file: &str,
        name: &str,
        hash: &str,
        blocks: usize,
        hidden: usize,
    ) -> Result<(), DirectionsError> {
        if self.checkpoint_hash != hash {
            return Err(DirectionsError::OtherCheckpoint {
                file: file.to_owned(),
                theirs: self.checkpoint_name.clone(),
                their_hash: self.checkpoint_hash.clone(),
                ours: name.to_owned(),
                our_hash: hash.to_owned(),
            });
        }
        if (self.blocks, self.hidden) != (blocks, hidden) {
            let expected = format!("[{}, {blocks}, {hidden}]", self.classes.len());
            return Err(shape_error(file, "dir", &expected, &[self.classes.len(), self.blocks, self.hidden]));
        }
        Ok(())
    }

    /// Which of a lane's classes these are: all of them, whatever their names, or some by name. `None` where they are no such
    /// thing.
    pub fn classes_of(&self, lane: Lane) -> Option<ClassSet> {
        if self.classes.len() == lane.classes() {
            return Some(ClassSet::first(lane.classes()));
        }
        let places: Vec<usize> = self.classes.iter().map(|name| lane.class_named(name)).collect::<Option<_>>()?;
        let known: ClassSet = places.iter().copied().collect();
        (known.len() == places.len() && !known.is_empty()).then_some(known)
    }

    /// The same with a place for each of the lane's classes, and nothing in the places of those that are not there.
    pub(crate) fn spread(&self, lane: Lane) -> Self {
        let place = |class: usize| self.classes.iter().position(|name| lane.class_named(name) == Some(class));
        let classes = lane.classes();
        let spread = |values: &[f32], each: usize| -> Vec<f32> {
            let part = |class| match place(class) {
                Some(own) => values[own * each..(own + 1) * each].to_vec(),
                None => vec![0.0; each],
            };
            (0..classes).flat_map(part).collect()
        };
        let (blocks, hidden) = (self.blocks, self.hidden);
        Self {
            classes: (0..classes)
                .map(|class| place(class).map(|own| self.classes[own].clone()).unwrap_or_default())
                .collect(),
            vectors: spread(&self.vectors, blocks * hidden),
            scores: spread(&self.scores, blocks),
            detectors: spread(&self.detectors, 2 * blocks),
            levels: spread(&self.levels, 2 * blocks),
            ..self.clone()
        }
    }

    /// The vector of `class` at `block`.
    pub fn vector(&self, class: usize, block: usize) -> &[f32] {
        let start = (class * self.blocks + block) * self.hidden;
        &self.vectors[start..start + self.hidden]
    }
}

fn shape_error(file: &str, tensor: &'static str, expected: &str, found: &[usize]) -> DirectionsError {
    DirectionsError::Shape {
        file: file.to_owned(),
        tensor,
        expected: expected.to_owned(),
        found: if found.is_empty() { "nothing".to_owned() } else { format!("{found:?}") },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Directions {
        let (blocks, hidden) = (2, 4);
        let classes: Vec<String> = crate::control::PitchClass::NAMES.iter().map(|n| n.to_string()).collect();
        let vectors = (0..12 * blocks * hidden).map(|i| if i % hidden == (i / hidden) % hidden { 1.0 } else { 0.0 });
        Directions {
            concept: "notes".to_owned(),
            vectors: vectors.collect(),
            scores: vec![0.75; classes.len() * blocks],
            detectors: vec![0.25; 2 * classes.len() * blocks],
            levels: [0.5, 1.5].repeat(classes.len() * blocks),
            manner: Manner::Add,
            classes,
            checkpoint_name: "one".to_owned(),
            checkpoint_hash: "0123456789abcdef".to_owned(),
            method: "mean".to_owned(),
            blocks,
            hidden,
            block_norms: vec![2.0, 3.0],
            full_dose: 0.5,
            block_weights: BlockWeights::All,
            gate: 1.0,
            conditional_only: false,
            provenance: "{}".to_owned(),
        }
    }

    #[test]
    fn written_directions_read_back_the_same() {
        let path = std::env::temp_dir().join(format!("tiller-directions-{}.safetensors", std::process::id()));
        example().write(&path).unwrap();
        let back = Directions::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(back, example());
    }

    #[test]
    fn directions_of_another_checkpoint_name_both() {
        let text = example().check("notes.safetensors", "two", "ffffffffffffffff", 2, 4).unwrap_err().to_string();
        for part in ["notes.safetensors", "one", "0123456789ab", "two", "ffffffffffff"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn truncated_bytes_are_an_error_at_every_length() {
        let path = std::env::temp_dir().join(format!("tiller-truncated-{}.safetensors", std::process::id()));
        example().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for length in 0..bytes.len() {
            assert!(Directions::from_bytes(&bytes[..length], "short").is_err(), "length {length}");
        }
    }
}
