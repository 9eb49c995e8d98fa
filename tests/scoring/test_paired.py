"""Two systems are compared on the same resamples: sure of small differences, fair to equal ones."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.score_oracle import Array

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import bootstrap_intervals, eer, min_dcf
from voxblink2_lib.scoring.bca import Influences, bca_ends, bca_share_below
from voxblink2_lib.scoring.costs import Costs
from voxblink2_lib.scoring.paired import compare_systems

Systems = tuple[Array, Array, Array, tuple[Array, Array]]


def systems(
    seed: int = 0, *, trials: int = 1200, noise: tuple[float, float] = (0.4, 0.4)
) -> Systems:
    """Return scores of two systems that mostly agree, labels, and the speakers of both sides."""
    generator = np.random.default_rng(seed)
    labels = np.arange(trials) % 2
    enrolment = np.arange(trials) // 2 % 50
    test = np.where(labels, enrolment, (enrolment + generator.integers(1, 50, trials)) % 50)
    effects = generator.normal(0, 0.4, 50)
    both = generator.normal(2 * labels) + effects[enrolment]
    first, second = (both + generator.normal(0, sigma, trials) for sigma in noise)
    return first, second, labels, (enrolment, test)


def test_rates_are_those_of_each_system_and_errors_too() -> None:
    first, second, labels, _ = systems()
    costs = Costs(c_miss=5, c_fa=2)
    result = compare_systems(first, second, labels, p_target=(0.2, 0.5), costs=costs, resamples=50)
    assert (result.eer.first, result.eer.second) == (
        eer(first, labels).eer,
        eer(second, labels).eer,
    )
    assert [*result.min_dcf] == [0.2, 0.5]
    for prior, difference in result.min_dcf.items():
        rates = [
            min_dcf(scores, labels, p_target=prior, **costs._asdict()).min_dcf
            for scores in (first, second)
        ]
        assert [difference.first, difference.second] == rates
        assert difference.difference == rates[1] - rates[0]
    alone = bootstrap_intervals(second, labels, p_target=0.2, **costs._asdict(), resamples=50)
    assert result.eer.errors[1] == alone.eer.errors
    assert result.min_dcf[0.2].errors[1] == alone.min_dcf.errors


@pytest.mark.parametrize("over", ["trials", "speakers"])
def test_the_resamples_are_the_same_for_both(over: str) -> None:
    first, second, labels, speakers = systems()
    sides = speakers if over == "speakers" else None
    result = compare_systems(first, second, labels, speakers=sides, resamples=400)
    assert result.over == over
    # Much of what is uncertain of each is the same for both, and cancels out.
    widths = [
        bootstrap_intervals(scores, labels, speakers=sides, resamples=400).eer
        for scores in (first, second)
    ]
    apart = sum((each.high - each.low) ** 2 for each in widths) ** 0.5
    assert result.eer.high - result.eer.low < 0.7 * apart
    assert result.eer.low < result.eer.difference < result.eer.high


def test_equal_systems_do_not_differ() -> None:
    first, _, labels, speakers = systems()
    for sides in (None, speakers):
        # A rising map changes no order, so it changes no rate.
        result = compare_systems(first, 3 * first + 1, labels, speakers=sides, resamples=60)
        for difference in (result.eer, *result.min_dcf.values()):
            assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
            assert difference.second_better == 0.5


@pytest.mark.parametrize("over", ["trials", "speakers"])
def test_a_comparison_may_be_turned_round(over: str) -> None:
    first, second, labels, speakers = systems(noise=(0.4, 0.7))
    options: Any = {"speakers": speakers if over == "speakers" else None, "resamples": 300}
    result = compare_systems(first, second, labels, **options)
    other = compare_systems(second, first, labels, **options)
    for a, b in zip(*([each.eer, *each.min_dcf.values()] for each in (result, other)), strict=True):
        assert [b.difference, b.low, b.high] == pytest.approx(
            [-a.difference, -a.high, -a.low], abs=1e-12
        )
        assert b.errors == a.errors[::-1]
        assert b.second_better == pytest.approx(1 - a.second_better, abs=1e-9)


@given(seed=st.integers(0, 100), ties=st.sampled_from([1, 8]), over_speakers=st.booleans())
def test_neither_the_order_of_trials_nor_that_of_ties_counts(
    seed: int, ties: int, over_speakers: bool
) -> None:
    first, second, labels, speakers = systems(seed, trials=200)
    first, second = (np.round(scores * ties) / ties for scores in (first, second))
    order = np.random.default_rng(seed).permutation(len(labels))
    results = [
        compare_systems(
            first[rows],
            second[rows],
            labels[rows],
            speakers=(speakers[0][rows], speakers[1][rows]) if over_speakers else None,
            resamples=10,
        )
        for rows in (slice(None), order)
    ]
    ends = [[r.eer.low, r.eer.high, r.min_dcf[0.01].low, r.min_dcf[0.01].high] for r in results]
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)
    for a, b in zip(*([r.eer, *r.min_dcf.values()] for r in results), strict=True):
        assert (a.first, a.second, a.errors) == (b.first, b.second, b.errors)
        assert a.second_better == pytest.approx(b.second_better, abs=1e-9)


def test_the_probability_is_that_of_the_interval_that_ends_at_0() -> None:
    generator = np.random.default_rng(0)
    for seed in range(5):
        units = generator.exponential(size=60)
        for clustered in (False, True):
            influences = Influences(units - units.mean(), clustered=clustered)
            resampled = generator.normal(0.1 * seed, 1, 4000)
            low, high = bca_ends(0.1 * seed + 0.05, resampled, influences, confidence=0.9)
            for limit, share in ((low, 0.05), (high, 0.95)):
                below = bca_share_below(limit, 0.1 * seed + 0.05, resampled, influences)
                assert below == pytest.approx(share, abs=0.002)


def test_the_share_of_deviations_is_the_inverse_of_their_number() -> None:
    units = np.random.default_rng(1).normal(size=45)
    for clustered in (False, True):
        influences = Influences(units, clustered=clustered)
        for confidence in (0.5, 0.9, 0.99):
            share = influences.share_below(influences.critical_value(confidence))
            assert share == pytest.approx((1 + confidence) / 2, abs=1e-9)
    assert Influences(units).share_below(1.0) == pytest.approx(stats.norm.cdf(1.0))


def covered(noise: tuple[float, float], repetitions: int) -> tuple[float, list[float]]:
    """Return how often the true difference of independent trials is covered, and probabilities."""

    def rate(sigma: float) -> float:
        return NormalDist().cdf(-1 / (1 + sigma**2) ** 0.5)

    truth = rate(noise[1]) - rate(noise[0])
    inside, better = 0, []
    for seed in range(repetitions):
        generator = np.random.default_rng(seed)
        labels = np.arange(800) % 2
        both = generator.normal(2 * labels)
        a, b = (both + generator.normal(0, sigma, 800) for sigma in noise)
        difference = compare_systems(a, b, labels, resamples=150, seed=seed).eer
        inside += difference.low <= truth <= difference.high
        better.append(difference.second_better)
    return inside / repetitions, better


@pytest.mark.parametrize(
    "repetitions",
    [pytest.param(30, id="few"), pytest.param(300, id="many", marks=pytest.mark.slow)],
)
def test_intervals_cover_the_true_difference(repetitions: int) -> None:
    share, better = covered((0.5, 0.5), repetitions)
    assert share > (0.8 if repetitions < 100 else 0.92)
    # Of equal systems, either is as likely to look better.
    assert 0.3 < np.mean(better) < 0.7
    share, better = covered((0.3, 0.9), repetitions // 2)
    assert share > (0.7 if repetitions < 100 else 0.92)
    assert np.mean([each < 0.025 for each in better]) > 0.6


def test_what_is_few_is_marked() -> None:
    first, second, labels, speakers = systems(trials=100)
    result = compare_systems(first, second, labels, resamples=30)
    assert result.eer.mark == "fewer than 30 errors of a kind"
    first, second, labels, speakers = systems()
    few = speakers[0] % 12, np.where(labels, speakers[0] % 12, (speakers[1] + 5) % 12)
    result = compare_systems(first, second, labels, speakers=few, resamples=30)
    assert result.eer.mark == "fewer than 100 speakers"
    assert compare_systems(first, second, labels, resamples=30).eer.mark is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": [1.0, 2.0]}, r"scores has 2 values and labels 4; both must agree"),
        ({"labels": [0, 0, 0, 0]}, r"labels are all 0; error rates need"),
        ({"p_target": ()}, r"p_target is empty; name at least one prior"),
        ({"costs": Costs(c_fa=0)}, r"c_fa must be a positive number, got 0"),
        ({"speakers": ("abcd", "abcd")}, r"speakers"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "first": [1.0, 2, 3, 4],
        "second": [1.0, 3, 2, 4],
        "labels": [0, 1, 0, 1],
    }
    with pytest.raises(ScoringError, match=message):
        compare_systems(**arguments | change, resamples=5)
