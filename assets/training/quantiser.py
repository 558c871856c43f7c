"""Training of the residual vector quantiser, straight on the buffers of transformers' EncodecModel.

k-means start, exponential moving averages, codes used too little seeded anew from the batch: every code of a book
should carry its share of the ten bits that it costs.
"""

import torch
from torch import nn

DECAY = 0.995
DEAD = 0.3  # of a code's fair share of the vectors: below it a code is seeded anew
SEEDS = 16  # codes seeded in a step at most: one batch holds too few vectors for many codes at different places


@torch.no_grad()
def k_means(vectors: torch.Tensor, count: int, rounds: int = 12) -> torch.Tensor:
    """`count` centres of `vectors` `[n, d]`; a centre below the `DEAD` share is put on a random one.

    Random vectors lie where vectors are many, so the crowded centres are split. The last rounds move none.
    """
    centres = vectors[torch.randperm(len(vectors))[:count]].clone()
    fair = len(vectors) / count
    for number in range(rounds):
        nearest = assign(vectors, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=count).float()[:, None]
        fresh = vectors[torch.randint(len(vectors), (count,))]
        least = DEAD * fair if number < rounds - 3 else 0.0
        centres = torch.where(sizes > least, sums / sizes.clamp_min(1.0), fresh)
    return centres


def assign(vectors: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return (centres.square().sum(1) - 2.0 * vectors @ centres.T).argmin(1)


@torch.no_grad()
def start(quantizer: nn.Module, latents: torch.Tensor, batch: int) -> None:
    """Codebooks of all stages from k-means on latents `[n, d]`; `batch` is the vectors of one training step."""
    residual = latents
    for layer in quantizer.layers:
        book = layer.codebook
        book.embed.copy_(k_means(residual, book.codebook_size))
        nearest = assign(residual, book.embed)
        book.cluster_size.copy_(torch.bincount(nearest, minlength=book.codebook_size).float())
        book.cluster_size.mul_(batch / len(residual)).clamp_min_(1e-3)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        residual = residual - book.embed[nearest]


def quantise(
    quantizer: nn.Module, latent: torch.Tensor, learn: bool, seed: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Straight-through quantised latent `[b, d, t]`, commitment loss over the latent's variance, codes `[q, b, t]`.

    `learn` moves the codes to what they were chosen for, `seed` also moves those that are chosen too seldom.
    """
    vectors = latent.transpose(1, 2)
    flat = vectors.reshape(-1, vectors.shape[-1])
    residual = flat.detach()
    total = torch.zeros_like(residual)
    codes, commitment = [], 0.0
    variance = flat.detach().var(0).sum().clamp_min(1e-8)
    for layer in quantizer.layers:
        book = layer.codebook
        with torch.no_grad():
            nearest = assign(residual, book.embed)
            chosen = book.embed[nearest].clone()
            if learn:
                update(book, residual, nearest, seed)
        total = total + chosen
        commitment = commitment + (flat - total).square().sum(1).mean() / variance
        residual = residual - chosen
        codes.append(nearest.view(vectors.shape[:-1]))
    quantised = flat + (total - flat).detach()
    return quantised.view_as(vectors).transpose(1, 2), commitment / len(codes), torch.stack(codes)


@torch.no_grad()
def update(book: nn.Module, vectors: torch.Tensor, nearest: torch.Tensor, seed: bool) -> None:
    """Move the codes to the running mean of what they were chosen for."""
    sizes = torch.bincount(nearest, minlength=book.codebook_size).float()
    sums = torch.zeros_like(book.embed).index_add_(0, nearest, vectors)
    book.cluster_size.mul_(DECAY).add_(sizes, alpha=1.0 - DECAY)
    book.embed_avg.mul_(DECAY).add_(sums, alpha=1.0 - DECAY)
    fair = book.cluster_size.sum() / book.codebook_size
    if seed:
        # The least used first; a new code has the fair share to lose before it is judged.
        places = book.cluster_size.argsort()[:SEEDS]
        places = places[book.cluster_size[places] < DEAD * fair]
        seeds = vectors[torch.randint(len(vectors), (len(places),))]
        book.cluster_size[places] = fair
        book.embed_avg[places] = seeds * fair
    book.embed.copy_(book.embed_avg / book.cluster_size.clamp_min(1e-6)[:, None])


def perplexity(codes: torch.Tensor, size: int) -> float:
    share = torch.bincount(codes.flatten(), minlength=size).float() / codes.numel()
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum()).item()
