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
from voxblink2_lib.recipes.device_inputs import padded_waveforms
from voxblink2_lib.recipes.masks import draw_masks, with_masks
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import Example, SpecAugment

ARCHITECTURES = ("small", *RELEASED)

# 119 thousand parameters: two cores train it in seconds.
_SMALL = SpeakerResNetConfig(
    depths=(1, 1, 1, 1), base_channels=8, pooling="tsp", xvector_output_dim=64, num_mel_bins=40
)

_FAINTEST_NOISE = 1e-5


# -- Model -----------------------------------------------------------------------------------------


class ModelWithExtractor(NamedTuple):
    """A model and its feature extractor.

    Attributes:
        model: with new weights.
        extractor: makes its inputs.
    """

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
    """Makes a batch of a model's inputs: features and labels, or waveforms and labels.

    Args:
        extractor: of the model.
        masks: of the features, drawn from the seed of each example.
        on_device: leave the features to ``DeviceInputs``, and make a batch of waveforms.
    """

    def __init__(
        self,
        extractor: SpeakerFeatureExtractor,
        *,
        masks: SpecAugment | None = None,
        on_device: bool = False,
    ) -> None:
        self._extractor = extractor
        self._masks = masks
        self._on_device = on_device

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_features``, ``attention_mask`` if lengths differ, and ``labels``.

        On a device they are made of ``waveforms``, ``lengths`` if they differ, and masks if any.
        """
        waveforms = [_audible(example) for example in examples]
        batch = {"labels": torch.tensor([example.label for example in examples])}
        masks = self._drawn_masks(examples)
        if self._on_device:
            return {**padded_waveforms(waveforms, self._extractor), **batch, **masks}
        features = self._extractor(waveforms, sampling_rate=SAMPLE_RATE_HZ)
        if len({len(example.waveform) for example in examples}) > 1:
            batch["attention_mask"] = features["attention_mask"]
        return {"input_features": with_masks(features["input_features"], masks), **batch}

    def _drawn_masks(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        if self._masks is None:
            return {}
        frames = [self._extractor.frame_count(len(example.waveform)) for example in examples]
        seeds = [example.seed for example in examples]
        return draw_masks(self._masks, seeds, frames=frames, bands=self._extractor.num_mel_bins)


def _audible(example: Example) -> Tensor:
    """Return the waveform; with the faintest noise if it is digital silence.

    That has no spectrum otherwise, and a single such crop must not end a training of days.
    """
    waveform = example.waveform
    lowest, highest = waveform.aminmax()
    if bool(lowest != highest):
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

    def rate_at(self, step: float) -> float:
        """Return the learning rate of a step, counted from 0; after the end, that of the last.

        Of a run that may be resumed with another number of processes, the step is
        ``steps * loader.share_done(epochs)``.

        Args:
            step: its number.
        """
        step = min(step, self.steps - 1)
        rising = max(1.0, self.rate_rises * self.steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate / 2 * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising + 1)))

    def margin_at(self, step: float) -> float:
        """Return the margin of a step, counted from 0.

        Args:
            step: its number.
        """
        rising = self.margin_rises * self.steps
        return self.margin * min(1.0, step / rising) if rising else self.margin
