"""Teaches the text encoder its words before the decoder is trained: from a prompt it tells what the prompt speaks of.

Labels are instruments, textures, who plays what, tempo class, loudness and touch. Key, mode and pitch are no labels:
no word depends on them, and they must stay free for steering.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.nn import functional

import architecture
import text
from codec import save

FIELDS = ("instruments", "textures", "bpm", "loudness", "legato")
FORBIDDEN = {"key", "mode", "programs", "midi", "pitch_class", "tonic"}
assert not FORBIDDEN & set(FIELDS), "what a prompt cannot speak of must not be taught"

# Root mean square of the states that are handed on. All tokens of a prompt now say much the same, so attention does not
# average them away as it does an untrained encoder's: at 1 they drown the music's own states, and training starts slower.
LEVEL = 0.35


def read(paths: list[Path]) -> tuple[list[str], list[dict]]:
    """Prompts and the labels that may be taught, from files of one JSON line per clip."""
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [line["prompt"] for line in lines], [{name: line[name] for name in FIELDS} for line in lines]


class Classes:
    """Label spaces, fixed by the training labels; targets as tensors."""

    def __init__(self, labels: list[dict]):
        self.instruments = sorted({name for label in labels for name in label["instruments"]})
        self.textures = sorted({name for label in labels for name in label["textures"]})
        self.voices = sorted({pair for label in labels for pair in zip(label["instruments"], label["textures"])})
        sets = {"instruments": self.instruments, "textures": self.textures, "voices": self.voices}
        self.sets = {name: {value: place for place, value in enumerate(values)} for name, values in sets.items()}
        self.sizes = {**{name: len(values) for name, values in sets.items()}, "tempo": 3, "loudness": 3, "touch": 2}

    def targets(self, labels: list[dict]) -> dict[str, torch.Tensor]:
        """Sets as rows of 0 and 1, classes as numbers; the limits are those of the generator's words."""
        values = {name: torch.zeros(len(labels), len(places)) for name, places in self.sets.items()}
        for row, label in enumerate(labels):
            for name, places in self.sets.items():
                said = zip(label["instruments"], label["textures"]) if name == "voices" else label[name]
                for value in said:
                    values[name][row, places[value]] = 1.0
        values["tempo"] = torch.tensor([(x["bpm"] >= 90.0) + (x["bpm"] >= 130.0) for x in labels])
        values["loudness"] = torch.tensor([(x["loudness"] > 66) + (x["loudness"] >= 98) for x in labels])
        values["touch"] = torch.tensor([int(x["legato"] >= 0.7) for x in labels])
        return values


class Reader(torch.nn.Module):
    """The text encoder with the decoder's projection, and one linear head per label on the mean of the states.

    The mean is what cross-attention gives as long as it has learned nothing, so the decoder can read it at once.
    """

    def __init__(self, classes: Classes):
        super().__init__()
        whole = architecture.build()
        self.text_encoder, self.enc_to_dec_proj = whole.text_encoder, whole.enc_to_dec_proj
        width = self.enc_to_dec_proj.out_features
        torch.nn.init.normal_(self.enc_to_dec_proj.weight, std=self.enc_to_dec_proj.in_features**-0.5)
        torch.nn.init.zeros_(self.enc_to_dec_proj.bias)
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, size) for name, size in classes.sizes.items()})

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Projected states `[b, n, d]`, as the decoder gets them."""
        return self.enc_to_dec_proj(self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = mask[..., None].float()
        mean = (self.states(ids, mask) * weights).sum(1) / weights.sum(1)
        return {name: head(mean) for name, head in self.heads.items()}


def losses(logits: dict, targets: dict) -> torch.Tensor:
    total = torch.zeros(())
    for name, values in logits.items():
        if targets[name].is_floating_point():
            total = total + functional.binary_cross_entropy_with_logits(values, targets[name], reduction="sum")
        else:
            total = total + functional.cross_entropy(values, targets[name], reduction="sum")
    return total / len(next(iter(targets.values())))


@torch.no_grad()
def judge(reader: Reader, tokenizer, prompts: list[str], targets: dict) -> dict[str, float]:
    """Share of prompts of which a label is read off wholly right."""
    right = {name: 0 for name in targets}
    for start in range(0, len(prompts), 256):
        ids, mask = map(torch.tensor, text.batch(tokenizer, prompts[start : start + 256]))
        for name, values in reader(ids, mask).items():
            wanted = targets[name][start : start + 256]
            if wanted.is_floating_point():
                right[name] += int(((values > 0) == (wanted > 0.5)).all(1).sum())
            else:
                right[name] += int((values.argmax(1) == wanted).sum())
    return {name: round(count / max(1, len(prompts)), 4) for name, count in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="labels.jsonl or clips-*.jsonl")
    parser.add_argument("--valid", type=Path, nargs="+", required=True, help="the same of another seed")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the .pt file for decoder.py --text")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    tokenizer = text.load(arguments.tokenizer)
    prompts, labels = read(arguments.labels)
    known = set(prompts)
    pairs = [(prompt, label) for prompt, label in zip(*read(arguments.valid)) if prompt not in known]
    held_out = [prompt for prompt, _ in pairs]
    classes = Classes(labels)
    targets, wanted = classes.targets(labels), classes.targets([label for _, label in pairs])
    reader = Reader(classes)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=arguments.rate, weight_decay=0.01)
    print(f"{len(prompts)} prompts, {len(known)} different; {len(held_out)} held out that are none of them", flush=True)
    began, shown = time.monotonic(), None
    for step in range(arguments.steps):
        chosen = torch.randint(len(prompts), (arguments.batch,))
        ids, mask = map(torch.tensor, text.batch(tokenizer, [prompts[row] for row in chosen]))
        loss = losses(reader(ids, mask), {name: values[chosen] for name, values in targets.items()})
        rate = arguments.rate * (0.51 + 0.49 * math.cos(math.pi * step / arguments.steps)) * min(1.0, (step + 1) / 100)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        shown = loss.item() if shown is None else 0.98 * shown + 0.02 * loss.item()
        if (step + 1) % 250 == 0:
            figures = judge(reader, tokenizer, held_out[:1024], {name: row[:1024] for name, row in wanted.items()})
            print(f"step {step + 1} {time.monotonic() - began:.0f} s loss {shown:.3f} {figures}", flush=True)
    print(f"done: held out {judge(reader, tokenizer, held_out, wanted)}", flush=True)
    with torch.no_grad():
        ids, mask = map(torch.tensor, text.batch(tokenizer, prompts[:1024]))
        level = reader.states(ids, mask)[mask.bool()].square().mean().sqrt()
        reader.enc_to_dec_proj.weight.mul_(LEVEL / level)
        reader.enc_to_dec_proj.bias.mul_(LEVEL / level)
    model = {name: weights for name, weights in reader.state_dict().items() if not name.startswith("heads.")}
    save(arguments.out, {"model": model, "steps": arguments.steps})
    print(f"{arguments.out}: states brought from level {level:.3f} to {LEVEL}")


if __name__ == "__main__":
    main()
