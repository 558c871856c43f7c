//! Broken and foreign checkpoints: each is refused with an error that names the file, what was expected, what was found
//! and what to do, and none panics or allocates what a header claims.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tiller_engine::checkpoint::{Checkpoint, CheckpointError, CheckpointSource};
use tiller_engine::decoder::Decoder;
use tiller_engine::text::TextEncoder;

/// A copy of the small mono fixture that a test may break.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tiller-bad-checkpoint-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(fixture().join(name), folder.join(name)).unwrap();
        }
        Self(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    /// Rewrites the header of the weights; `edit` sees and changes its JSON.
    fn edit_header(&self, edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        edit(header.as_object_mut().unwrap());
        let header = header.to_string();
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.extend(&bytes[8 + length..]);
        fs::write(self.path("model.safetensors"), out).unwrap();
    }

    /// The error of loading it, as far as decoder and text encoder go.
    fn error(&self) -> CheckpointError {
        load(&self.0).expect_err("a broken checkpoint was loaded")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A folder that cannot be removed from the temporary directory is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/decoder-mono")
}

fn load(folder: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::load(&CheckpointSource::directory(folder), &|_| ())?;
    let config = &checkpoint.config;
    Decoder::load(&checkpoint.weights, config)?;
    TextEncoder::load(&checkpoint.weights, &config.text, &checkpoint.tokenizer, "tokenizer.json")?;
    Ok(())
}

/// The error's text holds every one of `parts`.
fn says(error: &CheckpointError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn the_unbroken_copy_loads() {
    let copy = Copy::new();
    load(&copy.0).unwrap();
    copy.edit_header(|header| {
        header
            .insert("unknown.tensor".into(), serde_json::json!({"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}));
    });
    load(&copy.0).expect("an unknown tensor is ignored");
}

#[test]
fn a_folder_that_is_no_checkpoint() {
    let copy = Copy::new();
    fs::remove_file(copy.path("config.json")).unwrap();
    let error = copy.error();
    assert!(matches!(error, CheckpointError::NotACheckpoint { .. }));
    says(&error, &[&copy.0.display().to_string(), "config.json", "model.safetensors", "choose the folder"]);
    let error = load(&copy.path("nowhere")).unwrap_err();
    says(&error, &["nowhere", "nothing there"]);
    let error = load(&copy.path("tokenizer.json")).unwrap_err();
    says(&error, &["tokenizer.json", "a file"]);
}

#[test]
fn missing_files() {
    let copy = Copy::new();
    fs::remove_file(copy.path("tokenizer.json")).unwrap();
    says(&copy.error(), &["has no tokenizer.json", "copy tokenizer.json"]);

    let copy = Copy::new();
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    says(&copy.error(), &["has no model.safetensors", "download"]);
    fs::write(copy.path("pytorch_model.bin"), b"pickle").unwrap();
    let error = copy.error();
    assert!(matches!(error, CheckpointError::PickleOnly { .. }));
    says(&error, &["pytorch_model.bin", "expected model.safetensors", "save_pretrained"]);

    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
    fs::write(copy.path("model.safetensors.index.json"), index).unwrap();
    says(&copy.error(), &["model-00001-of-00002.safetensors", "download every file"]);
    fs::write(copy.path("model.safetensors.index.json"), r#"{"weight_map": {"a": "../x.safetensors"}}"#).unwrap();
    says(&copy.error(), &["model.safetensors.index.json", "../x.safetensors"]);
}

#[test]
fn other_architectures() {
    let copy = Copy::new();
    copy.replace("config.json", "\"model_type\": \"musicgen\"", "\"model_type\": \"musicgen_melody\"");
    let error = copy.error();
    assert!(matches!(error, CheckpointError::WrongArchitecture { .. }));
    says(&error, &["config.json", "musicgen_melody", "expected musicgen"]);

    let copy = Copy::new();
    copy.replace("config.json", "\"model_type\": \"encodec\"", "\"model_type\": \"dac\"");
    says(&copy.error(), &["config.json (audio_encoder)", "dac", "expected encodec"]);

    for (from, to, name) in [
        ("\"norm_type\": \"weight_norm\"", "\"norm_type\": \"time_group_norm\"", "audio_encoder.norm_type"),
        ("\"normalize\": false", "\"normalize\": true", "audio_encoder.normalize"),
        ("\"chunk_length_s\": null", "\"chunk_length_s\": 1.0", "audio_encoder.chunk_length_s"),
    ] {
        let copy = Copy::new();
        copy.replace("config.json", from, to);
        let error = copy.error();
        assert!(matches!(error, CheckpointError::Unsupported { .. }), "{error}");
        says(&error, &["config.json", name, "not supported"]);
    }
}

#[test]
fn absurd_configurations() {
    for (from, to, parts) in [
        ("\"hidden_size\": 36", "\"hidden_size\": 0", ["decoder.hidden_size", "found 0"]),
        ("\"hidden_size\": 36", "\"hidden_size\": 37", ["decoder.hidden_size", "a multiple of 3"]),
        ("\"hidden_size\": 36", "\"hidden_size\": -4", ["decoder.hidden_size", "found -4"]),
        ("\"hidden_size\": 36", "\"hidden_size\": 4000000000", ["decoder.hidden_size", "found 4000000000"]),
        ("\"num_codebooks\": 4", "\"num_codebooks\": 99", ["decoder.num_codebooks", "found 99"]),
        ("\"num_hidden_layers\": 3", "\"num_hidden_layers\": \"3\"", ["decoder.num_hidden_layers", "found \"3\""]),
        (
            "\"relative_attention_num_buckets\": 8",
            "\"relative_attention_num_buckets\": 7",
            ["text_encoder.relative", "even"],
        ),
        ("\"codebook_size\": 32", "\"codebook_size\": 31", ["decoder.vocab_size", "codebook_size (31)"]),
        ("\"num_lstm_layers\": 1", "\"num_lstm_layers\": 0", ["audio_encoder.num_lstm_layers", "found 0"]),
    ] {
        let copy = Copy::new();
        copy.replace("config.json", from, to);
        let error = copy.error();
        assert!(matches!(error, CheckpointError::Field { .. }), "{to}: {error}");
        says(&error, &parts);
    }
    let copy = Copy::new();
    fs::write(copy.path("config.json"), b"{\"model_type\": ").unwrap();
    says(&copy.error(), &["config.json", "not valid JSON"]);
    fs::write(copy.path("config.json"), b"{}").unwrap();
    says(&copy.error(), &["config.json", "model_type", "musicgen"]);
    fs::write(copy.path("config.json"), b"[1, 2]").unwrap();
    says(&copy.error(), &["config.json", "a JSON object"]);
}

#[test]
fn truncated_weights() {
    let whole = fs::read(fixture().join("model.safetensors")).unwrap();
    for keep in [0, 5, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let copy = Copy::new();
        fs::write(copy.path("model.safetensors"), &whole[..keep]).unwrap();
        let error = copy.error();
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{keep} bytes: {error}");
        says(&error, &["model.safetensors", "truncated", &format!("found {keep}")]);
    }
}

#[test]
fn damaged_headers() {
    let whole = fs::read(fixture().join("model.safetensors")).unwrap();
    for claim in [2u64 << 30, u64::MAX, u64::MAX - 7] {
        let copy = Copy::new();
        let mut bytes = claim.to_le_bytes().to_vec();
        bytes.extend(&whole[8..]);
        fs::write(copy.path("model.safetensors"), bytes).unwrap();
        let error = copy.error();
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{error}");
        says(&error, &["model.safetensors", &format!("found {}", whole.len())]);
    }
    let copy = Copy::new();
    let mut bytes = whole.clone();
    bytes[8..40].fill(b'x');
    fs::write(copy.path("model.safetensors"), bytes).unwrap();
    says(&copy.error(), &["model.safetensors", "damaged safetensors header"]);

    let name = "decoder.lm_heads.0.weight";
    for offsets in [[0u64, 7], [9, 3], [0, u64::MAX], [u64::MAX - 1, u64::MAX]] {
        let copy = Copy::new();
        copy.edit_header(|header| header[name]["data_offsets"] = serde_json::json!(offsets));
        says(&copy.error(), &["model.safetensors", name, "claims bytes"]);
    }
}

#[test]
fn wrong_tensors() {
    let name = "decoder.model.decoder.layers.1.fc1.weight";
    let copy = Copy::new();
    copy.edit_header(|header| {
        header.remove(name);
    });
    says(&copy.error(), &["model.safetensors", name, "lacks the tensor", "[50, 36]"]);

    let copy = Copy::new();
    copy.edit_header(|header| header[name]["shape"] = serde_json::json!([36, 50]));
    let error = copy.error();
    assert!(matches!(error, CheckpointError::Shape { .. }));
    says(&error, &["model.safetensors", name, "[50, 36]", "found [36, 50]"]);

    let copy = Copy::new();
    copy.edit_header(|header| header[name]["dtype"] = serde_json::json!("I16"));
    let error = copy.error();
    assert!(matches!(error, CheckpointError::Dtype { .. }));
    says(&error, &["model.safetensors", name, "found I16", "F32, F16 or BF16"]);

    let copy = Copy::new();
    copy.replace("config.json", "\"ffn_dim\": 50", "\"ffn_dim\": 51");
    says(&copy.error(), &["layers.0.fc1.weight", "[51, 36]", "found [50, 36]"]);
}

#[test]
fn broken_tokenizers() {
    let copy = Copy::new();
    fs::write(copy.path("tokenizer.json"), b"{\"model\": 3}").unwrap();
    let error = copy.error();
    assert!(matches!(error, CheckpointError::Tokenizer { .. }));
    says(&error, &["tokenizer.json", "no usable tokenizer", "copy tokenizer.json"]);
}
