//! Writes a random checkpoint of a published shape, tensor by tensor, so that the largest needs no more memory than the
//! smallest. Made once and kept; main thread.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::progress::Progress;
use super::shape::{Shape, config_of};
use super::tensors::{self, Tensor};
use crate::host::Outcome;

/// Changes when the same shape would be drawn otherwise, so that folders of an older bench are made anew.
const RECIPE: &str = "1";
/// Normal numbers that all tensors are drawn from. Neither speed nor anything else here needs more of them.
const TABLE: usize = 1 << 16;
/// Numbers between two looks at the progress bar and two writes.
const PART: usize = 1 << 20;

/// The folder of the shape's checkpoint under `cache`; written if it is not there yet, or was not finished.
///
/// # Errors
/// The folder cannot be written.
pub fn ensure(shape: Shape, cache: &Path, progress: &Progress) -> Outcome<PathBuf> {
    let folder = cache.join(shape.name());
    let tensors = tensors::of(&config_of(shape)?);
    let header = header(&tensors);
    let weights = folder.join("model.safetensors");
    if is_whole(&weights, &header, &tensors) {
        return Ok(folder);
    }
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    fs::create_dir_all(&folder).map_err(named(&folder))?;
    let tokenizer = Shape::Demo.files().iter().filter(|(name, _)| *name == "tokenizer.json");
    for (name, bytes) in shape.files().iter().chain(tokenizer) {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(named(&path))?;
    }
    let beside = folder.join("model.part");
    write(&beside, &header, &tensors, progress).map_err(named(&beside))?;
    fs::rename(&beside, &weights).map_err(named(&weights))?;
    Ok(folder)
}

/// Length and JSON, padded to 8 bytes as safetensors wants it.
fn header(tensors: &[Tensor]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "tiller_bench": RECIPE }));
    let mut at = 0;
    for tensor in tensors {
        let end = at + 2 * tensor.elements();
        let entry = json!({ "dtype": "F16", "shape": tensor.shape, "data_offsets": [at, end] });
        entries.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

fn is_whole(path: &Path, header: &[u8], tensors: &[Tensor]) -> bool {
    use std::io::Read;
    let length = header.len() + 2 * tensors.iter().map(Tensor::elements).sum::<usize>();
    let Ok(mut file) = fs::File::open(path) else { return false };
    if file.metadata().map_or(0, |metadata| metadata.len()) != length as u64 {
        return false;
    }
    let mut found = vec![0; header.len()];
    file.read_exact(&mut found).is_ok() && found == header
}

fn write(path: &Path, header: &[u8], tensors: &[Tensor], progress: &Progress) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    file.write_all(header)?;
    let total: usize = tensors.iter().map(Tensor::elements).sum();
    progress.begin("writing random weights (millions)", total >> 20);
    let mut random = Random(1);
    let normals: Vec<f32> = (0..TABLE / 2).flat_map(|_| random.normals()).collect();
    let mut table = vec![0u16; TABLE];
    let mut bytes: Vec<u8> = Vec::with_capacity(2 * PART);
    let mut done = 0;
    for tensor in tensors {
        for (half, normal) in table.iter_mut().zip(&normals) {
            *half = half_bits(tensor.mean + tensor.deviation * normal);
        }
        let mut left = tensor.elements();
        while left > 0 {
            let count = left.min(PART);
            bytes.clear();
            while bytes.len() < 2 * count {
                // Four places of the table at once.
                let places = random.next();
                for part in 0..4 {
                    bytes.extend(table[(places >> (16 * part)) as usize % TABLE].to_le_bytes());
                }
            }
            file.write_all(&bytes[..2 * count])?;
            left -= count;
            done += count;
            progress.at(done >> 20);
        }
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Two normal numbers, after Box and Muller.
    fn normals(&mut self) -> [f32; 2] {
        let mut uniform = || ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
    }
}

/// The nearest half-precision number's bits; what is too small for a normal one becomes 0. Finite values below 65,504 only.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    // Half an ulp on top rounds; a carry goes into the exponent, where it belongs.
    let rounded = (bits & 0x7fff_ffff) + 0x1000;
    let exponent = (rounded >> 23) as i32 - 127 + 15;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (rounded >> 13 & 0x3ff) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest() {
        let cases = [(1.0, 0x3c00), (-2.0, 0xc000), (0.333_333_34, 0x3555), (1e-9, 0), (65_504.0, 0x7bff)];
        for (value, bits) in cases {
            assert_eq!(half_bits(value), bits, "{value}");
        }
        // The next number up is at 2048 + 2: 2049.5 rounds to it, 2048.5 does not.
        assert_eq!((half_bits(2049.5), half_bits(2048.5)), (0x6801, 0x6800));
        assert_eq!(half_bits(1.999_99), 0x4000);
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut random = Random(1);
        let normals: Vec<f64> = (0..TABLE / 2).flat_map(|_| random.normals()).map(f64::from).collect();
        let mean = normals.iter().sum::<f64>() / normals.len() as f64;
        let power = normals.iter().map(|x| x * x).sum::<f64>() / normals.len() as f64;
        assert!(mean.abs() < 0.02 && (power - 1.0).abs() < 0.03, "{mean} {power}");
    }

    #[test]
    fn a_header_tells_every_tensors_place() {
        let tensor = |name: &str, shape: &[usize]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            mean: 0.0,
            deviation: 1.0,
        };
        let bytes = header(&[tensor("a", &[2, 3]), tensor("b", &[5])]);
        assert_eq!(u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize, bytes.len() - 8);
        let parsed: Value = serde_json::from_slice(&bytes[8..]).unwrap();
        assert_eq!(parsed["b"]["data_offsets"], json!([12, 22]));
        assert_eq!(bytes.len() % 8, 0);
    }
}
