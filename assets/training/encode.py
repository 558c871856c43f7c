"""Encodes all training clips once with the trained codec: codes.npy `[clips, 4, frames]` of u16."""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import EncodecModel

import architecture
from music import Clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--codec", type=Path, required=True, help="codec.pt written by codec.py")
    parser.add_argument("--out", type=Path, required=True, help="the .npy file")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop there and keep what is done")
    parser.add_argument("--workers", type=int, default=2, help="threads of one core each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = EncodecModel(architecture.codec_config()).eval()
    model.load_state_dict(torch.load(arguments.codec, weights_only=True)["model"])
    clips = Clips(arguments.data)
    frames = clips.samples // architecture.HOP
    everything = np.zeros((len(clips), architecture.CODEBOOKS, frames), np.uint16)
    began = time.monotonic()

    def encode(start: int) -> int:
        """Clips encoded: none once the time is over."""
        if time.monotonic() - began > arguments.minutes * 60.0:
            return 0
        torch.set_num_threads(1)
        rows = range(start, min(start + arguments.batch, len(clips)))
        audio = torch.stack([clips.clip(index, 0, frames * architecture.HOP) for index in rows])[:, None]
        with torch.no_grad():
            everything[rows.start : rows.stop] = model.encode(audio).audio_codes[0].numpy()
        if start % 100 == 0:
            print(f"clip {start} of {len(clips)}, {time.monotonic() - began:.0f} s", flush=True)
        return len(rows)

    with ThreadPoolExecutor(arguments.workers) as pool:
        codes = everything[: sum(pool.map(encode, range(0, len(clips), arguments.batch)))]
    print(f"{len(codes)} clips encoded in {time.monotonic() - began:.0f} s")
    np.save(arguments.out, codes)
    for stage in range(architecture.CODEBOOKS):
        share = np.bincount(codes[:, stage].ravel(), minlength=architecture.CODES) / codes[:, stage].size
        entropy = -(share * np.log(np.maximum(share, 1e-12))).sum()
        print(f"codebook {stage}: perplexity {np.exp(entropy):.0f}, entropy {entropy:.3f} nats")


if __name__ == "__main__":
    main()
