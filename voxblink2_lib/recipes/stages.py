"""The stages of the published recipe, with their defaults; docs/training.md has their sources.

pretrain    VoxBlink2         a network from random weights, short crops, a rising margin
finetune    VoxCeleb2         other speakers, so another head; a lower rate
lmft        VoxCeleb2         the same speakers, long crops, a large margin
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from voxblink2_lib.recipes.schedules import ExponentialMargin, ExponentialRate

OptimizerName = Literal["sgd", "adamw"]

# Crops of a step, of all processes together, that the published rates are meant for.
_RATED_BATCH = 64
# AdamW's rate for SGD's of 1. Not published: with 0.1 it is what the training demo uses.
_ADAMW_RATE = 0.03


@dataclass(frozen=True, slots=True)
class Stage:
    """Defaults of a stage.

    Attributes:
        epochs: number of passes over the corpus.
        crop_seconds: length of a crop.
        margin: the final margin, in radians.
        margin_starts: epochs done when the margin begins to rise from 0.
        margin_fixed: epochs done from which it is final; 0 for a constant margin.
        rate: of SGD at the beginning, for 64 crops a step.
        last_rate: that at the end.
        warm_up_epochs: epochs during which the rate rises from 0.
        average: number of last epochs whose weights are averaged into the model.
        speeds: of the crops; each speed of a speaker is a class.
    """

    epochs: int
    crop_seconds: float
    margin: float
    margin_starts: float
    margin_fixed: float
    rate: float
    last_rate: float
    warm_up_epochs: float
    average: int
    speeds: tuple[float, ...] = (1.0, 0.9, 1.1)

    def first_rate(self, optimizer: OptimizerName) -> float:
        """Return the rate at the beginning, for 64 crops a step.

        Args:
            optimizer: ``"sgd"`` or ``"adamw"``.
        """
        return self.rate * (_ADAMW_RATE if optimizer == "adamw" else 1.0)

    def averaged_epochs(self, epochs: int) -> int:
        """Return how many last epochs are averaged in a run of so many: the same share of them.

        Args:
            epochs: of the run.
        """
        return max(1, round(self.average * epochs / self.epochs))

    def rate_schedule(self, epochs: int, rate: float) -> ExponentialRate:
        """Return the schedule of the rate in a run of so many epochs: compressed, or stretched.

        Args:
            epochs: of the run.
            rate: at its beginning, after :func:`scaled_rate`.
        """
        return ExponentialRate(
            epochs=epochs,
            first=rate,
            last=rate * self.last_rate / self.rate,
            warm_up_epochs=self.warm_up_epochs * epochs / self.epochs,
        )

    def margin_schedule(self, epochs: int, margin: float) -> ExponentialMargin:
        """Return the schedule of the margin in a run of so many epochs.

        Args:
            epochs: of the run.
            margin: at its end.
        """
        share = epochs / self.epochs
        return ExponentialMargin(margin, self.margin_starts * share, self.margin_fixed * share)


# WeSpeaker counts epochs from 1: its "increase_start_epoch: 20" is when 19 are done.
STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "pretrain": Stage(
            epochs=150,
            crop_seconds=2.0,
            margin=0.2,
            margin_starts=19,
            margin_fixed=39,
            rate=0.1,
            last_rate=5e-5,
            warm_up_epochs=6,
            average=10,
        ),
        "finetune": Stage(
            epochs=50,
            crop_seconds=2.0,
            margin=0.2,
            margin_starts=6,
            margin_fixed=13,
            rate=5e-3,
            last_rate=2.5e-5,
            warm_up_epochs=2,
            average=3,
        ),
        "lmft": Stage(
            epochs=5,
            crop_seconds=6.0,
            margin=0.5,
            margin_starts=0,
            margin_fixed=0,
            rate=1e-4,
            last_rate=2.5e-5,
            warm_up_epochs=1,
            average=1,
        ),
    }
)


def scaled_rate(rate: float, *, crops: int, optimizer: OptimizerName) -> float:
    """Return the rate for so many crops a step, from that for 64.

    In proportion for SGD (Goyal et al., "Accurate, Large Minibatch SGD", 2017), as WeSpeaker does;
    by the root for AdamW (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms", NeurIPS 2022).

    Args:
        rate: for 64 crops a step.
        crops: of a step: those of a process, times processes, times accumulated batches.
        optimizer: whose rate it is.

    >>> scaled_rate(0.1, crops=256, optimizer="sgd"), scaled_rate(0.1, crops=256, optimizer="adamw")
    (0.4, 0.2)
    """
    ratio = crops / _RATED_BATCH
    return rate * (math.sqrt(ratio) if optimizer == "adamw" else ratio)
