"""Audio for the codec: notes with harmonics that change pitch and loudness, and a little noise."""

import torch


def notes(samples: int, channels: int, rate: int, generator: torch.Generator) -> torch.Tensor:
    """`[1, channels, samples]`, peak about 0.5; pitches scale with `rate`, so that any codec hears the same."""

    def uniform(count, low, high):
        return torch.rand(count, generator=generator) * (high - low) + low

    voices = []
    for _ in range(channels):
        audio = torch.zeros(samples, dtype=torch.float64)
        for _ in range(3):
            # A new pitch about every fiftieth of the whole.
            count = 50
            edges = torch.cat([torch.rand(count - 1, generator=generator).sort().values, torch.ones(1)])
            note = torch.searchsorted(edges, torch.arange(samples) / samples).clamp(max=count - 1)
            pitch = (0.003 * 2.0 ** uniform(count, 0.0, 4.0)).double()[note]
            level = (0.02 * 2.0 ** uniform(count, 0.0, 3.0)).double()[note]
            phase = 2.0 * torch.pi * pitch.cumsum(0)
            audio += level * sum(torch.sin(phase * h) / h for h in (1, 2, 3))
        voices.append(audio + 0.01 * torch.randn(samples, generator=generator, dtype=torch.float64))
    return torch.stack(voices)[None].float()
