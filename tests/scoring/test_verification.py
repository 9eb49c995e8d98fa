"""EER, minDCF, actual DCF and Cllr: published numbers, definitions, and what must not matter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve
from support.score_oracle import (
    FLOAT32_MAX,
    INFINITY,
    Array,
    golden,
    golden_trials,
    point_at,
    ranked,
    rising,
    scored,
    slow_cllr,
    slow_cost,
    slow_eer,
    slow_hull_eer,
    slow_min_dcf,
)

from voxblink2_lib.errors import ScoringError, VoxBlink2Error
from voxblink2_lib.scoring import det, verification
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.verification import (
    act_dcf,
    cllr,
    cost_weights,
    eer,
    min_cllr,
    min_dcf,
)

LABELS = [0, 0, 1, 1]
PRIORS = st.sampled_from([1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.99])
COSTS = st.sampled_from([0.1, 1.0, 3.0, 10.0])
GOLDEN_CASES = [pytest.param(case, id=f"seed{case['case']['seed']}") for case in golden("sv")]
METRICS = (eer, min_dcf, act_dcf, cllr, min_cllr)


def normal_trials(seed: int, trials: int, decimals: int | None = None) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(trials) < 0.3).astype(int)
    scores = generator.normal(labels * 1.5, 1.0)
    return (scores if decimals is None else scores.round(decimals)), labels


# -- Published numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_eer_and_min_dcf(case: dict[str, Any]) -> None:
    scores, labels = golden_trials(case["case"])
    assert eer(scores, labels).eer == pytest.approx(case["eer_percent"] / 100, rel=0, abs=1e-9)
    assert min_dcf(scores, labels).min_dcf == pytest.approx(case["min_dcf_p01"], rel=0, abs=1e-9)
    assert min_dcf(scores, labels, p_target=(0.01, 0.001)).min_dcf == pytest.approx(
        case["min_dcf_mean_p01_p001"], rel=0, abs=1e-9
    )


# -- Known answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [2, 3, 10, 1001])
@pytest.mark.parametrize("targets", [1, 0.5, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perfect_inverted_and_constant_scores(
    trials: int, targets: float, dtype: type[np.floating[Any]]
) -> None:
    count = {1: 1, 0.5: trials // 2, -1: trials - 1}[targets]
    labels = np.arange(trials) >= trials - count
    scores = np.arange(trials).astype(dtype)
    assert eer(scores, labels).eer == 0
    assert eer(scores, labels, method="hull").eer == 0
    assert min_dcf(scores, labels).min_dcf == 0
    assert min_cllr(scores, labels) == 0
    assert eer(-scores, labels).eer == 1
    assert eer(-scores, labels, method="hull").eer == 0.5
    assert min_dcf(-scores, labels).min_dcf == 1
    assert min_cllr(-scores, labels) == pytest.approx(1, abs=1e-15)
    same = np.full(trials, 0.25, dtype)
    assert eer(same, labels) == (0.5, 0.25)
    assert eer(same, labels, method="hull").eer == 0.5
    assert min_dcf(same, labels) == (1, INFINITY)
    assert min_cllr(same, labels) == 1


def test_perfect_scores_are_parted_at_the_lowest_target() -> None:
    scores = [0.0, 1.0, 2.0, 3.0]
    assert eer(scores, LABELS).threshold == 2.0
    assert min_dcf(scores, LABELS).threshold == 2.0


def test_scores_that_say_nothing_have_cllr_1_and_act_dcf_1() -> None:
    assert cllr([0.0] * 4, LABELS) == 1
    assert act_dcf([0.0] * 4, LABELS, p_target=0.01).act_dcf == 1
    assert act_dcf([0.0] * 4, LABELS, p_target=0.99).act_dcf == 1


def test_a_sweep_serves_every_metric_and_is_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = normal_trials(1, 500, 1)
    expected = [metric(scores, labels) for metric in METRICS]
    sweep = Sweep.of(scores, labels)
    monkeypatch.setattr(Sweep, "of", None)
    assert [metric(sweep) for metric in METRICS] == expected
    hull = eer(sweep, method="hull").eer
    assert hull <= eer(sweep).eer


# -- Against the definitions -----------------------------------------------------------------------
@given(trials=scored())
def test_eer_is_that_of_the_definition(trials: tuple[Array, Array]) -> None:
    rate, threshold, (low, high) = slow_eer(*trials)
    result = eer(*trials)
    assert result.eer == pytest.approx(float(rate), rel=0, abs=1e-14)
    assert result.threshold == pytest.approx(threshold, rel=1e-9, abs=1e-9 * max(abs(low), 1e-300))
    assert result.threshold is not None
    assert low <= result.threshold <= (low if math.isinf(high) else high)


@given(trials=scored(max_trials=20), block=st.sampled_from([1, 3, 1 << 16]))
def test_hull_eer_is_the_least_that_two_thresholds_and_chance_reach(
    trials: tuple[Array, Array], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(det, "_BLOCK", block)
        result = eer(*trials, method="hull")
    assert result.eer == pytest.approx(float(slow_hull_eer(*trials)), rel=0, abs=1e-14)
    assert result.threshold is None


@given(trials=scored())
def test_hull_eer_is_never_above_the_interpolated(trials: tuple[Array, Array]) -> None:
    sweep = Sweep.of(*trials)
    hull = eer(sweep, method="hull").eer
    assert 0 <= hull <= 0.5
    assert hull <= eer(sweep).eer


@given(trials=scored(), p_target=PRIORS, c_miss=COSTS, c_fa=COSTS)
def test_min_dcf_is_that_of_the_definition(
    trials: tuple[Array, Array], p_target: float, c_miss: float, c_fa: float
) -> None:
    given_costs: dict[str, Any] = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    result = min_dcf(*trials, **given_costs)
    cost, threshold = slow_min_dcf(*trials, **given_costs)
    assert result == (float(cost), threshold)
    assert 0 <= cost <= 1


def distinct_cases(count: int) -> Iterator[tuple[Array, Array]]:
    """Yield trials with different scores, of which many thresholds have the same cost."""
    generator = np.random.default_rng(22)
    for _ in range(count):
        trials = int(generator.integers(2, 25))
        labels = np.arange(trials) < generator.integers(1, trials)
        yield generator.permutation(trials), generator.permutation(labels).astype(int)


def check_thresholds(count: int) -> None:
    """Compare cost and threshold with the oracle, bit by bit, for many trials and priors."""
    for number, (scores, labels) in enumerate(distinct_cases(count)):
        for p_target in (0.5, (0.01, 0.05, 0.3, 0.9)[number % 4]):
            cost, threshold = slow_min_dcf(scores, labels, p_target=p_target)
            assert min_dcf(scores, labels, p_target=p_target) == (float(cost), threshold)
        rate, at, _ = slow_eer(scores, labels)
        result = eer(scores, labels)
        assert result.eer == float(rate)
        assert result.threshold == pytest.approx(at, rel=1e-15)
        assert eer(scores, labels, method="hull").eer == float(slow_hull_eer(scores, labels))


def test_thresholds_of_different_scores_are_those_of_the_oracle() -> None:
    check_thresholds(600)


@pytest.mark.slow
def test_thresholds_of_20_000_cases_are_those_of_the_oracle() -> None:
    check_thresholds(20_000)


def test_of_equal_costs_the_lowest_threshold_is_given_whatever_rounding_says() -> None:
    scores = [0, 10, 16, 13, 4, 5, 18, 7, 3, 15, 12, 8, 19, 1, 14, 9, 6, 11, 17, 2]
    labels = [0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert min_dcf(scores, labels, p_target=0.5) == (0.9, 1.0)


def test_a_prior_is_the_decimal_number_that_was_written() -> None:
    # A miss of 3 targets and a false acceptance of 7 non-targets both cost 1/10. In binary, 0.3 is
    # a little less than 3/10, and the higher threshold would be a little cheaper.
    labels = [1, 0, *[0] * 6, 1, 1]
    assert min_dcf([0, 1, *range(-6, 0), 2, 3], labels, p_target=0.3).threshold == 0


def test_priors_and_costs_of_many_digits_are_compared_as_exactly() -> None:
    for scores, labels in distinct_cases(50):
        given_costs: dict[str, Any] = {"p_target": 1 / 3, "c_miss": 1e-200, "c_fa": 1e-200 / 7}
        cost, threshold = slow_min_dcf(scores, labels, **given_costs)
        assert min_dcf(scores, labels, **given_costs) == (float(cost), threshold)


def test_the_hull_is_not_above_the_interpolated_rate_by_a_bit() -> None:
    scores, labels = [0.5, 0.5, 0.3, 0.3, 0.8], [1, 0, 1, 0, 1]
    assert eer(scores, labels, method="hull").eer <= eer(scores, labels).eer


def test_the_largest_scores_have_a_cllr_or_are_refused() -> None:
    most = float(np.finfo(np.float64).max)
    assert cllr([-most, most], [0, 1]) == 0
    assert cllr([-most, most, -most, most], [0, 1, 0, 0]) == pytest.approx(most / 6 / math.log(2))
    with pytest.raises(ScoringError, match=r"too large for log-likelihood ratios: their Cllr"):
        cllr([-most, most], [1, 0])
    assert eer([-most, most], [0, 1]) == (0, most)
    assert min_dcf([-most, most], [1, 0]) == (1, INFINITY)


@given(trials=scored(), priors=st.lists(PRIORS, min_size=1, max_size=4))
def test_min_dcf_of_several_priors_is_their_mean(
    trials: tuple[Array, Array], priors: list[float]
) -> None:
    each = [min_dcf(*trials, p_target=prior, c_miss=2, c_fa=3) for prior in priors]
    result = min_dcf(*trials, p_target=priors, c_miss=2, c_fa=3)
    assert result.min_dcf == pytest.approx(
        statistics.mean(cost.min_dcf for cost in each), abs=1e-15
    )
    assert result.threshold == tuple(cost.threshold for cost in each)


@given(trials=scored(), p_target=PRIORS, c_miss=COSTS, c_fa=COSTS)
def test_act_dcf_is_the_cost_at_bayes_threshold(
    trials: tuple[Array, Array], p_target: float, c_miss: float, c_fa: float
) -> None:
    result = act_dcf(*trials, p_target=p_target, c_miss=c_miss, c_fa=c_fa)
    weights = (c_miss * p_target, c_fa * (1 - p_target))
    bayes = math.log(weights[1] / weights[0])
    assert result.threshold == pytest.approx(bayes, abs=1e-14)
    point = point_at(trials[0].tolist(), trials[1].tolist(), result.threshold)
    assert result.act_dcf == pytest.approx(slow_cost(point, weights) / min(weights), rel=1e-14)
    least = min_dcf(*trials, p_target=p_target, c_miss=c_miss, c_fa=c_fa).min_dcf
    assert result.act_dcf >= least - 1e-12


def test_a_score_at_bayes_threshold_is_accepted() -> None:
    # Equal costs: the threshold is 0 exactly.
    assert act_dcf([0.0, -1.0, 0.0, 1.0], LABELS, p_target=0.5) == (0.5, 0.0)
    low = float(np.nextafter(0.0, -1.0))
    assert act_dcf([low, -1.0, 0.0, 1.0], LABELS, p_target=0.5) == (0.0, 0.0)


@given(data=st.data(), trials=ranked())
def test_cllr_is_that_of_a_loop(data: st.DataObject, trials: tuple[Array, Array]) -> None:
    ranks, labels = trials
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    values = data.draw(st.lists(st.floats(-1e30, 1e30), min_size=len(set(ranks)) + 12, max_size=24))
    scores = np.array(values, dtype)[ranks]
    assert cllr(scores, labels) == pytest.approx(slow_cllr(scores, labels), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("size", [1.0, 36.0, 100.0, 709.0, 746.0, 1e10, FLOAT32_MAX, 1e308])
def test_cllr_of_large_scores_neither_overflows_nor_loses_small_costs(size: float) -> None:
    right = cllr([-size, -size, size, size], LABELS)
    assert right == pytest.approx(math.log1p(math.exp(-size)) / math.log(2), rel=1e-12)
    wrong = cllr([size, size, -size, -size], LABELS)
    assert wrong == pytest.approx(size / math.log(2) + right, rel=1e-12)


def test_cllr_of_float32_scores_is_computed_in_float64() -> None:
    scores, labels = normal_trials(2, 20_000)
    scores = scores.astype(np.float32)
    assert cllr(scores, labels) == cllr(scores.astype(np.float64), labels)


def test_eer_of_two_normal_distributions_is_what_their_integrals_say() -> None:
    # Targets N(2, 1), non-targets N(0, 2): Phi(t - 2) = 1 - Phi(t / 2), so t - 2 = -t / 2.
    generator = np.random.default_rng(4)
    labels = np.arange(400_000) % 2
    scores = generator.normal(2 * labels, 2 - labels)
    result = eer(scores, labels)
    assert result.eer == pytest.approx(statistics.NormalDist().cdf(-2 / 3), abs=3e-3)
    assert result.threshold == pytest.approx(4 / 3, abs=1e-2)
    assert eer(scores, labels, method="hull").eer == pytest.approx(result.eer, abs=1e-4)


def test_act_dcf_and_cllr_of_true_ratios_are_close_to_their_minima() -> None:
    # N(2, 2) against N(-2, 2) are their own log-likelihood ratios.
    generator = np.random.default_rng(5)
    labels = np.arange(200_000) % 2
    scores = generator.normal(4 * labels - 2, 2)
    for p_target in (0.1, 0.5, 0.9):
        sweep = Sweep.of(scores, labels)
        least = min_dcf(sweep, p_target=p_target).min_dcf
        assert least <= act_dcf(sweep, p_target=p_target).act_dcf <= least + 5e-3
    assert min_cllr(sweep) <= cllr(sweep) <= min_cllr(sweep) + 1e-3
    assert cllr(scores + 1, labels) > cllr(sweep) + 0.01


# -- Against scikit-learn --------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_eer_and_min_dcf_are_those_of_the_curve_of_scikit_learn(
    seed: int, decimals: int | None
) -> None:
    scores, labels = normal_trials(seed, 2000, decimals)
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    fnr = 1 - tpr
    # Where the polyline FNR - FPR over its own length is zero.
    at = np.arange(len(fpr))
    crossed = np.interp(0, (fpr - fnr), at)
    assert eer(scores, labels).eer == pytest.approx(np.interp(crossed, at, fnr), abs=1e-12)
    for p_target in (0.01, 0.5):
        costs = p_target * fnr + (1 - p_target) * fpr
        result = min_dcf(scores, labels, p_target=p_target)
        assert result.min_dcf == pytest.approx(
            costs.min() / min(p_target, 1 - p_target), rel=0, abs=1e-12
        )
        assert result.threshold in thresholds[costs < costs.min() + 1e-12]


def posteriors(scores: Array, labels: Array) -> Array:
    """Return the posterior of each trial after the pool-adjacent-violators algorithm."""
    fitted: Array = IsotonicRegression(out_of_bounds="clip").fit_transform(scores, labels)
    return fitted


@pytest.mark.parametrize("block", [1, 7, 1 << 16])
@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_pool_adjacent_violators_is_that_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, seed: int, decimals: int | None, block: int
) -> None:
    monkeypatch.setattr(det, "_BLOCK", block)
    scores, labels = normal_trials(seed, 1500, decimals)
    fitted = posteriors(scores, labels)
    # The edges of the hull are the bins of equal posteriors: so many targets, so many trials.
    misses, accepts = Sweep.of(scores, labels).hull
    targets, others = np.diff(misses), -np.diff(accepts)
    bins, counts = np.unique(fitted.round(12), return_counts=True)
    np.testing.assert_array_equal(targets + others, counts)
    np.testing.assert_allclose(targets / (targets + others), bins, rtol=0, atol=1e-12)
    # Cllr of the ratios that these posteriors stand for.
    prior = math.log(labels.mean() / (1 - labels.mean()))
    inner = (fitted > 0) & (fitted < 1)
    costs = np.zeros(len(fitted))
    ratios = np.log(fitted[inner] / (1 - fitted[inner])) - prior
    costs[inner] = np.logaddexp(0, np.where(labels[inner] == 1, -ratios, ratios))
    expected = (costs[labels == 1].mean() + costs[labels == 0].mean()) / (2 * math.log(2))
    assert min_cllr(scores, labels) == pytest.approx(expected, rel=1e-9)


@given(data=st.data(), trials=ranked())
def test_no_rising_map_has_a_cllr_below_min_cllr(
    data: st.DataObject, trials: tuple[Array, Array]
) -> None:
    ranks, labels = trials
    steps = data.draw(st.lists(st.floats(0, 5), min_size=12, max_size=12))
    ratios = (np.cumsum(steps) - data.draw(st.floats(0, 20)))[ranks]
    assert min_cllr(ranks, labels) <= cllr(ratios, labels) + 1e-12
    assert 0 <= min_cllr(ranks, labels) <= 1 + 1e-12


# -- What must not matter --------------------------------------------------------------------------


def rates_of(scores: Array, labels: Array) -> tuple[float, ...]:
    sweep = Sweep.of(scores, labels)
    return (
        eer(sweep).eer,
        eer(sweep, method="hull").eer,
        min_dcf(sweep).min_dcf,
        min_dcf(sweep, p_target=(0.5, 0.05), c_miss=2, c_fa=0.5).min_dcf,
        min_cllr(sweep),
    )


@given(trials=scored(), order=st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(trials: tuple[Array, Array], order: Any) -> None:
    scores, labels = trials
    rows = list(range(len(scores)))
    order.shuffle(rows)
    assert rates_of(scores, labels) == rates_of(scores[rows], labels[rows])
    assert eer(scores, labels).threshold == eer(scores[rows], labels[rows]).threshold
    assert min_dcf(scores, labels).threshold == min_dcf(scores[rows], labels[rows]).threshold
    assert act_dcf(scores, labels) == act_dcf(scores[rows], labels[rows])


@given(data=st.data(), trials=ranked())
def test_rising_maps_leave_the_metrics_alone(
    data: st.DataObject, trials: tuple[Array, Array]
) -> None:
    ranks, labels = trials
    first, other = (data.draw(rising(int(ranks.max()) + 1))[ranks] for _ in range(2))
    assert rates_of(first, labels) == rates_of(other, labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_rising_maps_leave_the_metrics_alone(dtype: type[np.floating[Any]]) -> None:
    scores, labels = normal_trials(6, 4000, 2)
    scores = scores.astype(dtype)
    expected = rates_of(scores, labels)
    for rise in (np.exp, np.tanh, np.arctan, np.cbrt, lambda score: 1000 * score - 7):
        mapped = rise(scores)
        assert len(np.unique(mapped)) == len(np.unique(scores))  # it did rise, after rounding
        assert rates_of(mapped, labels) == expected


@given(trials=scored())
def test_exchanging_the_classes_and_the_sign_leaves_eer_and_min_cllr_alone(
    trials: tuple[Array, Array],
) -> None:
    scores, labels = trials
    assert eer(-scores, 1 - labels).eer == pytest.approx(eer(scores, labels).eer, abs=1e-14)
    assert min_cllr(-scores, 1 - labels) == pytest.approx(min_cllr(scores, labels), abs=1e-14)
    first = min_dcf(scores, labels, p_target=0.2, c_miss=3).min_dcf
    other = min_dcf(-scores, 1 - labels, p_target=0.8, c_fa=3).min_dcf
    assert first == pytest.approx(other, abs=1e-14)


@given(trials=scored(), copies=st.integers(2, 5))
def test_copies_of_all_trials_leave_the_metrics_alone(
    trials: tuple[Array, Array], copies: int
) -> None:
    scores, labels = trials
    more = rates_of(np.tile(scores, copies), np.repeat(labels[None], copies, axis=0).ravel())
    assert more == pytest.approx(rates_of(scores, labels), rel=0, abs=1e-13)


@given(trials=scored(), block=st.sampled_from([1, 2, 5]))
def test_blocks_do_not_show(trials: tuple[Array, Array], block: int) -> None:
    whole = [*rates_of(*trials), min_dcf(*trials, p_target=[0.3, 0.01]).threshold]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(det, "_BLOCK", block)
        assert [*rates_of(*trials), min_dcf(*trials, p_target=[0.3, 0.01]).threshold] == whole


# -- Arguments -------------------------------------------------------------------------------------


def test_metrics_are_plain_floats() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    result: list[object] = [cllr(scores, LABELS), min_cllr(scores, LABELS)]
    result += [*eer(scores, LABELS), eer(scores, LABELS, method="hull").eer]
    result += [*min_dcf(scores, LABELS), *act_dcf(scores, LABELS)]
    assert {type(value) for value in result} == {float}


@pytest.mark.parametrize(
    "p_target", [np.float64(0.5), np.float32(0.5)], ids=lambda prior: type(prior).__name__
)
def test_a_prior_may_be_a_numpy_number(p_target: Any) -> None:
    result = min_dcf([0.1, 0.4, 0.35, 0.8], LABELS, p_target=p_target)
    assert (result.min_dcf, result.threshold) == (0.5, 0.35)


def test_several_priors_may_be_an_array() -> None:
    scores = [0.1, 0.4, 0.35, 0.8]
    result = min_dcf(scores, LABELS, p_target=np.array([0.01, 0.001]))  # type: ignore[arg-type]
    assert result == min_dcf(scores, LABELS, p_target=(0.01, 0.001))
    assert min_dcf(scores, LABELS, p_target=[0.5]).threshold == (0.35,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: eer([1, 2], [0, 1], method=cast(Any, "roc")),
            r"method is 'roc'; allowed are 'interpolated'",
        ),
        (lambda: eer([1, 2]), r"labels are missing: 1 for each target trial"),
        (lambda: eer(Sweep.of([1, 2], [0, 1]), [0, 1]), r"a Sweep already contains the labels"),
        (lambda: min_dcf([1, 2], [0, 1], p_target=()), r"p_target is empty"),
        (lambda: min_dcf([1, 2], [0, 1], p_target=0.0), r"p_target must lie between .*, got 0\.0"),
        (lambda: min_dcf([1, 2], [0, 1], p_target=1.0), r"p_target must lie between .*, got 1\.0"),
        (lambda: min_dcf([1, 2], [0, 1], p_target=1), r"p_target must lie between .*, got 1"),
        (lambda: min_dcf([1, 2], [0, 1], p_target=(0.1, -1)), r"p_target must lie .*, got -1"),
        (lambda: act_dcf([1, 2], [0, 1], p_target=math.nan), r"p_target must lie .*, got nan"),
        (lambda: act_dcf([1, 2], [0, 1], c_miss=0), r"c_miss must be a positive number, got 0"),
        (lambda: min_dcf([1, 2], [0, 1], c_fa=math.inf), r"c_fa must be a positive .*, got inf"),
        (lambda: min_dcf([1, 2], [0, 1], c_fa=math.nan), r"c_fa must be a positive .*, got nan"),
        (lambda: act_dcf([1, 2], [0, 1], c_miss=1e-323), r"costs 1e-323 and 1\.0 are too small"),
        (lambda: min_dcf([1, 2], [0, 1], c_miss=-2.0), r"c_miss must be a positive .*, got -2\.0"),
    ],
)
def test_arguments_that_are_not_possible_are_named(call: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, VoxBlink2Error)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], r"labels are all 1; error rates need target \(1\) and non-target"),
        ([1.0, 2.0], [0, 0], r"labels are all 0"),
        ([1.0, math.nan], [0, 1], r"scores must be finite, got nan in row 1"),
        ([1.0, 2.0, -math.inf], [0, 1, 1], r"scores must be finite, got -inf in row 2"),
        ([1.0, 2.0, 3.0], [0, 1], r"scores has 3 values and labels 2; both must agree"),
        ([1.0, 2.0], [0, 2], r"labels must be 0 \(non-target\) or 1 \(target\), got 2 in row 1"),
        ([], [], r"scores is empty"),
        ([[1.0], [2.0]], [0, 1], r"scores must have one dimension, got shape \(2, 1\)"),
    ],
)
def test_every_metric_refuses_trials_that_cannot_be_scored(
    metric: Any, scores: Any, labels: Any, message: str
) -> None:
    with pytest.raises(ScoringError, match=message) as caught:
        metric(scores, labels)
    assert isinstance(caught.value, ValueError)


def test_weights_of_costs() -> None:
    assert cost_weights(0.25, 2.0, 4.0) == (0.5, 3.0)
    assert verification.cost_weights is cost_weights
