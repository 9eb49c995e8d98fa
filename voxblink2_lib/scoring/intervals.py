"""Confidence intervals by bootstrap, over trials or over speakers, and marks where they fail.

Each resample draws with replacement, which gives every trial a weight. Nothing is sorted or scored
again, so 1,000 resamples of a public trial list take a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.bca import Influences, bca_ends, percentile_ends
from voxblink2_lib.scoring.det import FEWEST_ERRORS, ErrorCounts, Sweep
from voxblink2_lib.scoring.resampling import (
    SortedTrials,
    speaker_sides,
    speaker_weights,
    trial_weights,
)
from voxblink2_lib.scoring.validation import as_trials, check_choice
from voxblink2_lib.scoring.verification import cost_weights, min_dcf

# With fewer speakers, intervals cover too seldom: the simulation in benchmarks/intervals.py.
_FEW_SPEAKERS = 40

Method = Literal["bca", "percentile"]


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: the metric of the original trials, a fraction.
        low: lower end.
        high: upper end.
        errors: misses and false acceptances at the metric's threshold.
        mark: why the interval may not hold; ``None`` where it does.
    """

    value: float
    low: float
    high: float
    errors: ErrorCounts
    mark: str | None = None


@dataclass(frozen=True)
class Intervals:
    """Intervals of EER and minDCF from the same resamples.

    Attributes:
        eer: of the interpolated equal error rate.
        min_dcf: of the normalized minimum detection cost.
        confidence: probability that an interval without a mark covers the true value.
        resamples: number of resamples.
        over: what was resampled, ``"trials"`` or ``"speakers"``.
    """

    eer: Interval
    min_dcf: Interval
    confidence: float
    resamples: int
    over: str

    def as_dict(self) -> dict[str, Any]:
        """Return the ends of the intervals and how they were computed, for JSON."""
        return {
            "over": self.over,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "eer": [self.eer.low, self.eer.high],
            "min_dcf": [self.min_dcf.low, self.min_dcf.high],
            "marks": {"eer": self.eer.mark, "min_dcf": self.min_dcf.mark},
        }


def bootstrap_intervals(
    scores: object,
    labels: object,
    *,
    speakers: tuple[object, object] | None = None,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    resamples: int = 1000,
    confidence: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
    progress: Advance | None = None,
) -> Intervals:
    """Return bootstrap intervals (BCa) of EER and minDCF.

    Trials of the same speaker are not independent: intervals over trials are too narrow when few
    speakers have many trials. Over speakers, the weight of a trial between two speakers is the
    product of how often each was drawn (Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1, 2007); that of a trial within a speaker is how often the speaker was drawn.

    With fewer than 30 errors of a kind, or fewer than 40 speakers, an interval is marked: it may
    not hold. With few errors it is at least as wide as the exact binomial interval.

    Args:
        scores: scores. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
        speakers: speakers of the enrolment sides and of the test sides, to resample speakers.
            Shape of both: [trials]. Without it, target trials and non-target trials are resampled,
            separately.
        p_target: prior of minDCF.
        c_miss: cost of a miss.
        c_fa: cost of a false acceptance.
        resamples: number of resamples.
        confidence: probability that an interval covers the true value.
        method: ``"bca"``, bias-corrected and accelerated, and over speakers also corrected for how
            much resamples of pairs deviate too much; ``"percentile"``: quantiles of the resamples.
        seed: of the generator; the same seed gives the same intervals.
        progress: called with the number of resamples done since the last call.

    Raises:
        ScoringError: see :meth:`Sweep.of`; or fewer than 10 speakers on a side, target trials
            between two speakers, or arguments out of range.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(400) % 2
        >>> scores = np.random.default_rng(0).normal(2 * labels, 1)
        >>> interval = bootstrap_intervals(scores, labels, resamples=200).eer
        >>> 0 < interval.low < interval.value < interval.high < 0.25
        True
    """
    if resamples < 1:
        raise ScoringError(f"resamples must be at least 1, got {resamples}.")
    if not 0 < confidence < 1:
        raise ScoringError(f"confidence must lie between 0 and 1, got {confidence}.")
    check_choice("method", method, get_args(Method))
    checked, targets = as_trials(scores, labels)
    costs = cost_weights(p_target, c_miss, c_fa)
    order = np.argsort(checked, kind="stable")
    trials = SortedTrials.of(checked[order], targets[order], costs)
    sides = None if speakers is None else speaker_sides(speakers, order, trials.flags)
    generator = np.random.default_rng(seed)
    draws = (
        trial_weights(generator, trials.flags)
        if sides is None
        else speaker_weights(generator, sides, trials.flags)
    )
    points = trials.points()
    resampled, slope = trials.resample(draws, resamples, points[0], progress)
    # What a miss rate and a false acceptance rate of 1 add to each metric.
    weights = (slope, 1 - slope), (costs[0] / min(costs), costs[1] / min(costs))
    limits = (
        trials.binomial_limits(points[0], None, confidence=confidence),
        trials.binomial_limits(points[1], weights[1], confidence=confidence),
    )
    count = None if sides is None else sides.speakers
    intervals: list[Interval] = []
    measured = measured_rates(Sweep.of(scores, labels), p_target=p_target, c_miss=c_miss, c_fa=c_fa)
    for column, (value, errors) in enumerate(measured):
        if method == "bca":
            shifts = trials.influence(points[column], *weights[column])
            influences = Influences(shifts) if sides is None else sides.influences(shifts)
            ends = bca_ends(value, resampled[:, column], influences, confidence=confidence)
        else:
            ends = percentile_ends(resampled[:, column], confidence=confidence)
        intervals.append(marked_interval(value, ends, limits[column], errors, speakers=count))
    return Intervals(
        eer=intervals[0],
        min_dcf=intervals[1],
        confidence=confidence,
        resamples=resamples,
        over="trials" if speakers is None else "speakers",
    )


def measured_rates(sweep: Sweep, **costs: float) -> list[tuple[float, ErrorCounts]]:
    """Return EER and minDCF, each with its errors."""
    rate, crossing = sweep.crossing()
    least = min_dcf(sweep, **costs)
    threshold = float(least.threshold)  # type: ignore[arg-type]  # one prior has one
    return [(rate, sweep.errors(crossing)), (least.min_dcf, sweep.errors(threshold))]


def other_marks(intervals: Iterable[Interval]) -> list[str]:
    """Return why intervals may not hold besides few errors, each reason once."""
    marks = [each.mark for each in intervals if each.mark and not each.errors.few]
    return list(dict.fromkeys(marks))


def marked_interval(
    value: float,
    ends: tuple[float, float],
    limits: tuple[float, float],
    errors: ErrorCounts,
    *,
    speakers: int | None,
) -> Interval:
    """Return an interval, marked where it may not hold.

    Args:
        value: the metric.
        ends: of its bootstrap interval.
        limits: ends from the counts alone: where there are few errors, the wider counts.
        errors: misses and false acceptances.
        speakers: how many were resampled; ``None`` where trials were.
    """
    low, high = ends
    if errors.few:
        low, high = min(low, limits[0]), max(high, limits[1])
    return Interval(value, low, high, errors, reason_to_doubt(errors, speakers=speakers))


def reason_to_doubt(
    errors: ErrorCounts, *, speakers: int | None, fewest: int = _FEW_SPEAKERS
) -> str | None:
    """Return why an interval may not hold; nothing where it does.

    Args:
        errors: misses and false acceptances.
        speakers: how many were resampled; ``None`` where trials were.
        fewest: with fewer speakers, such intervals cover too seldom.
    """
    if errors.few:
        return f"fewer than {FEWEST_ERRORS} errors of a kind"
    if speakers is not None and speakers < fewest:
        return f"fewer than {fewest} speakers"
    return None
