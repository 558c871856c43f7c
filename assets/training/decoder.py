"""Trains MusicGen's decoder and the T5 text encoder on parts of encoded music: resumable, bounded by wall time.

Input column 0 is BOS, codebook k is late by k columns; 10 % of the prompts are dropped to zero text states. Worker
threads with one core each step the shared weights in turn, so a core that other work takes holds nobody up. The parts
may be written meanwhile: no music is drawn twice before all that is there was drawn once.
"""

import argparse
import copy
import math
import threading
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

import architecture
import attention
import text
from codec import save
from parts import Draw, EveryKey, Parts

# Crops of one step, and how many of them make a batch as large as one of whole windows. Near BOS the prompt is all there
# is to go by; further on the music says what it is and the prompt teaches little.
EARLY_CROPS = [(architecture.WINDOW, 1), (196, 4), (architecture.WINDOW, 1), (49, 16)]
# Once prompts are followed, harmony is what lacks: it is heard over whole windows and lives in the first codebooks, while
# the last ones are mostly noise that outweighs it.
LATE_CROPS = [(architecture.WINDOW, 1), (196, 4), (architecture.WINDOW, 1), (architecture.WINDOW, 1)]
LATE_WEIGHTS = torch.tensor([1.6, 1.2, 0.7, 0.5])
# Which pitch a piece begins on is settled in its first moments, and guidance makes louder whatever a prompt says of it: many
# beginnings, each in the twelve keys side by side, so that prompts learn to say nothing.
START_CROPS = [(architecture.WINDOW, 1), (49, 16), (architecture.WINDOW, 1), (98, 8)]
IN_EVERY_KEY = (49, 98)
NEAR = 50  # columns from BOS that are judged apart: 1 s


def delay(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `[b, q, t]` to input columns and targets, both `[b, q, t]`; a target of -100 carries no loss."""
    batch, books, frames = codes.shape
    columns = torch.full((batch, books, frames + 1), architecture.SPECIAL, device=codes.device)
    for book in range(books):
        columns[:, book, book + 1 :] = codes[:, book, : frames - book]
    targets = columns[..., 1:].masked_fill(columns[..., 1:] == architecture.SPECIAL, -100)
    return columns[..., :-1], targets


class Trained(torch.nn.Module):
    """The parts of MusicgenForConditionalGeneration that learn here, and their loss."""

    def __init__(self, model, tokenizer):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def words(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, `[b, n]`, where the weights lie."""
        device = self.model.enc_to_dec_proj.weight.device
        ids, mask = (torch.tensor(rows, device=device) for rows in text.batch(self.tokenizer, prompts))
        return ids, mask

    def text_states(self, words: tuple[torch.Tensor, torch.Tensor], kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected states `[b, n, d]` and mask. A dropped row has zero states, so its cross-attention is exactly 0,
        as in the reference's row with mask 0; its mask is left as it is because a softmax over nothing is undefined."""
        ids, mask = words
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states = self.model.enc_to_dec_proj(states) * (mask * kept[:, None])[..., None]
        return states, mask

    def losses(self, columns, targets, words, kept) -> torch.Tensor:
        """Cross-entropy of every code in nats, `[q, b, t]`; 0 where the delay pattern has none."""
        states, mask = self.text_states(words, kept)
        hidden = self.model.decoder.model.decoder(
            input_ids=columns.flatten(0, 1), encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        rows = []
        for book, head in enumerate(self.model.decoder.lm_heads):
            logits, wanted = head(hidden).float().flatten(0, 1), targets[:, book]
            row = functional.cross_entropy(logits, wanted.flatten(), ignore_index=-100, reduction="none")
            rows.append(row.view(wanted.shape))
        return torch.stack(rows)

    def forward(self, columns, targets, words, kept) -> torch.Tensor:
        """Mean cross-entropy per codebook, `[q]`, in nats."""
        return self.losses(columns, targets, words, kept).sum((1, 2)) / (targets >= 0).sum((0, 2))


def initialise(model) -> None:
    """Starting scales that suit width 256: tokens as loud as the positions, residual outputs small."""
    depth = model.config.decoder.num_hidden_layers
    for name, weights in model.decoder.named_parameters():
        if "embed_tokens" in name:
            weights.data.normal_(0.0, 0.35)
        elif "lm_heads" in name:
            weights.data.normal_(0.0, 0.02)
        elif weights.ndim == 2:
            weights.data.normal_(0.0, weights.shape[1] ** -0.5)
            if "out_proj" in name or "fc2" in name:
                weights.data.mul_((2.0 * depth) ** -0.5)
    model.enc_to_dec_proj.weight.data.normal_(0.0, model.enc_to_dec_proj.weight.shape[1] ** -0.5)
    model.enc_to_dec_proj.bias.data.zero_()


def begin(model, checkpoint: Path) -> None:
    """Takes the weights of an exported checkpoint, text encoder and all."""
    learned = load_file(checkpoint / "model.safetensors")
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in learned.items()}, strict=False)
    # Tensors that share memory are written once; the sinusoidal positions are computed.
    lacking = [key for key in missing if not key.endswith(("embed_tokens.weight", "embed_positions.weights"))]
    if lacking or unexpected:
        raise ValueError(f"{checkpoint} is no checkpoint of this architecture: {lacking} {unexpected}")


def groups(model) -> tuple[list, list, list]:
    """What learns: the decoder's square and feed-forward matrices, everything else of it, the text encoder. The codec does not."""
    matrices, others, words = [], [], []
    for name, weights in model.named_parameters():
        if name.startswith("audio_encoder."):
            weights.requires_grad_(False)
        elif name.startswith("decoder.model.decoder.layers.") and weights.ndim == 2:
            matrices.append(weights)
        elif name.startswith(("text_encoder.", "enc_to_dec_proj.")):
            words.append(weights)
        else:
            others.append(weights)
    return matrices, others, words


def adamw(others: list, words: list, text_rate: float, **options) -> torch.optim.AdamW:
    """AdamW for what Muon does not step; `share` of a group is its learning rate over the decoder's."""
    shares = [{"params": others, "share": 1.0}, {"params": words, "share": text_rate}]
    return torch.optim.AdamW(shares, betas=(0.9, 0.95), weight_decay=0.01, **options)


def optimisers(model, rate: float, text_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the decoder's square and feed-forward matrices, AdamW for everything else."""
    matrices, others, words = groups(model)
    muon = torch.optim.Muon(
        [{"params": matrices, "share": 1.0}], lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adamw(others, words, text_rate, lr=rate)]


def turned(rate: float, share: float, step: int, warm: int) -> float:
    """The learning rate after `share` of the time: a cosine from the full one to 2 %, behind `warm` steps of rise."""
    return rate * (0.51 + 0.49 * math.cos(math.pi * min(1.0, share))) * min(1.0, (step + 1) / warm)


@torch.no_grad()
def evaluate(trained: Trained, codes: np.ndarray, prompts: list[str]) -> str:
    """Loss per codebook and mean of whole windows, and the mean of the first second; with the prompt and without it."""
    texts, device = [], next(trained.parameters()).device
    for kept in (1.0, 0.0):
        total, near = torch.zeros(architecture.CODEBOOKS), torch.zeros(architecture.CODEBOOKS)
        for start in range(0, len(codes), 8):
            part = torch.from_numpy(codes[start : start + 8, :, : architecture.WINDOW].astype(np.int64)).to(device)
            columns, targets = delay(part)
            drop = torch.full((len(part),), kept, device=device)
            with torch.autocast(device.type, torch.bfloat16):
                losses = trained.losses(columns, targets, trained.words(prompts[start : start + 8]), drop).cpu()
            targets = targets.cpu()
            total += losses.sum((1, 2)) / (targets >= 0).sum((0, 2)) * len(part)
            near += losses[..., :NEAR].sum((1, 2)) / (targets[..., :NEAR] >= 0).sum((0, 2)) * len(part)
        total, near = total / len(codes), near / len(codes)
        texts.append(" ".join(f"{value:.3f}" for value in total) + f" ({total.mean():.4f}, 1 s {near.mean():.4f})")
    return f"{texts[0]}, without prompt {texts[1]}"


class Training:
    """Weights, optimisers, running average and progress; every method but `gradients` is called under `lock`."""

    def __init__(self, arguments):
        self.arguments, self.lock = arguments, threading.Lock()
        self.parts, held_out = Parts(arguments.codes), Parts([arguments.valid])
        self.parts.wait()
        held_out.wait()
        both = {key.split("-")[0] for key in self.parts.codes} & {key.split("-")[0] for key in held_out.codes}
        if both:
            raise ValueError(f"seed {', '.join(sorted(both))} is trained on and held out: judge on another one")
        self.valid, self.known = held_out.first(64), self.parts.first(16)
        self.crops = START_CROPS if arguments.beginnings else LATE_CROPS if arguments.late else EARLY_CROPS
        self.weights = LATE_WEIGHTS if arguments.late else torch.ones(architecture.CODEBOOKS)
        # A batch's rows must be whole twelves: 16 and 8 batches of --batch 6 are.
        self.draws = {length: self.draw(length) for length, _ in self.crops}
        self.model = architecture.build()
        initialise(self.model)
        if arguments.start:
            begin(self.model, arguments.start)
        if arguments.text:
            learned = torch.load(arguments.text, weights_only=True)["model"]
            missing, unexpected = self.model.load_state_dict(learned, strict=False)
            words = [key for key in missing if key.startswith(("text_encoder.", "enc_to_dec_proj."))]
            if unexpected or [key for key in words if not key.endswith("embed_tokens.weight")]:
                raise ValueError(f"{arguments.text} is no text encoder of this architecture: {words} {unexpected}")
        self.trained = Trained(self.model, text.load(arguments.tokenizer)).train()
        self.steppers = optimisers(self.model, arguments.rate, arguments.text_rate if arguments.text or arguments.start else 1.0)
        self.learning = {name: weights for name, weights in self.model.named_parameters() if weights.requires_grad}
        self.average = {name: weights.detach().clone() for name, weights in self.learning.items()}
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.path = arguments.out / "decoder.pt"
        self.step, self.tickets, self.before, self.shown = 0, 0, 0.0, None
        if self.path.exists():
            self.resume()
        self.began = self.stored = self.scanned = time.monotonic()

    def draw(self, length: int) -> Draw | EveryKey:
        """Where crops of one length come from."""
        if self.arguments.beginnings and length in IN_EVERY_KEY:
            keys = Parts([self.arguments.beginnings])
            keys.wait()
            return EveryKey(keys, length, length)
        return Draw(self.parts, length, length)

    def spent(self) -> float:
        return self.before + time.monotonic() - self.began

    def resume(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["raw"], strict=False)
        self.average = state["model"]
        for stepper, saved in zip(self.steppers, state["optimisers"]):
            stepper.load_state_dict(saved)
        self.step, self.before = state["step"], state["spent"]
        self.tickets = self.step
        for length, draw in self.draws.items():
            draw.load_state_dict(state["drawn"][length], length + self.step)
        print(f"resumed at step {self.step}, {self.before / 60:.1f} min", flush=True)

    def store(self) -> None:
        state = {"model": self.average, "raw": {name: weights.detach() for name, weights in self.learning.items()}}
        state |= {"optimisers": [stepper.state_dict() for stepper in self.steppers]}
        state |= {"drawn": {length: draw.state_dict() for length, draw in self.draws.items()}}
        save(self.path, {**state, "step": self.step, "spent": self.spent()})
        self.stored = time.monotonic()

    def batch(self) -> tuple[np.ndarray, list[str], torch.Tensor]:
        """Codes `[b, q, t]`, prompts, and which of these are kept."""
        ticket, self.tickets = self.tickets, self.tickets + 1
        length, times = self.crops[ticket % len(self.crops)]
        codes, prompts = self.draws[length].take(self.arguments.batch * times)
        # Where rows are one piece in twelve keys, all of them keep their prompt or none.
        alike = 12 if isinstance(self.draws[length], EveryKey) else 1
        drawn = np.random.default_rng((3, ticket)).random(len(codes) // alike).repeat(alike)
        return codes, prompts, torch.from_numpy((drawn >= self.arguments.prompt_dropout).astype(np.float32))

    def gradients(self, trained: Trained, codes: np.ndarray, prompts: list[str], kept: torch.Tensor) -> torch.Tensor:
        """Loss per codebook of one batch; leaves the gradients on `trained`."""
        columns, targets = delay(torch.from_numpy(codes.astype(np.int64)))
        with torch.autocast("cpu", torch.bfloat16):
            losses = trained(columns, targets, trained.words(prompts), kept)
        (losses * self.weights).mean().backward()
        return losses.detach()

    def apply(self, trained: Trained, losses: torch.Tensor) -> None:
        """One optimiser step with a worker's gradients; cosine from the full rate to 2 % over the time allowed."""
        for name, weights in trained.model.named_parameters():
            if name in self.learning:
                self.learning[name].grad, weights.grad = weights.grad, None
        torch.nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        rate = turned(self.arguments.rate, self.spent() / (self.arguments.minutes * 60.0), self.step, 50)
        for stepper in self.steppers:
            for group in stepper.param_groups:
                group["lr"] = rate * group["share"]
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(0.99, self.step / (self.step + 10))
        now = [weights.detach() for weights in self.learning.values()]
        torch._foreach_lerp_(list(self.average.values()), now, 1.0 - decay)
        self.shown = losses if self.shown is None else torch.lerp(self.shown, losses, 0.04)

    def report(self) -> None:
        if self.step % 25 == 0:
            values = " ".join(f"{value:.3f}" for value in self.shown)
            passes = " ".join(f"{draw.passes():.2f}" for draw in self.draws.values())
            print(
                f"step {self.step} {self.spent() / 60:.1f} min {values} ({self.shown.mean():.3f}), "
                f"{len(self.parts)} clips, passes {passes}",
                flush=True,
            )
        if self.step % 400 == 0:
            codes, prompts = self.valid
            print(f"step {self.step} held out {evaluate(self.trained, codes[:16], prompts)}", flush=True)
            print(f"step {self.step} trained on {evaluate(self.trained, *self.known)}", flush=True)
        if time.monotonic() - self.scanned > 60.0:
            self.scanned = time.monotonic()
            if self.parts.scan():
                for draw in self.draws.values():
                    draw.refill()
        if time.monotonic() - self.stored > 120.0:
            self.store()

    def work(self, trained: Trained) -> None:
        """One worker: its own gradients on weights that all workers share."""
        torch.set_num_threads(self.arguments.threads)
        while self.spent() < self.arguments.minutes * 60.0:
            with self.lock:
                batch = self.batch()
            losses = self.gradients(trained, *batch)
            with self.lock:
                self.apply(trained, losses)
                self.report()

    def replica(self) -> Trained:
        """The same weights in memory, gradients apart."""
        copied = copy.deepcopy(self.trained)
        for mine, theirs in zip(copied.parameters(), self.trained.parameters()):
            mine.data = theirs.data
        return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=Path, nargs="+", required=True, help="folders of parts; they may still grow")
    parser.add_argument("--valid", type=Path, required=True, help="a folder of parts of another seed")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="text encoder to begin with, from pretrain_text.py")
    parser.add_argument("--start", type=Path, help="a checkpoint directory to begin with")
    parser.add_argument("--out", type=Path, required=True, help="directory for decoder.pt")
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--batch", type=int, default=6, help="clips in one worker's batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--text-rate", type=float, default=0.1, help="a pretrained text encoder's rate over --rate")
    parser.add_argument("--prompt-dropout", type=float, default=0.1)
    parser.add_argument("--late", action="store_true", help="whole windows and the first codebooks count more")
    parser.add_argument("--beginnings", type=Path, help="codes in every key: many short crops in all keys at once, so that prompts unlearn pitch")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="cores of one worker")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    attention.install()
    training = Training(arguments)
    workers = [threading.Thread(target=training.work, args=(training.replica(),)) for _ in range(arguments.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    training.store()
    training.model.load_state_dict(training.average, strict=False)
    print(f"done at step {training.step}: held out {evaluate(training.trained, *training.valid)}", flush=True)
    print(f"done at step {training.step}: trained on {evaluate(training.trained, *training.known)}", flush=True)


if __name__ == "__main__":
    main()
