//! A file of golden values, as `cargo xtask reference` writes it: named tensors of f32 or i64. Any thread that may wait.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::ParityError;

/// The whole file in memory. Nothing of it is believed before it is used.
pub struct Reference {
    name: String,
    bytes: Vec<u8>,
}

/// A tensor's values with their shape.
pub struct Values<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

impl Reference {
    /// Reads the file and checks its header.
    ///
    /// # Errors
    /// A file that is not there or is no safetensors file.
    pub fn open(path: &Path) -> Result<Self, ParityError> {
        let name = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|error| ParityError::File { file: name.clone(), reason: error.to_string() })?;
        if let Err(error) = SafeTensors::deserialize(&bytes) {
            return Err(ParityError::File { file: name, reason: error.to_string() });
        }
        Ok(Self { name, bytes })
    }

    /// The file, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it holds the tensor.
    pub fn has(&self, key: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).is_ok_and(|file| file.tensor(key).is_ok())
    }

    /// A free-text entry of the header.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).ok()?;
        header.metadata().as_ref()?.get(key).cloned()
    }

    /// A tensor of f32 with `rank` dimensions.
    ///
    /// # Errors
    /// When it is missing or of another kind.
    pub fn floats(&self, key: &str, rank: usize) -> Result<Values<f32>, ParityError> {
        self.read(key, rank, Dtype::F32, |bytes| {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        })
    }

    /// A tensor of i64 with `rank` dimensions; negative values come out as `u32::MAX`, which is no token.
    ///
    /// # Errors
    /// When it is missing or of another kind.
    pub fn integers(&self, key: &str, rank: usize) -> Result<Values<u32>, ParityError> {
        self.read(key, rank, Dtype::I64, |bytes| {
            let chunks = bytes.as_chunks::<8>().0.iter();
            chunks.map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap_or(u32::MAX)).collect()
        })
    }

    fn read<T>(
        &self,
        key: &str,
        rank: usize,
        dtype: Dtype,
        convert: impl Fn(&[u8]) -> Vec<T>,
    ) -> Result<Values<T>, ParityError> {
        let tensor = |reason: String| ParityError::Tensor { file: self.name.clone(), key: key.to_owned(), reason };
        let file = SafeTensors::deserialize(&self.bytes).map_err(|error| tensor(error.to_string()))?;
        let view = file.tensor(key).map_err(|_| tensor("it is not there".to_owned()))?;
        if view.dtype() != dtype || view.shape().len() != rank || view.shape().contains(&0) {
            let found = format!("{:?} of shape {:?}", view.dtype(), view.shape());
            return Err(tensor(format!("expected {dtype:?} with {rank} dimensions, found {found}")));
        }
        Ok(Values { shape: view.shape().to_vec(), values: convert(view.data()) })
    }
}
