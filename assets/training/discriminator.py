"""Multi-scale STFT discriminator for the codec (EnCodec, Defossez et al., 2022), small enough for two CPU cores.

Differences from the paper's: magnitudes are compressed, or it would not see anything above a few kHz in this quiet
music, and every layer halves the frequency axis.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (2048, 768, 256)
FILTERS = 12
POWER = 0.35  # exponent of the magnitude that a layer sees
FLOOR = 1e-4  # amplitude around which compression ends, -80 dB


class Scale(nn.Module):
    """One window: complex spectrum `[batch, 2, frames, bins]` to scores and the features of each layer."""

    def __init__(self, window: int, filters: int):
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        sizes = [2, filters, filters, 2 * filters, 2 * filters]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (3, 5), stride=(1, 2), padding=(1, 2))) for a, b in zip(sizes, sizes[1:])
        )
        self.score = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 3), padding=(1, 1)))

    def spectrum(self, audio: torch.Tensor) -> torch.Tensor:
        """`[batch, samples]` to real and imaginary part with compressed magnitude, channels last."""
        made = torch.stft(audio, self.window, self.window // 4, window=self.hann, return_complex=True) / self.hann.sum()
        parts = torch.view_as_real(made).permute(0, 3, 2, 1)
        power = parts.square().sum(1, keepdim=True) + FLOOR**2
        return (parts * power.pow(0.5 * (POWER - 1.0))).contiguous(memory_format=torch.channels_last)

    def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        hidden, features = self.spectrum(audio), []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return self.score(hidden), features


class Discriminator(nn.Module):
    """All scales over audio `[batch, samples]`: a list of (scores, features)."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ModuleList(Scale(window, FILTERS) for window in WINDOWS)

    def forward(self, audio: torch.Tensor) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        return [scale(audio) for scale in self.scales]


def hinge(real: list, made: list) -> torch.Tensor:
    """The discriminator's own loss; 2.0 is no knowledge, 0.0 a sure judgement."""
    losses = [F.relu(1.0 - r).mean() + F.relu(1.0 + m).mean() for (r, _), (m, _) in zip(real, made)]
    return sum(losses) / len(losses)


def adversarial(made: list) -> torch.Tensor:
    """What the codec lowers: minus the mean score of its output."""
    return sum(-scores.mean() for scores, _ in made) / len(made)


def feature_distance(real: list, made: list) -> torch.Tensor:
    """L1 between the features of the original and of the codec's output over the original's mean magnitude."""
    distances = [
        (m - r.detach()).abs().mean() / r.detach().abs().mean().clamp_min(1e-6)
        for (_, wanted), (_, got) in zip(real, made)
        for r, m in zip(wanted, got)
    ]
    return sum(distances) / len(distances)
