"""Parts of a recipe to train a speaker model: model, batches, schedule.

The scripts in ``examples/`` and ``voxblink2 demo --train`` are made of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.models import (
    RELEASED,
    SpeakerConfig,
    SpeakerFeatureExtractor,
    SpeakerModel,
    SpeakerResNetConfig,
)
from voxblink2_lib.models.architectures import KINDS
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import Example

ARCHITECTURES = ("small", *RELEASED)

# 119 thousand parameters: two cores train it in seconds.
_SMALL = SpeakerResNetConfig(
    depths=(1, 1, 1, 1), base_channels=8, pooling="tsp", xvector_output_dim=64, num_mel_bins=40
)

_FAINTEST_NOISE = 1e-5


# -- Model -----------------------------------------------------------------------------------------


class ModelWithExtractor(NamedTuple):
    """A model and its feature extractor."""

    model: SpeakerModel
    extractor: SpeakerFeatureExtractor


def make_model(
    arch: str, *, classes: int, seed: int, head: Mapping[str, Any] | None = None
) -> ModelWithExtractor:
    """Return an untrained model with a margin head, and its feature extractor.

    Args:
        arch: one of ``ARCHITECTURES``.
        classes: number of classes of the head.
        seed: of the weights.
        head: further options of the head, by their names in the configuration.

    Raises:
        TrainingError: the architecture is unknown.
    """
    if arch not in ARCHITECTURES:
        raise TrainingError(
            f"The architecture {arch!r} is unknown. Available: {', '.join(ARCHITECTURES)}."
        )
    released = RELEASED.get(arch)
    config: SpeakerConfig = _SMALL if released is None else released.config
    config = type(config).from_dict({**config.to_dict(), **(head or {}), "num_speakers": classes})
    torch.manual_seed(seed)
    normalization = "std" if released is None else released.normalization
    extractor = SpeakerFeatureExtractor(
        normalization=normalization, num_mel_bins=config.num_mel_bins
    )
    return ModelWithExtractor(KINDS[type(config)](config), extractor)


# -- Batches and schedule --------------------------------------------------------------------------


class FeatureCollate:
    """Makes a batch of a model's inputs: features and labels.

    Args:
        extractor: of the model.
    """

    def __init__(self, extractor: SpeakerFeatureExtractor) -> None:
        self._extractor = extractor

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_features``, ``attention_mask`` if lengths differ, and ``labels``."""
        waveforms = [_audible(example) for example in examples]
        features = self._extractor(waveforms, sampling_rate=SAMPLE_RATE_HZ)
        batch = {"labels": torch.tensor([example.label for example in examples])}
        if len({len(example.waveform) for example in examples}) > 1:
            batch["attention_mask"] = features["attention_mask"]
        return {"input_features": features["input_features"], **batch}


def _audible(example: Example) -> Tensor:
    """Return the waveform; with the faintest noise if it is digital silence.

    That has no spectrum otherwise, and a single such crop must not end a training of days.
    """
    waveform = example.waveform
    if bool((waveform != waveform[0]).any()):
        return waveform
    noise = torch.randn(len(waveform), generator=torch.Generator().manual_seed(example.row))
    return waveform + _FAINTEST_NOISE * noise


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate and margin as functions of the step, so a checkpoint needs neither.

    The rate rises linearly, then falls as half a cosine. The margin rises linearly: an untrained
    network cannot meet the final one.

    Attributes:
        steps: number of steps of the whole training.
        rate: the highest learning rate.
        margin: the final margin, in radians.
        rate_rises: share of the steps during which the rate rises.
        margin_rises: share of the steps during which the margin rises; 0 for a constant margin.
    """

    steps: int
    rate: float
    margin: float
    rate_rises: float = 0.2
    margin_rises: float = 0.5

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = max(1.0, self.rate_rises * self.steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate / 2 * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising + 1)))

    def margin_at(self, step: int) -> float:
        """Return the margin of a step, counted from 0."""
        rising = self.margin_rises * self.steps
        return self.margin * min(1.0, step / rising) if rising else self.margin
