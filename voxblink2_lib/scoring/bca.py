"""Ends of confidence intervals: from resamples (BCa), and from counts alone (Clopper-Pearson).

The bias-corrected and accelerated interval (Efron, "Better bootstrap confidence intervals", Journal
of the American Statistical Association 82, 1987) takes other quantiles of the resamples than the
percentile interval: shifted by the bias of the resamples, and by how much the deviation of the
metric grows with its value, which the jackknife measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from voxblink2_lib.scoring.validation import Floats

_NORMAL = NormalDist()

# Rates of 0 and 1 have no log-odds; this is far below one error of any list.
_LEAST_RATE = 1e-9


@dataclass(frozen=True)
class Influences:
    """How much each independent unit, a trial or a speaker, moved a metric.

    Attributes:
        units: shift of the metric by each unit; they sum to 0. Shape: [units].
        narrowing: deviation of the metric over that of its resamples.
        clustered: whether the units are few enough that their number limits the interval.
    """

    units: Floats
    narrowing: float = 1.0
    clustered: bool = False

    @property
    def acceleration(self) -> float:
        """A sixth of the skewness of the sum of all units; 0 if nothing moves."""
        squares = float((self.units**2).sum())
        return float((self.units**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0

    def critical_value(self, confidence: float) -> float:
        """Return how many deviations an end is away from the middle.

        Of few speakers, the deviation of sums over pairs is too low by a factor, and uncertain:
        Student's t.
        """
        share = (1 + confidence) / 2
        if not self.clustered:
            return _NORMAL.inv_cdf(share)
        from scipy.special import stdtrit

        freedom, factor = self._student
        return float(stdtrit(freedom, share)) * factor

    def share_below(self, critical: float) -> float:
        """Return how likely a value so many deviations above the middle is not reached.

        The inverse of :meth:`critical_value`, of a share of one side.
        """
        if not self.clustered:
            return _NORMAL.cdf(critical)
        from scipy.special import stdtr

        freedom, factor = self._student
        return float(stdtr(freedom, critical / factor))

    @property
    def _student(self) -> tuple[float, float]:
        """Degrees of freedom, and the factor of the deviation.

        Satterthwaite's degrees (Biometrics Bulletin 2, 1946) of a sum of squares whose terms are as
        uneven as these.
        """
        count = len(self.units)
        squares = float((self.units**2).sum())
        uneven = float((self.units**4).sum()) - squares**2 / count
        freedom = min(count - 1.0, 2 * squares**2 / uneven) if uneven > 0 else count - 1.0
        return freedom, (count * (count - 1)) ** 0.5 / (count - 2)


def bca_ends(
    value: float, resampled: Floats, influences: Influences, *, confidence: float
) -> tuple[float, float]:
    """Return both ends of the bias-corrected and accelerated interval.

    Args:
        value: the metric, from 0 to 1.
        resampled: the metric of each resample. Shape: [resamples].
        influences: of the units that were resampled.
        confidence: probability that the interval covers the true value.
    """
    bias = _bias(value, resampled)
    critical, acceleration = influences.critical_value(confidence), influences.acceleration
    levels = []
    for shift in (bias - critical, bias + critical):
        room = 1 - acceleration * shift
        # Beyond its pole the formula would turn round.
        levels.append(_NORMAL.cdf(bias + shift / room) if room > 0 else float(shift > 0))
    low, high = _quantiles(resampled, levels)
    if influences.narrowing == 1:
        return low, high
    middle = _log_odds(value)
    ends = (middle + influences.narrowing * (_log_odds(end) - middle) for end in (low, high))
    low, high = (float(1 / (1 + np.exp(-end))) for end in ends)
    return low, high


def bca_share_below(limit: float, value: float, resampled: Floats, influences: Influences) -> float:
    """Return how likely the true metric is below a limit.

    An interval whose tail has this share ends at the limit (Efron, 1987).

    Args:
        limit: the limit.
        value: the metric.
        resampled: the metric of each resample. Shape: [resamples].
        influences: of the units that were resampled.
    """
    bias = _bias(value, resampled)
    below = np.count_nonzero(resampled < limit) + np.count_nonzero(resampled == limit) / 2
    distance = _NORMAL.inv_cdf((below + 0.5) / (len(resampled) + 1)) - bias
    room = 1 + influences.acceleration * distance
    shift = distance / room if room > 0 else float(np.copysign(np.inf, distance))
    return 1 - influences.share_below(bias - shift)


def _bias(value: float, resampled: Floats) -> float:
    """Return how many deviations the metric is above the median of its resamples."""
    below = np.count_nonzero(resampled < value) + np.count_nonzero(resampled == value) / 2
    edge = 1 / (len(resampled) + 1)
    return _NORMAL.inv_cdf(min(max(below / len(resampled), edge), 1 - edge))


def percentile_ends(resampled: Floats, *, confidence: float) -> tuple[float, float]:
    """Return both ends of the percentile interval: quantiles of the resamples."""
    tail = (1 - confidence) / 2
    low, high = _quantiles(resampled, [tail, 1 - tail])
    return low, high


def _quantiles(resampled: Floats, levels: list[float]) -> list[float]:
    """Return quantiles below which a further resample is with the probability of their levels."""
    quantiles: list[float] = np.quantile(resampled, levels, method="weibull").tolist()
    return quantiles


def _log_odds(rate: float) -> float:
    kept = min(max(rate, _LEAST_RATE), 1 - _LEAST_RATE)
    return float(np.log(kept) - np.log1p(-kept))


def binomial_ends(errors: int, trials: int, *, confidence: float) -> tuple[float, float]:
    """Return both ends of the exact binomial interval of a rate.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 1934.

    Args:
        errors: number of errors.
        trials: number of independent trials.
        confidence: probability, at least, that the interval covers the true rate.

    Example:
        >>> low, high = binomial_ends(0, 300, confidence=0.95)
        >>> low, round(high, 4)
        (0.0, 0.0122)
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(errors, trials - errors + 1, tail)) if errors else 0.0
    high = float(betaincinv(errors + 1, trials - errors, 1 - tail)) if errors < trials else 1.0
    return low, high
