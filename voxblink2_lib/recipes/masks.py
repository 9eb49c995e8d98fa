"""Masks of features: drawn for each example where a batch is made, put on wherever features are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from voxblink2_lib.training import SpecAugment

_FRAMES, _BANDS = "masked_frames", "masked_bands"


def draw_masks(
    augment: SpecAugment, seeds: Sequence[int], *, frames: Sequence[int], bands: int
) -> dict[str, Tensor]:
    """Return the masks of a batch; each depends on the seed of its example alone.

    Args:
        augment: draws them.
        seeds: of the examples.
        frames: number of frames of each example.
        bands: number of bands.

    Returns:
        ``masked_frames``, shape (batch, frames), and ``masked_bands``, shape (batch, bands); bool.
    """
    masks = [
        augment.draw(frames=count, bands=bands, generator=np.random.default_rng(seed))
        for seed, count in zip(seeds, frames, strict=True)
    ]
    in_time = [torch.from_numpy(each.frames) for each in masks]
    return {
        _FRAMES: torch.nn.utils.rnn.pad_sequence(in_time, batch_first=True),
        _BANDS: torch.stack([torch.from_numpy(each.bands) for each in masks]),
    }


def with_masks(features: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return features, shape (batch, frames, bands), that are 0 where a batch masks them."""
    if _FRAMES not in batch:
        return features
    return features.masked_fill(batch[_FRAMES][:, :, None] | batch[_BANDS][:, None], 0)
