"""Learning rate and margin as functions of the epochs that are done, so a checkpoint needs neither.

    epochs done   0     6          19         39                150
    rate          /‾‾‾--____
                 /          ‾‾‾‾‾‾----________________________
    margin        ___________________.-‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾

Epochs done are a fraction: batches of the epoch that are done, over all of it. So the schedule is
the same whatever the number of processes, and a run that goes on with another number of them
neither repeats nor leaves out a part of it. Beyond its end, and before its beginning, it stays as
it is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from voxblink2_lib.errors import TrainingError

# What is left of the distance to the final margin when it is set to that (WeSpeaker).
_LEFT_OF_MARGIN = 1e-3


@dataclass(frozen=True, slots=True)
class ExponentialRate:
    """A learning rate that falls exponentially, after a linear warm-up from zero.

    rate(t) = first * (last / first) ** (t / epochs) * min(1, t / warm_up_epochs), which is
    ``ExponentialDecrease`` of WeSpeaker's recipes (Wang et al., "WeSpeaker", ICASSP 2023).

    Attributes:
        epochs: of the whole training.
        first: the rate at its beginning, without warm-up.
        last: the rate at its end.
        warm_up_epochs: epochs of the warm-up; 0 for none.

    Raises:
        TrainingError: a number is not allowed.

    Example:
        >>> rate = ExponentialRate(epochs=150, first=0.1, last=5e-5, warm_up_epochs=6)
        >>> rate.at(0), round(rate.at(6), 4), round(rate.at(150), 6), round(rate.at(151), 6)
        (0.0, 0.0738, 5e-05, 5e-05)
    """

    epochs: float
    first: float
    last: float
    warm_up_epochs: float = 0.0

    def __post_init__(self) -> None:
        if not (self.epochs > 0 and self.first > 0 and self.last > 0):
            raise TrainingError(
                f"A schedule of {self.epochs:g} epochs with rates from {self.first:g} to "
                f"{self.last:g} is not possible: all must be above 0."
            )

    def at(self, epochs_done: float) -> float:
        """Return the learning rate after so many epochs."""
        done = min(max(epochs_done, 0.0), self.epochs)
        rate = self.first * math.pow(self.last / self.first, done / self.epochs)
        return rate * min(1.0, done / self.warm_up_epochs) if self.warm_up_epochs else rate


@dataclass(frozen=True, slots=True)
class ExponentialMargin:
    """A margin that rises from zero, at first fast: an untrained network cannot meet the final one.

    margin(t) = final * (1 - 0.001 ** ((t - starts) / (fixed - starts))) between the two, which is
    ``MarginScheduler`` of WeSpeaker's recipes.

    Attributes:
        final: the final margin, in radians.
        starts: epochs done when it begins to rise.
        fixed: epochs done from which it is final; 0 for a constant margin.

    Example:
        >>> margin = ExponentialMargin(final=0.2, starts=19, fixed=39)
        >>> margin.at(19), round(margin.at(29), 4), margin.at(39)
        (0.0, 0.1937, 0.2)
    """

    final: float
    starts: float = 0.0
    fixed: float = 0.0

    def at(self, epochs_done: float) -> float:
        """Return the margin after so many epochs."""
        if epochs_done >= self.fixed:
            return self.final
        if epochs_done <= self.starts:
            return 0.0
        share = (epochs_done - self.starts) / (self.fixed - self.starts)
        return self.final * (1 - math.pow(_LEFT_OF_MARGIN, share))
