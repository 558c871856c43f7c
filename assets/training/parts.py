"""Music as codes, in parts as `cargo xtask dataset --codes` writes them; folders may grow while they are read.

Crops are drawn so that no stretch of music comes back before every other one was drawn as often.
"""

import json
import time
from pathlib import Path

import numpy as np
import torch


class Parts:
    """All complete parts of some folders, mapped from disk. Call `scan` now and then: it finds the new ones."""

    def __init__(self, directories: list[Path]):
        self.directories = directories
        self.codes: dict[str, np.ndarray] = {}
        self.prompts: dict[str, list[str]] = {}
        self.every_key: set[str] = set()
        self.frames = 0
        self.scan()

    def __len__(self) -> int:
        return sum(map(len, self.codes.values()))

    def scan(self) -> int:
        """Takes in new parts and ones that were made anew with more clips; returns the number of clips added."""
        before, kinds = len(self), set()
        for directory in self.directories:
            meta = directory / "meta.json"
            if not meta.exists():
                continue
            facts = json.loads(meta.read_text())
            kinds.add((facts["codec"], facts["codebooks"], facts["frames"]))
            for path in sorted(directory.glob("codes-*.npy")):
                first = path.stem.removeprefix("codes-")
                codes = np.load(path, mmap_mode="r")
                # By what is in it, not by where it lies: a resumed run may find it on another machine.
                key = f"{facts['seed']}-{first}"
                if key in self.codes and len(self.codes[key]) >= len(codes):
                    continue
                lines = (directory / f"clips-{first}.jsonl").read_text().splitlines()
                self.prompts[key] = [json.loads(line)["prompt"] for line in lines]
                self.codes[key] = codes
                if facts.get("keys") == "each":
                    self.every_key.add(key)
                if len(self.prompts[key]) < len(codes):
                    raise ValueError(f"{path} has {len(codes)} clips and {len(lines)} labels: encode it again")
        if len(kinds) > 1:
            raise ValueError(f"codes of different codecs or sizes do not mix: {sorted(kinds)}")
        self.frames = next(iter(kinds), (None, 0, 0))[2]
        return len(self) - before

    def wait(self, seconds: float = 600.0) -> None:
        """Until there is a part."""
        until = time.monotonic() + seconds
        while not self.scan() and not len(self):
            if time.monotonic() > until:
                raise ValueError(f"no part of codes in {', '.join(map(str, self.directories))}")
            time.sleep(2.0)

    def first(self, count: int) -> tuple[np.ndarray, list[str]]:
        """The first clips of all, `[count, 4, frames]`, and their prompts."""
        keys = sorted(self.codes)
        rows = [(key, row) for key in keys for row in range(len(self.codes[key]))][:count]
        return np.stack([self.codes[key][row] for key, row in rows]), [self.prompts[key][row] for key, row in rows]


class Draw:
    """Crops of one length: all clips' stretches in random order, none twice before each was drawn once."""

    def __init__(self, parts: Parts, length: int, seed: int):
        if parts.frames < length:
            raise ValueError(f"clips of {parts.frames} frames are shorter than a crop of {length}")
        self.parts, self.length = parts, length
        self.pieces = parts.frames // length
        self.generator = np.random.default_rng(seed)
        self.used: dict[str, torch.Tensor] = {}
        self.queue: list[tuple[str, int, int]] = []
        self.refill()

    def refill(self) -> None:
        """Queues every stretch that was drawn least often: the new ones first when parts have come."""
        for key, codes in self.parts.codes.items():
            had = self.used.get(key, torch.zeros(0, self.pieces, dtype=torch.uint8))
            fresh = torch.zeros(len(codes) - len(had), self.pieces, dtype=torch.uint8)
            self.used[key] = torch.cat([had, fresh])
        here = {key: self.used[key] for key in self.parts.codes}
        least = min(int(used.min()) for used in here.values())
        units = [(key, row, piece) for key, used in here.items() for row, piece in (used == least).nonzero().tolist()]
        self.queue = [units[place] for place in self.generator.permutation(len(units))]

    def take(self, count: int) -> tuple[np.ndarray, list[str]]:
        """`[count, 4, length]` codes and their prompts."""
        crops, prompts = [], []
        slack = self.parts.frames - self.pieces * self.length
        while len(crops) < count:
            if not self.queue:
                self.refill()
            key, row, piece = self.queue.pop()
            self.used[key][row, piece] += 1
            start = piece * self.length + int(self.generator.integers(slack + 1))
            crops.append(self.parts.codes[key][row, :, start : start + self.length])
            prompts.append(self.parts.prompts[key][row])
        return np.stack(crops), prompts

    def passes(self) -> float:
        """How often the music was drawn on average."""
        drawn = sum(int(self.used[key].sum()) for key in self.parts.codes)
        return drawn / max(1, len(self.parts) * self.pieces)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.used

    def load_state_dict(self, state: dict[str, torch.Tensor], seed: int) -> None:
        """Goes on where a run stopped, in an order of its own."""
        self.used = dict(state)
        self.generator = np.random.default_rng(seed)
        self.refill()


class EveryKey:
    """Crops of one length in twelves: one piece under one prompt on the twelve tonics, cut at one place.

    In such a batch no word goes with a pitch, not even by chance: the gradient that would tie a prompt to one cancels in it,
    where crops drawn singly leave it to hundreds of steps.
    """

    def __init__(self, parts: Parts, length: int, seed: int):
        self.parts, self.length, self.seed, self.taken = parts, length, seed, 0
        places: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for key in sorted(parts.every_key):
            data, first = key.split("-")
            for row in range(len(parts.codes[key])):
                places.setdefault((data, (int(first) + row) // 12), []).append((key, row))
        self.pieces = [rows for _, rows in sorted(places.items()) if len(rows) == 12]
        if not self.pieces:
            raise ValueError("no piece in twelve keys: make codes with --every-key")

    def take(self, count: int) -> tuple[np.ndarray, list[str]]:
        """`[count, 4, length]` codes and their prompts; `count` is a multiple of 12."""
        crops, prompts = [], []
        for _ in range(count // 12):
            turn, place = divmod(self.taken, len(self.pieces))
            order = np.random.default_rng((self.seed, turn)).permutation(len(self.pieces))
            start = int(np.random.default_rng((self.seed, turn, place)).integers(self.parts.frames - self.length + 1))
            for key, row in self.pieces[order[place]]:
                crops.append(self.parts.codes[key][row, :, start : start + self.length])
                prompts.append(self.parts.prompts[key][row])
            self.taken += 1
        return np.stack(crops), prompts

    def refill(self) -> None:
        """Pieces are fixed when training begins."""

    def passes(self) -> float:
        """How often the pieces were drawn on average."""
        return self.taken / len(self.pieces)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"taken": torch.tensor(self.taken)}

    def load_state_dict(self, state: dict[str, torch.Tensor], seed: int) -> None:
        """Goes on where a run stopped."""
        self.taken = int(state["taken"])
