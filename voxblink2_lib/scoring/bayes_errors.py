"""Normalized Bayes error rates: what scores cost at any prior, for costs of 1."""

from __future__ import annotations

import numpy as np

from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.validation import Floats


def actual_errors(sweep: Sweep, log_odds: Floats) -> Floats:
    """Return the cost at the thresholds of Bayes' rule, as ``act_dcf``. Shape: [priors].

    Args:
        sweep: sorted natural log-likelihood ratios.
        log_odds: log-odds of the priors of a target trial. Shape: [priors].
    """
    fnr, fpr = sweep.rates(-log_odds)
    miss_cost, accept_cost = _costs(log_odds)
    return miss_cost * fnr + accept_cost * fpr


def minimum_errors(sweep: Sweep, log_odds: Floats) -> Floats:
    """Return the minimum of the cost over all thresholds, as ``min_dcf``. Shape: [priors].

    It is reached at a vertex of the convex hull of the ROC.

    Args:
        sweep: sorted scores.
        log_odds: log-odds of the priors of a target trial. Shape: [priors].
    """
    misses, accepts = sweep.hull
    fnr, fpr = misses / len(sweep.target), accepts / len(sweep.nontarget)
    pairs = zip(*_costs(log_odds), strict=True)
    return np.array([(miss * fnr + accept * fpr).min() for miss, accept in pairs])


def _costs(log_odds: Floats) -> tuple[Floats, Floats]:
    """Return the costs of a miss rate and of a false acceptance rate of 1. Shape: [priors]."""
    # The prior over the smaller of both, and likewise.
    return np.exp(np.maximum(log_odds, 0)), np.exp(np.maximum(-log_odds, 0))
