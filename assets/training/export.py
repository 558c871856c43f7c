"""Writes a checkpoint directory in the published MusicGen layout, f16 or f32."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import architecture
import text


def write(model, tokenizer, directory: Path, dtype: torch.dtype = torch.float16) -> None:
    """config.json, generation_config.json, model.safetensors, tokenizer and preprocessor_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    model = model.to(dtype)
    model.save_pretrained(directory)
    text.save(tokenizer, directory)
    preprocessor = {
        "chunk_length_s": None,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "overlap": None,
        "padding_side": "left",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": architecture.SAMPLE_RATE,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    for file in directory.iterdir():
        file.chmod(0o644)  # save_pretrained leaves the weights readable by the owner alone


def codec(path: Path) -> dict[str, torch.Tensor]:
    """The codec's weights out of codec.pt, or out of a checkpoint directory whose codec stays as it is."""
    if not path.is_dir():
        return torch.load(path, weights_only=True)["model"]
    start, tensors = "audio_encoder.", load_file(path / "model.safetensors")
    return {name.removeprefix(start): tensor.float() for name, tensor in tensors.items() if name.startswith(start)}


def load(model, path: Path) -> int:
    """Decoder and text encoder out of a training state; returns its step."""
    state = torch.load(path, weights_only=True)
    missing, unexpected = model.load_state_dict(state["model"], strict=False)
    # The codec is loaded by itself; the encoder's token table is the shared one under a second name.
    elsewhere = ("audio_encoder.", "text_encoder.encoder.embed_tokens.")
    missing = [key for key in missing if not key.startswith(elsewhere)]
    if unexpected or missing:
        raise ValueError(f"{path} does not fit the architecture: {missing} {unexpected}")
    return state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="decoder.pt written by decoder.py; untrained without it: for the codec")
    parser.add_argument("--codec", type=Path, required=True, help="codec.pt written by codec.py, or a checkpoint directory")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float32", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    model = architecture.build()
    model.audio_encoder.load_state_dict(codec(arguments.codec))
    step = load(model, arguments.state) if arguments.state else 0
    write(model, text.load(arguments.tokenizer), arguments.out, torch.float32 if arguments.float32 else torch.float16)
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    count = sum(weights.numel() for weights in model.parameters())
    print(f"{arguments.out}: {count / 1e6:.2f} M parameters, {size / 1e6:.1f} MB, step {step}")


if __name__ == "__main__":
    main()
