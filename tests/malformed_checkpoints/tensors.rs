//! Tensors that are missing, or of another type or shape than the configuration says.

use serde_json::{Value, json};

use super::Case;
use super::folder::WEIGHTS;

const FEED: &str = "decoder.model.decoder.layers.1.fc1.weight";

/// One of every kind that a model is built of.
const NEEDED: [&str; 26] = [
    "decoder.model.decoder.embed_tokens.3.weight",
    "decoder.model.decoder.layers.0.self_attn.q_proj.weight",
    "decoder.model.decoder.layers.1.self_attn.v_proj.weight",
    "decoder.model.decoder.layers.2.self_attn.out_proj.weight",
    "decoder.model.decoder.layers.2.encoder_attn.k_proj.weight",
    "decoder.model.decoder.layers.0.self_attn_layer_norm.weight",
    "decoder.model.decoder.layers.0.encoder_attn_layer_norm.bias",
    "decoder.model.decoder.layers.2.fc2.weight",
    "decoder.model.decoder.layer_norm.weight",
    "decoder.model.decoder.layer_norm.bias",
    "decoder.lm_heads.2.weight",
    "enc_to_dec_proj.weight",
    "enc_to_dec_proj.bias",
    "text_encoder.shared.weight",
    "text_encoder.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "text_encoder.encoder.block.1.layer.0.SelfAttention.q.weight",
    "text_encoder.encoder.block.1.layer.1.DenseReluDense.wi.weight",
    "text_encoder.encoder.block.0.layer.1.layer_norm.weight",
    "text_encoder.encoder.final_layer_norm.weight",
    "audio_encoder.decoder.layers.0.conv.bias",
    "audio_encoder.decoder.layers.3.conv.parametrizations.weight.original0",
    "audio_encoder.decoder.layers.4.block.1.conv.parametrizations.weight.original1",
    "audio_encoder.decoder.layers.1.lstm.weight_hh_l0",
    "audio_encoder.decoder.layers.1.lstm.bias_ih_l0",
    "audio_encoder.quantizer.layers.0.codebook.embed",
    "audio_encoder.quantizer.layers.3.codebook.embed",
];

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = NEEDED
        .into_iter()
        .map(|tensor| {
            let says = [WEIGHTS, "lacks the tensor", tensor, "expected with shape", "download both"];
            Case::new(format!("no {tensor}"), "MissingTensor", &says, move |folder| {
                folder.edit_header(WEIGHTS, |header| {
                    header.remove(tensor).expect(tensor);
                });
            })
        })
        .collect();
    cases.push(missing_in_a_shard());
    cases.extend(types());
    cases.extend(shapes());
    cases.push(wide_and_thin());
    cases
}

/// The error names the shard where the index says that the tensor is.
fn missing_in_a_shard() -> Case {
    let (shard, tensor) = ("model-00001-of-00004.safetensors", "audio_encoder.quantizer.layers.1.codebook.embed");
    Case::new("a tensor is not in its shard", "MissingTensor", &[shard, tensor], move |folder| {
        folder.edit_header(shard, |header| {
            header.remove(tensor).expect(tensor);
        });
    })
    .sharded()
}

fn types() -> Vec<Case> {
    // Kinds that are not read are refused by name, whatever their size says.
    let unread = ["I8", "U8", "I16", "I32", "I64", "BOOL", "F64", "F8_E4M3", "F8_E5M2", "C64", "f16", "F16 ", "", "Q4"];
    let mut cases: Vec<Case> = unread
        .into_iter()
        .map(|dtype| {
            let says = [WEIGHTS, FEED, "should be F32, F16 or BF16", &format!("found {dtype};"), "unquantised"];
            Case::new(format!("type {dtype:?}"), "Dtype", &says, move |folder| {
                folder.edit_tensor(FEED, |entry| entry["dtype"] = json!(dtype));
            })
        })
        .collect();
    cases.push(Case::new("f16 data called F32", "Header", &[WEIGHTS, FEED, "F32", "claims bytes"], |folder| {
        folder.edit_tensor(FEED, |entry| entry["dtype"] = json!("F32"));
    }));
    cases.push(Case::new("a type with a name of 100 kB", "Dtype", &[WEIGHTS, FEED, "XXX..."], |folder| {
        folder.edit_tensor(FEED, |entry| entry["dtype"] = json!("X".repeat(100_000)));
    }));
    cases
}

fn shapes() -> Vec<Case> {
    let shaped = |name: &str, kind, found: &str, shape: Value| {
        let says = if kind == "Shape" { vec![WEIGHTS, FEED, "[50, 36]", found] } else { vec![WEIGHTS, FEED, found] };
        Case::new(name, kind, &says, move |folder| folder.edit_tensor(FEED, |entry| entry["shape"] = shape.clone()))
    };
    let huge = 1u64 << 33;
    vec![
        shaped("transposed", "Shape", "found [36, 50]", json!([36, 50])),
        shaped("one dimension more", "Shape", "found [50, 36, 1]", json!([50, 36, 1])),
        shaped("one dimension less", "Shape", "found [1800]", json!([1800])),
        shaped("other factors", "Shape", "found [25, 72]", json!([25, 72])),
        shaped("no dimensions", "Header", "claims bytes", json!([])),
        shaped("a dimension of 0", "Header", "claims bytes", json!([0, 36])),
        shaped("a product past 64 bits", "Header", "claims bytes", json!([huge, huge])),
        shaped("a product that wraps to the right size", "Header", "claims bytes", json!([1800, (1u64 << 61) + 1])),
        Case::new("an empty tensor", "Shape", &[WEIGHTS, FEED, "found [0, 36]"], |folder| {
            folder.edit_tensor(FEED, |entry| {
                entry["shape"] = json!([0, 36]);
                entry["data_offsets"][1] = entry["data_offsets"][0].clone();
            });
        }),
        Case::new("a norm of the wrong width", "Shape", &["decoder.layer_norm.bias", "[36]", "found [35]"], |folder| {
            folder.add_tensors(&[("decoder.model.decoder.layer_norm.bias", "F16", 2, &[35])]);
        }),
        Case::new(
            "an embedding without its last row",
            "Shape",
            &["embed_tokens.0", "[33, 36]", "[32, 36]"],
            |folder| {
                folder.add_tensors(&[("decoder.model.decoder.embed_tokens.0.weight", "F16", 2, &[32, 36])]);
            },
        ),
        Case::new("a gain that is no column", "Shape", &["original0", "[8, 1, 1]", "found [8]"], |folder| {
            let name = "audio_encoder.decoder.layers.0.conv.parametrizations.weight.original0";
            folder.add_tensors(&[(name, "F16", 2, &[8])]);
        }),
        Case::new("codebooks of another size", "Shape", &["codebook.embed", "[32, 4]", "found [31, 4]"], |folder| {
            folder.add_tensors(&[("audio_encoder.quantizer.layers.1.codebook.embed", "F16", 2, &[31, 4])]);
        }),
        Case::new("an LSTM of another width", "Shape", &["lstm.weight_ih_l0", "[32, 8]", "found [32, 7]"], |folder| {
            folder.add_tensors(&[("audio_encoder.decoder.layers.1.lstm.weight_ih_l0", "F16", 2, &[32, 7])]);
        }),
    ]
}

/// Everything up to the first square matrix is there and small, and the matrix would have 268 million elements.
fn wide_and_thin() -> Case {
    let says = ["layers.0.self_attn.q_proj.weight", "[16384, 16384]", "found [36, 36]"];
    Case::new("wide, with vectors that agree", "Shape", &says, |folder| {
        folder.set("/decoder/hidden_size", json!(16384));
        folder.set("/decoder/num_attention_heads", json!(4));
        folder.set("/decoder/vocab_size", json!(2));
        folder.set("/decoder/num_codebooks", json!(1));
        for token in ["/decoder/bos_token_id", "/decoder/pad_token_id"] {
            folder.set(token, json!(2));
        }
        let norm = "decoder.model.decoder.layers.0.self_attn_layer_norm";
        folder.add_tensors(&[
            ("decoder.model.decoder.embed_tokens.0.weight", "F16", 2, &[3, 16384]),
            (&format!("{norm}.weight"), "F16", 2, &[16384]),
            (&format!("{norm}.bias"), "F16", 2, &[16384]),
        ]);
    })
}
