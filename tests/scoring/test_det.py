"""The sweep: every threshold, ties as one step, whatever the order, the type and the blocks."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import det_curve, roc_curve
from support.score_oracle import (
    FLOAT32_MAX,
    INFINITY,
    Array,
    point_at,
    points_of,
    ranked,
    rising,
    scored,
    slow_hull,
)

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import det
from voxblink2_lib.scoring.det import Sweep, crossing_between, lower_hull

# Of misses and false acceptances at a prior of 1/100.
COSTS = Fraction(1, 100), Fraction(99, 100)

# One threshold a block, borders inside of ties, all in one block.
BLOCKS = st.sampled_from([1, 2, 3, 7, 1 << 16])


def random_trials(seed: int, trials: int, decimals: int | None = None) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(trials) < 0.4).astype(int)
    scores = generator.normal(labels * 1.5, 1.0)
    return (scores if decimals is None else scores.round(decimals)), labels


def vertices(sweep: Sweep) -> list[tuple[int, int]]:
    misses, accepts = sweep.hull
    return list(zip(misses.tolist(), accepts.tolist(), strict=True))


def slow_vertices(scores: Array, labels: Array) -> list[tuple[int, int]]:
    targets = int(labels.sum())
    nontargets = len(labels) - targets
    return slow_hull(
        [
            (int(point.fnr * targets), int(point.fpr * nontargets))
            for point in points_of(scores, labels)
        ]
    )


# -- Counting --------------------------------------------------------------------------------------


def test_the_drawing_at_the_head_of_the_module() -> None:
    curve = Sweep.of([1.0, 2.0, 2.0, 3.0], [0, 1, 0, 1]).curve()
    assert curve.thresholds.tolist() == [1.0, 2.0, 3.0, INFINITY]
    assert curve.fnr.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert curve.fpr.tolist() == [1.0, 0.5, 0.0, 0.0]


def test_scores_are_sorted_by_class_and_the_callers_array_is_left_alone() -> None:
    scores = np.array([3.0, 1.0, 2.0, 0.0], np.float32)
    labels = np.array([1, 0, 1, 0])
    sweep = Sweep.of(scores, labels)
    assert sweep.target.tolist() == [2.0, 3.0]
    assert sweep.nontarget.tolist() == [0.0, 1.0]
    assert sweep.target.dtype == np.float32
    assert scores.tolist() == [3.0, 1.0, 2.0, 0.0]
    assert labels.tolist() == [1, 0, 1, 0]


@given(trials=scored(), thresholds=st.lists(st.floats(allow_nan=False), max_size=8))
def test_counts_at_any_threshold_are_those_of_a_loop(
    trials: tuple[Array, Array], thresholds: list[float]
) -> None:
    scores, labels = trials
    thresholds += [*scores.tolist(), INFINITY, -INFINITY]
    # What float32 cannot hold is the next test's.
    assume(scores.dtype == np.float64 or all(abs(t) <= FLOAT32_MAX for t in thresholds[:-2]))
    sweep = Sweep.of(scores, labels)
    points = [point_at(scores.tolist(), labels.tolist(), threshold) for threshold in thresholds]
    fnr, fpr = sweep.rates(thresholds)
    assert fnr.tolist() == [float(point.fnr) for point in points]
    assert fpr.tolist() == [float(point.fpr) for point in points]
    targets, nontargets = len(sweep.target), len(sweep.nontarget)
    assert sweep.miss(thresholds).tolist() == [point.fnr * targets for point in points]
    assert sweep.false_accept(thresholds).tolist() == [point.fpr * nontargets for point in points]


@pytest.mark.parametrize(
    ("threshold", "missed"), [(1e300, 2), (-1e300, 0), (FLOAT32_MAX * 1.0001, 2), (-4e38, 0)]
)
def test_a_threshold_too_large_for_the_scores_type_counts_all_or_none(
    threshold: float, missed: int
) -> None:
    sweep = Sweep.of(np.array([1.0, FLOAT32_MAX, 0.0], np.float32), [1, 1, 0])
    assert int(sweep.miss(threshold)) == missed


def test_a_threshold_between_two_float32_numbers_accepts_the_upper_only() -> None:
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    sweep = Sweep.of(np.array([low, high, low], np.float32), [1, 1, 0])
    between = float(low) + (float(high) - float(low)) / 4
    assert sweep.miss([float(low), between, float(high)]).tolist() == [0, 1, 1]
    # Below zero, and where the next number is the smallest there is.
    sweep = Sweep.of(np.array([-high, -low, 0.0], np.float32), [1, 1, 0])
    assert sweep.miss([-float(high), -between, -float(low)]).tolist() == [0, 1, 1]
    assert sweep.false_accept([-1e-60, 0.0, 1e-60]).tolist() == [1, 1, 0]


def test_float32_and_whole_thresholds_serve_for_float64_scores() -> None:
    sweep = Sweep.of(np.array([16777216.0, 16777217.0, 16777218.0]), [1, 1, 0])
    assert sweep.miss(np.array([16777216, 16777218], np.float32)).tolist() == [0, 2]
    assert sweep.miss([16777217]).tolist() == [1]


# -- The curve -------------------------------------------------------------------------------------
@given(trials=scored())
def test_the_curve_has_each_distinct_score_once_and_infinity(trials: tuple[Array, Array]) -> None:
    scores, labels = trials
    points = points_of(scores, labels)
    curve = Sweep.of(scores, labels).curve()
    assert curve.thresholds.tolist() == [point.threshold for point in points]
    assert curve.fnr.tolist() == [float(point.fnr) for point in points]
    assert curve.fpr.tolist() == [float(point.fpr) for point in points]
    assert (curve.fnr[0], curve.fpr[0]) == (0.0, 1.0)
    assert (curve.fnr[-1], curve.fpr[-1]) == (1.0, 0.0)
    assert (np.diff(curve.fnr) >= 0).all()
    assert (np.diff(curve.fpr) <= 0).all()


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_that_of_scikit_learn(seed: int, decimals: int | None) -> None:
    scores, labels = random_trials(seed, 3000, decimals)
    curve = Sweep.of(scores, labels).curve()
    fpr, tpr, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_array_equal(curve.thresholds, thresholds[::-1])
    np.testing.assert_array_equal(curve.fpr, fpr[::-1])
    np.testing.assert_allclose(1 - curve.fnr, tpr[::-1], rtol=0, atol=1e-15)
    # det_curve leaves out points beyond the first that misses and the last that accepts anything.
    fpr, fnr, thresholds = det_curve(labels, scores)
    part = slice(*np.searchsorted(curve.thresholds, [thresholds[0], thresholds[-1]]))
    part = slice(part.start, part.stop + 1)
    np.testing.assert_array_equal(curve.thresholds[part], thresholds)
    np.testing.assert_array_equal(curve.fpr[part], fpr)
    np.testing.assert_array_equal(curve.fnr[part], fnr)


@given(trials=scored(), max_points=st.integers(5, 60))
def test_a_short_curve_is_a_part_of_the_full_one(
    trials: tuple[Array, Array], max_points: int
) -> None:
    sweep = Sweep.of(*trials)
    full, short = sweep.curve(), sweep.curve(max_points)
    assert len(short.thresholds) <= max_points
    rows = np.searchsorted(full.thresholds, short.thresholds)
    for point, every in zip(short, full, strict=True):
        np.testing.assert_array_equal(point, every[rows])
    # No differences: those of the largest numbers overflow.
    assert (short.thresholds[:-1] < short.thresholds[1:]).all()
    assert short.thresholds[-1] == INFINITY
    assert (short.fnr[0], short.fpr[0]) == (0.0, 1.0)


@pytest.mark.parametrize("max_points", [5, 6, 20, 101, 1000])
def test_a_short_curve_of_many_trials_uses_its_points(max_points: int) -> None:
    sweep = Sweep.of(*random_trials(5, 20_000))
    points = len(sweep.curve(max_points).thresholds)
    assert 0.6 * max_points <= points <= max_points


def test_a_short_curve_shows_both_tails() -> None:
    sweep = Sweep.of(*random_trials(5, 20_000))
    curve = sweep.curve(200)
    for rates in (curve.fnr, curve.fpr):
        small = np.unique(rates[(rates > 0) & (rates < 0.01)])
        assert len(small) > 10  # evenly spaced rows would leave one or two


@pytest.mark.parametrize("max_points", [-1, 0, 1, 4])
def test_too_few_points_are_refused_or_kept_to(max_points: int) -> None:
    sweep = Sweep.of(*random_trials(5, 100))
    try:
        points = len(sweep.curve(max_points).thresholds)
    except ScoringError as error:
        assert "max_points" in str(error)  # noqa: PT017 - either will do
    else:
        assert points <= max_points


# -- The crossing ----------------------------------------------------------------------------------


@given(
    fnr=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted),
    fpr=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda two: sorted(two)[::-1]),
)
def test_lines_cross_where_both_rates_are_one(fnr: list[int], fpr: list[int]) -> None:
    assume(fnr[0] < fpr[0] and fnr[1] >= fpr[1])
    rate, share = crossing_between(np.array(fnr), np.array(fpr), targets=20, nontargets=20)
    assert 0 < share <= 1
    assert rate == pytest.approx(((1 - share) * fnr[0] + share * fnr[1]) / 20, abs=1e-15)
    assert rate == pytest.approx(((1 - share) * fpr[0] + share * fpr[1]) / 20, abs=1e-15)


# -- The least cost --------------------------------------------------------------------------------
@given(
    trials=scored(),
    block=BLOCKS,
    costs=st.tuples(*[st.sampled_from(["1e-3", "1/3", "0.25", "0.5", "1", "99", "1e-300"])] * 2),
)
def test_the_least_cost_is_that_of_the_lowest_best_threshold(
    trials: tuple[Array, Array], block: int, costs: tuple[str, str]
) -> None:
    scores, labels = trials
    miss, accept = map(Fraction, costs)
    expected = min(
        (miss * point.fnr + accept * point.fpr, point.threshold)
        for point in points_of(scores, labels)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(det, "_BLOCK", block)
        assert Sweep.of(scores, labels).least_cost(miss, accept) == expected


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("order", ["TNTN", "NTTNNTNT", "TNTNTNTN"])
def test_of_equal_costs_the_lowest_threshold_counts_in_whatever_block(
    monkeypatch: pytest.MonkeyPatch, order: str, block: int
) -> None:
    # In the second, blocks of two: that of the higher two targets has the lower bound, so that it
    # is looked at first; both hold the least cost, 3/4.
    monkeypatch.setattr(det, "_BLOCK", block)
    labels = np.array([kind == "T" for kind in order]).astype(int)
    scores = np.arange(float(len(order)))
    costs = [(point.fnr + point.fpr, point.threshold) for point in points_of(scores, labels)]
    assert len([cost for cost, _ in costs if cost == min(costs)[0]]) > 1
    assert Sweep.of(scores, labels).least_cost(Fraction(1), Fraction(1)) == min(costs)


def test_blocks_that_cannot_hold_the_best_threshold_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(det, "_BLOCK", 64)
    scores, labels = random_trials(3, 20_000)
    looked_at: list[int] = []
    miss = Sweep.miss

    def counted(self: Sweep, thresholds: Any) -> Any:
        looked_at.append(np.size(thresholds))
        return miss(self, thresholds)

    monkeypatch.setattr(Sweep, "miss", counted)
    sweep = Sweep.of(scores, labels)
    sweep.least_cost(*COSTS)
    assert sum(looked_at) < len(sweep.target) / 4


# -- The hull --------------------------------------------------------------------------------------
@given(trials=scored(), block=BLOCKS)
def test_the_hull_is_that_of_all_points_whatever_the_blocks(
    trials: tuple[Array, Array], block: int
) -> None:
    scores, labels = trials
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(det, "_BLOCK", block)
        assert vertices(Sweep.of(scores, labels)) == slow_vertices(scores, labels)


def test_a_tie_over_the_border_of_two_blocks_stays_a_vertex() -> None:
    # No monkeypatch: 60,000 targets of one score, the real border in their midst.
    low, high = 40_000, 60_000
    scores = np.repeat([0.0, 1.0, 0.0, 1.0], [low, high, 50_000, 10])
    labels = np.repeat([1, 1, 0, 0], [low, high, 50_000, 10])
    assert low < det._BLOCK < low + high
    assert vertices(Sweep.of(scores, labels)) == [(0, 50_010), (low, 10), (low + high, 0)]


@pytest.mark.parametrize("decimals", [None, 2, 1])
@pytest.mark.parametrize("block", [1, 10, 333])
def test_the_hull_of_many_trials_does_not_depend_on_the_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int, decimals: int | None
) -> None:
    scores, labels = random_trials(8, 3000, decimals)
    whole = vertices(Sweep.of(scores, labels))
    monkeypatch.setattr(det, "_BLOCK", block)
    assert vertices(Sweep.of(scores, labels)) == whole


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25),
)
def test_the_lower_hull_is_that_of_a_loop_over_all_lines(steps: list[tuple[int, int]]) -> None:
    x = np.cumsum([step for step, _ in steps])
    y = np.cumsum([step for _, step in steps])[::-1]
    kept = lower_hull(x, y)
    ends = [(x[row], y[row]) for row in (kept[0], kept[-1])]
    assert ends == [(x[0], y[0]), (x[-1], y[-1])]
    assert (np.diff(kept) > 0).all()
    result = dict.fromkeys(zip(x[kept].tolist(), y[kept].tolist(), strict=True))
    assert list(result) == slow_hull(list(zip(x.tolist(), y.tolist(), strict=True)))


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the points that come to the stack."""
    came: list[int] = []
    stack = det._stack_hull

    def counted(x: list[int], y: list[int]) -> list[int]:
        came.append(len(x))
        return stack(x, y)

    monkeypatch.setattr(det, "_stack_hull", counted)
    return came


@pytest.mark.parametrize("bumps", [[100], [50, 51, 52], [1, 98], [30, 60]])
def test_few_points_above_the_hull_go_through_the_stack(
    stacked: list[int], bumps: list[int]
) -> None:
    # y = (200 - x)^2 bends everywhere, but for the points that are raised.
    x = np.arange(201, dtype=np.int64)
    y = (200 - x) ** 2
    y[bumps] += 2
    kept = lower_hull(x, y)
    assert len(stacked) == 1
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    assert [points[row] for row in kept] == slow_hull(points)


def test_a_point_that_comes_to_lie_on_a_line_goes_as_well(stacked: list[int]) -> None:
    # Slopes rise but for the third of these, whose mean with the second is the first: once the
    # point between them is gone, the one before it lies on a line.
    slopes = -10 * np.arange(200, 0, -1)
    slopes[101:103] = slopes[100] + 1, slopes[100] - 1
    x = np.arange(201, dtype=np.int64)
    y = np.concatenate([[0], np.cumsum(slopes)]) - slopes.sum()
    kept = lower_hull(x, y)
    assert len(stacked) == 1
    assert sorted(set(range(201)) - set(kept.tolist())) == [101, 102]
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    assert [points[row] for row in kept] == slow_hull(points)


def test_the_stack_serves_a_sweep_as_well(stacked: list[int]) -> None:
    # A target after each 1, 2, 3 ... non-targets: each target bends the curve, but for one.
    gaps = np.arange(300, 0, -1)
    gaps[[149, 150]] = gaps[[150, 149]]
    scores = np.arange(gaps.sum() + len(gaps))
    labels = np.zeros(len(scores), int)
    labels[np.cumsum(gaps + 1) - 1] = 1
    sweep = Sweep.of(scores, labels)
    result = vertices(sweep)
    assert len(stacked) == 1
    # The first and the last point, and a target each but for the one above the line.
    assert len(result) == 2 + len(gaps) - 1
    edges = pairwise(result[1:-1])
    slopes = [Fraction(x1 - x0, y0 - y1) for (x0, y0), (x1, y1) in edges]
    assert slopes == sorted(set(slopes))


# -- What must not matter --------------------------------------------------------------------------
@given(trials=scored(), order=st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(trials: tuple[Array, Array], order: Any) -> None:
    scores, labels = trials
    rows = list(range(len(scores)))
    order.shuffle(rows)
    first, other = Sweep.of(scores, labels), Sweep.of(scores[rows], labels[rows])
    for a, b in zip(first.curve(), other.curve(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.crossing() == other.crossing()
    assert first.least_cost(*COSTS) == other.least_cost(*COSTS)
    assert vertices(first) == vertices(other)


@given(data=st.data(), trials=ranked())
def test_rising_maps_leave_all_rates_alone(
    data: st.DataObject, trials: tuple[Array, Array]
) -> None:
    ranks, labels = trials
    values = [data.draw(rising(int(ranks.max()) + 1)) for _ in range(2)]
    first, other = (Sweep.of(value[ranks], labels) for value in values)
    np.testing.assert_array_equal(first.curve().fnr, other.curve().fnr)
    np.testing.assert_array_equal(first.curve().fpr, other.curve().fpr)
    assert first.crossing().rate == other.crossing().rate
    assert first.least_cost(*COSTS)[0] == other.least_cost(*COSTS)[0]
    assert vertices(first) == vertices(other)


@given(trials=ranked(), signs=st.randoms(use_true_random=False))
def test_the_two_zeros_are_one_score(trials: tuple[Array, Array], signs: Any) -> None:
    ranks, labels = trials
    values = (ranks - int(ranks.max()) // 2).astype(float)
    signed = np.array([-0.0 if value == 0 and signs.random() < 0.5 else value for value in values])
    first, other = Sweep.of(values, labels), Sweep.of(signed, labels)
    for a, b in zip(first.curve(), other.curve(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.crossing() == other.crossing()
    assert vertices(first) == vertices(other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_distinct_score_is_told_apart_up_to_the_ends_of_its_type(
    dtype: type[np.floating[Any]],
) -> None:
    info: Any = np.finfo(dtype)
    scores: list[float] = [info.min, -1.0, -info.tiny, -info.smallest_subnormal, 0.0]
    scores += [-score for score in scores[:4]][::-1]
    for split in range(1, len(scores)):
        labels = np.arange(len(scores)) >= split
        values = np.array(scores, dtype)
        assert Sweep.of(values, labels).crossing().rate == 0
        assert Sweep.of(values, ~labels).crossing().rate == 1
