"""Reconstruction loss of the codec: waveform, magnitude and log-mel distances at several windows."""

import torch
from torch import nn

from architecture import SAMPLE_RATE

WINDOWS = (256, 512, 1024, 2048, 4096)
FLOOR = 3e-5  # amplitude below which spectra count as silent, about -90 dB
LONG = 8192  # window that tells neighbouring notes apart, as chroma does
NOTES = (60.0, 4200.0)  # Hz that the ear takes note peaks from
NOTE_FLOOR = 1e-5  # mean magnitude within `NOTES` of a tone at -50 dB, below which a frame counts as silent
AIR = (8000.0, 1000.0)  # Hz above which bands of this width are compared as a whole
AIR_FLOOR = 1e-9  # power of such a band that counts as silent, -90 dB in all: a haze of -63 dB is below `FLOOR` per bin
QUIET = 1e-3  # power added below the waveform error: the end of a decay must not outweigh all music beside it
PERIOD = 16  # samples: 2 kHz, the rate before the last two upsamplers, whose images are lines at its multiples
STRETCH = 320  # periods averaged, 160 ms: what stays so long is no music


def mel_matrix(window: int, bands: int) -> torch.Tensor:
    """Triangular mel filters `[bins, bands]` with unit sums over each band."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + SAMPLE_RATE / 2 / 700.0))
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top.item(), bands + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, window // 2 + 1)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rise, fall).clamp_min(0.0)
    nearest = (bins - edges[1:-1]).abs().argmin(0)
    filters[nearest, torch.arange(bands)] = filters[nearest, torch.arange(bands)].clamp_min(1e-3)
    return filters / filters.sum(0)


def periodic(error: torch.Tensor) -> torch.Tensor:
    """Mean amplitude of what repeats every `PERIOD` samples in an error `[batch, samples]`, its constant left out.

    Transposed convolutions leave such images of their bias; a log-mel band dilutes a line among its other bins.
    """
    stretches = error[:, : error.shape[1] // (PERIOD * STRETCH) * (PERIOD * STRETCH)]
    cycle = stretches.reshape(len(error), -1, STRETCH, PERIOD).mean(2)
    return (cycle - cycle.mean(2, keepdim=True)).abs().mean((1, 2))


class Reconstruction(nn.Module):
    """Distances of `[batch, samples]` from its target: each a mean of something relative to the target.

    `wave` error over power, `periodic` error over level, `mel` and `magnitude` L1 over all windows, `notes` magnitude L1
    of a long window where notes are, `air` log-power L1 of whole bands above 8 kHz.
    """

    def __init__(self):
        super().__init__()
        for window in WINDOWS:
            self.register_buffer(f"hann_{window}", torch.hann_window(window))
            self.register_buffer(f"mel_{window}", mel_matrix(window, max(16, min(80, window // 12))))
        self.register_buffer(f"hann_{LONG}", torch.hann_window(LONG))

    def magnitude(self, audio: torch.Tensor, window: int) -> torch.Tensor:
        hann = getattr(self, f"hann_{window}")
        spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True)
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-12).transpose(1, 2) / hann.sum()

    def log_mel(self, magnitude: torch.Tensor, window: int) -> torch.Tensor:
        return (magnitude @ getattr(self, f"mel_{window}") + FLOOR).log()

    def notes(self, audio: torch.Tensor) -> torch.Tensor:
        """Magnitudes of the long window's bins within `NOTES`, `[batch, frames, bins]`."""
        first, last = (round(hertz * LONG / SAMPLE_RATE) for hertz in NOTES)
        return self.magnitude(audio, LONG)[:, :, first:last]

    def air(self, magnitude: torch.Tensor, window: int) -> torch.Tensor:
        """Log power of the bands above `AIR`, `[batch, frames, bands]`, from magnitudes `[batch, frames, bins]`."""
        first, width = (round(hertz * window / SAMPLE_RATE) for hertz in AIR)
        bands = magnitude[:, :, first : first + (magnitude.shape[2] - first) // width * width]
        return (bands.unflatten(2, (-1, width)).square().sum(3) + AIR_FLOOR).log()

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = {"wave": ((estimate - target).square().mean(1) / (target.square().mean(1) + QUIET)).mean()}
        losses["periodic"] = (periodic(estimate - target) / target.square().mean(1).sqrt().clamp_min(1e-3)).mean()
        with torch.no_grad():
            wanted = self.notes(target)
        # Every sounding frame counts alike, as in chroma: a tail weighs as much as an attack.
        losses["notes"] = ((self.notes(estimate) - wanted).abs().mean(2) / (wanted.mean(2) + NOTE_FLOOR)).mean()
        losses["mel"], losses["magnitude"] = 0.0, 0.0
        for window in WINDOWS:
            with torch.no_grad():
                wanted = self.magnitude(target, window)
                wanted_mel = self.log_mel(wanted, window)
            made = self.magnitude(estimate, window)
            losses["mel"] += (self.log_mel(made, window) - wanted_mel).abs().mean() / len(WINDOWS)
            if window == 1024:
                losses["air"] = (self.air(made, window) - self.air(wanted, window)).abs().mean()
            losses["magnitude"] += (made - wanted).abs().mean() / wanted.mean().clamp_min(1e-6) / len(WINDOWS)
        return losses
