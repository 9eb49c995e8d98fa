"""Layers of the speaker models: masks, and pooling over valid frames.

A batch has utterances of different lengths. A mask is 1 at valid frames and 0 at padding, or
``None`` without padding; every layer that uses neighbours or computes statistics only sees valid
frames, so padding never changes an embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return ``x`` with padding set to zero. The mask must broadcast to ``x``."""
    return x if mask is None else x * mask


def mean_over_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over valid frames, the last dimension, in float32, dimensions kept."""
    x = x.float()
    if mask is None:
        return x.mean(dim=-1, keepdim=True)
    return (x * mask).sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True, dtype=x.dtype)


def mean_and_variance(
    x: Tensor, mask: Tensor | None, dims: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance over valid positions, in float32, dimensions kept.

    Args:
        x: values.
        mask: 1 and 0, broadcastable to ``x``, or ``None``.
        dims: dimensions to reduce.
    """
    x = x.float()
    if mask is None:
        variance, mean = torch.var_mean(x, dim=dims, keepdim=True, correction=1)
        return mean, variance
    weight = mask.float().expand(x.shape)
    count = weight.sum(dim=dims, keepdim=True)
    mean = (x * weight).sum(dim=dims, keepdim=True) / count
    squares = ((x - mean) * weight).square().sum(dim=dims, keepdim=True)
    return mean, squares / (count - 1).clamp(min=1)


def attentive_statistics(x: Tensor, scores: Tensor, mask: Tensor | None, *, floor: float) -> Tensor:
    """Return weighted mean and standard deviation over time (Okabe et al., Interspeech 2018).

    Args:
        x: shape (batch, channels, frames).
        scores: attention before the softmax, the same shape.
        mask: shape (batch, 1, frames), or ``None``.
        floor: lower bound of the variance.

    Returns:
        Shape (batch, 2 * channels), float32.
    """
    x, scores = x.float(), scores.float()
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -math.inf)
        x = masked(x, mask)
    weights = scores.softmax(dim=2)
    mean = (x * weights).sum(dim=2)
    variance = ((x - mean[:, :, None]).square() * weights).sum(dim=2)
    return torch.cat([mean, variance.clamp(min=floor).sqrt()], dim=1)
