"""Misses and false acceptances of weighted trials, in whole numbers.

A trial of weight 2 counts as the same trial twice. Weights of targets and of non-targets each
become the smallest whole numbers in their ratio, so rates and costs are compared without rounding::

    scores      1.0   2.0   2.0   3.0       T target, N non-target
                 N     T     N     T
    weights      1    1/3   1/2    1
    whole        2     1     1     3
    threshold  1.0    2.0         3.0   inf
    FNR          0      0         1/4    1
    FPR          1     1/3         0     0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.det import Crossing, crossing_between, threshold_between, whole_ratio
from voxblink2_lib.scoring.validation import Flags, Floats, Rows, as_scores, as_trials, check_length

# Whole numbers: int64, or Python's own integers where their sum is larger.
_Whole = npt.NDArray[Any]

_LARGEST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, eq=False)
class WeightedSweep:
    """Weighted misses and false acceptances at each threshold.

    Attributes:
        thresholds: the distinct scores, ascending. Shape: [steps].
        misses: weight of the targets below each threshold, and last of all. Shape: [steps + 1].
        accepts: weight of the non-targets at or above each, and last 0. Shape: [steps + 1].
    """

    thresholds: Floats
    misses: _Whole
    accepts: _Whole

    @classmethod
    def of(cls, scores: object, labels: object, weights: object) -> WeightedSweep:
        """Check and sort scores.

        Args:
            scores: scores. Shape: [trials].
            labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
            weights: numbers from 0, as they are written: 0.1 is 1/10. A trial of weight 0 is left
                out. Shape: [trials].

        Raises:
            ScoringError: see :meth:`~voxblink2_lib.scoring.det.Sweep.of`; or a weight is negative
                or not finite, or all weights of a class are 0.
        """
        values, targets = as_trials(scores, labels)
        given = as_scores(weights, "weights")
        check_length(given, "weights", expected=len(values), of="scores")
        distinct, codes = np.unique(given, return_inverse=True)
        if distinct[0] < 0:
            row = int(np.flatnonzero(given < 0)[0])
            raise ScoringError(f"weights must be at least 0, got {given[row]} in row {row}.")
        # The shortest text of a number of its own type is what was written.
        table = [Fraction(str(number)) for number in distinct]
        return cls._of_codes(values, targets, codes, (table, table))

    @classmethod
    def equalized(cls, scores: object, labels: object, groups: Rows) -> WeightedSweep:
        """Return a sweep in which every group has the same weight, in both classes.

        A target weighs 1 over the targets of its group, a non-target 1 over its non-targets.

        Args:
            scores: scores. Shape: [trials].
            labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
            groups: the group of each trial, from 0; a group with one class is left out.
                Shape: [trials].

        Raises:
            ScoringError: see :meth:`~voxblink2_lib.scoring.det.Sweep.of`; or no group has both
                classes.
        """
        values, targets = as_trials(scores, labels)
        counts = [np.bincount(groups[of], minlength=groups.max() + 1) for of in (targets, ~targets)]
        is_whole = np.minimum(*counts) > 0
        tables = [
            [Fraction(1, count) if whole else Fraction(0) for count, whole in pairs]
            for pairs in (zip(each.tolist(), is_whole, strict=True) for each in counts)
        ]
        return cls._of_codes(values, targets, groups, (tables[0], tables[1]))

    @classmethod
    def _of_codes(
        cls,
        scores: Floats,
        targets: Flags,
        codes: Rows,
        tables: tuple[Sequence[Fraction], Sequence[Fraction]],
    ) -> WeightedSweep:
        """Return the sweep of trials that refer to their weights, by tables of both classes."""
        weighs = [np.array([weight > 0 for weight in table]) for table in tables]
        kept = np.flatnonzero(np.where(targets, weighs[0][codes], weighs[1][codes]))
        kept = kept[np.argsort(scores[kept], kind="stable")]
        scores, targets, codes = scores[kept], targets[kept], codes[kept]
        if not (targets.any() and not targets.all()):
            raise ScoringError(
                "weights are 0 for all target trials or all non-target trials; error rates need "
                "both."
            )
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
        below, nontargets_below = (
            _sums_below(np.where(of, codes, -1), table, starts)
            for of, table in zip((targets, ~targets), tables, strict=True)
        )
        return cls(scores[starts], below, nontargets_below[-1] - nontargets_below)

    def crossing(self) -> Crossing:
        """Return where FNR = FPR, as :meth:`~voxblink2_lib.scoring.det.Sweep.crossing`."""
        targets, nontargets = int(self.misses[-1]), int(self.accepts[0])
        low, high = 1, len(self.thresholds)  # at the lowest score everything is accepted
        while low < high:
            middle = (low + high) // 2
            missed, accepted = int(self.misses[middle]), int(self.accepts[middle])
            has_crossed = missed * nontargets >= accepted * targets
            low, high = (low, middle) if has_crossed else (middle + 1, high)
        around = slice(low - 1, low + 1)
        rate, share = crossing_between(
            self.misses[around], self.accepts[around], targets=targets, nontargets=nontargets
        )
        before = float(self.thresholds[low - 1])
        after = float(self.thresholds[low]) if low < len(self.thresholds) else np.inf
        return Crossing(rate, threshold_between(before, after, share))

    def least_cost(self, miss_cost: Fraction, accept_cost: Fraction) -> tuple[Fraction, float]:
        """Return the least cost, as :meth:`~voxblink2_lib.scoring.det.Sweep.least_cost`.

        Args:
            miss_cost: of a miss rate of 1.
            accept_cost: of a false acceptance rate of 1.
        """
        targets, nontargets = int(self.misses[-1]), int(self.accepts[0])
        miss, accept = whole_ratio(miss_cost / targets, accept_cost / nontargets)
        kind: Any = np.int64 if miss * targets + accept * nontargets <= _LARGEST else object
        costs = self.misses.astype(kind) * miss + self.accepts.astype(kind) * accept
        row = int(np.argmin(costs))
        least = miss_cost * int(costs[row]) / (miss * targets)
        return least, float(self.thresholds[row]) if row < len(self.thresholds) else np.inf


def _sums_below(codes: Rows, table: Sequence[Fraction], starts: Rows) -> _Whole:
    """Return the sum of the weights before each start, and of all, in whole numbers.

    Args:
        codes: the weight of each trial, in order of scores; -1 for none. Shape: [trials].
        table: the weights.
        starts: the first trial of each run of equal scores. Shape: [steps].
    """
    used = np.bincount(codes[codes >= 0], minlength=len(table)).tolist()
    present = [weight for weight, count in zip(table, used, strict=True) if count]
    scale = lcm(*(weight.denominator for weight in present))
    common = gcd(*(int(weight * scale) for weight in present))
    whole = [
        int(weight * scale) // common if count else 0
        for weight, count in zip(table, used, strict=True)
    ]
    total = sum(weight * count for weight, count in zip(whole, used, strict=True))
    kind: Any = np.int64 if total <= _LARGEST else object
    # The code -1 is the last of the table: no weight.
    sums = np.cumsum(np.array([*whole, 0], kind)[codes])
    return np.concatenate([np.zeros(1, kind), sums[starts[1:] - 1], sums[-1:]])
