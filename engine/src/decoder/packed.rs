//! Packed weights kept on disk, so that a checkpoint is rounded and checked once and not at every load. One file for each
//! checkpoint, precision and kind of processor in the user's cache folder; anything odd about it, and the weights are packed
//! anew. Loader thread.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use sha2::{Digest, Sha256};

use super::Decoder;
use super::quality::Quality;
use crate::kernel::layer::Layer;
use crate::precision::Precision;
use crate::user_folders;
use crate::whole_file;

/// Raised with every change of what a packed weight means or where it lies.
const FORMAT: &str = "tiller-packed-2";

/// Longest header that is believed, in bytes.
const MOST_HEADER: u64 = 1 << 24;

/// A partial file that nobody has written to for so long is nobody's.
const LEFTOVER: Duration = Duration::from_secs(24 * 3_600);

/// A file of packed weights, open for reading.
pub struct PackedFile {
    file: Mutex<File>,
    /// Where the header ends.
    start: u64,
    header: Metadata,
    quality: Option<Quality>,
}

/// Where the packed weights of a checkpoint lie: `folder` is for all of them, `hash` the checkpoint's.
pub fn path(folder: &Path, hash: &str, precision: Precision) -> PathBuf {
    let mut digest = Sha256::new();
    // The order of the weights in memory follows the widest registers.
    for part in [FORMAT, hash, precision.name(), &Layer::order()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    let name: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    folder.join(name + ".safetensors")
}

/// The user's cache folder for packed weights.
pub fn standard_folder() -> PathBuf {
    user_folders::cache().join("packed")
}

/// Tells damaged bytes from whole ones; not a secret.
fn checksum(parts: [&[u8]; 2]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            sum = (sum.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        for byte in rest {
            sum = (sum.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    sum
}

impl PackedFile {
    /// Opens the file of a checkpoint, if it is there and whole as far as its header tells.
    pub fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).ok()?;
        let header_length = u64::from_le_bytes(bytes);
        if header_length > MOST_HEADER.min(length.saturating_sub(8)) {
            return None;
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).ok()?;
        let header: Metadata = serde_json::from_slice(&header).ok()?;
        let start = 8 + header_length;
        if start + header.data_len() as u64 != length {
            return None;
        }
        let facts = header.metadata().as_ref()?;
        if facts.get("format").map(String::as_str) != Some(FORMAT) {
            return None;
        }
        let quality = serde_json::from_str(facts.get("quality")?).ok()?;
        Some(Self { file: Mutex::new(file), start, header, quality })
    }

    /// What the weights lost when they were packed, where that was measured.
    pub fn quality(&self) -> Option<&Quality> {
        self.quality.as_ref()
    }

    /// One layer; `None` when the file has none of that name and shape, or its bytes are damaged.
    pub fn layer(&self, name: &str, outputs: usize, inputs: usize) -> Option<Layer> {
        let facts = self.header.metadata().as_ref()?;
        let sum = u64::from_str_radix(facts.get(&format!("sum {name}"))?, 16).ok()?;
        let mut layer = Layer::blank(facts.get(&format!("kind {name}"))?, outputs, inputs)?;
        let mut file = self.file.lock();
        for (part, bytes) in ["weight", "scales"].into_iter().zip(layer.storage_mut()?) {
            let (from, to) = self.header.info(&format!("{name}.{part}"))?.data_offsets;
            if to - from != bytes.len() {
                return None;
            }
            file.seek(SeekFrom::Start(self.start + from as u64)).ok()?;
            file.read_exact(bytes).ok()?;
        }
        (checksum(layer.storage()?.1) == sum).then_some(layer)
    }

    /// So many numbers; none where the file says that there are none. `None` when it has others or they are damaged.
    pub fn numbers(&self, name: &str, count: usize) -> Option<Vec<f32>> {
        let facts = self.header.metadata().as_ref()?;
        let sum = u64::from_str_radix(facts.get(&format!("sum {name}"))?, 16).ok()?;
        let (from, to) = self.header.info(name)?.data_offsets;
        if to != from && to - from != 4 * count {
            return None;
        }
        let mut bytes = vec![0; to - from];
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(self.start + from as u64)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (checksum([&bytes, &[]]) == sum).then_some(numbers)
    }
}

/// Writes a decoder's layers beside their place and renames the file, so that a crash leaves none.
///
/// # Errors
/// A folder that cannot be written, in words.
pub fn write(path: &Path, decoder: &Decoder, quality: Option<&Quality>) -> Result<(), String> {
    let mut facts = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
    facts.insert("quality".to_owned(), serde_json::to_string(&quality).map_err(|error| error.to_string())?);
    let mut views = Vec::new();
    for (name, layer) in decoder.layers() {
        let (kind, parts) = layer.storage().ok_or_else(|| format!("{name} is not packed"))?;
        facts.insert(format!("kind {name}"), kind.to_owned());
        facts.insert(format!("sum {name}"), format!("{:x}", checksum(parts)));
        for (part, bytes) in ["weight", "scales"].into_iter().zip(parts) {
            let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(|error| error.to_string())?;
            views.push((format!("{name}.{part}"), view));
        }
    }
    let usual = decoder.usual();
    for (name, bytes) in &usual {
        facts.insert(format!("sum {name}"), format!("{:x}", checksum([bytes, &[]])));
        let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(|error| error.to_string())?;
        views.push((name.clone(), view));
    }
    let folder = path.parent().ok_or("no folder")?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    remove_leftovers(folder);
    whole_file::write_by(path, |beside| {
        safetensors::serialize_to_file(views, Some(facts), beside).map_err(io::Error::other)
    })
    .map_err(|error| format!("{}: {error}", path.display()))
}

/// Halves of files whose writers were killed: gigabytes that nobody would ever use. A day is longer than any write.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let written = path.metadata().and_then(|metadata| metadata.modified());
        let old = written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > LEFTOVER));
        // Ours, and what safetensors writes to before it gives the file its name.
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if old && (name.ends_with(whole_file::BESIDE) || name.starts_with(".tmp")) {
            // One that cannot be removed harms nobody.
            let _ = fs::remove_file(&path);
        }
    }
}
