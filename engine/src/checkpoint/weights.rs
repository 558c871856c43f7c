//! Tensors by name out of safetensors files, converted to f32. Loader thread.
//! Header lengths are checked against the file before anything is believed; the format is huggingface/safetensors'.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Bytes, CheckpointError, CheckpointSource};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The floating-point formats that published checkpoints use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

/// One tensor's place. `dtype` is `None` for kinds that cannot be read (they may well be unused).
struct Entry {
    file: usize,
    dtype: Option<Dtype>,
    dtype_name: String,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

struct WeightFile {
    /// As error texts name it.
    name: String,
    bytes: Bytes,
}

/// All tensors of a checkpoint, in its own formats, read lazily as f32.
pub struct Weights {
    files: Vec<WeightFile>,
    tensors: HashMap<String, Entry>,
    /// Names that were asked for, so that the rest can be logged.
    used: Mutex<HashSet<String>>,
    hash: String,
    /// The one file, or the index of the shards: where a missing tensor should have been.
    place: String,
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Reads `model.safetensors`, or all shards that its index names. `progress` hears the share of bytes read.
    ///
    /// # Errors
    /// Missing, truncated or damaged files, pickle-only folders.
    pub fn read(source: &CheckpointSource, progress: &dyn Fn(f32)) -> Result<Self, CheckpointError> {
        let names = file_names(source)?;
        let mut total = 0;
        for name in &names {
            if !source.has(name) {
                let remedy = "download every file that model.safetensors.index.json names";
                return Err(CheckpointError::MissingFile { folder: source.folder(), file: name.clone(), remedy });
            }
            total += source.size(name)?;
        }
        let place = source.file(if names.len() == 1 { &names[0] } else { INDEX });
        let mut weights =
            Self { files: Vec::new(), tensors: HashMap::new(), used: Mutex::default(), hash: String::new(), place };
        let mut sha = Sha256::new();
        let mut done = 0;
        for name in &names {
            let mut part = |count| {
                done += count;
                progress(done as f32 / total.max(1) as f32);
            };
            let Some(bytes) = source.read_with_progress(name, &mut part)? else { continue };
            sha.update(&bytes);
            weights.add_file(source.file(name), bytes)?;
        }
        weights.hash = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(weights)
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
    /// When it is missing, has another shape, or is not floating point.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(CheckpointError::MissingTensor {
                file: self.place.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
            });
        };
        self.used.lock().insert(name.to_owned());
        let file = &self.files[entry.file];
        if entry.shape != shape {
            return Err(CheckpointError::Shape {
                file: file.name.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let Some(dtype) = entry.dtype else {
            return Err(CheckpointError::Dtype {
                file: file.name.clone(),
                tensor: name.to_owned(),
                found: entry.dtype_name.clone(),
            });
        };
        Ok(to_f32(&file.bytes[entry.bytes.clone()], dtype))
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
            log::info!("{} tensors of the checkpoint are not used, the first is {first}", unused.len());
            log::debug!("not used: {}", unused.join(", "));
        }
    }

    fn add_file(&mut self, name: String, bytes: Bytes) -> Result<(), CheckpointError> {
        let found = bytes.len() as u64;
        let truncated = |expected| CheckpointError::Truncated { file: name.clone(), expected, found };
        let damaged = |reason: String| CheckpointError::Header { file: name.clone(), reason };
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return Err(truncated(8)) };
        let length = u64::from_le_bytes(*length);
        // Checked before use: a header may claim any size, and only what the file holds can be there.
        let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let Some(header) = header else { return Err(truncated(length.saturating_add(8))) };
        let data = 8 + header.len();
        let parsed: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
        let file = self.files.len();
        for (tensor, value) in parsed {
            if tensor == "__metadata__" {
                continue;
            }
            let entry: HeaderEntry =
                serde_json::from_value(value).map_err(|error| damaged(format!("tensor {tensor}: {error}")))?;
            let (start, end) = entry.data_offsets;
            let elements = entry.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
            let (dtype, width) = match entry.dtype.as_str() {
                "F32" => (Some(Dtype::F32), Some(4)),
                "F16" => (Some(Dtype::F16), Some(2)),
                "BF16" => (Some(Dtype::Bf16), Some(2)),
                _ => (None, None),
            };
            let size = end.checked_sub(start);
            let expected = width.and_then(|width: usize| elements.and_then(|n| n.checked_mul(width)));
            if size.is_none() || (width.is_some() && size != expected) {
                return Err(damaged(format!(
                    "tensor {tensor} of shape {:?} and type {} claims bytes {start} to {end}",
                    entry.shape, entry.dtype
                )));
            }
            let Some(range) = end.checked_add(data).filter(|&end| end <= bytes.len()).map(|end| start + data..end)
            else {
                return Err(truncated((end as u64).saturating_add(data as u64)));
            };
            let (dtype_name, shape) = (entry.dtype, entry.shape);
            self.tensors.insert(tensor, Entry { file, dtype, dtype_name, shape, bytes: range });
        }
        self.files.push(WeightFile { name, bytes });
        Ok(())
    }
}

/// The weight files of a source, sorted.
fn file_names(source: &CheckpointSource) -> Result<Vec<String>, CheckpointError> {
    if source.has(SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    if let Some(bytes) = source.read(INDEX)? {
        let json = |reason: String| CheckpointError::Json { file: source.file(INDEX), reason };
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| json(error.to_string()))?;
        let names: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
        // A shard is a file beside the index, never a path out of the folder.
        if let Some(name) = names.iter().find(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors")) {
            return Err(json(format!("{name} is not the name of a safetensors file in the same folder")));
        }
        if names.is_empty() {
            return Err(json("it names no files".to_owned()));
        }
        return Ok(names.into_iter().collect());
    }
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "state_dict.bin"];
    if let Some(found) = pickles.into_iter().find(|name| source.has(name)) {
        return Err(CheckpointError::PickleOnly { folder: source.folder(), found: found.to_owned() });
    }
    let remedy = "download model.safetensors (or all shards and their index) of the checkpoint";
    Err(CheckpointError::MissingFile { folder: source.folder(), file: SINGLE.to_owned(), remedy })
}

fn to_f32(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half_to_f32(u16::from_le_bytes(*b))).collect(),
        Dtype::Bf16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
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
            assert_eq!(to_f32(&bytes, dtype), values);
        }
    }
}
