"""Calibration: from scores to log-likelihood ratios, by logistic regression.

The map is affine in the score and in quality measures of the trial, such as durations. A calibrated
score is the log-likelihood ratio of one speaker against two, so the threshold follows from the
costs alone, and scores of trials with short or noisy recordings are comparable with others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.validation import (
    Floats,
    as_scores,
    as_trials,
    check_finite,
    check_length,
    check_prior,
)

_FORMAT = "voxblink2 calibration 1"

# Newton's method ends, after about ten steps, where rounding hides how much is left: the cost is
# above its minimum by half the product of gradient and step. With a curvature below the second
# number there is no minimum.
_SMALL_DECREMENT, _FLAT, _STEPS = 1e-20, 1e-9, 100


@dataclass(frozen=True)
class Calibration:
    """``llr = slope * score + offset + sum of weight * quality measure``.

    Attributes:
        slope: factor of the score.
        offset: the constant term.
        quality: factor of each quality measure, by name.
    """

    slope: float
    offset: float
    quality: dict[str, float] = field(default_factory=dict)

    def __call__(self, scores: object, quality: Mapping[str, object] | None = None) -> Floats:
        """Return natural log-likelihood ratios, float64. Shape: [trials].

        Args:
            scores: scores. Shape: [trials].
            quality: each measure that the calibration was fitted with. Shape of each: [trials].

        Raises:
            ScoringError: values that are not finite, or missing or unknown measures.
        """
        values = as_scores(scores, "scores").astype(np.float64)
        measures = _measures(quality, rows=len(values))
        if set(measures) != set(self.quality):
            raise ScoringError(
                f"quality has {sorted(measures)}; this calibration was fitted with "
                f"{sorted(self.quality)}."
            )
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            llr = self.slope * values + self.offset
            for name, weight in self.quality.items():
                llr += weight * measures[name]
        check_finite(llr, "log-likelihood ratios")
        return llr

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON.

        Args:
            path: of the file.
        """
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Args:
            path: of the file.

        Raises:
            ScoringError: the file is missing or not a calibration.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ScoringError(f"{path} cannot be read as a calibration: {error}") from error
        if not isinstance(read, dict) or read.pop("format", None) != _FORMAT:
            raise ScoringError(f'{path} is not a calibration: it lacks "format": "{_FORMAT}".')
        weights = read.get("quality")
        if set(read) != {"slope", "offset", "quality"} or not isinstance(weights, dict):
            raise ScoringError(
                f"{path} has {sorted(read)}; a calibration has slope, offset and quality."
            )
        for value in (read["slope"], read["offset"], *weights.values()):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and np.isfinite(value)):
                raise ScoringError(f"{path}: slope, offset and weights are numbers, got {value!r}.")
        return cls(**read)


def fit_calibration(
    scores: object,
    labels: object,
    *,
    quality: Mapping[str, object] | None = None,
    p_target: float = 0.5,
    ridge: float = 0.0,
) -> Calibration:
    """Fit a calibration on labelled trials.

    Minimizes the cross-entropy of the log-likelihood ratios, each class weighted by its prior
    (Brümmer et al., "Fusion of heterogeneous speaker recognition systems in the STBU submission
    for the NIST SRE 2006", IEEE TASLP 15, 2007). With ``p_target=0.5`` this is ``cllr``.

    Args:
        scores: scores. Shape: [trials].
        labels: 1 for a target trial, 0 for a non-target trial. Shape: [trials].
        quality: quality measures by name, such as the logarithm of the shorter of the two
            durations. Shape of each: [trials].
        p_target: prior for which the ratios are optimized.
        ridge: weight of the squared factors, of inputs on a common scale; only needed for trials
            that the scores separate perfectly, where the slope is unbounded without it.

    Raises:
        ScoringError: bad scores, labels or measures; constant or linearly dependent scores or
            measures; classes that are separated perfectly, without a ``ridge``.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(2000) % 2
        >>> llr = np.random.default_rng(0).normal(np.where(labels, 2, -2), 2)
        >>> calibration = fit_calibration(llr / 3 + 1, labels)  # hidden behind an affine map
        >>> round(calibration.slope), round(calibration.offset)
        (3, -3)
    """
    check_prior(p_target)
    if not (np.isfinite(ridge) and ridge >= 0):
        raise ScoringError(f"ridge must be 0 or more, got {ridge}.")
    values, targets = as_trials(scores, labels)
    measures = _measures(quality, rows=len(values))
    names = ["scores", *(f"quality[{name!r}]" for name in measures)]
    columns = np.stack([values.astype(np.float64), *measures.values()], axis=1)
    # Powers of two, which round nothing: differences and squares of huge scores would overflow.
    exponents = np.frexp(np.abs(columns).max(axis=0))[1]
    columns = np.ldexp(columns, -exponents)
    # On a common scale, so that Newton's method does not depend on it; that of the middle half of
    # the trials, so that an outlier does not squeeze all other scores together.
    low, middle, high = np.quantile(columns, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high > low, high - low, columns.std(axis=0))
    if (flat := np.flatnonzero(spread <= 1e-12 * np.abs(middle))).size:
        value = np.ldexp(middle, exponents)[flat[0]]
        raise ScoringError(f"{names[flat[0]]} are all {value}; nothing can be fitted.")
    inputs = np.column_stack([(columns - middle) / spread, np.ones(len(values))])
    if np.linalg.matrix_rank(inputs.T @ inputs / len(inputs), tol=1e-10) < inputs.shape[1]:
        raise ScoringError(f"{', '.join(names)}: one follows from the others; leave it out.")
    shares = np.where(targets, p_target / targets.sum(), (1 - p_target) / (~targets).sum())
    factors = _newton(inputs, targets, shares, float(np.log(p_target / (1 - p_target))), ridge)
    slopes = factors[:-1] / spread
    offset = float(factors[-1] - slopes @ middle)
    slopes = np.ldexp(slopes, -exponents)
    check_finite(slopes, "factors of the scores and measures")
    return Calibration(
        slope=float(slopes[0]),
        offset=offset,
        quality=dict(zip(measures, map(float, slopes[1:]), strict=True)),
    )


def _newton(inputs: Floats, targets: Any, shares: Floats, prior: float, ridge: float) -> Floats:
    """Minimize the weighted cross-entropy; the prior's log-odds are part of the posterior."""
    signs = np.where(targets, 1.0, -1.0)
    penalty = np.full(inputs.shape[1], ridge)
    penalty[-1] = 0.0

    def cost(factors: Floats) -> float:
        margins = signs * (inputs @ factors + prior)
        return float(shares @ np.logaddexp(0, -margins) + penalty @ factors**2 / 2)

    factors = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        margins = signs * (inputs @ factors + prior)
        wrong = np.exp(-np.logaddexp(0, margins))  # probability of the wrong class
        gradient = -inputs.T @ (shares * signs * wrong) + penalty * factors
        curvature = shares * wrong * (1 - wrong)
        hessian = inputs.T @ (inputs * curvature[:, None]) + np.diag(penalty)
        # Where the classes are separated, gradient and curvature both go to zero, without end.
        if np.linalg.eigvalsh(hessian)[0] < _FLAT:
            break
        step, size, current = np.linalg.solve(hessian, gradient), 1.0, cost(factors)
        if gradient @ step < _SMALL_DECREMENT:
            return factors - step
        while size > 1e-6 and cost(factors - size * step) > current:
            size /= 2
        factors = factors - size * step
    raise ScoringError(
        "The scores separate target from non-target trials perfectly, so the best slope is "
        "infinite. Fit on more or harder trials, or give a small ridge such as 1e-4 "
        "(--ridge 1e-4)."
    )


def _measures(quality: Mapping[str, object] | None, *, rows: int) -> dict[str, Floats]:
    measures: dict[str, Floats] = {}
    for name, values in (quality or {}).items():
        column = as_scores(values, f"quality[{name!r}]").astype(np.float64)
        check_length(column, f"quality[{name!r}]", expected=rows, of="scores")
        measures[str(name)] = column
    return measures
