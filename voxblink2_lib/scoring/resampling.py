"""Resamples of scored trials as weights, and how much each trial or speaker moves a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.bca import Influences, binomial_ends
from voxblink2_lib.scoring.det import crossing_of
from voxblink2_lib.scoring.validation import Flags, Floats, Rows, as_speaker_labels

# How often a resample without any target or any non-target trial is drawn again, at most.
_DRAWS_PER_RESAMPLE = 100

# With fewer speakers on a side nothing is resampled.
_FEWEST_SPEAKERS = 10


# -- Operating points ------------------------------------------------------------------------------


class OperatingPoint(NamedTuple):
    """The threshold of a metric, as a step of the sweep: so many trials are below it."""

    step: int
    below: int
    misses: int
    false_accepts: int


class SortedTrials(NamedTuple):
    """Trials in ascending order of scores.

    Attributes:
        flags: true for a target trial. Shape: [trials].
        steps: the last trial of each run of equal scores. Shape: [steps].
        costs: of a miss rate of 1, and of a false acceptance rate of 1.
    """

    flags: Flags
    steps: Rows
    costs: tuple[float, float]

    @classmethod
    def of(cls, scores: Floats, flags: Flags, costs: tuple[float, float]) -> SortedTrials:
        """Return trials of ascending scores with their steps."""
        # The last trial of each run of equal scores: only there does a step end.
        steps = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        return cls(flags, steps, costs)

    def counts(self, weights: Rows) -> tuple[Rows, Rows]:
        """Return weighted misses and false acceptances before and after each step."""
        # Before the first step everything is accepted.
        missed, accepted = np.zeros((2, len(self.steps) + 1), np.int64)
        np.take(np.cumsum(weights * self.flags), self.steps, out=missed[1:], mode="clip")
        np.take(np.cumsum(weights), self.steps, out=accepted[1:], mode="clip")
        accepted -= missed  # so many are rejected
        return missed, np.subtract(accepted[-1], accepted, out=accepted)

    def metrics(self, missed: Rows, accepted: Rows) -> tuple[float, float]:
        """Return EER and normalized minDCF of counts."""
        return crossing_of(missed, accepted), float(self._costs_of(missed, accepted).min()) / min(
            self.costs
        )

    def points(self) -> tuple[OperatingPoint, OperatingPoint]:
        """Return where FNR reaches FPR, and the least cost."""
        missed, accepted = self.counts(np.ones(len(self.flags), np.int64))
        gap = missed * accepted[0] - accepted * missed[-1]
        rows = int(np.searchsorted(gap, 0)), int(np.argmin(self._costs_of(missed, accepted)))
        first, second = (
            OperatingPoint(
                step=row,
                below=int(self.steps[row - 1]) + 1 if row else 0,
                misses=int(missed[row]),
                false_accepts=int(accepted[row]),
            )
            for row in rows
        )
        return first, second

    def resample(
        self, draws: Iterator[Rows], resamples: int, point: OperatingPoint, progress: Advance | None
    ) -> tuple[Floats, float]:
        """Return the metrics of resamples, and how much of the EER is the miss rate at its point.

        Where the miss rate at a fixed threshold rises by one, the EER rises by this share: the rest
        is lost by the threshold, which moves. The slope of a regression over the resamples.
        """
        resampled, rates = np.empty((resamples, 2)), np.empty((resamples, 2))
        for row in range(resamples):
            missed, accepted = self.counts(next(draws))
            resampled[row] = self.metrics(missed, accepted)
            rates[row] = missed[point.step] / missed[-1], accepted[point.step] / accepted[0]
            if progress is not None:
                progress(1)
        return resampled, share_of_misses(resampled[:, 0], rates)

    def influence(self, point: OperatingPoint, miss_weight: float, accept_weight: float) -> Floats:
        """Return the shift of ``miss_weight * FNR + accept_weight * FPR`` by each trial."""
        targets = np.count_nonzero(self.flags)
        nontargets = len(self.flags) - targets
        below = np.arange(len(self.flags)) < point.below
        miss = miss_weight / targets * (below - point.misses / targets)
        accept = accept_weight / nontargets * (~below - point.false_accepts / nontargets)
        return np.where(self.flags, miss, accept)

    def binomial_limits(
        self, point: OperatingPoint, weights: tuple[float, float] | None, *, confidence: float
    ) -> tuple[float, float]:
        """Return ends from the counts at a point: weighted sums, or else the wider of both."""
        targets = int(np.count_nonzero(self.flags))
        trials = targets, len(self.flags) - targets
        ends = [
            binomial_ends(errors, count, confidence=confidence)
            for errors, count in zip((point.misses, point.false_accepts), trials, strict=True)
        ]
        lows, highs = zip(*ends, strict=True)
        if weights is None:
            return min(lows), max(highs)
        low, high = (float(np.dot(weights, rates)) for rates in (lows, highs))
        return min(low, 1.0), min(high, 1.0)  # accepting nothing costs 1

    def _costs_of(self, missed: Rows, accepted: Rows) -> Floats:
        miss_cost, accept_cost = self.costs
        costs: Floats = missed * (miss_cost / missed[-1])
        costs += accepted * (accept_cost / accepted[0])
        return costs


def share_of_misses(eers: Floats, rates: Floats) -> float:
    """Return how much of an EER is the miss rate at its point, by regression over resamples.

    Args:
        eers: of each resample. Shape: [resamples].
        rates: miss rates and false acceptance rates at the point. Shape: [resamples, 2].
    """
    x, y = rates[:, 0] - rates[:, 1], eers - rates[:, 1]
    x, y = x - x.mean(), y - y.mean()
    squares = float(x @ x)
    return float(np.clip(x @ y / squares, 0, 1)) if squares > 0 else 0.5


# -- Trials of speakers ----------------------------------------------------------------------------


class SpeakerSides(NamedTuple):
    """Speakers of both sides as numbers, in the order of scores, and how many there are."""

    enrolment: Rows
    test: Rows
    speakers: int

    def influences(self, shifts: Floats) -> Influences:
        """Return the shifts by each speaker, of those by each trial.

        The variance of a metric of pairs is the sum over all trials that share a speaker (Aronow,
        Samii and Assenova, "Cluster-robust variance estimation for dyadic data", Political Analysis
        23, 2015). The squared sums of speakers have each pair of two speakers twice; the product of
        both weights has it three times, so that resamples deviate too much.
        """
        same = self.enrolment == self.test
        speakers = np.bincount(self.enrolment, shifts, self.speakers).astype(np.float64)
        speakers += np.bincount(self.test, np.where(same, 0, shifts), self.speakers)
        low = np.minimum(self.enrolment, self.test)
        high = np.maximum(self.enrolment, self.test)
        _, rows = np.unique((low * self.speakers + high)[~same], return_inverse=True)
        pairs = float((np.bincount(rows, shifts[~same]) ** 2).sum())
        own = float((np.bincount(low[same], shifts[same], self.speakers) ** 2).sum())
        squares = float((speakers**2).sum())
        # Speakers are alike at best; they do not differ less than chance.
        variance = max(squares - pairs, own + pairs)
        narrowing = (variance / (squares + pairs)) ** 0.5 if squares > 0 else 1.0
        return Influences(speakers, narrowing, clustered=True)


def speaker_sides(speakers: tuple[object, object], order: Rows, flags: Flags) -> SpeakerSides:
    """Return the speakers of trials in the order of scores.

    Raises:
        ScoringError: labels that do not fit, target trials between two speakers, or too few.
    """
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
    check_speakers(
        {
            "the enrolment sides": len(np.unique(enrolment)),
            "the test sides": len(np.unique(test)),
        }
    )
    return SpeakerSides(enrolment, test, len(names))


def check_speakers(counts: Mapping[str, int]) -> None:
    """Refuse too few speakers.

    Args:
        counts: number of speakers, by what they are speakers of.

    Raises:
        ScoringError: fewer than 10.
    """
    if min(counts.values()) < _FEWEST_SPEAKERS:
        seen = " and ".join(f"{count} of {what}" for what, count in counts.items())
        raise ScoringError(
            f"speakers: {seen}; at least {_FEWEST_SPEAKERS} are needed to resample speakers. "
            "Resample trials or probes instead."
        )


def trial_weights(generator: np.random.Generator, strata: Flags | Rows) -> Iterator[Rows]:
    """Yield how often each trial is drawn. Shape: [trials].

    Args:
        generator: of the draws.
        strata: which trials are drawn among each other: those of a class, or of one in a condition.
            Shape: [trials].
    """
    classes = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)[::-1]]
    while True:
        weights = np.empty(len(strata), np.int64)
        for rows in classes:
            drawn = generator.integers(len(rows), size=len(rows))
            weights[rows] = np.bincount(drawn, minlength=len(rows))
        yield weights


def speaker_weights(
    generator: np.random.Generator, sides: SpeakerSides, flags: Flags
) -> Iterator[Rows]:
    """Yield how often each trial is drawn with its speakers. Shape: [trials].

    Raises:
        ScoringError: many draws in a row have only one class.
    """
    same = sides.enrolment == sides.test
    attempts = 0
    while True:
        draws = generator.integers(sides.speakers, size=sides.speakers)
        drawn = np.bincount(draws, minlength=sides.speakers).astype(np.int64)
        weights = drawn[sides.enrolment] * np.where(same, 1, drawn[sides.test])
        if weights[flags].any() and weights[~flags].any():
            attempts = 0
            yield weights
        elif (attempts := attempts + 1) == _DRAWS_PER_RESAMPLE:
            raise ScoringError(
                f"speakers: {attempts} resamples in a row had only target or only non-target "
                f"trials; {sides.speakers} speakers are too few for this. Resample trials instead."
            )
