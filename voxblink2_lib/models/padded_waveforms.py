"""Batches of padded waveforms or frames: which places are valid, and what depends on them alone."""

from __future__ import annotations

import torch
from torch import Tensor

from voxblink2_lib.models.features import FFT_SAMPLES, MAX_OFFSET, PRE_EMPHASIS

# Far below that of any sound: silence gives finite numbers.
_LEAST_DEVIATION = 1e-12


def valid_places(x: Tensor, lengths: Tensor) -> Tensor:
    """Return 1 at valid places and 0 at padding, shape (batch, places)."""
    return (torch.arange(x.shape[1], device=x.device)[None] < lengths[:, None]).to(x.dtype)


def mean_over_valid(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid places, the second dimension, which is kept."""
    return (x * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)


def prepared(waveforms: Tensor, lengths: Tensor, normalization: str | None) -> Tensor:
    """Return what the released models' front end transforms: each normalized, without low tones.

    Args:
        waveforms: shape (batch, samples).
        lengths: number of valid samples of each, shape (batch,).
        normalization: ``"std"`` or ``"max"``.

    Returns:
        Shape (batch, samples + 512): half a window is mirrored at each end.
    """
    valid = valid_places(waveforms, lengths)
    if normalization == "std":
        x = waveforms - mean_over_valid(waveforms, valid)
        variance = (x.square() * valid).sum(dim=1, keepdim=True) / (lengths - 1)[:, None]
        x = x / variance.sqrt().clamp(min=_LEAST_DEVIATION)
    else:
        x = waveforms / ((waveforms * valid).abs().amax(dim=1, keepdim=True) + MAX_OFFSET)
    x = torch.cat([x[:, :1], x[:, 1:] - PRE_EMPHASIS * x[:, :-1]], dim=1)
    return x.gather(1, _mirrored_places(x, lengths))


def _mirrored_places(x: Tensor, lengths: Tensor) -> Tensor:
    half = FFT_SAMPLES // 2
    places = torch.arange(x.shape[1] + 2 * half, device=x.device)[None] - half
    last = lengths[:, None] - 1
    return (last - (last - places.abs()).abs()).clamp(min=0)
