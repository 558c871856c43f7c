"""Trains the codec (transformers' EncodecModel) on rendered clips: resumable, bounded by processor time.

First an autoencoder with a little noise on the latent (a quantiser from the start lets the encoder shrink its
output), then codebooks from k-means and quantised training, in the last part against a discriminator as well.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import EncodecConv1d

import architecture
import discriminator
import measure
import quantiser
from music import Clips
from spectral import Reconstruction

WEIGHTS = {"wave": 2.0, "mel": 0.5, "magnitude": 0.5, "periodic": 1.0}


@torch.no_grad()
def evaluate(weights: dict, clips: Clips, loss: Reconstruction, count: int = 16) -> dict[str, float]:
    """Held-out figures with the exact published path: `encode`, `decode` of an unchanged EncodecModel."""
    model = EncodecModel(architecture.codec_config()).eval()
    model.load_state_dict(weights)
    rows, codes = [], []
    count = min(count, len(clips))
    for index in range(count):
        audio = clips.clip(index * len(clips) // count, 0, 8 * architecture.SAMPLE_RATE)
        encoded = model.encode(audio[None, None]).audio_codes
        decoded = model.decode(encoded, [None]).audio_values[0, 0, : len(audio)]
        made, wanted = (loss.log_mel(loss.magnitude(x[None], 1024), 1024) for x in (decoded, audio))
        row = {"log_mel": (made - wanted).abs().mean().item()}
        row["chroma_agreement"] = measure.chroma_agreement(audio, decoded)
        row["si_sdr"] = measure.si_sdr(decoded, audio)
        for low, high in ((0, 4000), (4000, 8000), (8000, 12000), (12000, 16000)):
            row[f"db_{low // 1000}_{high // 1000}_khz"] = measure.band_difference(decoded, audio, low, high)
        row["buzz_12_khz"] = measure.buzz(decoded, audio)
        row["lines_db"] = measure.lines(decoded, audio)
        rows.append(row)
        codes.append(encoded[0, 0])
    figures = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    for stage, row in enumerate(torch.cat(codes, dim=1)):
        figures[f"perplexity_{stage}"] = quantiser.perplexity(row, architecture.CODES)
    return {name: round(value, 4) for name, value in figures.items()}


@torch.no_grad()
def initialise(model: EncodecModel, audio: torch.Tensor) -> None:
    """Weight norm's data-dependent start (Salimans and Kingma, 2016): every convolution gives unit variance.

    transformers' own initialisation does not reach weights under a parametrisation, and with PyTorch's default gain
    the signal dies on its way through the encoder: the latent is a constant, and training never leaves that state.
    """

    def scale(name: str):
        target = 0.1 if name.endswith(f"decoder.layers.{len(model.decoder.layers) - 1}.conv") else 1.0
        target = 0.3 if name.endswith("block.3.conv") else target

        def hook(module, _, output):
            deviation = (output - module.bias[:, None]).std().clamp_min(1e-6)
            module.parametrizations.weight.original0.mul_(target / deviation)
            shifted = (output - module.bias[:, None]) * (target / deviation)
            module.bias.zero_()
            return shifted

        return hook

    kinds = (torch.nn.Conv1d, torch.nn.ConvTranspose1d)
    hooks = [m.register_forward_hook(scale(name)) for name, m in model.named_modules() if isinstance(m, kinds)]
    model.decoder(model.encoder(audio))
    for hook in hooks:
        hook.remove()


def lay_out(model: EncodecModel) -> None:
    """Runs the convolutions on `[batch, time, channels]` memory: the same sums, about twice as fast on a CPU.

    oneDNN's kernels for few channels are good in that layout, which PyTorch has for two dimensions only.
    """

    last = torch.channels_last

    def convolution(module):
        across = (1, module.stride[0])
        transposed = isinstance(module, torch.nn.ConvTranspose1d)

        def forward(x: torch.Tensor) -> torch.Tensor:
            x = x[:, :, None].contiguous(memory_format=last)
            weight = module.weight[:, :, None].contiguous(memory_format=last)
            if transposed:
                return F.conv_transpose2d(x, weight, module.bias, stride=across).squeeze(2)
            y = F.conv2d(x, weight, module.bias, stride=across, dilation=(1, module.dilation[0]))
            return y.contiguous(memory_format=last).squeeze(2)

        return forward

    def pad(x: torch.Tensor, paddings: tuple, mode: str) -> torch.Tensor:
        left, right = (int(width) for width in paddings)
        return F.pad(x[:, :, None], (left, right, 0, 0), mode).squeeze(2) if left + right else x

    for module in model.modules():
        if isinstance(module, EncodecConv1d):
            module._pad1d = pad
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            module.forward = convolution(module)


class Opponent:
    """The discriminator, its optimiser and the running gradient norms that set its weight in the codec's gradient."""

    def __init__(self, rate: float):
        self.model = discriminator.Discriminator()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate, betas=(0.5, 0.9), weight_decay=1e-4)
        self.norms = [0.0, 0.0]
        self.steps = 0

    def state_dict(self) -> dict:
        kept = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        return {**kept, "norms": self.norms, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.norms, self.steps = state["norms"], state["steps"]

    def play(
        self, made: torch.Tensor, audio: torch.Tensor, gradient: torch.Tensor, share: float, alone: int, rate: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """One step of both sides from one pass: the codec's gradient `[batch, samples]` and the losses.

        The opponent's gradient on `made` is brought to `share` of the reconstruction's norm (EnCodec's balancer with
        two members). In the first `alone` steps only the opponent learns. It learns at every second step after that.
        """
        learns = self.steps < alone or self.steps % 2 == 0
        for weights in self.model.parameters():
            weights.requires_grad_(learns)
        judged_real, judged = self.model(audio), self.model(made)
        shown = {"feature": discriminator.feature_distance(judged_real, judged)}
        if self.steps >= alone:
            shown["adversarial"] = discriminator.adversarial(judged)
            total = shown["adversarial"] + 2.0 * shown["feature"]
            (push,) = torch.autograd.grad(total, made, retain_graph=learns)
            for place, value in enumerate((gradient, push)):
                norm = float(value.square().sum().sqrt())
                self.norms[place] = norm if self.norms[place] == 0.0 else 0.99 * self.norms[place] + 0.01 * norm
            gradient = gradient + share * self.norms[0] / max(self.norms[1], 1e-12) * push
        if learns:
            shown["hinge"] = discriminator.hinge(judged_real, judged)
            weights = list(self.model.parameters())
            for weight, value in zip(weights, torch.autograd.grad(shown["hinge"], weights)):
                weight.grad = value
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
        self.steps += 1
        return gradient, shown


def save(path: Path, state: dict) -> None:
    """Beside, then renamed: a kill in the middle loses nothing."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a .pt file, or a directory for codec.pt")
    parser.add_argument("--start", type=Path, help="trained codec to begin with; its codebooks are made anew")
    parser.add_argument("--minutes", type=float, default=25.0, help="in all, processor time over the threads")
    parser.add_argument("--warm-steps", type=int, default=600, help="without quantiser; none after --start")
    parser.add_argument("--opponent", type=float, default=0.5, help="when the discriminator enters, of 1")
    parser.add_argument("--opponent-share", type=float, default=1.0, help="its gradient over the reconstruction's")
    parser.add_argument("--alone", type=int, default=200, help="steps in which only the discriminator learns from it")
    parser.add_argument("--settle", type=float, default=0.85, help="when codes are seeded no longer, of 1")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--segment", type=int, default=32 * architecture.HOP)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--opponent-rate", type=float, default=3e-4)
    parser.add_argument("--evaluate-minutes", type=float, default=12.0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    train, valid = Clips(options.data), Clips(options.valid)
    model = EncodecModel(architecture.codec_config()).train()
    loss = Reconstruction()
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    opponent = Opponent(options.opponent_rate)
    path = options.out if options.out.suffix == ".pt" else options.out / "codec.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    step, spent, quantised, warm = 0, 0.0, False, options.warm_steps
    budget, saved, shown = options.minutes * 60.0, time.monotonic(), {}
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        opponent.load_state_dict(state["opponent"])
        step, spent, quantised = state["step"], state["spent"], state["quantised"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)
    elif options.start:
        model.load_state_dict(torch.load(options.start, weights_only=True)["model"])
        warm = 0
    else:
        initialise(model, train.random_segments(np.random.default_rng(1), 16, options.segment))
    lay_out(model)
    judged = spent
    while spent < budget:
        began = time.process_time()
        generator = np.random.default_rng((2, step))
        torch.manual_seed(step)
        audio = train.random_segments(generator, options.batch, options.segment)
        if step >= warm and not quantised:
            with torch.no_grad():
                rows = [model.encoder(train.random_segments(generator, 8, options.segment)) for _ in range(96)]
                latents = torch.cat(rows).transpose(1, 2).reshape(-1, model.config.codebook_dim)
            quantiser.start(model.quantizer, latents, options.batch * options.segment // architecture.HOP)
            quantised = True
        # Cosine from the full rate to 2 % of it over the time allowed.
        decay = 0.51 + 0.49 * math.cos(math.pi * min(1.0, spent / budget))
        for group in optimiser.param_groups:
            group["lr"] = options.rate * decay * min(1.0, (step + 1) / 100)
        latent = model.encoder(audio)
        if quantised:
            seed = spent < options.settle * budget
            latent, commitment, _ = quantiser.quantise(model.quantizer, latent, learn=True, seed=seed)
        else:
            latent = latent + 0.05 * latent.detach().std() * torch.randn_like(latent)
            commitment = torch.zeros(())
        decoded = model.decoder(latent)[:, 0, : audio.shape[-1]]
        made = decoded.detach().requires_grad_()
        losses = loss(made, audio[:, 0])
        # Phase first: with spectra weighing as much from the start the decoder makes shaped noise and stays there.
        early = 1.0 if options.start else min(1.0, max(0.1, (step - 200) / 300))
        total = sum((weight if name == "wave" else early * weight) * losses[name] for name, weight in WEIGHTS.items())
        (gradient,) = torch.autograd.grad(total, made)
        if quantised and spent >= options.opponent * budget:
            rate = options.opponent_rate * min(1.0, 2.0 * decay)
            gradient, more = opponent.play(made, audio[:, 0], gradient, options.opponent_share, options.alone, rate)
            losses.update(more)
        optimiser.zero_grad(set_to_none=True)
        # The gradient on the output is made of parts; as an inner product it is one loss to go back from.
        ((decoded * gradient).sum() + 0.5 * commitment).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        # Processor time: beside other work at idle priority the clock says nothing about how far training is.
        spent += (time.process_time() - began) / options.threads
        for name, value in {**losses, "commitment": commitment}.items():
            shown[name] = 0.98 * shown.get(name, float(value.detach())) + 0.02 * float(value.detach())
        if step % 50 == 0:
            text = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
            print(f"step {step} {spent / 60:.1f} min {text}", flush=True)
        if spent - judged > options.evaluate_minutes * 60.0 and quantised:
            print(f"step {step} held out {evaluate(model.state_dict(), valid, loss)}", flush=True)
            judged = spent
        if time.monotonic() - saved > 90.0 or spent >= budget:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            state["opponent"] = opponent.state_dict()
            save(path, {**state, "step": step, "spent": spent, "quantised": quantised})
            saved = time.monotonic()
    print(f"done at step {step}: {evaluate(model.state_dict(), valid, loss, 64)}", flush=True)


if __name__ == "__main__":
    main()
