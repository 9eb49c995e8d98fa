"""The threshold sweep: misses and false acceptances at every threshold (DET and ROC).

A trial is accepted when its score is at least the threshold. Equal scores cross the threshold
together, in one step, so the order of trials never matters::

    scores      1.0   2.0   2.0   3.0       T target, N non-target
                 N     T     N     T
    threshold  1.0    2.0         3.0   inf
    FNR          0      0         1/2    1      targets below the threshold / all targets
    FPR          1     1/2         0     0      non-targets at or above it / all non-targets
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.validation import Floats, Rows, as_trials

# Thresholds that are evaluated at once; bounds the memory in addition to the sorted scores.
_BLOCK = 1 << 16

# Doddington's rule of 30: with so many errors, the true rate is within 30% with 90% confidence
# (Doddington et al., "The NIST speaker recognition evaluation", Speech Communication 31, 2000).
FEWEST_ERRORS = 30

# Both ends of both classes, and infinity.
_FEWEST_POINTS = 5


class DetCurve(NamedTuple):
    """Operating points in order of rising thresholds; ``tpr`` of a ROC curve is ``1 - fnr``.

    Attributes:
        thresholds: thresholds; the last is infinite, where nothing is accepted. Shape: [points].
        fnr: false negative (miss) rates. Shape: [points].
        fpr: false positive (false acceptance) rates. Shape: [points].
    """

    thresholds: Floats
    fnr: Floats
    fpr: Floats


class ErrorCounts(NamedTuple):
    """How many errors a rate consists of."""

    misses: int
    false_accepts: int

    @property
    def few(self) -> bool:
        """Whether there are too few of a kind for a rate that can be relied on."""
        return min(self) < FEWEST_ERRORS

    @property
    def text(self) -> str:
        """The counts for people, marked if they are few."""
        mark = " *" if self.few else ""
        return f"{self.misses:,} misses, {self.false_accepts:,} false acceptances{mark}"


class Crossing(NamedTuple):
    """Where FNR = FPR, on the line between two neighbouring operating points."""

    rate: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """Scores sorted once, for any number of metrics.

    Create one with :meth:`of` and pass it to ``eer``, ``min_dcf`` and the others.

    Attributes:
        target: scores of target trials, ascending. Shape: [targets].
        nontarget: scores of non-target trials, ascending. Shape: [nontargets].

    Example:
        >>> sweep = Sweep.of([1.0, 2.0, 2.0, 3.0], [0, 1, 0, 1])
        >>> sweep.curve()
        DetCurve(thresholds=array([ 1.,  2.,  3., inf]), fnr=array([0. , 0. , 0.5, 1. ]), \
fpr=array([1. , 0.5, 0. , 0. ]))
    """

    target: Floats
    nontarget: Floats

    @classmethod
    def of(cls, scores: object, labels: object) -> Sweep:
        """Check and sort scores.

        Args:
            scores: the higher, the more likely the same speaker; float32 stays float32.
                Shape: [trials].
            labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].

        Raises:
            ScoringError: shapes that differ, values that are not finite, labels that are not 0
                or 1, or only one of the two classes.
        """
        values, targets = as_trials(scores, labels)
        target, nontarget = values[targets], values[~targets]
        target.sort()
        nontarget.sort()
        return cls(target, nontarget)

    def miss(self, thresholds: npt.ArrayLike) -> Rows:
        """Return the number of targets below each threshold.

        Args:
            thresholds: of any shape.
        """
        rounded = _rounded_up(thresholds, self.target.dtype)
        return np.asarray(np.searchsorted(self.target, rounded, side="left"), np.int64)

    def false_accept(self, thresholds: npt.ArrayLike) -> Rows:
        """Return the number of non-targets at or above each threshold.

        Args:
            thresholds: of any shape.
        """
        rounded = _rounded_up(thresholds, self.nontarget.dtype)
        below = np.asarray(np.searchsorted(self.nontarget, rounded, side="left"), np.int64)
        return len(self.nontarget) - below

    def rates(self, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return FNR and FPR at each threshold.

        Args:
            thresholds: of any shape.
        """
        fnr = self.miss(thresholds) / len(self.target)
        return fnr, self.false_accept(thresholds) / len(self.nontarget)

    def errors(self, threshold: float) -> ErrorCounts:
        """Return the number of misses and of false acceptances at a threshold.

        Args:
            threshold: a score at or above it is accepted.
        """
        return ErrorCounts(int(self.miss(threshold)), int(self.false_accept(threshold)))

    def crossing(self) -> Crossing:
        """Return where FNR = FPR, in O(log n): their difference only rises."""
        targets, nontargets = len(self.target), len(self.nontarget)

        def has_crossed(threshold: float) -> bool:
            missed, accepted = int(self.miss(threshold)), int(self.false_accept(threshold))
            return missed * nontargets >= accepted * targets

        classes = (self.target, self.nontarget)
        firsts = [scores[_first(scores, has_crossed) :][:1] for scores in classes]
        after = float(min(np.concatenate(firsts), default=np.inf))
        # The operating point before it is that of the highest score below, which exists: at the
        # lowest score everything is accepted.
        below = [scores[: np.searchsorted(scores, scores.dtype.type(after))] for scores in classes]
        before = max(float(scores[-1]) for scores in below if len(scores))
        ends = np.array([before, after])
        rate, share = crossing_between(
            self.miss(ends), self.false_accept(ends), targets=targets, nontargets=nontargets
        )
        return Crossing(rate, threshold_between(before, after, share))

    def least_cost(self, miss_cost: Fraction, accept_cost: Fraction) -> tuple[Fraction, float]:
        """Return the minimum of ``miss_cost * FNR + accept_cost * FPR`` over all thresholds.

        Costs are compared as whole numbers: rounding neither chooses among equal costs nor makes
        different ones equal.

        Between two targets a higher threshold rejects more non-targets and no target, so the best
        threshold is the score of a target, or infinite. Blocks of targets are skipped if a lower
        bound of their costs is above the minimum of earlier blocks.

        Args:
            miss_cost: of a miss rate of 1.
            accept_cost: of a false acceptance rate of 1.

        Returns:
            The cost and the lowest threshold that has it.
        """
        targets, nontargets = len(self.target), len(self.nontarget)
        miss, accept = whole_ratio(miss_cost / targets, accept_cost / nontargets)
        most = miss * targets + accept * nontargets
        # Python's own integers for priors of many digits: slower, and of any size.
        kind = np.dtype(np.int64 if most <= np.iinfo(np.int64).max else object)

        def costs(missing_at: Floats, accepting_at: Floats) -> npt.NDArray[Any]:
            misses, accepts = self.miss(missing_at), self.false_accept(accepting_at)
            total: npt.NDArray[Any] = misses.astype(kind, copy=False) * miss
            total += accepts.astype(kind, copy=False) * accept
            return total

        starts = np.arange(0, targets, _BLOCK)
        lasts = np.minimum(starts + _BLOCK, targets) - 1
        bounds = costs(self.target[starts], self.target[lasts])
        best = (miss * targets, np.inf)  # nothing accepted
        for block in np.argsort(bounds, kind="stable"):
            if bounds[block] > best[0]:
                break
            thresholds = self.target[starts[block] : lasts[block] + 1]
            block_costs = costs(thresholds, thresholds)
            row = int(np.argmin(block_costs))
            best = min(best, (int(block_costs[row]), float(thresholds[row])))
        return miss_cost * best[0] / (miss * targets), best[1]

    def curve(self, max_points: int | None = None) -> DetCurve:
        """Return operating points.

        Args:
            max_points: number of points at most, 5 or more, spread evenly over a DET plot; every
                point returned is one of the exact curve. By default one for each distinct score,
                and infinity.

        Raises:
            ScoringError: ``max_points`` is below 5.
        """
        classes = (self.target, self.nontarget)
        if max_points is not None:
            if max_points < _FEWEST_POINTS:
                raise ScoringError(
                    f"max_points must be at least {_FEWEST_POINTS}, got {max_points}."
                )
            each = (max_points - 1) // 2
            classes = (_spread(self.target, each), _spread(self.nontarget, each))
        thresholds = np.unique(np.concatenate(classes))
        thresholds = np.append(thresholds, thresholds.dtype.type(np.inf))
        return DetCurve(thresholds, *self.rates(thresholds))

    @cached_property
    def hull(self) -> tuple[Rows, Rows]:
        """Vertices of the convex hull of the ROC, as counts.

        The hull is what thresholds, and random choice between two of them, can reach. Its edges are
        the bins of the pool-adjacent-violators algorithm (Fawcett and Niculescu-Mizil, "PAV and the
        ROC convex hull", Machine Learning 68, 2007).

        Returns:
            Misses, rising from 0 to the number of targets, and false acceptances, falling from the
            number of non-targets to 0. Shape of both: [vertices].
        """
        targets, nontargets = len(self.target), len(self.nontarget)
        misses, accepts = [np.zeros(1, np.int64)], [np.full(1, nontargets, np.int64)]
        # Vertices are at scores of targets, like the least costs.
        for start in range(0, targets, _BLOCK):
            thresholds = self.target[start : start + _BLOCK]
            miss, accept = self.miss(thresholds), self.false_accept(thresholds)
            # Of points with equal false acceptances, only that with the fewest misses can be one.
            first = np.diff(accept, prepend=-1) != 0
            kept = lower_hull(miss[first], accept[first])
            misses.append(miss[first][kept])
            accepts.append(accept[first][kept])
        misses.append(np.array([targets], np.int64))
        accepts.append(np.zeros(1, np.int64))
        miss, accept = np.concatenate(misses), np.concatenate(accepts)
        kept = lower_hull(miss, accept)
        return miss[kept], accept[kept]


def crossing_between(
    misses: Rows, accepts: Rows, *, targets: int, nontargets: int
) -> tuple[float, float]:
    """Return the rate at which the line between two operating points has FNR = FPR.

    Computed in whole numbers and rounded once, so that a lower crossing never has a higher rate.

    Args:
        misses: missed targets; the first FNR is below the first FPR, the second not. Shape: [2].
        accepts: accepted non-targets. Shape: [2].
        targets: number of targets.
        nontargets: number of non-targets.

    Returns:
        The rate, and its position along the line, from 0 to 1.
    """
    (first_miss, last_miss), (first_accept, last_accept) = misses.tolist(), accepts.tolist()
    before = first_accept * targets - first_miss * nontargets
    beyond = last_miss * nontargets - last_accept * targets
    rate = (first_miss * beyond + last_miss * before) / (targets * (before + beyond))
    return rate, before / (before + beyond)


def threshold_between(before: float, after: float, share: float) -> float:
    """Return the threshold at a position between two scores: above the first, or at it alone.

    Rounding may reach the first score, at which more is accepted than anywhere behind it, so that
    errors would depend on how far apart scores are; or pass the second one, which is infinity for
    the largest numbers.

    Args:
        before: score of the first operating point.
        after: score of the second; infinite if nothing is accepted there.
        share: position between them, above 0.
    """
    if math.isinf(after):
        return before
    threshold = (1 - share) * before + share * after
    return min(max(threshold, math.nextafter(before, math.inf)), after)


def crossing_of(misses: Rows, accepts: Rows) -> float:
    """Return the rate at which the lines between operating points have FNR = FPR.

    Args:
        misses: missed targets, rising from 0 to all of them. Shape: [points].
        accepts: accepted non-targets, falling from all of them to 0. Shape: [points].
    """
    targets, nontargets = int(misses[-1]), int(accepts[0])
    # Integers: the crossing must not depend on rounding.
    after = int(np.searchsorted(misses * nontargets - accepts * targets, 0))
    around = slice(after - 1, after + 1)
    ends = misses[around], accepts[around]
    return crossing_between(*ends, targets=targets, nontargets=nontargets)[0]


def whole_ratio(a: Fraction, b: Fraction) -> tuple[int, int]:
    """Return the smallest whole numbers in the ratio of two positive fractions."""
    scale = math.lcm(a.denominator, b.denominator)
    first, second = int(a * scale), int(b * scale)
    common = math.gcd(first, second)
    return first // common, second // common


def lower_hull(x: Rows, y: Rows) -> Rows:
    """Return the rows of the points on the lower convex hull, first and last included.

    Of different points, one on or above the line between its neighbours is no vertex, whether or
    not the neighbours are; all such points are removed at once, repeatedly, as long as these are
    many. The rest is done with the usual stack.

    Args:
        x: integers, not falling. Shape: [points].
        y: integers, not rising. Shape: [points].
    """
    kept: Rows = np.flatnonzero((np.diff(x, prepend=-1) != 0) | (np.diff(y, prepend=-1) != 0))
    while len(kept) > 2:
        dx, dy = np.diff(x[kept]), np.diff(y[kept])
        convex = dx[:-1] * dy[1:] > dy[:-1] * dx[1:]
        if convex.all():
            return kept
        before = len(kept)
        kept = kept[np.concatenate([[True], convex, [True]])]
        if len(kept) > 0.98 * before:
            rows = np.array(_stack_hull(x[kept].tolist(), y[kept].tolist()), np.int64)
            return kept.take(rows)
    return kept


def _stack_hull(x: list[int], y: list[int]) -> list[int]:
    stack: list[int] = []
    for row in range(len(x)):
        while len(stack) > 1:
            first, second = stack[-2], stack[-1]
            ahead = (x[second] - x[first]) * (y[row] - y[second])
            if ahead > (y[second] - y[first]) * (x[row] - x[second]):
                break
            stack.pop()
        stack.append(row)
    return stack


def _first(scores: Floats, holds: Callable[[float], bool]) -> int:
    """Return the first row of sorted scores for which a condition holds that then stays true."""
    low, high = 0, len(scores)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(scores[middle]) else (middle + 1, high)
    return low


def _spread(scores: Floats, points: int) -> Floats:
    """Return some scores of a sorted array, spread evenly in log-odds to cover both tails."""
    edge = np.log(2.0 * len(scores))
    shares = 1 / (1 + np.exp(-np.linspace(-edge, edge, points)))
    return scores[np.unique(np.rint(shares * (len(scores) - 1)).astype(np.int64))]


def _rounded_up(thresholds: npt.ArrayLike, dtype: np.dtype[Any]) -> Floats:
    """Return thresholds in the scores' own type, so that searching does not convert the scores.

    A score is at least a threshold exactly if it is at least the next number of its type.
    """
    given = np.asarray(thresholds)
    if given.dtype == dtype:
        return given
    with np.errstate(over="ignore"):  # beyond the type's largest number, infinity is right
        near = given.astype(dtype)
        return np.where(near < given, np.nextafter(near, dtype.type(np.inf)), near)
