"""Rendered clips as the Rust generator writes them: audio.i16, clips.jsonl, meta.json."""

import json
from pathlib import Path

import numpy as np
import torch


class Clips:
    """A folder of clips of equal length, mapped from disk; samples come out as f32 in [-1, 1]."""

    def __init__(self, directory: Path):
        meta = json.loads((directory / "meta.json").read_text())
        self.labels = [json.loads(line) for line in (directory / "clips.jsonl").read_text().splitlines()]
        self.samples = meta["samples_per_clip"]
        audio = np.memmap(directory / "audio.i16", dtype="<i2", mode="r")
        self.audio = audio[: len(self.labels) * self.samples].reshape(len(self.labels), self.samples)
        self.chances = None  # of each clip when segments are drawn; uniform without

    def __len__(self) -> int:
        return len(self.labels)

    def prompts(self) -> list[str]:
        return [label["prompt"] for label in self.labels]

    def clip(self, index: int, start: int = 0, length: int | None = None) -> torch.Tensor:
        """One stretch of one clip, `[samples]`."""
        end = self.samples if length is None else start + length
        return torch.from_numpy(self.audio[index, start:end].astype(np.float32) / 32768.0)

    def random_segments(self, generator: np.random.Generator, count: int, length: int) -> torch.Tensor:
        """`[count, 1, length]` from random places, each at a random level.

        -6 to +3 dB around the clip's own: a wider range spends codes of the first codebook on levels that no clip has.
        """
        rows = []
        for _ in range(count):
            index = int(generator.integers(len(self)) if self.chances is None else generator.choice(len(self), p=self.chances))
            start = int(generator.integers(self.samples - length + 1))
            rows.append(self.clip(index, start, length) * 10.0 ** (generator.uniform(-6.0, 3.0) / 20.0))
        return torch.stack(rows)[:, None]
