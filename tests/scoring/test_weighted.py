"""Weighted trials: exact, tie-safe, and the same as trials that are repeated or left out."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, scored, slow_eer, slow_min_dcf

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import WeightedSweep, eer, min_dcf

PRIORS = st.sampled_from([1e-3, 0.01, 0.3, 0.5, 0.99])
# As they are written, also beyond what the sums of int64 hold.
WEIGHTS = ("0", "1", "2", "3", "0.1", "0.3", "1e-30", "7.25", "1e25", "3.3333333333333335")


@st.composite
def weighted(draw: st.DrawFn) -> tuple[Array, Array, list[str]]:
    """Draw scores with ties, labels, and weights of which no class has only zeros."""
    scores, labels = draw(scored(max_trials=20))
    few = draw(st.sampled_from([WEIGHTS, WEIGHTS[:5]]))
    each = st.lists(st.sampled_from(few), min_size=len(labels), max_size=len(labels))
    weights = draw(each)
    for label in (0, 1):
        weights[int(np.flatnonzero(labels == label)[0])] = "1"
    return scores, labels, weights


def without_zeros(
    scores: Array, labels: Array, weights: list[str]
) -> tuple[Array, Array, list[Fraction]]:
    kept = [row for row, weight in enumerate(weights) if weight != "0"]
    return scores[kept], labels[kept], [Fraction(weights[row]) for row in kept]


@given(trials=weighted(), p_target=PRIORS, c_miss=st.sampled_from([1.0, 10.0]))
def test_rates_costs_and_thresholds_are_those_of_the_oracle(
    trials: tuple[Array, Array, list[str]], p_target: float, c_miss: float
) -> None:
    scores, labels, texts = trials
    weights = np.array(texts, np.float64)
    kept, flags, exact = without_zeros(*trials)
    rate, threshold, (low, _) = slow_eer(kept, flags, exact)
    result = eer(scores, labels, weights=weights)
    assert result.eer == float(rate)
    assert result.threshold == pytest.approx(threshold, rel=1e-9, abs=1e-9 * max(abs(low), 1e-300))
    costs: dict[str, Any] = {"p_target": p_target, "c_miss": c_miss}
    cost, at = slow_min_dcf(kept, flags, **costs, weights=exact)
    assert min_dcf(scores, labels, weights=weights, **costs) == (float(cost), at)


@given(trials=scored(), p_target=PRIORS, weight=st.sampled_from([1, 3, 0.1, 1e-300]))
def test_equal_weights_change_no_bit(
    trials: tuple[Array, Array], p_target: float, weight: float
) -> None:
    weights = np.full(len(trials[0]), weight)
    assert eer(*trials, weights=weights) == eer(*trials)
    assert min_dcf(*trials, weights=weights, p_target=p_target) == min_dcf(
        *trials, p_target=p_target
    )


@given(trials=scored(), data=st.data())
def test_whole_weights_are_repeated_trials_in_any_order(
    trials: tuple[Array, Array], data: st.DataObject
) -> None:
    scores, labels = trials
    count = len(scores)
    counts = st.lists(st.integers(1, 3), min_size=count, max_size=count)
    repeats = np.array(data.draw(counts))
    order = np.array(data.draw(st.permutations(range(count))))
    repeated = np.repeat(scores, repeats), np.repeat(labels, repeats)
    shuffled = scores[order], labels[order]
    assert eer(*shuffled, weights=repeats[order]) == eer(*repeated)
    assert min_dcf(*shuffled, weights=repeats[order]) == min_dcf(*repeated)


@given(trials=scored(), data=st.data(), p_target=PRIORS)
def test_groups_have_the_same_weight(
    trials: tuple[Array, Array], data: st.DataObject, p_target: float
) -> None:
    scores, labels = trials
    count = len(scores)
    groups = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    both = [g for g in range(4) if len(set(labels[groups == g].tolist())) == 2]
    if not both:
        with pytest.raises(ScoringError, match=r"weights are 0 for all target trials or all non-"):
            WeightedSweep.equalized(scores, labels, groups)
        return
    kept = np.flatnonzero(np.isin(groups, both))
    size = {(g, c): np.count_nonzero((groups == g) & (labels == c)) for g in both for c in (0, 1)}
    exact = [Fraction(1, int(size[int(groups[row]), int(labels[row])])) for row in kept]
    sweep = WeightedSweep.equalized(scores, labels, groups)
    cost, threshold = slow_min_dcf(scores[kept], labels[kept], p_target=p_target, weights=exact)
    assert min_dcf(sweep, p_target=p_target) == (float(cost), threshold)
    assert eer(sweep).eer == float(slow_eer(scores[kept], labels[kept], exact)[0])


def test_sums_beyond_int64_are_exact() -> None:
    # The least common multiple of so many sizes has 50 digits.
    sizes = [101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(1)
    groups = np.concatenate([groups, groups])
    labels = np.arange(len(groups)) < len(groups) // 2
    scores = rng.normal(labels, 1).round(0)
    exact = [Fraction(1, sizes[group]) for group in groups]
    sweep = WeightedSweep.equalized(scores, labels, groups)
    assert sweep.misses.dtype == object
    assert eer(sweep).eer == float(slow_eer(scores, labels, exact)[0])
    assert min_dcf(sweep, p_target=0.3) == pytest.approx(
        slow_min_dcf(scores, labels, p_target=0.3, weights=exact), rel=1e-15
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -0.5, 1, 1], r"weights must be at least 0, got -0\.5 in row 1\."),
        ([1, 1, 1], r"scores has 4 values and weights 3; both must agree"),
        ([1, 1, np.inf, 1], r"weights must be finite, got inf in row 2"),
        ([0, 1, 0, 1], r"weights are 0 for all target trials or all non-target trials"),
        (["a"] * 4, r"weights must be numbers"),
    ],
    ids=["negative", "fewer", "infinite", "zero", "text"],
)
def test_what_is_no_weight_is_named(weights: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        eer([1, 2, 3, 4], [0, 1, 0, 1], weights=weights)


def test_what_takes_no_weights_is_named() -> None:
    sweep = WeightedSweep.of([1, 2, 3, 4], [0, 1, 0, 1], [1, 1, 2, 1])
    with pytest.raises(ScoringError, match=r"the EER on the hull takes no weights; use method='in"):
        eer(sweep, method="hull")
    with pytest.raises(
        ScoringError, match=r"a Sweep already contains the labels; .* WeightedSweep"
    ):
        min_dcf(sweep, weights=[1, 1, 1, 1])
    with pytest.raises(ScoringError, match=r"labels are missing"):
        eer([1, 2], weights=[1, 1])
