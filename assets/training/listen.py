"""Plays a checkpoint directory through transformers' `generate` and measures what comes out; writes WAV files."""

import argparse
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import MusicgenForConditionalGeneration

import architecture
import measure
import text

PROMPTS = [
    "slow warm strings pad",
    "fast plucked guitar arpeggio",
    "medium piano melody",
    "calm church organ chords",
    "fast bright flute melody",
    "slow deep bass",
    "medium piano chords, gentle",
    "fast marimba arpeggio, playful",
]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--top-k", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = MusicgenForConditionalGeneration.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
    ids, mask = map(torch.tensor, text.batch(text.load(arguments.checkpoint), PROMPTS))
    began = time.monotonic()
    audio = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, guidance_scale=arguments.guidance, top_k=arguments.top_k,
        max_new_tokens=int(arguments.seconds * architecture.FRAME_RATE) + architecture.CODEBOOKS - 1,
    )[:, 0]
    print(f"{len(PROMPTS)} clips in {time.monotonic() - began:.1f} s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    histogram = torch.zeros(12)
    for prompt, clip in zip(PROMPTS, audio):
        soundfile.write(arguments.out / f"{prompt.replace(',', '').replace(' ', '-')}.wav", clip.numpy(),
                        architecture.SAMPLE_RATE)
        silence = 1.0 - measure.sounding(clip).float().mean().item()
        histogram += torch.bincount(measure.chroma(clip).argmax(1), minlength=12)
        print(f"{prompt:34s} rms {measure.rms(clip):.3f} silence {silence:.2f} pitch entropy "
              f"{measure.pitch_entropy(clip):.2f} bits, peakiness {measure.peakiness(clip):.2f}")
    print("pitch classes from C:", np.round((histogram / histogram.sum()).numpy(), 3).tolist())


if __name__ == "__main__":
    main()
