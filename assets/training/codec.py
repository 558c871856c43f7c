"""Trains the codec (transformers' EncodecModel) on rendered clips: resumable, bounded by processor time.

First an autoencoder with a little noise on the latent (a quantiser from the start lets the encoder shrink its
output), then codebooks from k-means and quantised training, in the last part against a discriminator as well.
"""

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
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

WEIGHTS = {"wave": 2.0, "mel": 0.5, "magnitude": 0.5, "periodic": 3.0, "notes": 2.0}
SMALLEST = 0.003  # size that a tensor counts as at least when its steps are measured, for biases that start at 0
AIR_SHARE = 0.3  # of the gradient's norm: log power of quiet bands pulls without bound where it is wrong


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


@torch.no_grad()
def rescale(model: EncodecModel, audio: torch.Tensor) -> None:
    """Brings the latent of a trained codec to a mean square of 1 without a change of what it does."""
    last, first = model.encoder.layers[-1].conv, model.decoder.layers[0].conv
    scale = model.encoder(audio).square().mean().sqrt()
    last.parametrizations.weight.original0.div_(scale)
    last.bias.div_(scale)
    first.parametrizations.weight.original0.mul_(scale)


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


class Balance:
    """Brings one gradient to a share of another's norm, by running means of both (EnCodec's balancer, two members)."""

    def __init__(self):
        self.norms = [0.0, 0.0]

    def weight(self, main: torch.Tensor, other: torch.Tensor) -> float:
        for place, value in enumerate((main, other)):
            norm = float(value.square().sum().sqrt())
            self.norms[place] = norm if self.norms[place] == 0.0 else 0.99 * self.norms[place] + 0.01 * norm
        return self.norms[0] / max(self.norms[1], 1e-12)


class Opponent:
    """The discriminator, its optimiser and the balance that sets its weight in the codec's gradient."""

    def __init__(self, rate: float):
        self.model = discriminator.Discriminator()
        self.weights = list(self.model.parameters())
        self.optimiser = torch.optim.AdamW(self.weights, lr=rate, betas=(0.5, 0.9), weight_decay=1e-4)
        self.balance = Balance()
        self.steps = 0

    def state_dict(self) -> dict:
        kept = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        return {**kept, "norms": self.balance.norms, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.balance.norms, self.steps = state["norms"], state["steps"]

    def learns(self, alone: int) -> bool:
        """In the first `alone` steps only the opponent learns; it learns at every second step after that."""
        return self.steps < alone or self.steps % 2 == 0

    def judge(
        self, made: torch.Tensor, audio: torch.Tensor, alone: int
    ) -> tuple[torch.Tensor | None, list[torch.Tensor], dict[str, torch.Tensor]]:
        """Both sides from one pass over `[batch, samples]`: push on `made`, gradients of its own weights, losses."""
        learns, plays = self.learns(alone), self.steps >= alone
        judged_real, judged = self.model(audio), self.model(made)
        shown = {"feature": discriminator.feature_distance(judged_real, judged)}
        push, own = None, []
        if plays:
            shown["adversarial"] = discriminator.adversarial(judged)
            total = shown["adversarial"] + 2.0 * shown["feature"]
            (push,) = torch.autograd.grad(total, made, retain_graph=learns)
        if learns:
            shown["hinge"] = discriminator.hinge(judged_real, judged)
            own = torch.autograd.grad(shown["hinge"], self.weights)
        return push, own, shown

    def step(self, gradients: list[list[torch.Tensor]], rate: float) -> None:
        """Moves the weights by the mean of the workers' gradients, where there are any."""
        if gradients[0]:
            for weight, *parts in zip(self.weights, *gradients):
                weight.grad = sum(parts) / len(parts)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
        self.steps += 1


class Workers:
    """Threads with a share of the batch each: convolutions of few channels gain nothing from threads of their own.

    One forward and backward pass runs in a thread from end to end; PyTorch leaves the interpreter's lock in its kernels.
    """

    def __init__(self, count: int):
        torch.set_num_threads(1)
        self.pool = ThreadPoolExecutor(count)
        self.count = count

    def each(self, work, *batches: torch.Tensor | list) -> list:
        """`work` on every share of the batches (a list is split already)."""
        return list(self.pool.map(work, *(x if isinstance(x, list) else x.chunk(self.count) for x in batches)))


def favour_hard(model: EncodecModel, loss: Reconstruction, clips: Clips, workers: Workers, length: int) -> None:
    """Draws clips by how badly they come out now: half evenly, half in proportion to the squared waveform error.

    Instruments that are few and rich in partials (a brass section) otherwise stay the worst to the end.
    """
    generator = np.random.default_rng(4)

    @torch.no_grad()
    def judge(indices: np.ndarray) -> list[float]:
        starts = generator.integers(clips.samples - length + 1, size=len(indices))
        audio = torch.stack([clips.clip(int(i), int(start), length) for i, start in zip(indices, starts)])[:, None]
        chosen, _, _ = quantiser.quantise(model.quantizer, model.encoder(audio), learn=False, seed=False)
        made = model.decoder(chosen)[:, 0, :length]
        return [float(loss(one[None], wanted)["wave"]) for one, wanted in zip(made, audio)]

    groups = np.array_split(np.arange(len(clips)), max(1, len(clips) // 8))
    hard = np.square(np.concatenate(workers.each(judge, groups)))
    clips.chances = 0.5 / len(clips) + 0.5 * hard / hard.sum()
    print(f"hardest tenth of the clips: {np.sort(clips.chances)[-len(clips) // 10 :].sum():.2f} of the draws", flush=True)


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
    parser.add_argument("--frozen-codes", action="store_true", help="only the decoder learns: codes made so far stay valid")
    parser.add_argument("--hard", action="store_true", help="draw the clips that come out worst more often")
    parser.add_argument("--warm-steps", type=int, default=600, help="without quantiser; none after --start")
    parser.add_argument("--opponent", type=float, default=0.5, help="when the discriminator enters, of 1")
    parser.add_argument("--opponent-share", type=float, default=1.0, help="its gradient over the reconstruction's")
    parser.add_argument("--alone", type=int, default=200, help="steps in which only the discriminator learns from it")
    parser.add_argument("--settle", type=float, default=0.85, help="when codes are seeded no longer, of 1")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--segment", type=int, default=32 * architecture.HOP)
    parser.add_argument("--rate", type=float, default=1e-2, help="step over the size of each tensor")
    parser.add_argument("--opponent-rate", type=float, default=3e-4)
    parser.add_argument("--evaluate-minutes", type=float, default=12.0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    workers = Workers(options.threads)
    torch.manual_seed(1)
    train, valid = Clips(options.data), Clips(options.valid)
    model = EncodecModel(architecture.codec_config()).train()
    loss = Reconstruction()
    optimiser = torch.optim.AdamW([{"params": [weights]} for weights in model.parameters()], betas=(0.8, 0.99), weight_decay=0.0)
    opponent, air = Opponent(options.opponent_rate), Balance()
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
        rescale(model, train.random_segments(np.random.default_rng(1), 16, options.segment))
        warm = 0
    else:
        initialise(model, train.random_segments(np.random.default_rng(1), 16, options.segment))
    lay_out(model)
    encoder_weights, decoder_weights = list(model.encoder.parameters()), list(model.decoder.parameters())
    learning = decoder_weights if options.frozen_codes else [*encoder_weights, *decoder_weights]
    if options.frozen_codes:
        model.encoder.requires_grad_(False)
    if options.hard and quantised:
        favour_hard(model, loss, train, workers, options.segment)
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
        relative = options.rate * decay * min(1.0, (step + 1) / 100)
        for group in optimiser.param_groups:
            # Relative to the tensor's own size (as in Adafactor): gains of weight norm reach from 0.003 to 10, and one rate
            # for all makes the output's level jump by a tenth at each step.
            (weights,) = group["params"]
            group["lr"] = relative * max(SMALLEST, float(weights.detach().square().mean().sqrt()))
        latents = workers.each(model.encoder, audio)
        latent = torch.cat(latents).detach().requires_grad_()
        if quantised:
            seed, learn = spent < options.settle * budget, not options.frozen_codes
            chosen, commitment, _ = quantiser.quantise(model.quantizer, latent, learn=learn, seed=seed)
        else:
            chosen = latent + 0.05 * latent.detach().std() * torch.randn_like(latent)
            commitment = torch.zeros(())
        # No other loss sees the latent's scale. Left alone it grows a hundredfold, the first layer of the decoder has
        # almost all of the gradient, and clipping takes the rest from everything else.
        scale = 0.5 * latent.square().mean().log()
        (pull,) = torch.autograd.grad(0.5 * commitment + 0.1 * scale.square(), latent)
        # Phase first: with spectra weighing as much from the start the decoder makes shaped noise and stays there.
        early = 1.0 if options.start else min(1.0, max(0.1, (step - 200) / 300))
        against = quantised and spent >= options.opponent * budget

        def work(audio, latent, chosen, pull):
            """Gradients of the codec's and the opponent's weights, and the losses, of one share of the batch."""
            chosen = chosen.detach().requires_grad_()
            decoded = model.decoder(chosen)[:, 0, : audio.shape[-1]]
            made = decoded.detach().requires_grad_()
            losses = loss(made, audio[:, 0])
            total = sum((weight if name == "wave" else early * weight) * losses[name] for name, weight in WEIGHTS.items())
            (gradient,) = torch.autograd.grad(total, made, retain_graph=True)
            (push,) = torch.autograd.grad(losses["air"], made)
            gradient = gradient + AIR_SHARE * early * air.weight(gradient, push) * push
            own = []
            if against:
                push, own, more = opponent.judge(made, audio[:, 0], options.alone)
                losses.update(more)
                if push is not None:
                    gradient = gradient + options.opponent_share * opponent.balance.weight(gradient, push) * push
            back, *of_decoder = torch.autograd.grad(decoded, [chosen, *decoder_weights], gradient)
            if options.frozen_codes:
                return of_decoder, own, losses
            of_encoder = torch.autograd.grad(latent, encoder_weights, back + workers.count * pull)
            return [*of_encoder, *of_decoder], own, losses

        shares = workers.each(work, audio, latents, chosen, pull)
        for weight, *parts in zip(learning, *(share[0] for share in shares)):
            weight.grad = sum(parts) / workers.count
        torch.nn.utils.clip_grad_norm_(learning, 5.0)
        optimiser.step()
        if against:
            opponent.step([share[1] for share in shares], options.opponent_rate * min(1.0, 2.0 * decay))
        losses = {name: sum(float(share[2][name].detach()) for share in shares) / workers.count for name in shares[0][2]}
        step += 1
        # Processor time: beside other work at idle priority the clock says nothing about how far training is.
        spent += (time.process_time() - began) / options.threads
        for name, value in {**losses, "commitment": float(commitment.detach()), "scale": float(scale.detach().exp())}.items():
            shown[name] = 0.98 * shown.get(name, value) + 0.02 * value
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
