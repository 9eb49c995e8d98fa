"""Confidence intervals of DIR at FAR by bootstrap, over probes or over their speakers.

Known and unknown probes are drawn separately. As the threshold follows from the unknown probes, few
of them say little about a low FAR: at 0.001, 120 of them allow none to pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.bca import Influences, bca_ends, binomial_ends
from voxblink2_lib.scoring.det import ErrorCounts
from voxblink2_lib.scoring.intervals import Interval, marked_interval
from voxblink2_lib.scoring.resampling import check_speakers
from voxblink2_lib.scoring.validation import Flags, Floats, Rows

Resampled = Literal["probes", "speakers"]


class IdentifiedProbes(NamedTuple):
    """Probes in falling order of scores.

    Attributes:
        scores: score of the nearest speaker. Shape: [probes].
        known: whether the speaker is in the gallery. Shape: [probes].
        right: whether the nearest speaker is the right one. Shape: [probes].
        speakers: their speakers as numbers, or ``None`` to draw each probe alone. Shape: [probes].
    """

    scores: Floats
    known: Flags
    right: Flags
    speakers: Rows | None

    @classmethod
    def of(
        cls, scores: Floats, known: Flags, right: Flags, speakers: Rows | None
    ) -> IdentifiedProbes:
        """Sort probes."""
        order = np.argsort(-scores, kind="stable")
        sorted_speakers = None if speakers is None else speakers[order]
        return cls(scores[order], known[order], right[order], sorted_speakers)

    def above(self, far: float, weights: Rows) -> int:
        """Return how many probes have scores above the threshold of a FAR."""
        unknown = np.flatnonzero(~self.known)
        passed = np.cumsum(weights[unknown])
        count = int(np.searchsorted(passed / passed[-1], far, side="right"))
        if count == len(unknown):
            return len(self.scores)
        # Equal scores are one step.
        return int(np.searchsorted(-self.scores, -self.scores[unknown[count]], side="left"))

    def rates(self, above: int, weights: Rows) -> tuple[float, float]:
        """Return DIR and FAR of the probes above a threshold."""
        known, unknown = weights * self.known, weights * ~self.known
        accepted = known[:above] @ self.right[:above]
        return accepted / known.sum(), unknown[:above].sum() / unknown.sum()

    def errors(self, above: int) -> ErrorCounts:
        """Return how many known probes are lost at a threshold, and unknown ones accepted."""
        identified = int(np.count_nonzero(self.right[:above]))
        known = int(np.count_nonzero(self.known))
        return ErrorCounts(known - identified, int(np.count_nonzero(~self.known[:above])))

    def units(self) -> list[tuple[Rows, Rows]]:
        """Return the rows of known and of unknown probes, each with the units that they are in."""
        both = []
        for rows in (np.flatnonzero(self.known), np.flatnonzero(~self.known)):
            if self.speakers is None:
                both.append((rows, np.arange(len(rows))))
            else:
                both.append((rows, np.unique(self.speakers[rows], return_inverse=True)[1]))
        return both


def identification_intervals(
    probes: IdentifiedProbes,
    far: Sequence[float],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Advance | None = None,
) -> dict[float, Interval]:
    """Return bootstrap intervals (BCa) of DIR at each FAR.

    With fewer than 30 errors of a kind an interval is marked and at least as wide as what the
    counts alone allow: thresholds whose FAR may be the requested one, by the exact binomial
    interval, and the binomial interval of DIR at these.

    Args:
        probes: identified probes.
        far: false acceptance rates.
        resamples: number of resamples.
        confidence: probability that an interval covers the true rate.
        seed: of the generator.
        progress: called with the number of resamples done since the last call.

    Raises:
        ScoringError: fewer than 10 speakers of known or of unknown probes.
    """
    units = min(int(of_rows.max()) + 1 for _, of_rows in probes.units())
    if probes.speakers is not None:
        check_speakers({"known or unknown probes": units})
    each_once = np.ones(len(probes.scores), np.int64)
    above = [probes.above(rate, each_once) for rate in far]
    drawn = np.empty((resamples, len(far), 3))
    for row, weights in zip(range(resamples), _draws(probes, seed), strict=False):
        for column, rate in enumerate(far):
            rates, _ = probes.rates(probes.above(rate, weights), weights)
            drawn[row, column] = rates, *probes.rates(above[column], weights)
        if progress is not None:
            progress(1)
    intervals = {}
    for column, rate in enumerate(far):
        value, _ = probes.rates(above[column], each_once)
        influences = _influences(probes, above[column], drawn[:, column])
        ends = bca_ends(float(value), drawn[:, column, 0], influences, confidence=confidence)
        limits = _limits(probes, rate, confidence=confidence)
        intervals[rate] = marked_interval(
            float(value),
            ends,
            limits,
            probes.errors(above[column]),
            speakers=None if probes.speakers is None else units,
        )
    return intervals


def _draws(probes: IdentifiedProbes, seed: int) -> Iterator[Rows]:
    generator = np.random.default_rng(seed)
    both = [(rows, units, int(units.max()) + 1) for rows, units in probes.units()]
    while True:
        weights = np.empty(len(probes.scores), np.int64)
        for rows, units, count in both:
            drawn = np.bincount(generator.integers(count, size=count), minlength=count)
            weights[rows] = drawn[units]
        yield weights


def _influences(probes: IdentifiedProbes, above: int, drawn: Floats) -> Influences:
    """Return the shift of DIR at a FAR by each unit.

    Args:
        probes: identified probes.
        above: how many are above the threshold.
        drawn: of each resample DIR, and DIR and FAR at the threshold of the original probes: where
            more unknown probes pass there, the threshold rises and DIR falls, by the slope of a
            regression. Shape: [resamples, 3].
    """
    lost, passed = drawn[:, 0] - drawn[:, 1], drawn[:, 2] - drawn[:, 2].mean()
    squares = float(passed @ passed)
    slope = min(float(passed @ lost) / squares, 0.0) if squares > 0 else 0.0
    rate, accepted = probes.rates(above, np.ones(len(probes.scores), np.int64))
    is_above = np.arange(len(probes.scores)) < above
    (known, known_units), (unknown, unknown_units) = probes.units()
    shifts = (
        np.bincount(known_units, ((is_above & probes.right)[known] - rate) / len(known)),
        np.bincount(unknown_units, slope * (is_above[unknown] - accepted) / len(unknown)),
    )
    return Influences(np.concatenate(shifts), clustered=probes.speakers is not None)


def _limits(probes: IdentifiedProbes, far: float, *, confidence: float) -> tuple[float, float]:
    """Return ends of DIR at a FAR by counts alone."""
    unknown = int(np.count_nonzero(~probes.known))
    known = int(np.count_nonzero(probes.known))
    passed = np.append(0, np.cumsum(~probes.known))
    identified = np.append(0, np.cumsum(probes.right))
    ends = np.array(
        [binomial_ends(count, unknown, confidence=confidence) for count in range(unknown + 1)]
    )
    # The highest threshold that may be needed, if any is high enough; and the lowest.
    safe = np.flatnonzero(ends[:, 1] <= far)
    low = 0.0
    if safe.size:
        count = int(np.searchsorted(passed, safe[-1], side="right")) - 1
        low, _ = binomial_ends(int(identified[count]), known, confidence=confidence)
    loose = int(np.flatnonzero(ends[:, 0] <= far)[-1])
    count = int(np.searchsorted(passed, loose, side="right")) - 1
    _, high = binomial_ends(int(identified[count]), known, confidence=confidence)
    return low, high
