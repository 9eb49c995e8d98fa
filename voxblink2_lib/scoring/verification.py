"""Metrics of speaker verification: EER, minDCF, actual DCF, Cllr.

Every function takes scores and labels, or a :class:`~voxblink2_lib.scoring.det.Sweep`, which is
sorted only once. A trial is accepted when its score is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.det import Sweep, crossing_of
from voxblink2_lib.scoring.validation import check_choice, check_number, check_prior
from voxblink2_lib.scoring.weighted import WeightedSweep


class EqualErrorRate(NamedTuple):
    """The rate, as a fraction, and its threshold; ``None`` on the convex hull."""

    eer: float
    threshold: float | None


class MinDcf(NamedTuple):
    """The minimum of the normalized cost, and its threshold (one for each prior)."""

    min_dcf: float
    threshold: float | tuple[float, ...]


class ActDcf(NamedTuple):
    """The normalized cost at the threshold of Bayes' rule, and that threshold."""

    act_dcf: float
    threshold: float


def eer(
    scores: object,
    labels: object = None,
    *,
    weights: object = None,
    method: Literal["interpolated", "hull"] = "interpolated",
) -> EqualErrorRate:
    """Return the equal error rate: the rate at which FNR = FPR.

    Args:
        scores: scores, or a ``Sweep``. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial; none with a ``Sweep``.
            Shape: [trials].
        weights: how much each trial counts, from 0, compared exactly; by default all the same. Not
            with a ``Sweep``. Shape: [trials].
        method: ``"interpolated"``, the usual one: on the straight line between the two operating
            points where the rates cross. ``"hull"``: on the convex hull of the ROC, which does not
            depend on single trials (Brümmer and de Villiers, "The BOSARIS Toolkit", 2011); it
            never exceeds the other.

    Returns:
        The rate from 0 to 1, and the threshold, interpolated like the rate. With ``"hull"`` it is
        ``None``: a point between two vertices of the hull belongs to no threshold, but to a random
        choice between two.

    Raises:
        ScoringError: see :meth:`Sweep.of` and :meth:`WeightedSweep.of`.

    Example:
        >>> eer([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        EqualErrorRate(eer=0.5, threshold=0.4)
        >>> eer([5, 5, 5, 5], [0, 0, 1, 1])  # constant scores
        EqualErrorRate(eer=0.5, threshold=5.0)
        >>> eer([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], weights=[3, 1, 1, 3])
        EqualErrorRate(eer=0.25, threshold=0.4)
    """
    check_choice("method", method, ("interpolated", "hull"))
    sweep = _any_sweep(scores, labels, weights)
    if method == "interpolated":
        return EqualErrorRate(*sweep.crossing())
    if isinstance(sweep, WeightedSweep):
        raise ScoringError("the EER on the hull takes no weights; use method='interpolated'.")
    return EqualErrorRate(crossing_of(*sweep.hull), None)


def min_dcf(
    scores: object,
    labels: object = None,
    *,
    weights: object = None,
    p_target: float | Sequence[float] = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> MinDcf:
    """Return the minimum of the detection cost over all thresholds, normalized.

    ``min over t of c_miss * FNR(t) * p + c_fa * FPR(t) * (1 - p)``, over
    ``min(c_miss * p, c_fa * (1 - p))``, the cost of the better of accepting and rejecting all
    (NIST 2016 Speaker Recognition Evaluation Plan). With several ``p_target`` the mean, as NIST's
    primary cost.

    Costs are compared exactly, for priors and costs as they are written: 0.01 is 1/100.

    Args:
        scores: scores, or a ``Sweep``. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial; none with a ``Sweep``.
            Shape: [trials].
        weights: how much each trial counts, from 0, compared exactly; by default all the same. Not
            with a ``Sweep``. Shape: [trials].
        p_target: prior probability of a target trial, between 0 and 1; several for their mean.
        c_miss: cost of a miss.
        c_fa: cost of a false acceptance.

    Returns:
        The cost from 0 to 1, and the lowest threshold that has it; infinity when it is best to
        accept nothing. A tuple of thresholds when ``p_target`` is a sequence.

    Raises:
        ScoringError: see :meth:`Sweep.of`; or an invalid prior or cost.

    Example:
        >>> min_dcf([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], p_target=0.5)
        MinDcf(min_dcf=0.5, threshold=0.35)
        >>> min_dcf([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], p_target=(0.01, 0.001))
        MinDcf(min_dcf=0.5, threshold=(0.8, 0.8))
    """
    priors = np.atleast_1d(p_target).tolist()
    if not priors:
        raise ScoringError("p_target is empty; name at least one prior.")
    costs = [exact_costs(prior, c_miss, c_fa) for prior in priors]
    sweep = _any_sweep(scores, labels, weights)
    best = [sweep.least_cost(*cost) for cost in costs]
    normalized = [least / min(cost) for (least, _), cost in zip(best, costs, strict=True)]
    value = float(sum(normalized) / len(normalized))
    thresholds = tuple(threshold for _, threshold in best)
    return MinDcf(value, thresholds if np.ndim(p_target) else thresholds[0])


def act_dcf(
    scores: object,
    labels: object = None,
    *,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> ActDcf:
    """Return the normalized detection cost of scores taken as log-likelihood ratios.

    The threshold is that of Bayes' rule, ``ln(c_fa (1 - p) / (c_miss p))``. The difference to
    ``min_dcf`` is the loss from miscalibration.

    Args:
        scores: natural log-likelihood ratios, or a ``Sweep`` of them. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial; none with a ``Sweep``.
            Shape: [trials].
        p_target: prior probability of a target trial, between 0 and 1.
        c_miss: cost of a miss.
        c_fa: cost of a false acceptance.

    Returns:
        The cost (0 is perfect, 1 as good as ignoring the scores, without upper limit), and the
        threshold.

    Raises:
        ScoringError: see :meth:`Sweep.of`; or an invalid prior or cost.

    Example:
        >>> act_dcf([-2.0, 1.0, -1.0, 3.0], [0, 0, 1, 1], p_target=0.5)
        ActDcf(act_dcf=1.0, threshold=0.0)
    """
    miss_cost, accept_cost = cost_weights(p_target, c_miss, c_fa)
    sweep = _sweep(scores, labels)
    threshold = float(np.log(accept_cost) - np.log(miss_cost))
    fnr, fpr = sweep.rates(threshold)
    cost = miss_cost * float(fnr) + accept_cost * float(fpr)
    return ActDcf(cost / min(miss_cost, accept_cost), threshold)


def cllr(scores: object, labels: object = None) -> float:
    """Return the cost of log-likelihood ratios over all operating points, in bits.

    ``1/2 (mean over targets of log2(1 + e^-s) + mean over non-targets of log2(1 + e^s))``
    (Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer
    Speech and Language 20, 2006).

    Args:
        scores: natural log-likelihood ratios, or a ``Sweep`` of them. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial; none with a ``Sweep``.
            Shape: [trials].

    Returns:
        The cost: 0 is perfect, 1 is that of scores without information, without upper limit.

    Raises:
        ScoringError: see :meth:`Sweep.of`; or the cost is above the largest number.

    Example:
        >>> cllr([0.0, 0.0], [0, 1])
        1.0
    """
    sweep = _sweep(scores, labels)
    # Divided before they are summed, so that huge ratios do not overflow.
    shares = 1 / (2 * np.log(2) * np.array([len(sweep.target), len(sweep.nontarget)]))
    missed = np.logaddexp(0, -sweep.target, dtype=np.float64)
    accepted = np.logaddexp(0, sweep.nontarget, dtype=np.float64)
    with np.errstate(over="ignore"):  # refused below
        cost = float((missed * shares[0]).sum() + (accepted * shares[1]).sum())
    if not np.isfinite(cost):
        raise ScoringError(
            "scores are too large for log-likelihood ratios: their Cllr is above the largest "
            "number, 1.8e308 bits. Calibrate them first (fit_calibration)."
        )
    return cost


def min_cllr(scores: object, labels: object = None) -> float:
    """Return the minimum of ``cllr`` over all monotonic maps of the scores, in bits.

    The best map is that of the pool-adjacent-violators algorithm, given by the slopes of the convex
    hull of the ROC (Brümmer and du Preez, 2006).

    Args:
        scores: scores, of which only the order counts, or a ``Sweep``. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial; none with a ``Sweep``.
            Shape: [trials].

    Returns:
        The cost from 0, perfect, to 1.

    Raises:
        ScoringError: see :meth:`Sweep.of`.

    Example:
        >>> min_cllr([1.0, 2.0, 3.0], [0, 0, 1])
        0.0
    """
    sweep = _sweep(scores, labels)
    misses, accepts = sweep.hull
    # Shares of the targets and of the non-targets in each bin, whose ratio is target / other.
    target = np.diff(misses) / len(sweep.target)
    other = -np.diff(accepts) / len(sweep.nontarget)
    mixed = (target > 0) & (other > 0)  # a pure bin has an infinite ratio and costs nothing
    target, other = target[mixed], other[mixed]
    return float(target @ np.log2(1 + other / target) + other @ np.log2(1 + target / other)) / 2


def _any_sweep(scores: object, labels: object, weights: object) -> Sweep | WeightedSweep:
    """Return a sweep, weighted if trials have weights."""
    if isinstance(scores, Sweep | WeightedSweep):
        if labels is not None or weights is not None:
            raise ScoringError(
                "a Sweep already contains the labels; pass none with it, and weights only to "
                "WeightedSweep.of."
            )
        return scores
    if weights is None or labels is None:
        return _sweep(scores, labels)
    return WeightedSweep.of(scores, labels, weights)


def _sweep(scores: object, labels: object) -> Sweep:
    if isinstance(scores, Sweep):
        if labels is not None:
            raise ScoringError("a Sweep already contains the labels; pass none with it.")
        return scores
    if labels is None:
        raise ScoringError("labels are missing: 1 for each target trial, 0 for each other.")
    return Sweep.of(scores, labels)


def exact_costs(p_target: float, c_miss: float, c_fa: float) -> tuple[Fraction, Fraction]:
    """Return the costs of a miss rate of 1 and of a false acceptance rate of 1.

    Raises:
        ScoringError: a prior that is not between 0 and 1, or a cost that is not positive.
    """
    check_prior(p_target)
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        check_number(name, cost)
        if not (np.isfinite(cost) and cost > 0):
            raise ScoringError(f"{name} must be a positive number, got {cost}.")
    # The shortest decimal number that rounds to the given one is what was written.
    prior, miss, accept = (Fraction(repr(float(given))) for given in (p_target, c_miss, c_fa))
    return miss * prior, accept * (1 - prior)


def cost_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """Return :func:`exact_costs`, rounded.

    Raises:
        ScoringError: see there; or the costs are not in the range of floating-point numbers.
    """
    miss_cost, accept_cost = map(_rounded, exact_costs(p_target, c_miss, c_fa))
    if not (min(miss_cost, accept_cost) > 0 and max(miss_cost, accept_cost) < np.inf):
        raise ScoringError(
            f"p_target {p_target} and the costs {c_miss} and {c_fa} are too small or too large to "
            "be multiplied."
        )
    return miss_cost, accept_cost


def _rounded(cost: Fraction) -> float:
    try:
        return float(cost)
    except OverflowError:
        return float("inf")
