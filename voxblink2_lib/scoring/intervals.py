"""Confidence intervals by bootstrap, over trials or over speakers.

Each resample draws with replacement and gives every trial a weight; nothing is sorted or scored
again, so a thousand resamples of a public trial list take a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.det import crossing_of
from voxblink2_lib.scoring.validation import Flags, Rows, as_speaker_labels, as_trials
from voxblink2_lib.scoring.verification import cost_weights

# A resample without any target or non-target trial is drawn again, so often at most.
_DRAWS_PER_RESAMPLE = 100


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: the metric on the trials as they are, a fraction.
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
        min_dcf: of the normalised least detection cost.
        confidence: share of resamples between the ends.
        resamples: how many were drawn.
        over: what was drawn, ``"trials"`` or ``"speakers"``.
    """

    eer: Interval
    min_dcf: Interval
    confidence: float
    resamples: int
    over: str


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

    Trials of one speaker are not independent: intervals over trials are too narrow when few
    speakers have many trials. Over speakers, a trial between two speakers counts as often as the
    two were drawn, multiplied (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
    2007), and a trial of a speaker with itself as often as that speaker was drawn.

    Args:
        scores: [trials].
        labels: [trials], 1 for a target trial, 0 for a non-target trial.
        speakers: speaker labels of the enrolment sides [trials] and of the test sides [trials], to
            draw speakers. Without it, target trials and non-target trials are drawn, each within
            themselves.
        p_target: prior of minDCF.
        c_miss: cost of a miss.
        c_fa: cost of a false acceptance.
        resamples: how many to draw.
        confidence: share of resamples between the two ends.
        seed: of the generator; the same seed gives the same intervals.
        progress: called with how many resamples were done more.

    Raises:
        ScoringError: bad scores, labels or speakers, see the message; or resamples over speakers
            that hold only one class again and again.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(1)
        >>> labels = np.arange(400) % 2
        >>> found = bootstrap_intervals(rng.normal(2 * labels), labels, resamples=200)
        >>> found.eer.low < found.eer.value < found.eer.high
        True
    """
    if resamples < 1:
        raise ScoringError(f"resamples must be at least 1, got {resamples}.")
    if not 0 < confidence < 1:
        raise ScoringError(f"confidence must lie between 0 and 1, got {confidence}.")
    checked, targets = as_trials(scores, labels)
    miss_cost, accept_cost = cost_weights(p_target, c_miss, c_fa)
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
    found = np.empty((resamples, 2))
    for resample in range(resamples):
        found[resample] = _metrics(next(draws), flags, steps, miss_cost, accept_cost)
        if progress is not None:
            progress(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    ones = np.ones(len(flags), np.int64)
    values = _metrics(ones, flags, steps, miss_cost, accept_cost)  # the trials as they are
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
    sides = [
        as_speaker_labels(side, f"speakers[{number}]", rows=len(order), of="scores")[order]
        for number, side in enumerate(speakers)
    ]
    names, rows = np.unique(np.concatenate(sides), return_inverse=True)
    enrolment, test = rows[: len(order)], rows[len(order) :]
    same = enrolment == test
    wrong = np.flatnonzero(flags & ~same)
    if wrong.size:
        raise ScoringError(
            f"labels say that trial {order[wrong[0]]} is a target trial, speakers say "
            f"{sides[0][wrong[0]]} and {sides[1][wrong[0]]}."
        )
    if len(names) < 2:
        raise ScoringError("speakers name only one speaker; at least two are needed.")
    attempts = 0
    while True:
        drawn = np.bincount(
            generator.integers(len(names), size=len(names)), minlength=len(names)
        ).astype(np.int64)
        weights = drawn[enrolment] * np.where(same, 1, drawn[test])
        if weights[flags].any() and weights[~flags].any():
            attempts = 0
            yield weights
        elif (attempts := attempts + 1) == _DRAWS_PER_RESAMPLE:
            raise ScoringError(
                f"speakers: {attempts} draws in a row held only target or only non-target trials; "
                f"{len(names)} speakers are too few for this. Draw trials instead."
            )


def _metrics(
    weights: Rows,
    flags: Flags,
    steps: Rows,
    miss_cost: float,
    accept_cost: float,
) -> tuple[float, float]:
    """Return EER and normalised minDCF of weighted trials in ascending order of scores."""
    # Before the first step everything is accepted.
    missed = np.append(0, np.cumsum(np.where(flags, weights, 0))[steps])
    rejected = np.append(0, np.cumsum(np.where(flags, 0, weights))[steps])
    accepted = rejected[-1] - rejected
    costs = miss_cost * (missed / missed[-1]) + accept_cost * (accepted / rejected[-1])
    return crossing_of(missed, accepted), float(costs.min()) / min(miss_cost, accept_cost)
