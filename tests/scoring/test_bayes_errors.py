"""Bayes error rates at any prior are the actual and the minimum cost there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, ranked

from voxblink2_lib.scoring import Sweep, act_dcf, min_dcf
from voxblink2_lib.scoring.bayes_errors import actual_errors, minimum_errors


@given(trials=ranked(), priors=st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=6))
def test_they_are_the_costs_of_dcf(trials: tuple[Array, Array], priors: list[float]) -> None:
    # No score is a threshold of these priors, where rounding would decide.
    scores, labels = (trials[0] - 5.5) * 1.37, trials[1]
    sweep = Sweep.of(scores, labels)
    odds = np.log(priors) - np.log1p(-np.array(priors))
    actual, least = actual_errors(sweep, odds), minimum_errors(sweep, odds)
    for row, prior in enumerate(priors):
        assert actual[row] == pytest.approx(act_dcf(sweep, p_target=prior).act_dcf, rel=1e-9)
        expected = min_dcf(sweep, p_target=prior).min_dcf
        assert least[row] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert (least <= actual + 1e-12).all()
    assert least.max() <= 1


def test_perfect_scores_cost_nothing_and_empty_ones_as_much_as_none() -> None:
    odds = np.linspace(-9, 9, 19)
    assert minimum_errors(Sweep.of([0, 1], [0, 1]), odds).max() == 0
    empty = Sweep.of([0.0, 0.0], [0, 1])
    np.testing.assert_allclose(minimum_errors(empty, odds), 1)
    np.testing.assert_allclose(actual_errors(empty, odds), 1)
