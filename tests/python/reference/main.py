"""Makes a random MusicGen checkpoint in published layout and `reference.safetensors` with what transformers computes
with it. Started by `cargo xtask reference`, which makes the environment. People's lines go to stderr; stdout gets one
JSON object.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import MusicgenConfig, MusicgenForConditionalGeneration

import conditioning
import golden
import layout
import tokens

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# What an earlier run may have left.
OURS = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
# Up to this many parameters, `generate` is run as a check and everything once more in f64.
THOROUGH_LIMIT = 1_000_000_000


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make(arguments, directory: Path) -> None:
    """Writes the checkpoint, in today's layout, rounded to the chosen format."""
    config = MusicgenConfig.from_pretrained(arguments.config)
    model = conditioning.build(config, arguments.seed)
    model.to(DTYPES[arguments.dtype])
    model.save_pretrained(directory, **({"max_shard_size": arguments.shard_size} if arguments.shard_size else {}))
    tokens.save(tokens.build(config.text_encoder.vocab_size), directory)
    preprocessor = {
        "chunk_length_s": None,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": config.decoder.audio_channels,
        "overlap": None,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": config.audio_encoder.sampling_rate,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def settle(made: Path, out: Path) -> None:
    """Moves finished files to where they belong. With a checkpoint, the one that an earlier run made there goes."""
    out.mkdir(parents=True, exist_ok=True)
    if (made / "config.json").exists():
        for file in [file for pattern in OURS for file in out.glob(pattern)]:
            file.unlink()
    for file in made.iterdir():
        file.chmod(0o644)  # save_pretrained leaves the weights readable by the owner alone
        file.replace(out / file.name)


def save(tensors: dict, metadata: dict, file: Path) -> None:
    """A safetensors file whose bytes are a function of its content: the library puts metadata in any order."""
    save_file(tensors, str(file), metadata=metadata)
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def load(directory: Path) -> MusicgenForConditionalGeneration:
    """The model in f32, every tensor from the files; tables that are computed stay f32 whatever the files hold."""
    model, info = MusicgenForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    lacking = sorted(info["missing_keys"]) + sorted(info["mismatched_keys"])
    if lacking:
        raise ValueError(f"{directory} lacks {lacking[:4]} ({len(lacking)} in all)")
    return model.eval()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layout", choices=("today", "2023"), default="today")
    parser.add_argument("--no-generation-config", action="store_true")
    parser.add_argument("--shard-size")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--positions", type=int, default=40)
    parser.add_argument("--greedy-frames", type=int, default=300)
    parser.add_argument("--decode-frames", type=int, default=101)
    parser.add_argument("--encode-frames", type=int, default=500)
    parser.add_argument("--prompt", default="slow warm strings pad")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_grad_enabled(False)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    out = arguments.out
    if not arguments.source and (out / "config.json").exists() and not (out / "reference.safetensors").exists():
        raise ValueError(f"{out} holds a checkpoint that this command has not made: choose another folder")
    # Made beside, then moved: a run that fails leaves the folder as it was.
    made = out.with_name(out.name + ".partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        report = fill(arguments, made)
        settle(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    report |= {"checkpoint": str(arguments.source or out), "reference": str(out / "reference.safetensors")}
    print(json.dumps({"ok": True, **report}))


def fill(arguments, made: Path) -> dict:
    """The checkpoint, unless there is one, and the reference, both in `made`. Gives the report."""
    if not arguments.source:
        make(arguments, made)
        say("checkpoint made")
    directory = arguments.source or made
    model = load(directory)
    prompts = tokens.Prompts(directory)
    cases = prompts.cases([arguments.prompt, *tokens.PROMPTS])
    apart = [case["text"] for case in cases if not case["file_agrees"]]
    if apart and not arguments.source:
        raise ValueError(f"transformers and tokenizer.json tokenise differently: {apart}")
    for text in apart:
        say(f"transformers and tokenizer.json tokenise differently, transformers' ids are kept: {text!r}")
    texts = {"prompt": arguments.prompt, "batch": [arguments.prompt, "piano", "", tokens.PROMPTS[4]], "cases": cases}
    sizes = {name: getattr(arguments, name) for name in ("positions", "greedy_frames", "decode_frames", "encode_frames")}
    count = sum(weights.numel() for weights in model.parameters())
    tensors, found = golden.compute(model, prompts, texts, sizes, arguments.seed, count <= THOROUGH_LIMIT)
    for name, tensor in tensors.items():
        floating = tensor.is_floating_point()
        content = f"rms {tensor.square().mean().sqrt():.4g}" if floating else f"{tensor.unique().numel()} distinct"
        say(f"{name} {list(tensor.shape)}, {content}")
    say(json.dumps(found))
    if found["encoded_not_nearest"]:
        say(f"{found['encoded_not_nearest']} encoded codes are not the nearest ones: transformers' f32 rounding")
    if not arguments.source:
        for remark in conditioning.check(found):
            say(f"note: {remark}")
        if arguments.layout == "2023":
            layout.rewrite(made)
        if arguments.no_generation_config:
            (made / "generation_config.json").unlink()
    metadata = {
        "prompt": arguments.prompt,
        "padded_prompts": json.dumps(texts["batch"]),
        "prompts": json.dumps(cases),
        "guidance": str(golden.GUIDANCE),
        "seed": str(arguments.seed),
        "config": arguments.config.stem if arguments.config else directory.name,
        "layout": "as found" if arguments.source else arguments.layout,
        "dtype": "as found" if arguments.source else arguments.dtype,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "torch": torch.__version__,
    }
    save(tensors, metadata, made / "reference.safetensors")
    return {"parameters": count, **found}


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
