"""Trains the codec (transformers' EncodecModel) on rendered clips: resumable, bounded by wall time.

First an autoencoder with a little noise on the latent (a quantiser from the start lets the encoder shrink its
output), then codebooks from k-means and quantised training to the end.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from transformers import EncodecModel

import architecture
import measure
import quantiser
from music import Clips
from spectral import Reconstruction


@torch.no_grad()
def evaluate(model: EncodecModel, clips: Clips, loss: Reconstruction, count: int = 16) -> dict[str, float]:
    """Held-out figures with the exact published path: `encode`, `decode`."""
    model.eval()
    mel, agreement, distortion, codes = [], [], [], []
    for index in range(min(count, len(clips))):
        audio = clips.clip(index, 0, 8 * architecture.SAMPLE_RATE)
        encoded = model.encode(audio[None, None]).audio_codes
        decoded = model.decode(encoded, [None]).audio_values[0, 0, : len(audio)]
        made, wanted = (loss.log_mel(loss.magnitude(x[None], 1024), 1024) for x in (decoded, audio))
        mel.append((made - wanted).abs().mean().item())
        agreement.append(measure.chroma_agreement(audio, decoded))
        distortion.append(measure.si_sdr(decoded, audio))
        codes.append(encoded[0, 0])
    model.train()
    joined = torch.cat(codes, dim=1)
    figures = {"log_mel": np.mean(mel), "chroma_agreement": np.mean(agreement), "si_sdr": np.mean(distortion)}
    for stage, row in enumerate(joined):
        figures[f"perplexity_{stage}"] = quantiser.perplexity(row, architecture.CODES)
    return {name: float(value) for name, value in figures.items()}


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


def save(path: Path, state: dict) -> None:
    """Beside, then renamed: a kill in the middle loses nothing."""
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="directory for codec.pt")
    parser.add_argument("--minutes", type=float, default=25.0, help="training time in all, evaluation left out")
    parser.add_argument("--warm-steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--segment", type=int, default=32 * architecture.HOP)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    train, valid = Clips(arguments.data), Clips(arguments.valid)
    model = EncodecModel(architecture.codec_config()).train()
    loss = Reconstruction()
    optimiser = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.8, 0.99), weight_decay=1e-4)
    path = arguments.out / "codec.pt"
    arguments.out.mkdir(parents=True, exist_ok=True)
    step, spent, quantised = 0, 0.0, False
    budget, saved, shown = arguments.minutes * 60.0, time.monotonic(), {}
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent, quantised = state["step"], state["spent"], state["quantised"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)
    else:
        initialise(model, train.random_segments(np.random.default_rng(1), 16, arguments.segment))
    while spent < budget:
        began = time.monotonic()
        generator = np.random.default_rng((2, step))
        audio = train.random_segments(generator, arguments.batch, arguments.segment)
        if step >= arguments.warm_steps and not quantised:
            with torch.no_grad():
                rows = [model.encoder(train.random_segments(generator, 8, arguments.segment)) for _ in range(48)]
                latents = torch.cat(rows).transpose(1, 2).reshape(-1, model.config.codebook_dim)
            quantiser.start(model.quantizer, latents)
            quantised = True
        # Cosine from the full rate to 2 % of it over the time allowed.
        rate = arguments.rate * (0.51 + 0.49 * math.cos(math.pi * min(1.0, spent / budget)))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100)
        latent = model.encoder(audio)
        if quantised:
            latent, commitment, _ = quantiser.quantise(model.quantizer, latent, learn=True)
        else:
            latent = latent + 0.05 * latent.detach().std() * torch.randn_like(latent)
            commitment = torch.zeros(())
        decoded = model.decoder(latent)[..., : audio.shape[-1]]
        losses = loss(decoded[:, 0], audio[:, 0])
        # Phase first: with spectra weighing as much from the start the decoder makes shaped noise and stays there.
        spectra = 0.05 + 0.45 * min(1.0, max(0.0, (step - 200) / 300))
        total = 2.0 * losses["wave"] + spectra * (losses["mel"] + losses["magnitude"]) + 0.5 * commitment
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
        spent += time.monotonic() - began
        for name, value in {**losses, "commitment": commitment}.items():
            shown[name] = 0.98 * shown.get(name, float(value.detach())) + 0.02 * float(value.detach())
        if step % 50 == 0:
            text = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
            print(f"step {step} {spent / 60:.1f} min {text}", flush=True)
        if step % 1000 == 0 and quantised:
            print(f"step {step} held out {evaluate(model, valid, loss)}", flush=True)
        if time.monotonic() - saved > 120.0 or spent >= budget:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            save(path, {**state, "step": step, "spent": spent, "quantised": quantised})
            saved = time.monotonic()
    print(f"done at step {step}: {evaluate(model, valid, loss, 64)}", flush=True)


if __name__ == "__main__":
    main()
