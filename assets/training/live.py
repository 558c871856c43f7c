"""Trains on one GPU, from an exported checkpoint on, while the music it learns from is still being made.

A GPU is through with a clip sooner than a core has rendered it, so nothing is stored: `tiller-dataset` renders on every core,
the codec encodes on the GPU, and all codes and words stay in its memory. A lent machine's minutes go to learning alone.
Losses, crops and optimisers are those of decoder.py; see there.
"""

import argparse
import json
import math
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import architecture
import attention
import text
from decoder import IN_EVERY_KEY, LATE_WEIGHTS, Trained, adamw, begin, delay, evaluate, groups, turned
from muon import Muon
from parts import Parts

FRAMES = 800  # 16 s
TOKENS = 40  # of a prompt; the longest one has fewer
SET = 384  # clips that one call of the generator makes: a multiple of 12 and of 24
# Two steps in three are whole windows, the others beginnings in every key: see decoder.py.
CROPS = [(architecture.WINDOW, 1), (49, 16), (architecture.WINDOW, 1), (architecture.WINDOW, 1), (98, 8), (architecture.WINDOW, 1)]
CHUNK = 12 << 20  # bytes of a piece of the stored weights: lent machines limit a file's size


class Music:
    """Sets of clips as they are made, by processes of the generator with a seed each; every third set is in every key."""

    def __init__(self, arguments, tokenizer):
        self.arguments, self.tokenizer = arguments, tokenizer
        self.seeds, self.made = iter(range(arguments.seed, 1 << 30)), queue.Queue(2)
        self.lock, self.done, self.failed = threading.Lock(), False, None
        self.workers = [threading.Thread(target=self.work, daemon=True) for _ in range(arguments.generators)]
        for worker in self.workers:
            worker.start()

    def work(self) -> None:
        try:
            while not self.done:
                with self.lock:
                    seed = next(self.seeds)
                self.made.put(self.one(seed))
        except Exception as error:  # handed to the trainer, which would otherwise wait for ever
            self.failed = error

    def one(self, seed: int) -> tuple[bool, torch.Tensor, torch.Tensor]:
        """Whether the set is in every key, its audio `[clips, samples]` i16, and token ids `[clips, TOKENS]`, 0 beyond the end."""
        every_key = seed % 3 == 0
        folder = Path(tempfile.mkdtemp(dir=self.arguments.scratch))
        command = [self.arguments.generator, "--out", folder, "--clips", self.arguments.set, "--seed", seed]
        command += ["--soundfont", self.arguments.soundfont] + ["--every-key"] * every_key
        environment = {"RAYON_NUM_THREADS": str(self.arguments.cores)}
        subprocess.run(["nice", "-n", "10", *map(str, command)], check=True, env=environment, stdout=subprocess.DEVNULL)
        audio = np.fromfile(folder / "audio.i16", dtype="<i2").reshape(self.arguments.set, FRAMES * architecture.HOP)
        prompts = [json.loads(line)["prompt"] for line in (folder / "clips.jsonl").read_text().splitlines()]
        shutil.rmtree(folder)
        ids = np.zeros((len(prompts), TOKENS), np.int16)
        for row, prompt in zip(ids, prompts):
            tokens = self.tokenizer.encode(prompt).ids
            if len(tokens) > TOKENS:
                raise ValueError(f"{prompt!r} has {len(tokens)} tokens")
            row[: len(tokens)] = tokens
        return every_key, torch.from_numpy(audio), torch.from_numpy(ids)

    def stop(self) -> None:
        self.done = True
        while any(worker.is_alive() for worker in self.workers):
            try:
                self.made.get(timeout=0.1)
            except queue.Empty:
                pass


class Store:
    """Codes `[clips, 4, 800]` and words `[clips, 40]` on the device, and how often each `group` of clips was drawn."""

    def __init__(self, room: int, group: int, device):
        self.group = group
        self.codes = torch.zeros(room, architecture.CODEBOOKS, FRAMES, dtype=torch.int16, device=device)
        self.ids = torch.zeros(room, TOKENS, dtype=torch.int16, device=device)
        self.used = torch.zeros(room // group, device=device)
        self.count = 0

    def add(self, codes: torch.Tensor, ids: torch.Tensor) -> None:
        end = self.count + len(codes)
        if end > len(self.codes):
            return  # full: what is there is drawn again
        self.codes[self.count : end] = codes.to(torch.int16)
        self.ids[self.count : end] = ids.to(self.ids.device)
        # Ahead of the others by one draw, not by all of theirs: a new set would else be learned by heart at once.
        self.used[self.count // self.group : end // self.group] = max(0.0, math.floor(self.passes()) - 1.0)
        self.count = end

    def passes(self) -> float:
        """How often a clip was drawn on average."""
        return float(self.used[: self.count // self.group].mean()) if self.count else 0.0

    def least_used(self, count: int) -> torch.Tensor:
        """Rows of whole groups, those drawn least often, in random order among equals."""
        used = self.used[: self.count // self.group]
        places = torch.topk(used + torch.rand_like(used), count // self.group, largest=False).indices
        self.used[places] += 1.0
        return (places[:, None] * self.group + torch.arange(self.group, device=places.device)).flatten()

    def crops(self, rows: torch.Tensor, length: int) -> torch.Tensor:
        """Codes `[rows, 4, length]` from random places, the same in a group."""
        starts = torch.randint(FRAMES - length + 1, (len(rows) // self.group,), device=rows.device)
        places = starts.repeat_interleave(self.group)[:, None] + torch.arange(length, device=rows.device)
        return self.codes[rows].long().gather(2, places[:, None].expand(-1, architecture.CODEBOOKS, -1))

    def words(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.ids[rows].long()
        return ids, (ids != 0).long()


class Training:
    """The model on the device, its optimisers and its running average."""

    def __init__(self, arguments):
        self.arguments, self.device = arguments, torch.device(arguments.device)
        model = architecture.build()
        begin(model, arguments.start)
        self.tokenizer = text.load(arguments.start)
        matrices, others, words = groups(model.to(self.device))
        self.trained = Trained(model, self.tokenizer).train()
        self.codec = model.audio_encoder.eval()
        self.learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.average = {name: value.detach().clone() for name, value in self.learning.items()}
        adam = adamw(others, words, arguments.text_rate, fused=self.device.type == "cuda")
        self.steppers = [Muon(matrices, share=1.0, weight_decay=0.05, momentum=0.95), adam]
        # All clips make whole windows; those in every key make the short crops as well.
        self.all, self.keyed = Store(arguments.room, 1, self.device), Store(arguments.room // 24 * 12, 12, self.device)
        self.step, self.shown, self.began = 0, torch.zeros(architecture.CODEBOOKS, device=self.device), 0.0

    def spent(self) -> float:
        return time.monotonic() - self.began

    @torch.no_grad()
    def take_in(self, every_key: bool, audio: torch.Tensor, ids: torch.Tensor) -> None:
        """Encodes a set and keeps it."""
        codes = []
        for part in audio.split(48):
            waves = part.to(self.device, non_blocking=True)[:, None].float() / 32768.0
            codes.append(self.codec.encode(waves).audio_codes[0])
        codes = torch.cat(codes)
        self.all.add(codes, ids)
        if every_key:
            self.keyed.add(codes, ids)

    def batch(self):
        """Codes, words and which prompts are kept."""
        length, times = CROPS[self.step % len(CROPS)]
        count = self.arguments.batch * times
        store = self.keyed if length in IN_EVERY_KEY else self.all
        rows = store.least_used(min(count, store.count) // store.group * store.group)
        kept = torch.rand(len(rows) // store.group, device=self.device) >= 0.1
        return store.crops(rows, length), store.words(rows), kept.float().repeat_interleave(store.group)

    def advance(self) -> None:
        codes, words, kept = self.batch()
        columns, targets = delay(codes)
        with torch.autocast(self.device.type, torch.bfloat16):
            losses = self.trained(columns, targets, words, kept)
        (losses * LATE_WEIGHTS.to(self.device)).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        rate = turned(self.arguments.rate, self.spent() / (self.arguments.minutes * 60.0), self.step, 100)
        for stepper in self.steppers:
            for group in stepper.param_groups:
                group["lr"] = rate * group["share"]
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(0.998, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.values()), [value.detach() for value in self.learning.values()], 1.0 - decay)
        # A batch of whole windows only: short crops have losses of their own.
        if codes.shape[2] == architecture.WINDOW:
            self.shown = losses.detach() if self.step < 4 else torch.lerp(self.shown, losses.detach(), 0.05)

    def store(self) -> None:
        """The averaged weights, in pieces; `gather` puts them together."""
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        pieces, size = [{}], 0
        for name, value in self.average.items():
            if size + value.nbytes > CHUNK:
                pieces, size = [*pieces, {}], 0
            pieces[-1][name] = value.cpu()
            size += value.nbytes
        for number, piece in enumerate(pieces):
            path = self.arguments.out / f"weights-{number}.pt"
            torch.save({"step": self.step, "model": piece}, path.with_suffix(".new"))
            path.with_suffix(".new").rename(path)

    def judge(self, codes: np.ndarray, prompts: list[str]) -> str:
        raw = {name: value.detach().clone() for name, value in self.learning.items()}
        self.trained.model.load_state_dict(self.average, strict=False)
        figures = evaluate(self.trained, codes, prompts)
        self.trained.model.load_state_dict(raw, strict=False)
        return figures

    def run(self) -> None:
        held_out = Parts([self.arguments.valid]).first(64)
        music = Music(self.arguments, self.tokenizer)
        started = time.monotonic()
        while not (self.keyed.count and self.all.count > 2 * self.arguments.batch):
            if music.failed:
                raise music.failed
            try:
                self.take_in(*music.made.get(timeout=5.0))
            except queue.Empty:
                print("waiting for music", flush=True)
        print(f"first music after {time.monotonic() - started:.1f} s; held out {self.judge(*held_out)}", flush=True)
        self.began = stored = time.monotonic()
        while self.spent() < self.arguments.minutes * 60.0:
            if music.failed:
                raise music.failed
            if not music.made.empty():
                self.take_in(*music.made.get())
            self.advance()
            if self.step % 200 == 0:
                values = " ".join(f"{value:.3f}" for value in self.shown.tolist())
                print(
                    f"step {self.step} {self.spent():.0f} s {values} ({self.shown.mean():.4f}), {self.all.count} clips, "
                    f"{self.keyed.count} in every key, passes {self.all.passes():.2f} {self.keyed.passes():.2f}",
                    flush=True,
                )
            if time.monotonic() - stored > 60.0:
                self.store()
                print(f"step {self.step} held out {self.judge(*held_out)}", flush=True)
                stored = time.monotonic()
        self.store()
        music.done = True
        print(f"done at step {self.step}: held out {self.judge(*held_out)}", flush=True)
        music.stop()


def gather(folder: Path, path: Path) -> None:
    """The pieces of `store` as one file that export.py reads."""
    pieces = [torch.load(piece, weights_only=True) for piece in sorted(folder.glob("weights-*.pt"))]
    if len({piece["step"] for piece in pieces}) != 1:
        raise ValueError(f"{folder} holds pieces of different steps")
    model = {name: value for piece in pieces for name, value in piece["model"].items()}
    torch.save({"step": pieces[0]["step"], "model": model}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, help="the checkpoint directory to go on from, codec and all")
    parser.add_argument("--valid", type=Path, help="a folder of parts that is not trained on")
    parser.add_argument("--generator", type=Path, help="the program tiller-dataset")
    parser.add_argument("--soundfont", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gather", action="store_true", help="only put the pieces in --out together, as decoder.pt")
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--batch", type=int, default=30, help="whole windows of a step; times 8 must be a multiple of 12")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--text-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1000, help="first seed of the music")
    parser.add_argument("--set", type=int, default=SET)
    parser.add_argument("--generators", type=int, default=3)
    parser.add_argument("--cores", type=int, default=6, help="threads of one generator")
    parser.add_argument("--room", type=int, default=140_000, help="clips that are kept")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.gather:
        gather(arguments.out, arguments.out / "decoder.pt")
        return
    lacking = [name for name in ("start", "valid", "generator", "soundfont") if getattr(arguments, name) is None]
    if lacking:
        parser.error(f"--{lacking[0]} is missing")
    torch.manual_seed(1)
    if arguments.device == "cpu":
        attention.install()
    Training(arguments).run()


if __name__ == "__main__":
    main()
