"""What a piece of audio is, in numbers: chroma, pitch-class spread, silence, level, distance between two pieces."""

import math

import torch

from architecture import HOP, SAMPLE_RATE


def chroma(audio: torch.Tensor, window: int = 8192, hop: int = 4 * HOP) -> torch.Tensor:
    """Energy of the 12 pitch classes per analysis frame, `[frames, 12]`, from 80 Hz to 2 kHz, C first."""
    spectrum = torch.stft(audio, window, hop, window=torch.hann_window(window), return_complex=True).abs().square()
    frequency = torch.arange(1, window // 2 + 1) * SAMPLE_RATE / window
    inside = (frequency > 80.0) & (frequency < 2000.0)
    midi = 69.0 + 12.0 * torch.log2(frequency[inside] / 440.0)
    weights = torch.exp(-0.5 * ((midi[:, None] - torch.arange(12) + 6.0) % 12.0 - 6.0).square() / 0.35**2)
    return spectrum[1:].T[:, inside] @ weights


def sounding(audio: torch.Tensor, hop: int = 4 * HOP, floor_db: float = -50.0) -> torch.Tensor:
    """Which hops are above the floor, `[hops]` of bool."""
    blocks = audio[: audio.numel() // hop * hop].reshape(-1, hop).square().mean(1)
    return blocks > 10.0 ** (floor_db / 10.0)


def pitch_entropy(audio: torch.Tensor) -> float:
    """Entropy in bits of the strongest pitch class over sounding frames (0 = one tone, 3.58 = all 12 alike)."""
    frames, heard = chroma(audio), sounding(audio)
    count = min(len(frames), len(heard))
    strongest = frames[:count].argmax(1)[heard[:count]]
    share = torch.bincount(strongest, minlength=12).float() / max(1, len(strongest))
    return -(share * share.clamp_min(1e-9).log2()).sum().item()


def peakiness(audio: torch.Tensor) -> float:
    """Share of chroma energy in the strongest class, mean over frames: 1/12 for noise, higher for tonal sound."""
    frames = chroma(audio)
    return (frames.max(1).values / frames.sum(1).clamp_min(1e-12)).mean().item()


def chroma_agreement(one: torch.Tensor, other: torch.Tensor) -> float:
    """Share of sounding frames in which both have the same strongest pitch class, or lie within 1 dB of it."""
    a, b, heard = chroma(one), chroma(other), sounding(one)
    count = min(len(a), len(b), len(heard))
    a, b = a[:count], b[:count]
    near = a.gather(1, b.argmax(1, keepdim=True))[:, 0] > a.max(1).values * 10.0 ** -0.1
    return near[heard[:count]].float().mean().item()


def si_sdr(estimate: torch.Tensor, target: torch.Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB."""
    scaled = target * (estimate @ target) / target.square().sum().clamp_min(1e-12)
    return 10.0 * math.log10(scaled.square().sum().item() / max(1e-12, (estimate - scaled).square().sum().item()))


def power_spectrum(audio: torch.Tensor, window: int = 4096) -> torch.Tensor:
    """Power per frame and bin, `[frames, window / 2 + 1]`; a sine of amplitude 1 peaks at 0.25."""
    hann = torch.hann_window(window)
    spectrum = torch.stft(audio, window, window // 4, window=hann, return_complex=True) / hann.sum()
    return spectrum.abs().square().T


def band_difference(estimate: torch.Tensor, target: torch.Tensor, low: float, high: float) -> float:
    """Mean power of the estimate between two frequencies over that of the target, in dB (floor -110 dB)."""
    inside = slice(int(low * 4096 / SAMPLE_RATE), int(high * 4096 / SAMPLE_RATE))
    made, wanted = (power_spectrum(audio)[:, inside].sum(1).mean() + 1e-11 for audio in (estimate, target))
    return 10.0 * torch.log10(made / wanted).item()


def buzz(estimate: torch.Tensor, target: torch.Tensor, low: float = 12_000.0) -> float:
    """Share of frames in which the estimate has 6 dB more than the target above `low`, and more than -80 dB."""
    first = int(low * 4096 / SAMPLE_RATE)
    made, wanted = (power_spectrum(audio)[:, first:].sum(1) for audio in (estimate, target))
    return ((made > 4.0 * wanted) & (made > 1e-8)).float().mean().item()


def lines(estimate: torch.Tensor, target: torch.Tensor, spacing: int = 2000) -> float:
    """How far lines at multiples of `spacing` Hz stand out of the estimate's mean spectrum, beyond the target's.

    The mean over the multiples, in dB over the median of the bins 30 to 190 Hz away; below 0 counts as 0.
    """
    heights = []
    for audio in (estimate, target):
        mean = 10.0 * (power_spectrum(audio).mean(0) + 1e-11).log10()
        places = range(spacing * 4096 // SAMPLE_RATE, len(mean) - 32, spacing * 4096 // SAMPLE_RATE)
        beside = [torch.cat([mean[p - 24 : p - 3], mean[p + 4 : p + 25]]).median() for p in places]
        heights.append(torch.stack([mean[p - 1 : p + 2].max() - b for p, b in zip(places, beside)]))
    return (heights[0] - heights[1]).clamp_min(0.0).mean().item()


def rms(audio: torch.Tensor) -> float:
    return audio.square().mean().sqrt().item()
