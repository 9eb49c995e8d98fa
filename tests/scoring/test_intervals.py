"""Bootstrap intervals: seeded, weighted as repeated trials are, and as wide as they should be."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from intervals import DESIGNS, Design, coverage
from support.score_oracle import Array, rising, scored

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import resampling
from voxblink2_lib.scoring.intervals import bootstrap_intervals, other_marks
from voxblink2_lib.scoring.resampling import SortedTrials, SpeakerSides
from voxblink2_lib.scoring.verification import cost_weights, eer, min_dcf

SCORES, LABELS = [1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]
# Trials of ten speakers with each other: sides and whether they are one.
SIDES = np.array(list(itertools.product(range(10), repeat=2)))


def normal_trials(seed: int, trials: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    labels = np.arange(trials) % 4 == 0
    return generator.normal(2.0 * labels).round(1), labels.astype(int)


def trials_of_speakers(seed: int, *, speakers: int, each: int) -> tuple[Array, Array, Array, Array]:
    """Return scores, labels and both sides; a speaker's trials are good or bad together."""
    generator = np.random.default_rng(seed)
    enrolment = np.repeat(np.arange(speakers), 2 * each)
    other = (enrolment + generator.integers(1, speakers, len(enrolment))) % speakers
    labels = np.arange(len(enrolment)) % 2
    test = np.where(labels, enrolment, other)
    habit = generator.normal(0, 1.5, speakers)
    scores = 3 * labels + habit[enrolment] + generator.normal(0, 0.5, len(enrolment))
    return scores, labels, enrolment, test


def weighted_metrics(
    scores: Array, labels: Array, weights: Array, *, p_target: float = 0.01
) -> tuple[float, float]:
    order = np.argsort(scores, kind="stable")
    costs = cost_weights(p_target, 1.0, 1.0)
    trials = SortedTrials.of(scores[order], labels[order] == 1, costs)
    return trials.metrics(*trials.counts(weights[order]))


# -- Weighted metrics ------------------------------------------------------------------------------
@given(trials=scored(), p_target=st.sampled_from([0.01, 0.3, 0.5, 0.9]))
def test_weights_of_one_give_the_metrics_themselves(
    trials: tuple[Array, Array], p_target: float
) -> None:
    scores, labels = trials
    ones = np.ones(len(scores), np.int64)
    rate, cost = weighted_metrics(scores, labels, ones, p_target=p_target)
    assert rate == eer(scores, labels).eer
    assert cost == pytest.approx(min_dcf(scores, labels, p_target=p_target).min_dcf, abs=1e-15)


@given(data=st.data(), trials=scored())
def test_a_weight_is_so_many_copies_of_a_trial(
    data: st.DataObject, trials: tuple[Array, Array]
) -> None:
    scores, labels = trials
    counts = st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores))
    weights = np.array(
        data.draw(counts.filter(lambda drawn: {0, 1} == set(labels[np.array(drawn) > 0].tolist())))
    )
    again = scores.repeat(weights), labels.repeat(weights)
    rate, cost = weighted_metrics(scores, labels, weights)
    assert rate == pytest.approx(eer(*again).eer, rel=0, abs=1e-14)
    assert cost == pytest.approx(min_dcf(*again).min_dcf, rel=1e-13, abs=1e-14)


# -- Drawing ---------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    trials = normal_trials(1, 300)
    first = bootstrap_intervals(*trials, resamples=50, seed=3)
    assert bootstrap_intervals(*trials, resamples=50, seed=3) == first
    other = bootstrap_intervals(*trials, resamples=50, seed=4)
    assert other != first
    assert other.eer.value == first.eer.value
    scores, labels, *sides = trials_of_speakers(1, speakers=20, each=10)
    drawn = [
        bootstrap_intervals(scores, labels, speakers=(sides[0], sides[1]), resamples=50, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_value_is_that_of_all_trials_and_lies_inside() -> None:
    scores, labels = normal_trials(2, 400)
    costs: dict[str, Any] = {"p_target": 0.2, "c_miss": 2.0, "c_fa": 3.0}
    intervals = bootstrap_intervals(scores, labels, **costs, resamples=100)
    assert intervals.eer.value == eer(scores, labels).eer
    assert intervals.min_dcf.value == min_dcf(scores, labels, **costs).min_dcf
    for interval in (intervals.eer, intervals.min_dcf):
        assert interval.low < interval.value < interval.high
    assert (intervals.confidence, intervals.resamples, intervals.over) == (0.95, 100, "trials")
    numbers = [astuple(interval)[:3] for interval in (intervals.eer, intervals.min_dcf)]
    assert {type(number) for three in numbers for number in three} == {float}


def test_more_confidence_is_wider() -> None:
    trials = normal_trials(3, 400)
    widths = [
        intervals.eer.high - intervals.eer.low
        for confidence in (0.5, 0.8, 0.95, 0.99)
        for intervals in [bootstrap_intervals(*trials, confidence=confidence, resamples=300)]
    ]
    assert widths == sorted(set(widths))


def test_the_ends_of_percentile_intervals_are_quantiles_of_the_resamples() -> None:
    scores, labels = normal_trials(4, 1500)
    order = np.argsort(scores, kind="stable")
    flags = labels[order] == 1
    draws = resampling.trial_weights(np.random.default_rng(0), flags)
    drawn = []
    for weights in itertools.islice(draws, 101):
        rows = order.repeat(weights)
        drawn.append(eer(scores[rows], labels[rows]).eer)
    interval = bootstrap_intervals(
        scores, labels, resamples=101, confidence=0.9, method="percentile"
    ).eer
    assert (interval.low, interval.high) == pytest.approx(
        tuple(np.quantile(drawn, [0.05, 0.95], method="weibull"))
    )


def test_classes_are_drawn_within_themselves() -> None:
    flags = np.array([True, False, False, True, True, False, False])
    draws = resampling.trial_weights(np.random.default_rng(0), flags)
    drawn = np.array(list(itertools.islice(draws, 2000)))
    assert (drawn[:, flags].sum(axis=1) == 3).all()
    assert (drawn[:, ~flags].sum(axis=1) == 4).all()
    # Each trial once on average, with the variance of n draws out of n.
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(drawn[:, flags].var(axis=0), 2 / 3, atol=0.08)
    np.testing.assert_allclose(drawn[:, ~flags].var(axis=0), 3 / 4, atol=0.08)


def test_trials_of_two_speakers_count_as_often_as_both_were_drawn_multiplied() -> None:
    flags = SIDES[:, 0] == SIDES[:, 1]
    order = np.random.default_rng(5).permutation(len(SIDES))
    sides = SpeakerSides(SIDES[order, 0], SIDES[order, 1], 10)
    draws = resampling.speaker_weights(np.random.default_rng(9), sides, flags[order])
    generator = np.random.default_rng(9)
    for weights in itertools.islice(draws, 20):
        times = np.bincount(generator.integers(10, size=10), minlength=10)
        expected = [times[a] if a == b else times[a] * times[b] for a, b in SIDES[order]]
        assert weights.tolist() == expected


def test_a_draw_without_both_classes_is_drawn_again() -> None:
    # Only trials of speaker 0 are target trials, so many draws have none.
    sides = [0, *range(10)], [0, *range(1, 10), 0]
    intervals = bootstrap_intervals(range(11), [1, *[0] * 10], speakers=sides, resamples=200)
    assert 0 <= intervals.eer.low <= intervals.eer.value <= intervals.eer.high <= 1
    assert intervals.over == "speakers"


# -- What must not matter --------------------------------------------------------------------------
@given(trials=scored(), order=st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(trials: tuple[Array, Array], order: Any) -> None:
    scores, labels = trials
    rows = list(range(len(scores)))
    order.shuffle(rows)
    first = bootstrap_intervals(scores, labels, resamples=5)
    assert bootstrap_intervals(scores[rows], labels[rows], resamples=5) == first


def test_the_order_of_trials_does_not_matter_over_speakers() -> None:
    scores, labels, enrolment, test = trials_of_speakers(7, speakers=15, each=6)
    scores = scores.round(0)
    rows = np.random.default_rng(0).permutation(len(scores))
    first = bootstrap_intervals(scores, labels, speakers=(enrolment, test), resamples=50)
    other = bootstrap_intervals(
        scores[rows], labels[rows], speakers=(enrolment[rows], test[rows]), resamples=50
    )
    assert first == other
    # Nor the kind of labels, as long as they sort alike; nor which side is which.
    names = [np.array([f"id{speaker:05}" for speaker in side]) for side in (enrolment, test)]
    named = bootstrap_intervals(scores, labels, speakers=(names[0], names[1]), resamples=50)
    assert named == first
    swapped = bootstrap_intervals(scores, labels, speakers=(test, enrolment), resamples=50)
    assert swapped == first


@given(data=st.data())
def test_rising_maps_leave_the_intervals_alone(data: st.DataObject) -> None:
    ranks = np.array(data.draw(st.lists(st.integers(0, 5), min_size=12, max_size=12)))
    labels = np.arange(12) % 3 == 0
    first, other = (data.draw(rising(6))[ranks] for _ in range(2))
    intervals = bootstrap_intervals(first, labels, resamples=5)
    assert bootstrap_intervals(other, labels, resamples=5) == intervals


def test_errors_at_the_crossing_do_not_depend_on_how_near_scores_are() -> None:
    # Rates meet between the second score and the third; there is no number between these.
    ranks, labels = np.array([0] * 5 + [1] * 6 + [2]), np.arange(12) % 3 == 0
    least = math.ulp(0.0)
    near = ([-1, -least, 0], [0, 1, math.nextafter(1, 2)], [-3, -2, math.nextafter(-2, 0)])
    single = np.array([0, 1, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    far = bootstrap_intervals(ranks, labels, resamples=2)
    assert far.eer.errors == (4, 1)
    for scores in (*map(np.array, near), single):
        assert bootstrap_intervals(scores[ranks], labels, resamples=2) == far


# -- Width -----------------------------------------------------------------------------------------


def test_intervals_over_trials_cover_the_true_rate_as_often_as_they_say() -> None:
    # N(2, 1) against N(0, 1): the rates meet at 1, the rate is Phi(-1).
    truth = statistics.NormalDist().cdf(-1)
    labels = np.arange(400) % 2
    covered, low_end, high_end = 0, 0, 0
    for seed in range(150):
        scores = np.random.default_rng(seed).normal(2 * labels)
        intervals = bootstrap_intervals(scores, labels, resamples=150, confidence=0.9).eer
        covered += intervals.low <= truth <= intervals.high
        low_end += truth < intervals.low
        high_end += truth > intervals.high
    # 135 of 150 are expected; four standard deviations either way.
    assert 120 <= covered <= 149
    assert min(low_end, high_end) >= 1


def test_intervals_over_speakers_are_wider_where_trials_of_a_speaker_go_together() -> None:
    scores, labels, enrolment, test = trials_of_speakers(11, speakers=20, each=50)
    over_trials = bootstrap_intervals(scores, labels, resamples=200).eer
    over_speakers = bootstrap_intervals(
        scores, labels, speakers=(enrolment, test), resamples=200
    ).eer
    assert over_speakers.value == over_trials.value
    assert over_speakers.high - over_speakers.low > 2 * (over_trials.high - over_trials.low)


def test_intervals_over_speakers_cover_the_true_rate_where_those_over_trials_do_not() -> None:
    # Habits of variance 1.5^2 and noise of 0.5^2 on either class, 3 apart.
    truth = statistics.NormalDist().cdf(-1.5 / math.hypot(1.5, 0.5))
    covered = {"trials": 0, "speakers": 0}
    for seed in range(40):
        scores, labels, enrolment, test = trials_of_speakers(seed, speakers=30, each=20)
        for over, sides in (("trials", None), ("speakers", (enrolment, test))):
            intervals = bootstrap_intervals(
                scores, labels, speakers=sides, resamples=100, confidence=0.9
            ).eer
            covered[over] += intervals.low <= truth <= intervals.high
    assert covered["speakers"] >= 30
    assert covered["trials"] <= 24


# -- Few errors ------------------------------------------------------------------------------------


def test_without_errors_the_end_is_that_of_the_exact_binomial_interval() -> None:
    rate = bootstrap_intervals([0.0, 1.0], [0, 1], resamples=20).eer
    assert rate.low == 0
    assert rate.high == pytest.approx(0.975)
    assert rate.errors == (0, 0)
    assert rate.mark == "fewer than 30 errors of a kind"
    scores = np.arange(600.0)
    drawn = bootstrap_intervals(scores, scores >= 300, resamples=20)
    assert drawn.eer.low == 0
    assert drawn.eer.high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert (drawn.min_dcf.low, drawn.min_dcf.high) == (0, 1)  # 99 times 1.2% of false acceptances


def test_a_low_rate_of_few_trials_is_covered() -> None:
    design = Design("600 independent trials, EER 0.3 %", 600, 0.003)
    share = coverage(design, repetitions=40, resamples=50)["EER"]
    assert share.covered >= 95
    assert share.unmarked == 0


def test_intervals_of_30_errors_of_each_kind_have_no_mark() -> None:
    for accepted, mark in ((30, None), (29, "fewer than 30 errors of a kind")):
        scores = np.repeat([0, 1, 0, 1], [1000 - accepted, accepted, 30, 970])
        labels = np.arange(2000) >= 1000
        drawn = bootstrap_intervals(scores, labels, p_target=0.5, resamples=30)
        assert drawn.eer.errors == drawn.min_dcf.errors == (30, accepted)
        assert drawn.eer.mark == drawn.min_dcf.mark == mark


def test_intervals_of_fewer_than_40_speakers_are_marked() -> None:
    for speakers, mark in ((39, "fewer than 40 speakers"), (40, None)):
        scores, labels, *sides = trials_of_speakers(0, speakers=speakers, each=40)
        drawn = bootstrap_intervals(scores, labels, speakers=(sides[0], sides[1]), resamples=30)
        assert drawn.eer.mark == mark
        assert other_marks([drawn.eer]) == ([mark] if mark else [])


def test_trials_of_two_speakers_have_no_intervals_over_speakers() -> None:
    with pytest.raises(ScoringError, match="2 of the enrolment sides and 2 of the test sides"):
        bootstrap_intervals(
            [1, 2, 0, 1.5, 0.2, 3], [1, 1, 0, 0, 0, 1], speakers=(list("aabaab"), list("aabbbb"))
        )


# -- Coverage --------------------------------------------------------------------------------------


def test_intervals_cover_the_true_rate_of_speakers_with_effects() -> None:
    # Four standard deviations of 30 repetitions around 95%; the slow test is narrower.
    design = Design("40 speakers, 3,000 trials", 3_000, 0.1, 40)
    share = coverage(design, repetitions=30, resamples=60)["EER"]
    assert share.covered >= 80
    assert share.unmarked == 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("design", DESIGNS, ids=[design.name for design in DESIGNS])
def test_intervals_without_a_mark_cover_as_often_as_they_say(design: Design) -> None:
    # 93 to 97 of 100, and three standard deviations of 400 repetitions.
    for name, share in coverage(design, repetitions=400, resamples=300).items():
        if share.unmarked >= 50:
            assert 93 - 3.8 <= share.covered <= 97 + 2.5, name


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, r"resamples must be at least 1, got 0"),
        ({"confidence": 0.0}, r"confidence must lie between 0 and 1, got 0\.0"),
        ({"confidence": 1.0}, r"confidence must lie between 0 and 1, got 1\.0"),
        ({"confidence": math.nan}, r"confidence must lie between 0 and 1, got nan"),
        ({"p_target": 0.0}, r"p_target must lie between 0 and 1"),
        ({"c_miss": -1.0}, r"c_miss must be a positive number, got -1\.0"),
        ({"c_fa": 0.0}, r"c_fa must be a positive number"),
        ({"labels": [1, 1, 1, 1]}, r"labels are all 1"),
        ({"labels": [0, 1, 1]}, r"scores has 4 values and labels 3"),
        ({"scores": [1, 2, math.nan, 3]}, r"scores must be finite, got nan in row 2"),
        (
            {"speakers": ("abab", "abab")},
            r"speakers\[0\] must have one dimension",
        ),
        (
            {"speakers": (["a", "b", "a"], ["b", "b", "b", "a"])},
            r"scores has 4 rows and speakers\[0\] 3; both must agree",
        ),
        (
            {"speakers": ([1, 2, 1, 1], [1.0, 2.0, 2.0, 1.0])},
            r"speakers\[1\] must be integers or strings, got float64",
        ),
        (
            {"speakers": (["a", "b", "a", "a"], ["b", "b", "b", "b"])},
            r"labels say that trial 3 is a target trial, speakers say a and b",
        ),
        (
            {"speakers": ([1, 1, 1, 1], [1, 1, 2, 1])},
            r"speakers: 1 of the enrolment sides and 2 of the test sides; at least 10 are",
        ),
        ({"method": "normal"}, r"method is 'normal'; allowed are 'bca' and 'percentile'"),
    ],
)
def test_what_is_not_possible_is_named(options: dict[str, Any], message: str) -> None:
    arguments = {"scores": SCORES, "labels": LABELS, "resamples": 10, **options}
    scores, labels = arguments.pop("scores"), arguments.pop("labels")
    with pytest.raises(ScoringError, match=message) as caught:
        bootstrap_intervals(scores, labels, **arguments)
    assert isinstance(caught.value, ValueError)


def test_a_target_trial_of_two_speakers_is_named_by_its_row_as_it_was_given() -> None:
    sides = ([3, 2, 1, 0], [3, 2, 0, 0])
    with pytest.raises(ScoringError, match=r"trial 2 is a target trial, speakers say 1 and 0"):
        bootstrap_intervals([4.0, 1.0, 0.0, 2.0], [0, 0, 1, 1], speakers=sides)


def test_draws_that_never_hold_both_classes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # The only pair is drawn with one of ten speakers.
    sides = SpeakerSides(np.array([0, 1]), np.array([0, 2]), 10)
    monkeypatch.setattr(resampling, "_DRAWS_PER_RESAMPLE", 1)
    with pytest.raises(
        ScoringError, match=r"1 resamples in a row had only .* trials; 10 speakers are too few"
    ):
        list(
            itertools.islice(
                resampling.speaker_weights(
                    np.random.default_rng(0), sides, np.array([True, False])
                ),
                50,
            )
        )


def test_progress_counts_the_resamples() -> None:
    counted: list[int] = []
    bootstrap_intervals([1.0, 2.0, 3.0], [0, 1, 1], resamples=9, progress=counted.append)
    assert sum(counted) == 9
