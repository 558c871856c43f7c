//! The header of a safetensors file, checked against the file's true length before anything is believed or allocated.
//! Loader thread. The format is huggingface/safetensors'.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::CheckpointError;
use super::error::shortened;
use super::weight_file::WeightFile;

/// Longest header that the format allows, in bytes.
const MOST_BYTES: u64 = 100_000_000;
/// Dimensions of a tensor; MusicGen's have three at most.
const MOST_DIMENSIONS: usize = 16;
/// How the texts begin that Git leaves in place of large files.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// The floating-point formats that published checkpoints use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    fn width(self) -> u64 {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// One tensor's place in its file. `dtype` is `None` for kinds that cannot be read (they may well be unused).
pub(super) struct TensorEntry {
    pub name: String,
    pub dtype: Option<Dtype>,
    pub dtype_name: String,
    pub shape: Vec<usize>,
    /// Counted from the start of the file, inside it, shared with no other tensor.
    pub bytes: Range<u64>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's entries in the order of the text, duplicates included.
struct RawHeader(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, text: &mut fmt::Formatter) -> fmt::Result {
                text.write_str("a JSON object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match map.next_value() {
                        Ok(entry) => entries.push((name, entry)),
                        Err(error) => return Err(A::Error::custom(format!("tensor {}: {error}", shortened(&name)))),
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads and checks the header of `file`; the entries come sorted by their place.
///
/// # Errors
/// A file that is too short for what its header says, or a header that makes no sense.
pub(super) fn read(file: &WeightFile) -> Result<Vec<TensorEntry>, CheckpointError> {
    let found = file.length();
    let truncated = |expected: u64, reason: String| CheckpointError::Truncated {
        file: file.name().to_owned(),
        expected,
        found,
        reason,
    };
    let damaged = |reason: String| CheckpointError::Header { file: file.name().to_owned(), reason };
    if found < 8 {
        return Err(truncated(8, "for the length of its header".to_owned()));
    }
    let mut start = Vec::new();
    file.read(0..found.min(LFS_POINTER.len() as u64), |part| start.extend_from_slice(part))?;
    if start == LFS_POINTER {
        return Err(damaged("it is a Git LFS pointer, a short text that stands for the file".to_owned()));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&start[..8]);
    let length = u64::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(damaged(format!("it claims to be {length} bytes long, the format allows {MOST_BYTES}")));
    }
    let data = 8 + length;
    if data > found {
        return Err(truncated(data, "for its header".to_owned()));
    }
    let mut text = Vec::new();
    if text.try_reserve_exact(length as usize).is_err() {
        return Err(CheckpointError::Memory { file: file.name().to_owned(), bytes: length });
    }
    file.read(8..data, |part| text.extend_from_slice(part))?;
    let RawHeader(raw) = serde_json::from_slice(&text).map_err(|error| damaged(shortened(&error.to_string())))?;
    drop(text);
    let entries = raw.into_iter().map(|(name, raw)| entry(name, raw, data).map_err(damaged));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = entries.iter().max_by_key(|entry| entry.bytes.end).filter(|last| last.bytes.end > found) {
        return Err(truncated(last.bytes.end, format!("for tensor {}", shortened(&last.name))));
    }
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    // Tensors that shared bytes could make a small file as large in memory as its header likes.
    let filled: Vec<&TensorEntry> = entries.iter().filter(|entry| !entry.bytes.is_empty()).collect();
    if let Some([a, b]) = filled.array_windows().find(|[a, b]| b.bytes.start < a.bytes.end) {
        return Err(damaged(format!("tensors {} and {} overlap", shortened(&a.name), shortened(&b.name))));
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
        return Err(damaged(format!("it lists tensor {} twice", shortened(name))));
    }
    Ok(entries)
}

/// Checks one entry in itself; `data` is where the header ends.
fn entry(name: String, raw: RawEntry, data: u64) -> Result<TensorEntry, String> {
    let RawEntry { dtype: dtype_name, shape: dimensions, data_offsets: (start, end) } = raw;
    if dimensions.len() > MOST_DIMENSIONS {
        return Err(format!("tensor {} has {} dimensions", shortened(&name), dimensions.len()));
    }
    let claim = || {
        format!(
            "tensor {} of shape {dimensions:?} and type {} claims bytes {start} to {end}",
            shortened(&name),
            shortened(&dtype_name)
        )
    };
    let dtype = Dtype::named(&dtype_name);
    let elements = dimensions.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
    let size = end.checked_sub(start);
    let expected = dtype.and_then(|dtype| elements?.checked_mul(dtype.width()));
    if size.is_none() || (dtype.is_some() && size != expected) {
        return Err(claim());
    }
    let place = start.checked_add(data).zip(end.checked_add(data));
    let shape: Option<Vec<usize>> = dimensions.iter().map(|&size| usize::try_from(size).ok()).collect();
    let (Some((start, end)), Some(shape)) = (place, shape) else { return Err(claim()) };
    Ok(TensorEntry { dtype, dtype_name, shape, bytes: start..end, name })
}
