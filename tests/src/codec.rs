//! Codecs for tests: fixtures laid out as the checkpoint folder that the engine reads, and codes for them.

use std::path::Path;

use safetensors::SafeTensors;
use tiller_engine::checkpoint::CheckpointSource;

use crate::host::Outcome;

/// Makes `folder` a checkpoint of the codec in `file`, whose metadata has its configuration.
///
/// # Errors
/// The file is no fixture, or the folder cannot be written.
pub fn checkpoint(file: &Path, folder: &Path) -> Outcome<CheckpointSource> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: String| format!("{path}: {error}")
    };
    let bytes = std::fs::read(file).map_err(|error| named(file)(error.to_string()))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| named(file)(error.to_string()))?;
    let section = metadata.metadata().as_ref().and_then(|entries| entries.get("config"));
    let section = section.ok_or_else(|| named(file)("no configuration in its metadata".to_owned()))?;
    let codec: serde_json::Value = serde_json::from_str(section).map_err(|error| named(file)(error.to_string()))?;
    let config = serde_json::json!({
        "model_type": "musicgen",
        "text_encoder": { "model_type": "t5" },
        "audio_encoder": codec,
        "decoder": { "model_type": "musicgen_decoder", "vocab_size": 16, "num_codebooks": 3 },
    });
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|error| named(&path)(error.to_string()))
    };
    std::fs::create_dir_all(folder).map_err(|error| named(folder)(error.to_string()))?;
    write("model.safetensors", &bytes)?;
    write("config.json", config.to_string().as_bytes())?;
    Ok(CheckpointSource::directory(folder))
}

/// `frames` frames of arbitrary codes, `[frames][codebooks]`.
pub fn arbitrary(frames: usize, codebooks: usize, size: usize, seed: u64) -> Vec<u32> {
    let mut state = 2 * seed + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..frames * codebooks).map(|_| (next() % size) as u32).collect()
}
