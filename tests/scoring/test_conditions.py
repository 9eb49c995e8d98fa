"""Rates by condition: each row is that of its trials alone; means and equalized rates."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support.score_oracle import slow_eer, slow_min_dcf

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import eer, measure_conditions, min_dcf
from voxblink2_lib.scoring.condition_files import Condition
from voxblink2_lib.scoring.intervals import bootstrap_intervals
from voxblink2_lib.scoring.trials import ScoredTrials, TrialList

COUNT = 600
_RNG = np.random.default_rng(5)
LABELS = np.arange(COUNT) % 3 == 0
# Few trials of x, many of y, of z only non-targets.
CODES = np.where(np.arange(COUNT) % 4 == 0, 0, 1)
CODES[np.flatnonzero(~LABELS)[:50]] = 2
SCORES = _RNG.normal(1.5 * LABELS - 0.5 * CODES, 1).round(1)
SIDES = np.zeros(COUNT, np.int64)
TRIALS = TrialList(["a"], SIDES, SIDES, LABELS)
SCORED = ScoredTrials(SCORES, np.arange(COUNT), SIDES, SIDES, LABELS, [])
CONDITION = Condition("gender", ["x", "y", "z"], CODES)
PRIORS = (0.01, 0.5)


def test_rows_are_those_of_their_trials_alone() -> None:
    (report,) = measure_conditions(TRIALS, SCORED, [CONDITION], p_target=PRIORS, interval="trials")
    assert [row.value for row in report.rows] == ["x", "y", "z"]
    for code, row in enumerate(report.rows[:2]):
        scores, labels = SCORES[code == CODES], LABELS[code == CODES]
        assert row.report is not None
        assert (row.trials, row.scored, row.targets) == (len(scores), len(scores), labels.sum())
        assert row.report.trials == row.trials
        assert row.report.eer == eer(scores, labels)
        assert row.report.intervals == bootstrap_intervals(scores, labels, p_target=0.01)
    empty = report.rows[2]
    assert (empty.report, empty.trials, empty.scored, empty.targets) == (None, 50, 50, 0)
    assert empty.as_dict()["eer"] is None


def test_means_and_equalized_rates_have_rows_of_the_same_weight() -> None:
    (report,) = measure_conditions(TRIALS, SCORED, [CONDITION], p_target=PRIORS)
    parts = [(SCORES[code == CODES], LABELS[code == CODES]) for code in (0, 1)]
    assert report.mean_eer == pytest.approx(np.mean([eer(*part).eer for part in parts]), rel=1e-15)
    kept = np.flatnonzero(CODES < 2)
    weights = [
        Fraction(1, int(np.count_nonzero((CODES[row] == CODES) & (LABELS[row] == LABELS))))
        for row in kept
    ]
    exact = SCORES[kept], LABELS[kept]
    assert report.equalized_eer.eer == float(slow_eer(*exact, weights)[0])
    for prior in PRIORS:
        costs = [min_dcf(*part, p_target=prior).min_dcf for part in parts]
        assert report.mean_min_dcf[prior] == pytest.approx(np.mean(costs), rel=1e-15)
        cost, threshold = slow_min_dcf(*exact, p_target=prior, weights=weights)
        assert report.equalized_min_dcf[prior] == (float(cost), threshold)
        # A threshold of its own can only be better.
        assert report.mean_min_dcf[prior] <= report.equalized_min_dcf[prior].min_dcf + 1e-12
    assert report.few(0.01)
    assert report.as_dict()["mean"]["min_dcf"][0]["few_errors"] is True


def test_conditions_are_of_the_list_and_rates_of_what_was_scored() -> None:
    rows = np.arange(0, COUNT, 2)
    half = ScoredTrials(SCORES[rows], rows, SIDES[rows], SIDES[rows], LABELS[rows], ["b"])
    (report,) = measure_conditions(TRIALS, half, [CONDITION])
    first = report.rows[0]
    assert (first.trials, first.scored) == ((CODES == 0).sum(), (CODES[rows] == 0).sum())
    assert first.report is not None
    assert first.report.eer == eer(SCORES[rows][CODES[rows] == 0], LABELS[rows][CODES[rows] == 0])


def test_a_row_with_too_few_speakers_has_no_intervals() -> None:
    sides = np.where(LABELS, np.arange(COUNT) % 30, (np.arange(COUNT) * 7) % 30)
    tests = np.where(LABELS, sides, (sides + 1) % 30)
    names = [f"n{n}" for n in range(30)]
    trials = TrialList(names, sides, tests, LABELS)
    scored = ScoredTrials(SCORES, np.arange(COUNT), sides, tests, LABELS, [])
    (report,) = measure_conditions(
        trials,
        scored,
        [Condition("c", ["few", "many"], np.where(sides < 9, 0, 1))],
        interval="speakers",
        speakers=np.array(names),
    )
    few, many = report.rows
    assert few.report is not None
    assert many.report is not None
    assert few.report.intervals is None
    assert few.no_interval is not None
    assert "9 of the enrolment sides" in few.no_interval
    assert many.report.intervals is not None
    assert many.no_interval is None
    assert many.as_dict()["no_interval"] is None


def test_what_cannot_be_measured_is_named() -> None:
    with pytest.raises(ScoringError, match=r"condition 'c' has 1 trials, the list 600; both must"):
        measure_conditions(TRIALS, SCORED, [Condition("c", ["x"], np.zeros(1, np.int64))])
    split = Condition("c", ["n", "t"], LABELS.astype(np.int64))
    with pytest.raises(ScoringError, match=r"condition 'c': none of its 2 values has target and n"):
        measure_conditions(TRIALS, SCORED, [split])
    bare = TrialList(["a"], SIDES, SIDES, None)
    with pytest.raises(ScoringError, match=r"has no labels"):
        measure_conditions(bare, SCORED, [CONDITION])
