"""Confidence intervals of what is averaged over conditions: mean rates, and equalized rates.

All conditions are drawn at once: trials each within its condition and class, or speakers for all
conditions together, which they are in. See :mod:`voxblink2_lib.scoring.intervals`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.bca import Influences, bca_ends
from voxblink2_lib.scoring.det import ErrorCounts
from voxblink2_lib.scoring.intervals import Interval, Intervals, marked_interval
from voxblink2_lib.scoring.resampling import (
    OperatingPoint,
    SortedTrials,
    SpeakerSides,
    check_speakers,
    share_of_misses,
    speaker_sides,
    speaker_weights,
    trial_weights,
)
from voxblink2_lib.scoring.validation import Flags, Floats, Rows, as_trials
from voxblink2_lib.scoring.verification import cost_weights

# Draws in a row in which a condition has no target or no non-target trial.
_MOST_DRAWS = 100

# EER and minDCF.
_METRICS = (0, 1)


_Points = tuple[OperatingPoint, OperatingPoint]


class _Part(NamedTuple):
    """The trials of one condition.

    Attributes:
        rows: their rows among all. Shape: [trials of it].
        trials: the same, on their own.
    """

    rows: Rows
    trials: SortedTrials


class _Conditions(NamedTuple):
    """Trials of conditions that have both classes, in ascending order of scores.

    Attributes:
        trials: all of them.
        parts: those of each condition.
        strata: condition and class of each trial, as a number. Shape: [trials].
        order: their rows as they were given. Shape: [trials].
    """

    trials: SortedTrials
    parts: Sequence[_Part]
    strata: Rows
    order: Rows

    @classmethod
    def of(
        cls, scores: Floats, targets: Flags, codes: Rows, costs: tuple[float, float]
    ) -> _Conditions:
        """Sort and divide trials."""
        counts = [np.bincount(codes[of], minlength=codes.max() + 1) for of in (targets, ~targets)]
        kept = np.flatnonzero(np.minimum(*counts)[codes])
        order = kept[np.argsort(scores[kept], kind="stable")]
        scores, flags = scores[order], targets[order]
        groups = np.unique(codes[order], return_inverse=True)[1]
        parts = [
            _Part(rows, SortedTrials.of(scores[rows], flags[rows], costs))
            for rows in (np.flatnonzero(groups == group) for group in range(groups.max() + 1))
        ]
        return cls(SortedTrials.of(scores, flags, costs), parts, 2 * groups + flags, order)

    def equalized_rates(self, weights: Rows) -> tuple[Floats, Floats]:
        """Return the mean miss rate and the mean false acceptance rate around each step."""
        totals = np.bincount(self.strata, weights)
        shares = weights / (totals * len(self.parts))[self.strata]
        misses, rejects = np.zeros((2, len(self.trials.steps) + 1))
        misses[1:] = np.cumsum(np.where(self.trials.flags, shares, 0))[self.trials.steps]
        rejects[1:] = np.cumsum(np.where(self.trials.flags, 0, shares))[self.trials.steps]
        return misses, 1 - rejects

    def equalized_points(self) -> list[_Points]:
        """Return, of each condition, its errors at the thresholds of the equalized metrics."""
        misses, accepts = self.equalized_rates(np.ones(len(self.order), np.int64))
        steps = _crossing_step(misses, accepts), int(np.argmin(self._costs(misses, accepts)))
        below = [int(self.trials.steps[step - 1]) + 1 if step else 0 for step in steps]
        return [
            (_point_of(part, steps[0], below[0]), _point_of(part, steps[1], below[1]))
            for part in self.parts
        ]

    def own_values(self, weights: Rows, points: Sequence[_Points]) -> Floats:
        """Return EER, minDCF, and both rates at the point of the EER, of each condition.

        Shape: [conditions, 4].
        """
        values = np.empty((len(self.parts), 4))
        for row, (part, (point, _)) in enumerate(zip(self.parts, points, strict=True)):
            missed, accepted = part.trials.counts(weights[part.rows])
            rates = missed[point.step] / missed[-1], accepted[point.step] / accepted[0]
            values[row] = *part.trials.metrics(missed, accepted), *rates
        return values

    def equalized_values(self, weights: Rows, step: int) -> tuple[float, float, float, float]:
        """Return EER and minDCF of the equalized rates, and these rates at a step."""
        misses, accepts = self.equalized_rates(weights)
        after = _crossing_step(misses, accepts)
        before, beyond = (abs(misses[at] - accepts[at]) for at in (after - 1, after))
        eer = (misses[after - 1] * beyond + misses[after] * before) / (before + beyond)
        return eer, self._costs(misses, accepts).min(), misses[step], accepts[step]

    def _costs(self, misses: Floats, accepts: Floats) -> Floats:
        miss_cost, accept_cost = self.trials.costs
        costs: Floats = (miss_cost * misses + accept_cost * accepts) / min(self.trials.costs)
        return costs


def _crossing_step(misses: Floats, accepts: Floats) -> int:
    # Rounding may leave the last rates apart by a bit.
    return min(int(np.searchsorted(misses - accepts, 0)), len(misses) - 1)


def _point_of(part: _Part, step: int, below_all: int) -> OperatingPoint:
    """Return the point of a condition at a step of all trials, with so many of them below."""
    below = int(np.searchsorted(part.rows, below_all))
    missed = int(np.count_nonzero(part.trials.flags[:below]))
    nontargets = int(np.count_nonzero(~part.trials.flags))
    return OperatingPoint(step, below, missed, nontargets - (below - missed))


class _Average(NamedTuple):
    """What is averaged over conditions, for each of the metrics.

    Attributes:
        values: of the original trials.
        points: the operating points of each condition.
        slopes: of each condition, how much of the EER is its miss rate at its point.
        resampled: of each resample. Shape: [resamples, 2].
    """

    values: tuple[float, float]
    points: Sequence[_Points]
    slopes: Sequence[float]
    resampled: Floats


def mean_intervals(
    scores: object,
    labels: object,
    codes: Rows,
    *,
    speakers: tuple[object, object] | None = None,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Advance | None = None,
) -> tuple[Intervals, Intervals]:
    """Return bootstrap intervals (BCa) of the mean rates and of the equalized rates.

    With fewer than 30 errors of a kind in a condition, an interval is marked, and at least as wide
    as the mean of the exact binomial intervals of the conditions.

    Args:
        scores: scores. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
        codes: the condition of each trial, from 0; one of a single class is left out.
            Shape: [trials].
        speakers: speakers of both sides, to resample speakers. Shape of both: [trials].
        p_target: prior of minDCF.
        c_miss: cost of a miss.
        c_fa: cost of a false acceptance.
        resamples: number of resamples.
        confidence: probability that an interval covers the true value.
        seed: of the generator.
        progress: called with the number of resamples done since the last call.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.intervals.bootstrap_intervals`; or too few
            speakers have trials of some condition.
    """
    values, targets = as_trials(scores, labels)
    costs = cost_weights(p_target, c_miss, c_fa)
    conditions = _Conditions.of(values, targets, codes, costs)
    generator = np.random.default_rng(seed)
    if speakers is None:
        sides, draws = None, trial_weights(generator, conditions.strata)
    else:
        sides = _sides(speakers, conditions)
        weights = speaker_weights(generator, sides, conditions.trials.flags)
        draws = _whole(weights, conditions.strata)
    averages = _resample(conditions, draws, resamples, progress)
    means, equalized = (
        _intervals(average, conditions, sides, confidence=confidence) for average in averages
    )
    return means, equalized


def _sides(speakers: tuple[object, object], conditions: _Conditions) -> SpeakerSides:
    """Return the speakers of trials; each condition must have enough of them."""
    first, second = (np.asarray(side)[conditions.order] for side in speakers)
    sides = speaker_sides((first, second), np.arange(len(first)), conditions.trials.flags)
    for part in conditions.parts:
        enrolment, test = (np.unique(side[part.rows]) for side in (sides.enrolment, sides.test))
        check_speakers(
            {
                "the enrolment sides of a condition": len(enrolment),
                "the test sides": len(test),
            }
        )
    return sides


def _whole(draws: Iterator[Rows], strata: Rows) -> Iterator[Rows]:
    """Yield the draws in which every condition has both classes."""
    failures = 0
    for weights in draws:
        if np.bincount(strata, weights).all():
            failures = 0
            yield weights
        elif (failures := failures + 1) == _MOST_DRAWS:
            raise ScoringError(
                f"speakers: in {failures} resamples in a row, a condition had only target or only "
                "non-target trials; it has too few speakers. Resample trials instead."
            )


def _resample(
    conditions: _Conditions, draws: Iterator[Rows], resamples: int, progress: Advance | None
) -> tuple[_Average, _Average]:
    """Return the mean and the equalized metrics of all trials, and of each resample."""
    own_points = [part.trials.points() for part in conditions.parts]
    shared_points = conditions.equalized_points()
    step = shared_points[0][0].step
    once = np.ones(len(conditions.order), np.int64)
    own = np.empty((resamples, len(own_points), 4))
    shared = np.empty((resamples, 4))
    for row in range(resamples):
        weights = next(draws)
        own[row] = conditions.own_values(weights, own_points)
        shared[row] = conditions.equalized_values(weights, step)
        if progress is not None:
            progress(1)
    slopes = [share_of_misses(each[:, 0], each[:, 2:]) for each in own.transpose(1, 0, 2)]
    slope = share_of_misses(shared[:, 0], shared[:, 2:])
    eer, cost, *_ = conditions.own_values(once, own_points).mean(axis=0).tolist()
    together, least, *_ = conditions.equalized_values(once, step)
    return (
        _Average((eer, cost), own_points, slopes, own[:, :, :2].mean(axis=1)),
        _Average(
            (float(together), float(least)), shared_points, [slope] * len(slopes), shared[:, :2]
        ),
    )


# -- Intervals -------------------------------------------------------------------------------------


def _intervals(
    average: _Average, conditions: _Conditions, sides: SpeakerSides | None, *, confidence: float
) -> Intervals:
    intervals: list[Interval] = []
    parts, costs = conditions.parts, conditions.trials.costs
    cost_shares = costs[0] / min(costs), costs[1] / min(costs)
    for metric in _METRICS:
        shifts = np.zeros(len(conditions.order))
        for part, points, slope in zip(parts, average.points, average.slopes, strict=True):
            weights = cost_shares if metric else (slope, 1 - slope)
            moved = part.trials.influence(points[metric], *weights)
            shifts[part.rows] = moved / len(parts)
        influences = Influences(shifts) if sides is None else sides.influences(shifts)
        value = average.values[metric]
        ends = bca_ends(value, average.resampled[:, metric], influences, confidence=confidence)
        chosen = [points[metric] for points in average.points]
        errors = ErrorCounts(
            min(point.misses for point in chosen), min(point.false_accepts for point in chosen)
        )
        limits = _limits(parts, chosen, cost_shares if metric else None, confidence=confidence)
        count = None if sides is None else min(_speakers_of(part, sides) for part in parts)
        intervals.append(marked_interval(value, ends, limits, errors, speakers=count))
    over = "trials" if sides is None else "speakers"
    return Intervals(intervals[0], intervals[1], confidence, len(average.resampled), over)


def _speakers_of(part: _Part, sides: SpeakerSides) -> int:
    return len(np.union1d(sides.enrolment[part.rows], sides.test[part.rows]))


def _limits(
    parts: Sequence[_Part],
    points: Sequence[OperatingPoint],
    weights: tuple[float, float] | None,
    *,
    confidence: float,
) -> tuple[float, float]:
    """Return the mean of the ends from the counts of the conditions."""
    ends = [
        part.trials.binomial_limits(point, weights, confidence=confidence)
        for part, point in zip(parts, points, strict=True)
    ]
    low, high = np.mean(ends, axis=0).tolist()
    return low, high
