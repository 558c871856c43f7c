"""The layout of the checkpoints published in 2023: other names of the weight norm, tensors that nobody reads, tied
embeddings under both names, fewer keys in config.json. The numbers are those of today's layout.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

EMBEDDINGS = ("text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight")
POSITIONS = "decoder.model.decoder.embed_positions.weights"
BOOK = "audio_encoder.quantizer.layers.{}.codebook."


def old_name(name: str) -> str:
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def positions(count: int, width: int) -> torch.Tensor:
    """The sinusoidal table `[count, width]`, cosines first, that was saved with the weights."""
    half = width // 2
    rates = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    angles = torch.arange(count).float()[:, None] * rates[None]
    table = torch.cat([angles.cos(), angles.sin()], dim=1)
    return torch.nn.functional.pad(table, (0, width - 2 * half))


def rewrite(directory: Path) -> None:
    """Turns a directory of today's layout into the one of 2023, in place."""
    config = json.loads((directory / "config.json").read_text())
    index = directory / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    weight_map, total = {}, 0
    for position, file in enumerate(files):
        tensors = {old_name(name): tensor for name, tensor in load_file(str(directory / file)).items()}
        embedding = next((tensors[name] for name in EMBEDDINGS if name in tensors), None)
        if embedding is not None:
            tensors |= {name: embedding.clone() for name in EMBEDDINGS}
        if position == 0:
            decoder = config["decoder"]
            dtype = next(iter(tensors.values())).dtype
            table = positions(decoder.get("max_position_embeddings", 2048), decoder["hidden_size"])
            tensors[POSITIONS] = table.to(dtype)
        for name in [name for name in tensors if name.endswith(".codebook.embed")]:
            book, embed = name.removesuffix("embed"), tensors[name]
            tensors.setdefault(book + "inited", torch.ones(1, dtype=embed.dtype))
            tensors.setdefault(book + "cluster_size", torch.ones(len(embed), dtype=embed.dtype))
            tensors.setdefault(book + "embed_avg", embed.clone())
        save_file(tensors, str(directory / file), metadata={"format": "pt"})
        weight_map |= {name: file for name in tensors}
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if index.exists():
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        index.write_text(json.dumps(content, indent=2) + "\n")
    rewrite_config(config)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def rewrite_config(config: dict) -> None:
    """Drops what 2023 did not write and adds some of what it did (never read)."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.31.0.dev0"
    config["_name_or_path"] = "/tmp/musicgen"
    for name in ("audio_encoder", "decoder"):
        if config[name].get("audio_channels", 1) == 1:
            config[name].pop("audio_channels", None)
    for name in ("audio_encoder", "decoder", "text_encoder"):
        # Every sub-config carried the generation defaults of its day.
        config[name] |= {"do_sample": False, "num_beams": 1, "top_k": 50, "temperature": 1.0, "torch_dtype": None}
    config["text_encoder"].pop("scale_decoder_outputs", None)
