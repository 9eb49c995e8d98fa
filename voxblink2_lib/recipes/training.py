"""Where training, models and scoring meet: parts of a recipe that learns to tell speakers apart.

The scripts in `examples/` and `voxblink2 demo --train` are made of these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from voxblink2_lib.models.conversion import KINDS
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training import Example

ARCHITECTURES = ("small", *RELEASED)

# 119 thousand parameters: what two cores train in seconds.
_SMALL = SpeakerResNetConfig(
    depths=(1, 1, 1, 1), base_channels=8, pooling="tsp", xvector_output_dim=64, num_mel_bins=40
)

_FAINT = 1e-5


def make_model(
    arch: str, *, classes: int, seed: int
) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    """Return an untrained model with a margin head, and its feature extractor.

    Args:
        arch: one of ``ARCHITECTURES``.
        classes: of the head.
        seed: of the weights.

    Raises:
        TrainingError: the architecture is not known.
    """
    if arch not in ARCHITECTURES:
        raise TrainingError(
            f"The architecture {arch!r} is not known. Available: {', '.join(ARCHITECTURES)}."
        )
    known = RELEASED.get(arch)
    config: SpeakerConfig = _SMALL if known is None else known.config
    config = type(config).from_dict({**config.to_dict(), "num_speakers": classes})
    torch.manual_seed(seed)
    normalization = "std" if known is None else known.normalization
    extractor = SpeakerFeatureExtractor(
        normalization=normalization, num_mel_bins=config.num_mel_bins
    )
    return KINDS[type(config)](config), extractor


# -- batches and steps ------------------------------------------------------------------------


class FeatureCollate:
    """Makes a batch of what a model takes: features and labels.

    Args:
        extractor: the model's front end.
    """

    def __init__(self, extractor: SpeakerFeatureExtractor) -> None:
        self._extractor = extractor

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``input_features``, ``attention_mask`` where lengths differ, and ``labels``."""
        waveforms = [_audible(one) for one in examples]
        found = self._extractor(waveforms, sampling_rate=SAMPLE_RATE_HZ)
        batch = {"labels": torch.tensor([one.label for one in examples])}
        if len({len(one.waveform) for one in examples}) > 1:
            batch["attention_mask"] = found["attention_mask"]
        return {"input_features": found["input_features"], **batch}


def _audible(example: Example) -> Tensor:
    """Return the waveform; a crop of digital silence gets the faintest noise.

    It has no spectrum otherwise, and one such crop must not end a training of days.
    """
    waveform = example.waveform
    if bool((waveform != waveform[0]).any()):
        return waveform
    noise = torch.randn(len(waveform), generator=torch.Generator().manual_seed(example.row))
    return waveform + _FAINT * noise


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate and margin as functions of the step, so that nothing of them is to be saved.

    The rate rises in a line, then falls as half a cosine. The margin rises in a line, since an
    untrained network cannot meet it.

    Attributes:
        steps: of the whole training.
        rate: the highest learning rate.
        margin: the final margin, in radians.
        rate_rises: part of the steps in which the rate rises.
        margin_rises: part of the steps in which the margin rises; 0 gives it from the start.
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
