"""A randomly initialised checkpoint of the demo's shape in published layout, conditioned so that mistakes show.

Norm gains, biases and scales are drawn so that a dropped or swapped tensor moves every output.
"""

import argparse
from pathlib import Path

import torch

import architecture
import export
import text


def condition(model, generator: torch.Generator) -> None:
    """Random gains, biases and scales in place."""

    def uniform(shape, low, high):
        return torch.rand(shape, generator=generator) * (high - low) + low

    for name, weights in model.named_parameters():
        leaf = name.rsplit(".", 2)[-2:]
        if "norm" in name and name.endswith("weight") and "parametrizations" not in name:
            weights.copy_(uniform(weights.shape, 0.5, 1.5))
        elif name.endswith("original0"):
            weights.mul_(uniform(weights.shape, 0.7, 1.3))
        elif "bias" in leaf[-1] and "relative_attention" not in name:
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.1)
        elif "decoder.model.decoder.embed_tokens" in name:
            weights.mul_(20.0)
        elif "enc_to_dec_proj" in name:
            weights.mul_(8.0)
        elif name.startswith("decoder.") and ("q_proj" in name or "k_proj" in name):
            weights.mul_(3.0)
        elif name.startswith("decoder.") and any(part in name for part in ("v_proj", "out_proj", "fc1", "fc2")):
            weights.mul_(2.0)


def fill_codebooks(codec, generator: torch.Generator) -> None:
    """Codes drawn from the mean and deviation of each stage's residual on random harmonic tones."""
    seconds = torch.arange(architecture.SAMPLE_RATE * 2) / architecture.SAMPLE_RATE
    pitch = torch.rand(8, 1, generator=generator) * 600.0 + 80.0
    tones = sum(torch.sin(2 * torch.pi * pitch * k * seconds) / k for k in range(1, 9)) * 0.1
    residual = codec.encoder(tones[:, None]).transpose(1, 2).reshape(-1, codec.config.codebook_dim)
    for layer in codec.quantizer.layers:
        book = layer.codebook
        draw = torch.randn(book.embed.shape, generator=generator)
        book.embed.copy_(residual.mean(0) + draw * residual.std(0))
        book.embed_avg.copy_(book.embed)
        book.cluster_size.fill_(1.0)
        residual = residual - book.embed[book.quantize(residual)]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    model = architecture.build().eval()
    condition(model, generator)
    fill_codebooks(model.audio_encoder, generator)
    export.write(model, text.train([]), arguments.out, torch.float32)
    print(f"{sum(weights.numel() for weights in model.parameters()) / 1e6:.2f} M parameters in {arguments.out}")


if __name__ == "__main__":
    main()
