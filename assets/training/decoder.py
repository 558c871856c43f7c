"""Trains MusicGen's decoder and the T5 text encoder together on encoded clips: resumable, bounded by wall time.

Input column 0 is BOS, codebook k is late by k columns; 10 % of the prompts are dropped to zero text states.
"""

import argparse
import math
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=Path, required=True, help="codes.npy written by encode.py")
    parser.add_argument("--data", type=Path, required=True, help="the clips that were encoded, for their prompts")
    parser.add_argument("--valid-codes", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory for decoder.pt")
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--prompt-dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    codes, prompts = np.load(arguments.codes), Clips(arguments.data).prompts()
    valid_codes, valid_prompts = np.load(arguments.valid_codes), Clips(arguments.valid).prompts()
    model = architecture.build()
    initialise(model)
    trained = Trained(model, text.load(arguments.tokenizer)).train()
    steppers = optimisers(model, arguments.rate)
    learning = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
    average = {name: weights.detach().clone() for name, weights in learning.items()}
    path = arguments.out / "decoder.pt"
    step, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["raw"], strict=False)
        average = state["model"]
        for stepper, saved in zip(steppers, state["optimisers"]):
            stepper.load_state_dict(saved)
        step, spent = state["step"], state["spent"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)
    budget, stored, shown = arguments.minutes * 60.0, time.monotonic(), None
    room = codes.shape[-1] - architecture.WINDOW
    while spent < budget:
        began = time.monotonic()
        generator = np.random.default_rng((3, step))
        chosen = generator.integers(len(codes), size=arguments.batch)
        starts = generator.integers(room + 1, size=arguments.batch)
        part = np.stack([codes[i, :, s : s + architecture.WINDOW] for i, s in zip(chosen, starts)]).astype(np.int64)
        kept = torch.from_numpy((generator.random(arguments.batch) >= arguments.prompt_dropout).astype(np.float32))
        # Cosine from the full rate to 2 % of it over the time allowed.
        rate = arguments.rate * (0.51 + 0.49 * math.cos(math.pi * min(1.0, spent / budget)))
        with torch.autocast("cpu", torch.bfloat16):
            losses = trained(*delay(torch.from_numpy(part)), [prompts[i] for i in chosen], kept)
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(learning.values(), 1.0)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step += 1
        decay = min(0.99, step / (step + 10))
        torch._foreach_lerp_(list(average.values()), [weights.detach() for weights in learning.values()], 1.0 - decay)
        spent += time.monotonic() - began
        shown = losses.detach() if shown is None else torch.lerp(shown, losses.detach(), 0.05)
        if step % 25 == 0:
            values = " ".join(f"{value:.3f}" for value in shown)
            print(f"step {step} {spent / 60:.1f} min {values} ({shown.mean():.3f})", flush=True)
        if step % 250 == 0:
            print(f"step {step} {evaluate(trained, valid_codes[:32], valid_prompts)}", flush=True)
        if time.monotonic() - stored > 120.0 or spent >= budget:
            state = {"model": average, "raw": {name: weights.detach() for name, weights in learning.items()}}
            state |= {"optimisers": [stepper.state_dict() for stepper in steppers], "step": step, "spent": spent}
            save(path, state)
            stored = time.monotonic()
    model.load_state_dict(average, strict=False)
    print(f"done at step {step}: {evaluate(trained, valid_codes, valid_prompts)}", flush=True)


if __name__ == "__main__":
    main()
