"""Two systems on the same trials: the difference of their rates, on the same resamples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.bca import Influences, bca_ends, bca_share_below
from voxblink2_lib.scoring.costs import EQUAL_COSTS, Costs
from voxblink2_lib.scoring.det import ErrorCounts, Sweep
from voxblink2_lib.scoring.intervals import measured_rates, reason_to_doubt
from voxblink2_lib.scoring.resampling import (
    OperatingPoint,
    SortedTrials,
    SpeakerSides,
    speaker_sides,
    speaker_weights,
    trial_weights,
)
from voxblink2_lib.scoring.validation import Flags, Floats, Rows, as_trials
from voxblink2_lib.scoring.verification import cost_weights

# With fewer speakers, intervals cover too seldom: the simulation in benchmarks/comparisons.py.
_FEW_SPEAKERS = 100


@dataclass(frozen=True)
class PairedDifference:
    """A rate of two systems, and how sure their difference is.

    Attributes:
        first: the rate of the first system.
        second: that of the second.
        low: lower end of the interval of ``second - first``.
        high: upper end.
        second_better: how likely the second system's true rate is the lower one: an interval whose
            lower tail is that likely begins at 0.
        errors: misses and false acceptances of both.
        mark: why the interval may not hold; ``None`` where it does.
    """

    first: float
    second: float
    low: float
    high: float
    second_better: float
    errors: tuple[ErrorCounts, ErrorCounts]
    mark: str | None

    @property
    def difference(self) -> float:
        """The rate of the second system less that of the first: negative if it is better."""
        return self.second - self.first

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "interval": [self.low, self.high],
            "second_better": self.second_better,
            "errors": [errors._asdict() for errors in self.errors],
            "mark": self.mark,
        }


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same resamples.

    Attributes:
        eer: of the equal error rate.
        min_dcf: of the minimum cost at each prior.
        confidence: probability that an interval without a mark covers the true difference.
        resamples: number of resamples.
        over: what was resampled, ``"trials"`` or ``"speakers"``.
    """

    eer: PairedDifference
    min_dcf: dict[float, PairedDifference]
    confidence: float
    resamples: int
    over: str

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        costs = [{"p_target": prior, **each.as_dict()} for prior, each in self.min_dcf.items()]
        return {
            "over": self.over,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "eer": self.eer.as_dict(),
            "min_dcf": costs,
        }


def compare_systems(
    first: object,
    second: object,
    labels: object,
    *,
    speakers: tuple[object, object] | None = None,
    p_target: Sequence[float] = (0.01,),
    costs: Costs = EQUAL_COSTS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Advance | None = None,
) -> Comparison:
    """Compare two systems on the same trials.

    Both systems are measured on the same resamples, so that what is hard for both of them cancels
    out: their difference is far more certain than their rates. Its intervals are those of
    :func:`~voxblink2_lib.scoring.intervals.bootstrap_intervals` (BCa), of the difference.

    Args:
        first: scores of the first system. Shape: [trials].
        second: scores of the second system for the same trials. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
        speakers: speakers of the enrolment sides and of the test sides, to resample speakers; by
            default, trials are. Shape of both: [trials].
        p_target: priors of minDCF.
        costs: of a miss and of a false acceptance.
        resamples: number of resamples.
        confidence: probability that an interval covers the true difference.
        seed: of the generator; the same seed gives the same intervals.
        progress: called with the number of resamples done since the last call, of which each prior
            and each system takes as many.

    Raises:
        ScoringError: as for intervals; or the systems have different numbers of trials.

    Example:
        >>> import numpy as np
        >>> labels, generator = np.arange(400) % 2, np.random.default_rng(0)
        >>> scores = generator.normal(2 * labels, 1)
        >>> worse = scores + generator.normal(0, 1, 400)
        >>> comparison = compare_systems(scores, worse, labels, resamples=200)
        >>> comparison.eer.low > 0
        True
    """
    if not p_target:
        raise ScoringError("p_target is empty; name at least one prior.")
    (a_scores, flags), (b_scores, _) = (as_trials(scores, labels) for scores in (first, second))
    # An order of their own: the same draws are of the same trials, in whatever order these are, and
    # whichever system is the first.
    ends = np.minimum(a_scores, b_scores), np.maximum(a_scores, b_scores)
    order = np.lexsort((a_scores < b_scores, *ends, flags))
    flags = flags[order]
    sides = None if speakers is None else speaker_sides(speakers, order, flags)
    resampling = _Resampling(flags, sides, resamples, confidence, seed)
    differences = []
    for prior in p_target:
        systems = [
            _measure(scores[order], resampling, progress, p_target=prior, **costs._asdict())
            for scores in (a_scores, b_scores)
        ]
        differences.append([_difference(resampling, *pair) for pair in zip(*systems, strict=True)])
    return Comparison(
        eer=differences[0][0],
        min_dcf={prior: each[1] for prior, each in zip(p_target, differences, strict=True)},
        confidence=confidence,
        resamples=resamples,
        over="trials" if speakers is None else "speakers",
    )


class _Resampling(NamedTuple):
    """Trials in one order for both systems, and how they are resampled."""

    flags: Flags
    sides: SpeakerSides | None
    resamples: int
    confidence: float
    seed: int

    def weights(self, order: Rows) -> Iterator[Rows]:
        """Yield how often each trial is drawn, in an order; for every order, the same draws."""
        generator = np.random.default_rng(self.seed)
        draws = (
            trial_weights(generator, self.flags)
            if self.sides is None
            else speaker_weights(generator, self.sides, self.flags)
        )
        return (weights[order] for weights in draws)

    def influences(self, shifts: Floats) -> Influences:
        return Influences(shifts) if self.sides is None else self.sides.influences(shifts)


class _Rate(NamedTuple):
    """A rate of a system: of all trials, of each resample, and its shift by each trial."""

    value: float
    resampled: Floats
    shifts: Floats
    errors: ErrorCounts


def _measure(
    scores: Floats, resampling: _Resampling, progress: Advance | None, **costs: float
) -> list[_Rate]:
    """Return EER and minDCF of a system."""
    order, flags = np.argsort(scores, kind="stable"), resampling.flags
    weights = cost_weights(**costs)
    trials = SortedTrials.of(scores[order], flags[order], weights)
    points = trials.points()
    resampled, slope = trials.resample(
        resampling.weights(order), resampling.resamples, points[0], progress
    )
    factors = (slope, 1 - slope), (weights[0] / min(weights), weights[1] / min(weights))
    measured = measured_rates(Sweep.of(scores, flags), **costs)
    return [
        _Rate(
            value,
            resampled[:, column],
            _shifts(trials, points[column], factors[column], order),
            errors,
        )
        for column, (value, errors) in enumerate(measured)
    ]


def _shifts(
    trials: SortedTrials, point: OperatingPoint, factors: tuple[float, float], order: Rows
) -> Floats:
    shifts = np.empty(len(order))
    shifts[order] = trials.influence(point, *factors)
    return shifts


def _difference(resampling: _Resampling, first: _Rate, second: _Rate) -> PairedDifference:
    value = second.value - first.value
    resampled = second.resampled - first.resampled
    influences = resampling.influences(second.shifts - first.shifts)
    # Differences are not rates: they are narrowed as they are, not as log-odds.
    narrowed = value + influences.narrowing * (resampled - value)
    influences = replace(influences, narrowing=1.0)
    ends = bca_ends(value, narrowed, influences, confidence=resampling.confidence)
    speakers = None if resampling.sides is None else resampling.sides.speakers
    marks = [
        reason_to_doubt(rate.errors, speakers=speakers, fewest=_FEW_SPEAKERS)
        for rate in (first, second)
    ]
    return PairedDifference(
        first=first.value,
        second=second.value,
        low=ends[0],
        high=ends[1],
        second_better=bca_share_below(0, value, narrowed, influences),
        errors=(first.errors, second.errors),
        mark=marks[0] or marks[1],
    )
