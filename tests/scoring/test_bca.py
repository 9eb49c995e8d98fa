"""Ends of intervals: against scipy's bootstrap, sums over all pairs, and exact binomial tails."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats

from voxblink2_lib.scoring.bca import Influences, bca_ends, binomial_ends
from voxblink2_lib.scoring.resampling import SpeakerSides


@pytest.mark.parametrize("seed", range(3))
def test_ends_of_a_mean_are_those_of_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(0.1, 40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=19_999, method="BCa", rng=np.random.default_rng(seed)
    )
    influences = Influences((values - values.mean()) / len(values))
    ends = bca_ends(
        float(values.mean()), theirs.bootstrap_distribution, influences, confidence=0.95
    )
    low, high = theirs.confidence_interval
    assert ends == pytest.approx((low, high), rel=1e-2)  # their quantiles are inside of ours


def test_the_variance_of_pairs_is_the_sum_over_pairs_that_share_a_speaker() -> None:
    generator = np.random.default_rng(5)
    first, second = generator.integers(0, 12, (2, 300))
    shifts = generator.normal(size=12)[first] + generator.normal(size=12)[second]
    shifts -= shifts.mean()
    influences = SpeakerSides(first, second, 12).influences(shifts)
    of_pairs: dict[frozenset[int], float] = defaultdict(float)
    for one_side, other, shift in zip(first.tolist(), second.tolist(), shifts, strict=True):
        of_pairs[frozenset((one_side, other))] += shift
    variance = sum(
        of_pairs[left] * of_pairs[right]
        for left, right in itertools.product(of_pairs, repeat=2)
        if left & right
    )
    two = sum(shift**2 for pair, shift in of_pairs.items() if len(pair) == 2)
    resampled = variance + 2 * two  # those between two speakers three times
    assert influences.narrowing == pytest.approx(math.sqrt(variance / resampled))


def test_the_critical_value_is_wider_for_few_and_for_uneven_speakers() -> None:
    even, uneven = np.resize([1.0, -1.0], 40), np.r_[np.full(39, -0.1), 3.9]
    assert Influences(even).critical_value(0.95) == pytest.approx(1.96, abs=1e-3)
    critical = Influences(even, clustered=True).critical_value(0.95)
    assert critical == pytest.approx(stats.t.ppf(0.975, 39) * math.sqrt(40 * 39) / 38)
    assert Influences(uneven, clustered=True).critical_value(0.95) > 1.5 * critical


def test_resamples_that_do_not_move_are_an_interval_without_width() -> None:
    still = Influences(np.zeros(40), clustered=True)
    assert bca_ends(0.2, np.full(50, 0.2), still, confidence=0.95) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize(("errors", "trials"), [(0, 1), (0, 300), (1, 300), (7, 9), (300, 300)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_binomial_ends_leave_half_of_the_rest_at_either_side(
    errors: int, trials: int, confidence: float
) -> None:
    low, high = binomial_ends(errors, trials, confidence=confidence)
    tail = (1 - confidence) / 2
    if errors:
        assert stats.binom.sf(errors - 1, trials, low) == pytest.approx(tail)
    else:
        assert low == 0
    if errors < trials:
        assert stats.binom.cdf(errors, trials, high) == pytest.approx(tail)
    else:
        assert high == 1
