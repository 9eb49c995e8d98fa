"""Confidence intervals by bootstrap, over trials or over speakers.

Each resample draws with replacement, which gives every trial a weight. Nothing is sorted or scored
again, so 1,000 resamples of a public trial list take a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.det import Sweep, crossing_of
from voxblink2_lib.scoring.validation import Flags, Rows, as_speaker_labels, as_trials
from voxblink2_lib.scoring.verification import cost_weights, eer, min_dcf

# How often a resample without any target or any non-target trial is drawn again, at most.
_DRAWS_PER_RESAMPLE = 100


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: the metric of the original trials, a fraction.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Intervals of EER and minDCF from the same resamples.

    Attributes:
        eer: of the interpolated equal error rate.
        min_dcf: of the normalized minimum detection cost.
        confidence: share of resamples between the ends.
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
    seed: int = 0,
    progress: Advance | None = None,
) -> Intervals:
    """Return percentile bootstrap intervals of EER and minDCF.

    Trials of the same speaker are not independent: intervals over trials are too narrow when few
    speakers have many trials. Over speakers, the weight of a trial between two speakers is the
    product of how often each was drawn (Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1, 2007); that of a trial within a speaker is how often the speaker was drawn.

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
        confidence: share of resamples between the two ends.
        seed: of the generator; the same seed gives the same intervals.
        progress: called with the number of resamples done since the last call.

    Raises:
        ScoringError: bad scores, labels or speakers; or resamples over speakers that repeatedly
            contain only one class.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> labels = np.arange(400) % 2
        >>> intervals = bootstrap_intervals(rng.normal(2 * labels), labels, resamples=200)
        >>> intervals.eer.low < intervals.eer.value < intervals.eer.high
        True
    """
    if resamples < 1:
        raise ScoringError(f"resamples must be at least 1, got {resamples}.")
    if not 0 < confidence < 1:
        raise ScoringError(f"confidence must lie between 0 and 1, got {confidence}.")
    checked, targets = as_trials(scores, labels)
    costs = cost_weights(p_target, c_miss, c_fa)
    order = np.argsort(checked, kind="stable")
    # The last trial of each run of equal scores: only there does a step end.
    ordered = checked[order]
    steps = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    flags = targets[order]
    generator = np.random.default_rng(seed)
    if speakers is None:
        draws = _trial_weights(generator, flags)
    else:
        draws = _speaker_weights(generator, speakers, order, flags)
    resampled = np.empty((resamples, 2))
    for resample in range(resamples):
        resampled[resample] = _metrics(next(draws), flags, steps, *costs)
        if progress is not None:
            progress(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    sweep = Sweep.of(scores, labels)
    costs_of_errors = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    values = eer(sweep).eer, min_dcf(sweep, **costs_of_errors).min_dcf
    return Intervals(
        eer=Interval(values[0], float(low[0]), float(high[0])),
        min_dcf=Interval(values[1], float(low[1]), float(high[1])),
        confidence=confidence,
        resamples=resamples,
        over="trials" if speakers is None else "speakers",
    )


def _trial_weights(generator: np.random.Generator, flags: Flags) -> Iterator[Rows]:
    classes = [np.flatnonzero(flags), np.flatnonzero(~flags)]
    while True:
        weights = np.empty(len(flags), np.int64)
        for rows in classes:
            drawn = generator.integers(len(rows), size=len(rows))
            weights[rows] = np.bincount(drawn, minlength=len(rows))
        yield weights


def _speaker_weights(
    generator: np.random.Generator,
    speakers: tuple[object, object],
    order: Rows,
    flags: Flags,
) -> Iterator[Rows]:
    enrolment, test, count = _speaker_rows(speakers, order, flags)
    same = enrolment == test
    attempts = 0
    while True:
        draws = generator.integers(count, size=count)
        drawn = np.bincount(draws, minlength=count).astype(np.int64)
        weights = drawn[enrolment] * np.where(same, 1, drawn[test])
        if weights[flags].any() and weights[~flags].any():
            attempts = 0
            yield weights
        elif (attempts := attempts + 1) == _DRAWS_PER_RESAMPLE:
            raise ScoringError(
                f"speakers: {attempts} resamples in a row had only target or only non-target "
                f"trials; {count} speakers are too few for this. Resample trials instead."
            )


def _speaker_rows(
    speakers: tuple[object, object], order: Rows, flags: Flags
) -> tuple[Rows, Rows, int]:
    """Return the speakers of both sides as numbers, in the order of scores, and how many."""
    sides = [
        as_speaker_labels(side, f"speakers[{number}]", rows=len(order), of="scores")[order]
        for number, side in enumerate(speakers)
    ]
    names, rows = np.unique(np.concatenate(sides), return_inverse=True)
    enrolment, test = rows[: len(order)], rows[len(order) :]
    wrong = np.flatnonzero(flags & (enrolment != test))
    if wrong.size:
        raise ScoringError(
            f"labels say that trial {order[wrong[0]]} is a target trial, speakers say "
            f"{sides[0][wrong[0]]} and {sides[1][wrong[0]]}."
        )
    if len(names) < 2:
        raise ScoringError("speakers name only one speaker; at least two are needed.")
    return enrolment, test, len(names)


def _metrics(
    weights: Rows,
    flags: Flags,
    steps: Rows,
    miss_cost: float,
    accept_cost: float,
) -> tuple[float, float]:
    """Return EER and normalized minDCF of weighted trials in ascending order of scores."""
    # Before the first step everything is accepted.
    missed = np.append(0, np.cumsum(np.where(flags, weights, 0))[steps])
    rejected = np.append(0, np.cumsum(np.where(flags, 0, weights))[steps])
    accepted = rejected[-1] - rejected
    costs = miss_cost * (missed / missed[-1]) + accept_cost * (accepted / rejected[-1])
    return crossing_of(missed, accepted), float(costs.min()) / min(miss_cost, accept_cost)
