"""Attention for training on a CPU: plain softmax over slices of the causal triangle.

PyTorch's own kernel for CPUs takes twice as long forward and backward in bf16, and its backward pass most of all.
"""

import torch

SLICE = 196  # queries at a time; what lies above the triangle of a slice is not computed


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_,
) -> torch.Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` computes for `[batch, heads, time, width]`."""
    assert dropout_p == 0.0
    batch, heads, times, width = query.shape
    scale = width**-0.5 if scale is None else scale
    if not is_causal:
        scores = (query @ key.transpose(-1, -2)) * scale
        if attn_mask is not None:
            wanted = attn_mask if attn_mask.dtype != torch.bool else torch.zeros(()).masked_fill(~attn_mask, -1e9)
            scores = scores + wanted.to(scores.dtype)
        return scores.softmax(-1) @ value
    rows = batch * heads
    query, key, value = (x.reshape(rows, -1, width) for x in (query, key, value))
    parts = []
    for first in range(0, times, SLICE):
        last = min(first + SLICE, times)
        later = torch.ones(last - first, last, dtype=torch.bool).triu(first + 1)
        bias = torch.zeros(last - first, last, dtype=query.dtype).masked_fill(later, -1e9)
        scores = torch.baddbmm(bias.expand(rows, -1, -1), query[:, first:last], key[:, :last].transpose(1, 2), alpha=scale)
        parts.append(torch.bmm(scores.softmax(-1), value[:, :last]))
    return torch.cat(parts, 1).view(batch, heads, times, width)


def install() -> None:
    """Makes transformers' modules use it."""
    torch.nn.functional.scaled_dot_product_attention = attention
