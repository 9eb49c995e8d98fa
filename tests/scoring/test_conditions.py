"""Rates by condition: each row is that of its trials alone; means and equalized rates."""

from __future__ import annotations

import statistics
from fractions import Fraction

import numpy as np
import pytest
from support.score_oracle import Array, slow_eer, slow_min_dcf

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import eer, measure_conditions, min_dcf
from voxblink2_lib.scoring.condition_files import Condition
from voxblink2_lib.scoring.condition_intervals import mean_intervals
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


# -- Intervals of means ----------------------------------------------------------------------------


def trials_of_speakers(speakers: int, each: int) -> tuple[Array, Array, Array, Array, Array]:
    """Return scores, labels, conditions and both sides; conditions are shared by speakers."""
    generator = np.random.default_rng(speakers)
    enrolment = np.repeat(np.arange(speakers), 2 * each)
    labels = np.arange(len(enrolment)) % 2 == 0
    other = (enrolment + generator.integers(1, speakers, len(enrolment))) % speakers
    codes = generator.integers(3, size=len(enrolment))
    scores = 2 * labels + 0.3 * codes + generator.normal(size=speakers)[enrolment] / 2
    scores += generator.normal(size=len(enrolment))
    return scores.round(2), labels, codes, enrolment, np.where(labels, enrolment, other)


@pytest.mark.parametrize("over", ["trials", "speakers"])
def test_of_a_single_condition_both_are_the_intervals_of_its_trials(over: str) -> None:
    scores, labels, codes, *sides = trials_of_speakers(45, 40)
    speakers = (sides[0], sides[1]) if over == "speakers" else None
    expected = bootstrap_intervals(scores, labels, speakers=speakers, p_target=0.3, resamples=60)
    means, equalized = mean_intervals(
        scores, labels, np.zeros_like(codes), speakers=speakers, p_target=0.3, resamples=60
    )
    assert means == expected
    for ours, theirs in ((equalized.eer, expected.eer), (equalized.min_dcf, expected.min_dcf)):
        assert (ours.errors, ours.mark) == (theirs.errors, theirs.mark)
        numbers = [(each.value, each.low, each.high) for each in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def test_means_and_equalized_rates_have_intervals_around_them() -> None:
    (report,) = measure_conditions(TRIALS, SCORED, [CONDITION], p_target=PRIORS, interval="trials")
    for intervals, rate, cost in (
        (report.intervals, report.mean_eer, report.mean_min_dcf[0.01]),
        (
            report.equalized_intervals,
            report.equalized_eer.eer,
            report.equalized_min_dcf[0.01].min_dcf,
        ),
    ):
        assert intervals is not None
        assert (intervals.eer.value, intervals.min_dcf.value) == pytest.approx((rate, cost))
        assert intervals.eer.low < rate < intervals.eer.high
        assert intervals.min_dcf.low < cost <= intervals.min_dcf.high
        assert intervals.over == "trials"
    record = report.as_dict()
    assert report.intervals is not None
    assert report.equalized_intervals is not None
    assert record["mean"]["intervals"] == report.intervals.as_dict()
    assert record["equalized"]["intervals"] == report.equalized_intervals.as_dict()
    assert record["no_interval"] is None


def test_the_errors_of_equalized_rates_are_the_fewest_of_a_row_at_their_threshold() -> None:
    (report,) = measure_conditions(TRIALS, SCORED, [CONDITION], p_target=PRIORS, interval="trials")

    def fewest(threshold: float) -> tuple[int, int]:
        accepted = threshold <= SCORES
        both = ((LABELS & ~accepted), (~LABELS & accepted))
        counts = [min(int((of & (code == CODES)).sum()) for code in (0, 1)) for of in both]
        return counts[0], counts[1]

    assert report.equalized_errors == fewest(report.equalized_eer.threshold or 0)
    assert report.equalized_intervals is not None
    assert report.equalized_intervals.eer.errors == report.equalized_errors
    for prior, cost in report.equalized_min_dcf.items():
        assert isinstance(cost.threshold, float)
        assert report.equalized_min_dcf_errors[prior] == fewest(cost.threshold)
    assert report.as_dict()["equalized"]["eer_few_errors"] is report.equalized_errors.few


def test_intervals_of_means_cover_the_true_rates() -> None:
    # N(2, 1) against N(0, 1) and N(3, 1) against N(0.5, 1): the means, and one threshold for both.
    normal = statistics.NormalDist()
    mean = (normal.cdf(-1) + normal.cdf(-1.25)) / 2
    equalized = 0.14851455
    covered = [0, 0]
    for seed in range(40):
        generator = np.random.default_rng(seed)
        labels, codes = np.arange(3000) % 2 == 0, np.arange(3000) % 3 // 2
        scores = generator.normal(np.where(labels, 2 + codes, codes / 2))
        both = mean_intervals(scores, labels, codes, p_target=0.5, resamples=60)
        for place, (intervals, truth) in enumerate(zip(both, (mean, equalized), strict=True)):
            covered[place] += intervals.eer.low <= truth <= intervals.eer.high
    assert min(covered) >= 33  # 38 are expected; four standard deviations


def test_without_enough_speakers_the_means_have_no_intervals_either() -> None:
    scores, labels, codes, enrolment, tests = trials_of_speakers(9, 30)
    trials = TrialList([str(row) for row in range(9)], enrolment, tests, labels)
    scored = ScoredTrials(scores, np.arange(len(scores)), enrolment, tests, labels, [])
    condition = Condition("c", ["x", "y", "z"], codes)
    names = np.array(trials.names)
    (report,) = measure_conditions(trials, scored, [condition], interval="speakers", speakers=names)
    assert (report.intervals, report.equalized_intervals) == (None, None)
    assert report.no_interval is not None
    assert "9 of the enrolment sides" in report.no_interval


def test_conditions_that_resamples_lose_are_named() -> None:
    # Ten speakers are in both conditions, but the only target of the second is of one of them.
    sides = np.concatenate([np.arange(10), np.arange(10), [0], np.arange(10)])
    labels = np.repeat([True, False, True, False], [10, 10, 1, 10])
    tests, codes = np.where(labels, sides, (sides + 1) % 10), np.repeat([0, 1], [20, 11])
    mean_intervals(range(31), labels, codes, speakers=(sides, tests), resamples=5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.scoring.condition_intervals._MOST_DRAWS", 1)
        with pytest.raises(ScoringError, match=r"in 1 resamples in a row, a condition had only"):
            mean_intervals(range(31), labels, codes, speakers=(sides, tests), resamples=50)
