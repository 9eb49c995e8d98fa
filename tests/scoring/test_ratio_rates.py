"""Actual costs and Cllr of a report: counted exactly, whatever the order and the ties of trials."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, ranked, slow_cllr, written_costs

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.costs import EVALUATIONS, Costs
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.ratio_rates import measure_ratios

PRIORS = (0.5, 0.05, 0.01)


def ratios(ranks: Array) -> Array:
    """Ratios with ties, some of them the very thresholds of the priors."""
    steps: Array = np.array([-math.log(99), -1.0, 0.0, 0.5, math.log(19), math.log(99), 7.0])
    return np.asarray(steps[ranks % 7])


@given(trials=ranked(), costs=st.tuples(*[st.sampled_from([0.5, 1.0, 10.0])] * 2))
def test_actual_costs_are_counted_exactly(
    trials: tuple[Array, Array], costs: tuple[float, float]
) -> None:
    scores, labels = ratios(trials[0]), trials[1]
    rates = measure_ratios(Sweep.of(scores, labels), p_target=PRIORS, costs=Costs(*costs))
    for prior, (cost, threshold) in rates.act_dcf.items():
        misses = sum(bool(c) and s < threshold for s, c in zip(scores, labels, strict=True))
        accepts = sum(not c and s >= threshold for s, c in zip(scores, labels, strict=True))
        assert rates.errors[prior] == (misses, accepts)
        targets = int(labels.sum())
        miss_cost, accept_cost = written_costs(prior, *costs)
        exact = miss_cost * Fraction(misses, targets)
        exact += accept_cost * Fraction(accepts, len(labels) - targets)
        assert cost == pytest.approx(float(exact / min(miss_cost, accept_cost)), rel=1e-14)
        assert threshold == pytest.approx(math.log(accept_cost / miss_cost), abs=1e-15)
    assert rates.cllr == pytest.approx(slow_cllr(scores, labels), rel=1e-12)


@given(trials=ranked(), seed=st.integers(0, 1000))
def test_neither_the_order_of_rows_nor_that_of_ties_counts(
    trials: tuple[Array, Array], seed: int
) -> None:
    scores, labels = ratios(trials[0]), trials[1]
    order = np.random.default_rng(seed).permutation(len(scores))
    first, second = (
        measure_ratios(Sweep.of(scores[rows], labels[rows]), p_target=PRIORS)
        for rows in (slice(None), order)
    )
    assert first == second


def test_scores_that_can_be_no_ratios_have_no_cllr() -> None:
    rates = measure_ratios(Sweep.of([-1.7e308, 1.7e308], [1, 0]), p_target=[0.5])
    assert rates.cllr is None
    assert rates.act_dcf[0.5].act_dcf == 2


def test_a_cost_out_of_range_is_refused() -> None:
    with pytest.raises(ScoringError, match="c_fa must be a positive number, got 0"):
        measure_ratios(Sweep.of([0, 1], [0, 1]), p_target=[0.5], costs=Costs(c_fa=0))


def test_every_evaluation_has_priors_costs_and_a_source() -> None:
    for evaluation in EVALUATIONS.values():
        assert all(0 < prior < 1 for prior in evaluation.p_target)
        assert min(evaluation.costs) > 0
        assert evaluation.source
