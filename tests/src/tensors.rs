//! A checkpoint's tensors as f32, for editing.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tiller_engine::checkpoint::{CheckpointSource, Weights};

/// Shape and values by name.
#[derive(Clone)]
pub struct Tensors(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// Every floating-point tensor of `model.safetensors`, widened to f32.
    ///
    /// # Panics
    /// When the folder has no such file, or the engine cannot read it.
    pub fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("model.safetensors")).expect("a single weight file");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let weights = Weights::read(&CheckpointSource::directory(folder), &|_| ()).expect("a checkpoint's weights");
        let floats = file.iter().filter(|(_, view)| [Dtype::F32, Dtype::F16, Dtype::BF16].contains(&view.dtype()));
        let value = |(name, view): (&str, safetensors::tensor::TensorView)| {
            let values = weights.tensor(name, view.shape()).expect("what the header names");
            (name.to_owned(), (view.shape().to_vec(), values))
        };
        Self(floats.map(value).collect())
    }

    /// Writes them as f32.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) {
        let bytes: BTreeMap<&str, Vec<u8>> = self
            .0
            .iter()
            .map(|(name, (_, values))| (name.as_str(), values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = self.0.iter().map(|(name, (shape, _))| {
            let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), &bytes[name.as_str()]);
            (name.as_str(), view.expect("a view"))
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("a file");
    }
}
