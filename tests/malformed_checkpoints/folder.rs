//! A copy of a small checkpoint that a test may break: its files in the temporary directory, removed at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

pub const WEIGHTS: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

/// Which checkpoint is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// One file, f16.
    Mono,
    /// Four shards, f32.
    Sharded,
}

impl Fixture {
    fn path(self) -> PathBuf {
        let name = if self == Self::Mono { "decoder-mono" } else { "decoder-stereo" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
    }
}

/// The copy.
pub struct Folder(PathBuf);

impl Folder {
    /// Copies everything but the reference values.
    pub fn copy(fixture: Fixture) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tiller-malformed-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(fixture.path()).expect("the fixture") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            if name != "reference.safetensors" {
                fs::copy(&path, folder.join(name)).expect("a copy");
            }
        }
        Self(folder)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        let entries = fs::read_dir(&self.0).expect("the folder");
        entries.map(|entry| entry.and_then(|e| e.metadata()).expect("an entry").len()).sum()
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).expect(file)
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).expect(file);
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).expect(file);
    }

    /// Keeps the first `keep` bytes of a file.
    pub fn truncate(&self, file: &str, keep: usize) {
        self.write(file, &self.read(file)[..keep]);
    }

    /// A file of `size` bytes that begins with `start`, the rest a hole that takes no space on disk.
    pub fn sparse(&self, file: &str, start: &[u8], size: u64) {
        self.write(file, start);
        let opened = fs::OpenOptions::new().write(true).open(self.path(file)).expect(file);
        opened.set_len(size).expect("a sparse file");
    }

    /// Changes a JSON file.
    pub fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = match self.path(file).exists() {
            true => serde_json::from_slice(&self.read(file)).expect("JSON"),
            false => json!({}),
        };
        edit(&mut value);
        self.write(file, value.to_string());
    }

    /// Sets a field of `config.json`, named by its JSON pointer.
    pub fn set(&self, pointer: &str, to: Value) {
        self.edit_json("config.json", |config| match config.pointer_mut(pointer) {
            Some(field) => *field = to,
            None => {
                let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
                config.pointer_mut(parent).expect(parent)[name] = to;
            }
        });
    }

    /// Replaces text that must be there.
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        let text = String::from_utf8(self.read(file)).expect("text");
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, text.replacen(from, to, 1));
    }

    /// Rewrites a safetensors header; `edit` sees and changes its JSON.
    pub fn edit_header(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let (mut header, data) = self.parts(file);
        edit(header.as_object_mut().expect("a header"));
        self.assemble(file, &header.to_string(), &data);
    }

    /// Writes a weight file of this header and data.
    pub fn assemble(&self, file: &str, header: &str, data: &[u8]) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        self.write(file, bytes);
    }

    /// Header and data of a weight file.
    pub fn parts(&self, file: &str) -> (Value, Vec<u8>) {
        let bytes = self.read(file);
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        (serde_json::from_slice(&bytes[8..8 + length]).expect("a header"), bytes[8 + length..].to_vec())
    }

    /// Adds tensors, or replaces ones of the same name, with data of `width` bytes an element, all zero.
    pub fn add_tensors(&self, tensors: &[(&str, &str, usize, &[usize])]) {
        let (mut header, mut data) = self.parts(WEIGHTS);
        for (name, dtype, width, shape) in tensors {
            let start = data.len();
            data.resize(start + width * shape.iter().product::<usize>(), 0);
            header[*name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        }
        self.assemble(WEIGHTS, &header.to_string(), &data);
    }

    /// Changes one tensor's entry in the header of `model.safetensors`.
    pub fn edit_tensor(&self, tensor: &str, edit: impl FnOnce(&mut Value)) {
        self.edit_header(WEIGHTS, |header| edit(header.get_mut(tensor).expect(tensor)));
    }

    /// Stores every tensor that `choose` gives a type for in that type.
    pub fn convert(&self, choose: impl Fn(&str) -> Option<&'static str>) {
        let (mut header, data) = self.parts(WEIGHTS);
        let mut out = Vec::new();
        for (name, entry) in header.as_object_mut().expect("a header") {
            if name == "__metadata__" {
                continue;
            }
            let offset = |at: usize| entry["data_offsets"][at].as_u64().expect("an offset") as usize;
            let bytes = &data[offset(0)..offset(1)];
            let start = out.len();
            match choose(name) {
                Some("F32") => out.extend(halves(bytes).flat_map(f32::to_le_bytes)),
                Some("BF16") => {
                    out.extend(halves(bytes).flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()));
                }
                _ => out.extend(bytes),
            }
            if let Some(dtype) = choose(name) {
                entry["dtype"] = json!(dtype);
            }
            entry["data_offsets"] = json!([start, out.len()]);
        }
        self.assemble(WEIGHTS, &header.to_string(), &out);
    }
}

/// The normal numbers and zeros among f16 values; the fixture has no others.
fn halves(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|bytes| {
        let half = u32::from(u16::from_le_bytes(*bytes));
        let magnitude = (half & 0x7fff) << 13;
        // Re-biasing by a power of two is exact, subnormals included.
        f32::from_bits(magnitude | (half & 0x8000) << 16) * f32::from_bits((254 - 15) << 23)
    })
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed from the temporary directory is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A repeatable sequence of numbers below a bound (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % bound as u64) as usize
    }
}
