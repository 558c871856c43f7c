//! Configurations that are absurd, of another architecture, or broken as text.

use serde_json::{Value, json};

use super::Case;
use super::folder::Folder;

pub fn cases() -> Vec<Case> {
    let mut cases = out_of_range();
    cases.extend(in_range_but_not_of_these_weights());
    cases.extend(unsupported());
    cases.extend(texts());
    cases
}

/// A field of `config.json` by its JSON pointer, and what the error says besides file and field.
fn field(kind: &'static str, pointer: &str, value: Value, says: &[&str]) -> Case {
    let dotted = pointer.trim_start_matches('/').replace('/', ".");
    let text = value.to_string();
    let shown = if text.len() > 40 { "(long)" } else { &text };
    let says: Vec<&str> = ["config.json", &dotted].into_iter().chain(says.iter().copied()).collect();
    let pointer = pointer.to_owned();
    Case::new(format!("{dotted} = {shown}"), kind, &says, move |folder: &Folder| folder.set(&pointer, value.clone()))
}

fn out_of_range() -> Vec<Case> {
    let wrong = |pointer, value: Value, says: &[&str]| field("Field", pointer, value, says);
    let mut generation: Vec<Case> = [
        ("max_length", json!("long"), "found \"long\""),
        ("max_length", json!(-5), "found -5"),
        ("guidance_scale", json!(1e9), "found 1000000000"),
        ("temperature", json!(-1), "found -1"),
        ("pad_token_id", json!(33), "from 0 to 32"),
        ("decoder_start_token_id", json!([32]), "found [32]"),
    ]
    .into_iter()
    .map(|(name, value, found)| {
        Case::new(format!("generation_config {name} = {value}"), "Field", &["generation_config.json", name, found], {
            move |folder| folder.edit_json("generation_config.json", |config| config[name] = value.clone())
        })
    })
    .collect();
    let mut cases = vec![
        wrong("/decoder/hidden_size", json!(0), &["found 0"]),
        wrong("/decoder/hidden_size", json!(37), &["a multiple of num_attention_heads (3)", "found 37"]),
        wrong("/decoder/hidden_size", json!(-4), &["found -4"]),
        wrong("/decoder/hidden_size", json!(36.5), &["found 36.5"]),
        wrong("/decoder/hidden_size", json!("36"), &["found \"36\""]),
        wrong("/decoder/hidden_size", json!([36]), &["found [36]"]),
        wrong("/decoder/hidden_size", json!(4_000_000_000u64), &["found 4000000000"]),
        wrong("/decoder/hidden_size", json!(u64::MAX), &["found 18446744073709551615"]),
        wrong("/decoder/num_attention_heads", json!(0), &["found 0"]),
        wrong("/decoder/num_attention_heads", json!(5), &[])
            .says_instead(&["decoder.hidden_size", "num_attention_heads (5)"]),
        wrong("/decoder/num_hidden_layers", json!(0), &["found 0"]),
        wrong("/decoder/num_hidden_layers", json!(1_000_000_000), &["found 1000000000"]),
        wrong("/decoder/num_hidden_layers", json!("3"), &["found \"3\""]),
        wrong("/decoder/ffn_dim", json!(1u64 << 40), &["found 1099511627776"]),
        wrong("/decoder/num_codebooks", json!(0), &["found 0"]),
        wrong("/decoder/num_codebooks", json!(17), &["found 17"]),
        wrong("/decoder/num_codebooks", json!(5), &["at most 4", "found 5"]),
        wrong("/decoder/audio_channels", json!(3), &["found 3"]),
        wrong("/decoder/vocab_size", json!(33), &["codebook_size (32)", "found 33"]),
        wrong("/decoder/vocab_size", json!(1), &["found 1"]),
        wrong("/decoder/pad_token_id", json!(40), &["from 0 to 32", "found 40"]),
        wrong("/text_encoder/num_heads", json!(0), &["found 0"]),
        wrong("/text_encoder/num_layers", json!(1_000_000_000), &["found 1000000000"]),
        wrong("/text_encoder/vocab_size", json!(1u64 << 32), &["found 4294967296"]),
        wrong("/text_encoder/layer_norm_epsilon", json!(-1e-6), &["found -1e-6"]),
        wrong("/text_encoder/layer_norm_epsilon", json!("nan"), &["found \"nan\""]),
        wrong("/text_encoder/relative_attention_num_buckets", json!(7), &["even"]),
        wrong("/text_encoder/relative_attention_num_buckets", json!(0), &["found 0"]),
        wrong("/text_encoder/relative_attention_max_distance", json!(2), &[]).says_instead(&["buckets", "four times"]),
        wrong("/text_encoder/eos_token_id", json!(96), &["less than vocab_size (96)"]),
        wrong("/audio_encoder/codebook_size", json!(31), &[])
            .says_instead(&["decoder.vocab_size", "codebook_size (31)"]),
        wrong("/audio_encoder/num_lstm_layers", json!(0), &["found 0"]),
        wrong("/audio_encoder/num_filters", json!(1u64 << 33), &["found 8589934592"]),
        wrong("/audio_encoder/upsampling_ratios", json!([]), &["found []"]),
        wrong("/audio_encoder/upsampling_ratios", json!([0, 2]), &["found [0,2]"]),
        wrong("/audio_encoder/upsampling_ratios", json!([2.5, 2]), &["whole numbers", "found [2.5,2]"]),
        wrong("/audio_encoder/upsampling_ratios", json!([64, 64, 64]), &["65536", "found [64,64,64]"]),
        wrong("/audio_encoder/upsampling_ratios", json!([1_000_000_000, 2]), &["found [1000000000,2]"]),
        wrong("/audio_encoder/upsampling_ratios", json!(vec![1; 9]), &["at most 8 ratios"]),
        wrong("/audio_encoder/upsampling_ratios", json!(vec![2; 100_000]), &["found [2,2", "..."]),
        wrong("/audio_encoder/upsampling_ratios", json!("8542"), &["found \"8542\""]),
        wrong("/audio_encoder/target_bandwidths", json!([]), &["found []"]),
        wrong("/audio_encoder/target_bandwidths", json!([0.1]), &["1 to 64 codebooks"]),
        wrong("/audio_encoder/target_bandwidths", json!([1e5]), &["1 to 64 codebooks"]),
        wrong("/audio_encoder/sampling_rate", json!(0), &["found 0"]),
        wrong("/audio_encoder/kernel_size", json!(0), &["found 0"]),
        wrong("/audio_encoder/residual_kernel_size", json!(100_000), &["found 100000"]),
        wrong("/audio_encoder/compress", json!(0), &["found 0"]),
        wrong("/audio_encoder/compress", json!(3), &["from 1 to 2", "found 3"]),
        wrong("/audio_encoder/trim_right_ratio", json!(2), &["found 2"]),
        wrong("/audio_encoder/use_causal_conv", json!("yes"), &["true or false"]),
        wrong("/text_encoder", json!(null), &["an object", "found null"]),
        wrong("/audio_encoder", json!([]), &["an object", "found []"]),
        wrong("/decoder", json!("small"), &["an object", "found \"small\""]),
    ];
    let layers = |name: &str, layers: u64, growth: u64, kernel: u64| {
        Case::new(name, "Field", &["audio_encoder.num_residual_layers", "256 frames"], move |folder| {
            folder.set("/audio_encoder/num_residual_layers", json!(layers));
            folder.set("/audio_encoder/dilation_growth_rate", json!(growth));
            folder.set("/audio_encoder/residual_kernel_size", json!(kernel));
        })
    };
    cases.push(layers("a codec that sees 10^19 frames", 16, 16, 64));
    cases.push(layers("a codec that sees 600 frames", 4, 4, 7));
    cases.append(&mut generation);
    cases
}

/// Sizes that some model could have, of which buffers of gigabytes would follow.
fn in_range_but_not_of_these_weights() -> Vec<Case> {
    let shape = |pointer, value: Value, says: &[&str]| {
        let case = field("Shape", pointer, value, &[]);
        case.says_instead(says)
    };
    let missing = |pointer, value: Value, says: &[&str]| {
        let case = field("MissingTensor", pointer, value, &[]);
        case.says_instead(says)
    };
    vec![
        missing("/decoder/num_hidden_layers", json!(256), &["layers.3.self_attn_layer_norm.weight"]),
        shape("/decoder/hidden_size", json!(16_383), &["embed_tokens.0", "[33, 16383]", "found [33, 36]"]),
        shape("/decoder/ffn_dim", json!(131_072), &["layers.0.fc1.weight", "[131072, 36]"]),
        shape("/text_encoder/d_kv", json!(1024), &["SelfAttention.q.weight", "[3072, 10]"]),
        shape("/text_encoder/num_heads", json!(256), &["SelfAttention.q.weight", "[1536, 10]"]),
        shape("/text_encoder/d_ff", json!(131_072), &["DenseReluDense.wi.weight", "[131072, 10]"]),
        shape("/text_encoder/d_model", json!(16_384), &["enc_to_dec_proj.weight", "[36, 16384]"]),
        shape("/text_encoder/vocab_size", json!(1 << 20), &["shared.weight", "[1048576, 10]"]),
        shape("/text_encoder/relative_attention_num_buckets", json!(46), &["relative_attention_bias", "[46, 3]"]),
        missing("/text_encoder/num_layers", json!(256), &["block.2.layer.0"]),
        shape("/audio_encoder/num_filters", json!(1024), &["decoder.layers.0.conv", "[4096, 1, 1]"]),
        Case::new("upsampling_ratios = [64,64]", "Shape", &["decoder.layers.3.conv", "[8, 4, 128]"], |folder| {
            folder.set("/audio_encoder/upsampling_ratios", json!([64, 64]));
            folder.set("/audio_encoder/sampling_rate", json!(384_000));
            folder.set("/audio_encoder/target_bandwidths", json!([2.0]));
        }),
        // All sizes agree with what the codec's first layers would be, and the codec would be tens of gigabytes.
        Case::new(
            "num_filters 1024 below ratios of 65,536",
            "Shape",
            &["decoder.layers.0.conv", "[8192, 1, 1]"],
            |folder| {
                folder.set("/audio_encoder/upsampling_ratios", json!([64, 32, 32]));
                folder.set("/audio_encoder/sampling_rate", json!(384_000));
                folder.set("/audio_encoder/target_bandwidths", json!([0.2]));
                folder.set("/audio_encoder/num_filters", json!(1024));
            },
        ),
        shape("/audio_encoder/kernel_size", json!(64), &["decoder.layers.0.conv", "[8, 4, 64]"]),
        missing("/audio_encoder/num_lstm_layers", json!(8), &["lstm.weight_ih_l1"]),
        missing("/audio_encoder/use_conv_shortcut", json!(true), &["shortcut.conv"]),
        Case::new("codebook_size 131,072 and hidden 8192", "Shape", &["codebook.embed", "[131072, 8192]"], |folder| {
            folder.set("/audio_encoder/codebook_size", json!(131_072));
            folder.set("/audio_encoder/target_bandwidths", json!([80.0]));
            for name in ["hidden_size", "codebook_dim"] {
                folder.set(&format!("/audio_encoder/{name}"), json!(8192));
            }
        }),
        Case::new("T5 of 256 heads of 1024", "Shape", &["SelfAttention.q.weight", "[262144, 10]"], |folder| {
            folder.set("/text_encoder/d_kv", json!(1024));
            folder.set("/text_encoder/num_heads", json!(256));
        }),
    ]
}

/// Legal settings, and other models, that Tiller does not play.
fn unsupported() -> Vec<Case> {
    let unsupported = |pointer, value: Value, says: &[&str]| field("Unsupported", pointer, value, says);
    let other =
        |pointer, value: &str, says: &[&str]| field("WrongArchitecture", pointer, json!(value), &[]).says_instead(says);
    vec![
        unsupported("/decoder/activation_function", json!("relu6"), &["relu6", "gelu_new"]),
        unsupported("/text_encoder/feed_forward_proj", json!("gated-relu6"), &["gated-relu6"]),
        unsupported("/audio_encoder/norm_type", json!("time_group_norm"), &["time_group_norm", "weight_norm"]),
        unsupported("/audio_encoder/normalize", json!(true), &["loudness"]),
        unsupported("/audio_encoder/chunk_length_s", json!(1.0), &["one stream"]),
        unsupported("/audio_encoder/pad_mode", json!("replicate"), &["replicate"]),
        unsupported("/audio_encoder/codebook_dim", json!(5), &["hidden_size"]),
        unsupported("/decoder/cross_attention_hidden_size", json!(10), &["enc_to_dec_proj"]),
        other("/model_type", "musicgen_melody", &["musicgen_melody", "expected musicgen"]),
        other("/model_type", "llama", &["llama", "small, medium, large"]),
        other("/text_encoder/model_type", "umt5", &["(text_encoder)", "umt5", "expected t5"]),
        other("/audio_encoder/model_type", "dac", &["(audio_encoder)", "dac", "expected encodec"]),
        other("/decoder/model_type", "bart", &["(decoder)", "bart", "expected musicgen_decoder"]),
        Case::new("no model_type", "Field", &["config.json", "model_type", "musicgen", "found nothing"], |folder| {
            folder.set("/model_type", json!(null));
        }),
    ]
}

/// Texts that are no configuration.
fn texts() -> Vec<Case> {
    let text = |name: &str, kind, says: &[&str], text: String| {
        Case::new(name, kind, says, move |folder| folder.write("config.json", &text))
    };
    let replaced = |name: &str, kind, says: &[&str], from: &'static str, to: &'static str| {
        Case::new(name, kind, says, move |folder| folder.replace("config.json", from, to))
    };
    let hidden = "\"hidden_size\": 36";
    let json = ["config.json", "not valid JSON"];
    vec![
        text("config is empty", "Json", &json, String::new()),
        text("config is {}", "Field", &["config.json", "model_type", "found nothing"], "{}".to_owned()),
        text("config is a list", "Field", &["config.json", "a JSON object", "found [1,2]"], "[1, 2]".to_owned()),
        text("config nests 100,000 brackets", "Json", &["config.json", "recursion limit"], "[".repeat(100_000)),
        text("config nests 100,000 objects", "Json", &["config.json", "recursion limit"], "{\"a\":".repeat(100_000)),
        text("config is a web page", "Json", &json, "<!doctype html>".to_owned()),
        text("config with a key of 900 kB", "Field", &["model_type"], format!("{{\"{}\": 1}}", "k".repeat(900_000))),
        Case::new("config is cut in the middle", "Json", &["config.json", "EOF"], |folder| {
            folder.truncate("config.json", 1200);
        }),
        Case::new("config is UTF-16", "Json", &json, |folder| {
            let text = String::from_utf8(folder.read("config.json")).expect("text");
            folder.write("config.json", text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        }),
        replaced("a size is NaN", "Json", &json, hidden, "\"hidden_size\": NaN"),
        replaced("a size is Infinity", "Json", &json, hidden, "\"hidden_size\": Infinity"),
        replaced("a size is 1e999", "Json", &["out of range"], hidden, "\"hidden_size\": 1e999"),
        replaced(
            "the last of two sizes is 0",
            "Field",
            &["found 0"],
            hidden,
            "\"hidden_size\": 36, \"hidden_size\": 0",
        ),
        Case::new("generation_config is cut", "Json", &["generation_config.json", "EOF"], |folder| {
            folder.write("generation_config.json", "{\"max_length\": 15");
        }),
        Case::new("generation_config is a list", "Field", &["generation_config.json", "a JSON object"], |folder| {
            folder.write("generation_config.json", "[]");
        }),
        Case::new("generation_config nests 100,000 brackets", "Json", &["generation_config.json"], |folder| {
            folder.write("generation_config.json", "[".repeat(100_000));
        }),
    ]
}
