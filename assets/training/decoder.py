"""Trains MusicGen's decoder and the T5 text encoder together on encoded clips: resumable, bounded by wall time.

Input column 0 is BOS, codebook k is late by k columns; 10 % of the prompts are dropped to zero text states. Worker
threads with one core each step the shared weights in turn, so a core that other work takes holds nobody up.
"""

import argparse
import copy
import math
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import architecture
import text
from codec import save
from music import Clips


def delay(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `[b, q, t]` to input columns and targets, both `[b, q, t]`; a target of -100 carries no loss."""
    batch, books, frames = codes.shape
    columns = torch.full((batch, books, frames + 1), architecture.SPECIAL)
    for book in range(books):
        columns[:, book, book + 1 :] = codes[:, book, : frames - book]
    targets = columns[..., 1:].masked_fill(columns[..., 1:] == architecture.SPECIAL, -100)
    return columns[..., :-1], targets


class Trained(torch.nn.Module):
    """The parts of MusicgenForConditionalGeneration that learn here, and their loss."""

    def __init__(self, model, tokenizer):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def text_states(self, prompts: list[str], kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected states `[b, n, d]` and mask. A dropped row has zero states, so its cross-attention is exactly 0,
        as in the reference's row with mask 0; its mask is left as it is because a softmax over nothing is undefined."""
        ids, mask = map(torch.tensor, text.batch(self.tokenizer, prompts))
        states = self.model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states = self.model.enc_to_dec_proj(states) * (mask * kept[:, None])[..., None]
        return states, mask

    def forward(self, columns, targets, prompts, kept) -> torch.Tensor:
        """Mean cross-entropy per codebook, `[q]`, in nats."""
        states, mask = self.text_states(prompts, kept)
        hidden = self.model.decoder.model.decoder(
            input_ids=columns.flatten(0, 1), encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        losses = []
        for book, head in enumerate(self.model.decoder.lm_heads):
            logits = head(hidden).float()
            losses.append(functional.cross_entropy(logits.flatten(0, 1), targets[:, book].flatten(), ignore_index=-100))
        return torch.stack(losses)


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


def optimisers(model, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the decoder's square and feed-forward matrices, AdamW for everything else."""
    matrices, others = [], []
    for name, weights in model.named_parameters():
        if name.startswith("audio_encoder."):
            weights.requires_grad_(False)
        elif name.startswith("decoder.model.decoder.layers.") and weights.ndim == 2:
            matrices.append(weights)
        else:
            others.append(weights)
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.01)]


@torch.no_grad()
def evaluate(trained: Trained, codes: np.ndarray, prompts: list[str]) -> str:
    """Held-out loss per codebook with the prompt, and without it."""
    texts = []
    for kept in (1.0, 0.0):
        losses = []
        for start in range(0, len(codes), 8):
            part = torch.from_numpy(codes[start : start + 8, :, : architecture.WINDOW].astype(np.int64))
            chosen = prompts[start : start + 8]
            with torch.autocast("cpu", torch.bfloat16):
                losses.append(trained(*delay(part), chosen, torch.full((len(part),), kept)))
        means = torch.stack(losses).mean(0)
        texts.append(" ".join(f"{value:.3f}" for value in means) + f" ({means.mean():.3f})")
    return f"held out {texts[0]}, without prompt {texts[1]}"


class Training:
    """Weights, optimisers, running average and progress; every method but `gradients` is called under `lock`."""

    def __init__(self, arguments):
        self.arguments, self.lock = arguments, threading.Lock()
        self.codes, self.prompts = np.load(arguments.codes), Clips(arguments.data).prompts()
        self.valid_codes, self.valid_prompts = np.load(arguments.valid_codes), Clips(arguments.valid).prompts()
        self.model = architecture.build()
        initialise(self.model)
        self.trained = Trained(self.model, text.load(arguments.tokenizer)).train()
        self.steppers = optimisers(self.model, arguments.rate)
        self.learning = {name: weights for name, weights in self.model.named_parameters() if weights.requires_grad}
        self.average = {name: weights.detach().clone() for name, weights in self.learning.items()}
        self.path = arguments.out / "decoder.pt"
        self.step, self.tickets, self.before, self.shown = 0, 0, 0.0, None
        if self.path.exists():
            self.resume()
        self.began = self.stored = time.monotonic()

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
        print(f"resumed at step {self.step}, {self.before / 60:.1f} min", flush=True)

    def store(self) -> None:
        state = {"model": self.average, "raw": {name: weights.detach() for name, weights in self.learning.items()}}
        state |= {"optimisers": [stepper.state_dict() for stepper in self.steppers]}
        save(self.path, {**state, "step": self.step, "spent": self.spent()})
        self.stored = time.monotonic()

    def gradients(self, trained: Trained, ticket: int) -> torch.Tensor:
        """Loss per codebook of one batch; leaves the gradients on `trained`.

        Every other batch holds four times as many crops of a quarter of the window: near BOS the prompt is all there
        is to go by, further on the music says what it is and the prompt teaches little.
        """
        generator, count = np.random.default_rng((3, ticket)), self.arguments.batch
        length = architecture.WINDOW
        if ticket % 2:
            count, length = count * 4, length // 4
        chosen = generator.integers(len(self.codes), size=count)
        starts = generator.integers(self.codes.shape[-1] - length + 1, size=count)
        part = np.stack([self.codes[i, :, s : s + length] for i, s in zip(chosen, starts)])
        kept = torch.from_numpy((generator.random(count) >= self.arguments.prompt_dropout).astype(np.float32))
        columns, targets = delay(torch.from_numpy(part.astype(np.int64)))
        with torch.autocast("cpu", torch.bfloat16):
            losses = trained(columns, targets, [self.prompts[i] for i in chosen], kept)
        losses.mean().backward()
        return losses.detach()

    def apply(self, trained: Trained, losses: torch.Tensor) -> None:
        """One optimiser step with a worker's gradients; cosine from the full rate to 2 % over the time allowed."""
        for name, weights in trained.model.named_parameters():
            if name in self.learning:
                self.learning[name].grad, weights.grad = weights.grad, None
        torch.nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        turn = math.pi * min(1.0, self.spent() / (self.arguments.minutes * 60.0))
        rate = self.arguments.rate * (0.51 + 0.49 * math.cos(turn)) * min(1.0, (self.step + 1) / 50)
        for stepper in self.steppers:
            for group in stepper.param_groups:
                group["lr"] = rate
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
            print(f"step {self.step} {self.spent() / 60:.1f} min {values} ({self.shown.mean():.3f})", flush=True)
        if self.step % 400 == 0:
            print(f"step {self.step} {evaluate(self.trained, self.valid_codes[:16], self.valid_prompts)}", flush=True)
        if time.monotonic() - self.stored > 120.0:
            self.store()

    def work(self, trained: Trained) -> None:
        """One worker: its own gradients on weights that all workers share."""
        torch.set_num_threads(self.arguments.threads)
        while self.spent() < self.arguments.minutes * 60.0:
            with self.lock:
                ticket, self.tickets = self.tickets, self.tickets + 1
            losses = self.gradients(trained, ticket)
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
    parser.add_argument("--codes", type=Path, required=True, help="codes.npy written by encode.py")
    parser.add_argument("--data", type=Path, required=True, help="the clips that were encoded, for their prompts")
    parser.add_argument("--valid-codes", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory for decoder.pt")
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--batch", type=int, default=4, help="clips in one worker's batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--prompt-dropout", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="cores of one worker")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    training = Training(arguments)
    workers = [threading.Thread(target=training.work, args=(training.replica(),)) for _ in range(arguments.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    training.store()
    training.model.load_state_dict(training.average, strict=False)
    held_out = evaluate(training.trained, training.valid_codes, training.valid_prompts)
    print(f"done at step {training.step}: {held_out}", flush=True)


if __name__ == "__main__":
    main()
