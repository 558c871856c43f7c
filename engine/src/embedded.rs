//! The demo checkpoint, compiled in: what plays when no other model was chosen. See `assets/demo/README.md`.

/// Name of the embedded checkpoint.
pub const NAME: &str = "Tiller demo";

/// Its files, named as in a checkpoint directory. A static: a constant may be compiled in once for each crate that names it.
pub static FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../assets/demo/config.json")),
    ("generation_config.json", include_bytes!("../../assets/demo/generation_config.json")),
    ("model.safetensors", include_bytes!("../../assets/demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../assets/demo/tokenizer.json")),
    (super::model::NOTES_FILE, include_bytes!("../../assets/demo/tiller-notes.safetensors")),
    ("tiller-chords.safetensors", include_bytes!("../../assets/demo/tiller-chords.safetensors")),
    ("tiller-tempo.safetensors", include_bytes!("../../assets/demo/tiller-tempo.safetensors")),
];
