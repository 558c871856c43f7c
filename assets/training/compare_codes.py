"""Checks the engine's codes of training music against transformers' EncodecModel on the same rendered audio.

Codes may differ only where two of them are equally near: every first difference of a frame is measured in f64.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

import architecture
from music import Clips
from parts import Parts

TIE = 1e-4  # of the nearer code's squared distance; f32 rounding on the way through the encoder makes about 1e-6


@torch.no_grad()
def gaps(codec, latent: torch.Tensor, found: np.ndarray, wanted: np.ndarray) -> list[float]:
    """For each frame with differences: how much farther the first differing code lies; `latent` is `[frames, width]`."""
    values = []
    for frame in np.flatnonzero((found != wanted).any(0)):
        left = latent[frame].clone()
        for stage, layer in enumerate(codec.quantizer.layers):
            table = layer.codebook.embed.double()
            mine, theirs = (float((left - table[codes[stage, frame]]).square().sum()) for codes in (found, wanted))
            if found[stage, frame] != wanted[stage, frame]:
                values.append(abs(mine - theirs) / max(min(mine, theirs), 1e-30))
                break
            left -= table[found[stage, frame]]
    return values


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=Path, required=True, help="parts written by `cargo xtask dataset --codes`")
    parser.add_argument("--data", type=Path, required=True, help="the same clips as audio: same seed, same seconds")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the directory whose codec made the codes")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds = [json.loads((folder / "meta.json").read_text())["seed"] for folder in (arguments.codes, arguments.data)]
    if seeds[0] != seeds[1]:
        raise ValueError(f"the codes are of seed {seeds[0]}, the audio is of seed {seeds[1]}")
    codec = MusicgenForConditionalGeneration.from_pretrained(arguments.checkpoint, dtype=torch.float32).audio_encoder
    codec.eval()
    clips, (rows, prompts) = Clips(arguments.data), Parts([arguments.codes]).first(arguments.clips)
    different, total, worst = 0, 0, []
    for index, (row, prompt) in enumerate(zip(rows, prompts)):
        if clips.labels[index]["prompt"] != prompt:
            raise ValueError(f"clip {index} is another one: {prompt!r} against {clips.labels[index]['prompt']!r}")
        audio = clips.clip(index, 0, row.shape[-1] * architecture.HOP)[None, None]
        wanted = codec.float().encode(audio).audio_codes[0, 0].numpy()
        different, total = different + int((wanted != row).sum()), total + row.size
        if (wanted != row).any():
            latent = codec.double().encoder(audio.double())[0].T
            worst += gaps(codec, latent, row.astype(np.int64), wanted)
    share = 1.0 - different / max(1, total)
    print(f"{len(rows)} clips: {share:.6f} of {total} codes equal, {len(worst)} frames differ")
    if worst:
        print(f"largest difference between the two distances there: {max(worst):.2e} of the nearer")
    if total == 0 or (worst and max(worst) > TIE):
        raise SystemExit("the codes are not transformers'")


if __name__ == "__main__":
    main()
