//! Tensors by name out of safetensors files, read from disk when asked for and converted to f32. Loader thread.
//! No file is held in memory: a load needs one tensor at a time besides what is built of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::error::shortened;
use super::header::{self, Dtype, TensorEntry};
use super::weight_file::WeightFile;
use super::{CheckpointError, CheckpointSource};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest index; that of MusicGen large has under 200 kB.
const MOST_INDEX_BYTES: u64 = 16 << 20;

/// One tensor's place.
struct Entry {
    file: usize,
    tensor: TensorEntry,
}

/// All tensors of a checkpoint, in its own formats, read lazily as f32.
pub struct Weights {
    files: Vec<WeightFile>,
    tensors: HashMap<String, Entry>,
    /// Names that were asked for, so that the rest can be logged.
    used: Mutex<HashSet<String>>,
    hash: String,
    /// Where a missing tensor should have been: the shard that the index names for it, else the one file or the index.
    shards: BTreeMap<String, String>,
    place: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `model.safetensors`, or all shards that its index names, and reads each once for the hash. `progress` hears
    /// the share of bytes read.
    ///
    /// # Errors
    /// Missing, truncated or damaged files, pickle-only folders.
    pub fn read(source: &CheckpointSource, progress: &dyn Fn(f32)) -> Result<Self, CheckpointError> {
        let shards = shards(source)?;
        let names: BTreeSet<&str> = match shards.is_empty() {
            true => BTreeSet::from([SINGLE]),
            false => shards.values().map(String::as_str).collect(),
        };
        if let Some(name) = names.iter().find(|name| !source.has(name)) {
            let remedy = "download every file that model.safetensors.index.json names";
            return Err(CheckpointError::MissingFile { folder: source.folder(), file: (*name).to_owned(), remedy });
        }
        let place = source.file(if shards.is_empty() { SINGLE } else { INDEX });
        let mut files = Vec::with_capacity(names.len());
        let mut tensors = HashMap::new();
        for name in &names {
            let file = WeightFile::open(source, name)?;
            for tensor in header::read(&file)? {
                // Two shards may hold the same tensor: the index has the word.
                let wanted = shards.get(&tensor.name).is_some_and(|shard| shard == name);
                if wanted || !tensors.contains_key(&tensor.name) {
                    tensors.insert(tensor.name.clone(), Entry { file: files.len(), tensor });
                }
            }
            files.push(file);
        }
        let hash = hash(&files, progress)?;
        let shards = shards.into_iter().map(|(tensor, shard)| (tensor, source.file(&shard))).collect();
        Ok(Self { files, tensors, used: Mutex::default(), hash, shards, place })
    }

    /// SHA-256 of all weight files in the order of their names, hex: the checkpoint's identity.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether the tensor is there, without reading it.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// One tensor as row-major f32.
    ///
    /// # Errors
    /// When it is missing, has another shape, is not floating point, or its file cannot be read or has changed.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        self.stacked(&[name], shape)
    }

    /// Several tensors of one shape, one after the other. All are checked before memory is taken for any.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn stacked(&self, names: &[impl AsRef<str>], shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let found = names.iter().map(|name| self.find(name.as_ref(), shape)).collect::<Result<Vec<_>, _>>()?;
        // The product does not overflow: it is what the header of a file of that size says.
        let elements = names.len() * shape.iter().product::<usize>();
        let mut values: Vec<f32> = Vec::new();
        if values.try_reserve_exact(elements).is_err() {
            let file = found.first().map_or(&*self.place, |(entry, _)| self.files[entry.file].name()).to_owned();
            return Err(CheckpointError::Memory { file, bytes: 4 * elements as u64 });
        }
        for (entry, dtype) in found {
            let bytes = entry.tensor.bytes.clone();
            self.files[entry.file].read(bytes, |part| extend_f32(&mut values, part, dtype))?;
        }
        Ok(values)
    }

    /// Whether these tensors are there and have this shape, without reading them. They count as used.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn check(&self, names: &[impl AsRef<str>], shape: &[usize]) -> Result<(), CheckpointError> {
        names.iter().try_for_each(|name| self.find(name.as_ref(), shape).map(|_| ()))
    }

    /// The place of a tensor that has this shape and can be read.
    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Entry, Dtype), CheckpointError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(CheckpointError::MissingTensor {
                file: self.shards.get(name).unwrap_or(&self.place).clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
            });
        };
        self.used.lock().insert(name.to_owned());
        let file = || self.files[entry.file].name().to_owned();
        if entry.tensor.shape != shape {
            return Err(CheckpointError::Shape {
                file: file(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.tensor.shape.clone(),
            });
        }
        match entry.tensor.dtype {
            Some(dtype) => Ok((entry, dtype)),
            None => Err(CheckpointError::Dtype {
                file: file(),
                tensor: name.to_owned(),
                found: shortened(&entry.tensor.dtype_name),
            }),
        }
    }

    /// The first of several names that is there: serialised forms differ between transformers' versions.
    ///
    /// # Errors
    /// As [`Weights::tensor`]; when none is there, the first is reported missing.
    pub fn tensor_of(&self, names: &[&str], shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let mut found = names.iter().copied().filter(|name| self.has(name));
        let name = found.next().or(names.first().copied()).unwrap_or_default();
        // The others are tied copies: used, as far as the log is concerned.
        self.used.lock().extend(found.map(str::to_owned));
        self.tensor(name, shape)
    }

    /// A weight-normed convolution weight `g v / |v|`, the norm over all but the first dimension.
    /// `name` is the module: `{name}.weight_g` and `_v` (as published), `{name}.parametrizations.weight.original0` and
    /// `1` (as transformers writes it today), or a plain `{name}.weight`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn weight_norm(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let published = (format!("{name}.weight_g"), format!("{name}.weight_v"));
        let parametrised = ["0", "1"].map(|part| format!("{name}.parametrizations.weight.original{part}"));
        let plain = format!("{name}.weight");
        let (gain, direction) = if self.has(&published.0) || self.has(&published.1) {
            published
        } else if !self.has(&parametrised[0]) && !self.has(&parametrised[1]) && self.has(&plain) {
            return self.tensor(&plain, shape);
        } else {
            parametrised.into()
        };
        let mut gain_shape = vec![1; shape.len()];
        gain_shape[..1].copy_from_slice(&shape[..1]);
        let gain = self.tensor(&gain, &gain_shape)?;
        let mut weight = self.tensor(&direction, shape)?;
        for (row, gain) in weight.chunks_exact_mut(shape[1..].iter().product::<usize>().max(1)).zip(gain) {
            let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
            let factor = f64::from(gain) / norm;
            row.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
        }
        Ok(weight)
    }

    /// Logs the tensors that nobody asked for. Published files have some; many mean a checkpoint of another kind.
    pub fn log_unused(&self) {
        let used = self.used.lock();
        let mut unused: Vec<&str> = self.tensors.keys().map(String::as_str).filter(|n| !used.contains(*n)).collect();
        unused.sort_unstable();
        if let Some(first) = unused.first() {
            let first = shortened(first);
            log::info!("{}: {} tensors are not used, the first is {first}", self.place, unused.len());
            log::debug!("not used: {}", unused.join(", "));
        }
    }
}

/// Which tensor is in which file, as the index says; empty when one file holds all.
fn shards(source: &CheckpointSource) -> Result<BTreeMap<String, String>, CheckpointError> {
    if source.has(SINGLE) {
        return Ok(BTreeMap::new());
    }
    if let Some(bytes) = source.read_at_most(INDEX, MOST_INDEX_BYTES)? {
        let refused = |reason: String| CheckpointError::Index { file: source.file(INDEX), reason };
        let parsed: Result<Index, _> = serde_json::from_slice(&bytes);
        let index = parsed.map_err(|error| refused(shortened(&error.to_string())))?;
        // A shard is a file beside the index, never a path out of the folder.
        let outside = |name: &&String| name.contains(['/', '\\', ':']) || !name.ends_with(".safetensors");
        if let Some(name) = index.weight_map.values().find(outside) {
            return Err(refused(format!(
                "{} is not the name of a safetensors file in the same folder",
                shortened(name)
            )));
        }
        if index.weight_map.is_empty() {
            return Err(refused("it names no files".to_owned()));
        }
        return Ok(index.weight_map);
    }
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "state_dict.bin"];
    if let Some(found) = pickles.into_iter().find(|name| source.has(name)) {
        return Err(CheckpointError::PickleOnly { folder: source.folder(), found: found.to_owned() });
    }
    let remedy = "download model.safetensors (or all shards and their index) of the checkpoint";
    Err(CheckpointError::MissingFile { folder: source.folder(), file: SINGLE.to_owned(), remedy })
}

/// SHA-256 of all files, one after the other.
fn hash(files: &[WeightFile], progress: &dyn Fn(f32)) -> Result<String, CheckpointError> {
    let total: u64 = files.iter().map(WeightFile::length).sum();
    let (mut sha, mut done) = (Sha256::new(), 0);
    for file in files {
        file.read(0..file.length(), |part| {
            sha.update(part);
            done += part.len();
            progress(done as f32 / total.max(1) as f32);
        })?;
    }
    Ok(sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Appends the values of `bytes`, which hold whole elements.
fn extend_f32(values: &mut Vec<f32>, bytes: &[u8], dtype: Dtype) {
    match dtype {
        Dtype::F32 => values.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
        Dtype::F16 => values.extend(bytes.as_chunks::<2>().0.iter().map(|b| half_to_f32(u16::from_le_bytes(*b)))),
        Dtype::Bf16 => values
            .extend(bytes.as_chunks::<2>().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))),
    }
}

/// IEEE 754 binary16, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let (exponent, mantissa) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    let magnitude = match exponent {
        // Zero and subnormals are multiples of 2^-24.
        0 => (mantissa as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        31 => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 127 - 15) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_converted_exactly() {
        let cases = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ];
        for (half, exact) in cases {
            assert_eq!(half_to_f32(half).to_bits(), exact.to_bits(), "{half:04x}");
        }
        assert!(half_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn the_three_formats_agree_on_what_all_can_hold() {
        let values = [1.0f32, -0.5, 3.0];
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let f16s: Vec<u8> = [0x3c00u16, 0xb800, 0x4200].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (bytes, dtype) in [(f32s, Dtype::F32), (bf16s, Dtype::Bf16), (f16s, Dtype::F16)] {
            let mut found = Vec::new();
            extend_f32(&mut found, &bytes, dtype);
            assert_eq!(found, values);
        }
    }
}
