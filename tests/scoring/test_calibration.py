"""Calibration finds the best affine map, saves it exactly, and refuses data that has none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from support.score_oracle import Array

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.calibration import Calibration, fit_calibration
from voxblink2_lib.scoring.verification import act_dcf, cllr, eer, min_cllr, min_dcf

FORMAT = "voxblink2 calibration 1"


def overlapping(seed: int, trials: int = 2000) -> tuple[Array, Array]:
    """Return scores like cosines, a third of them of target trials."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(trials) % 3 == 0).astype(int)
    return generator.normal(0.1 + 0.4 * labels, np.where(labels, 0.15, 0.1)), labels


def durations(seed: int, trials: int = 4000) -> tuple[Array, Array, dict[str, Array]]:
    """Return scores that are low where recordings are short, labels, and how short they are."""
    generator = np.random.default_rng(seed)
    labels = np.arange(trials) % 2
    length = generator.uniform(0, 2, trials)
    noise = generator.normal(size=trials)
    return generator.normal(labels + length, 0.6), labels, {"length": length, "noise": noise}


# -- The best map ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_at_the_priors_of_the_trials_it_is_scikit_learns_logistic_regression(seed: int) -> None:
    scores, labels = overlapping(seed)
    share = float(labels.mean())
    calibration = fit_calibration(scores, labels, p_target=share)
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    other.fit(scores[:, None], labels)
    # Theirs are log odds; ours are log ratios, without the prior.
    assert calibration.slope == pytest.approx(other.coef_[0, 0], rel=1e-6)
    assert calibration.offset == pytest.approx(
        other.intercept_[0] - math.log(share / (1 - share)), rel=1e-6
    )


@pytest.mark.parametrize("p_target", [0.01, 0.3, 0.9])
def test_with_quality_measures_it_is_their_weighted_logistic_regression(p_target: float) -> None:
    scores, labels, quality = durations(1)
    calibration = fit_calibration(scores, labels, quality=quality, p_target=p_target)
    weights = np.where(labels, p_target / labels.sum(), (1 - p_target) / (1 - labels).sum())
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    columns = np.column_stack([scores, *quality.values()])
    other.fit(columns, labels, sample_weight=weights * len(labels))
    assert [calibration.slope, *calibration.quality.values()] == pytest.approx(
        other.coef_[0], rel=1e-5
    )
    assert calibration.offset == pytest.approx(
        other.intercept_[0] - math.log(p_target / (1 - p_target)), rel=1e-5
    )
    assert list(calibration.quality) == ["length", "noise"]


@given(
    seed=st.integers(0, 1000),
    slope=st.floats(0.8, 1.25),
    offset=st.floats(-0.5, 0.5),
)
def test_no_affine_map_nearby_has_a_smaller_cllr(seed: int, slope: float, offset: float) -> None:
    scores, labels = overlapping(seed, 60)
    # A pair that is always wrong, or some of these would be separated.
    scores, labels = np.append(scores, [-0.2, 0.8]), np.append(labels, [1, 0])
    calibration = fit_calibration(scores, labels)
    best = cllr(calibration(scores), labels)
    other = Calibration(calibration.slope * slope, calibration.offset + offset)
    assert best <= cllr(other(scores), labels) + 1e-12
    assert min_cllr(scores, labels) <= best + 1e-12
    assert best <= 1  # the map to 0 is affine, too


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 0.5), (300.0, -1000.0)])
def test_an_affine_map_of_true_ratios_is_undone(scale: float, shift: float) -> None:
    # N(3, 6) against N(-3, 6) are their own log-likelihood ratios.
    generator = np.random.default_rng(2)
    labels = np.arange(200_000) % 2
    ratios = generator.normal(6 * labels - 3, math.sqrt(6))
    calibration = fit_calibration(ratios * scale + shift, labels)
    assert calibration.slope * scale == pytest.approx(1, abs=0.02)
    assert calibration.offset + calibration.slope * shift == pytest.approx(0, abs=0.02)
    for p_target in (0.01, 0.1, 0.5):
        calibrated = calibration(ratios * scale + shift)
        least = min_dcf(calibrated, labels, p_target=p_target).min_dcf
        assert act_dcf(calibrated, labels, p_target=p_target).act_dcf < least + 0.01


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
def test_the_scale_of_the_scores_does_not_matter(scale: float) -> None:
    scores, labels = overlapping(3)
    first, other = fit_calibration(scores, labels), fit_calibration(scores * scale, labels)
    assert other.slope * scale == pytest.approx(first.slope, rel=1e-9)
    assert other.offset == pytest.approx(first.offset, rel=1e-9)


def test_scores_that_fall_for_targets_get_a_negative_slope() -> None:
    scores, labels = overlapping(4)
    first, other = fit_calibration(scores, labels), fit_calibration(-scores, labels)
    assert other.slope == pytest.approx(-first.slope, rel=1e-9)
    assert other.offset == pytest.approx(first.offset, rel=1e-9)


def test_the_order_of_trials_does_not_matter() -> None:
    scores, labels = overlapping(5)
    order = np.random.default_rng(0).permutation(len(scores))
    first, other = fit_calibration(scores, labels), fit_calibration(scores[order], labels[order])
    assert (other.slope, other.offset) == pytest.approx((first.slope, first.offset), rel=1e-9)


def test_copies_of_one_class_do_not_matter() -> None:
    scores, labels = overlapping(6)
    times = np.where(labels, 3, 1)
    first = fit_calibration(scores, labels, p_target=0.2)
    other = fit_calibration(scores.repeat(times), labels.repeat(times), p_target=0.2)
    assert (other.slope, other.offset) == pytest.approx((first.slope, first.offset), rel=1e-9)


def test_a_rising_map_leaves_the_eer_alone() -> None:
    scores, labels = overlapping(7)
    calibration = fit_calibration(scores, labels)
    assert eer(calibration(scores), labels).eer == eer(scores, labels).eer


@pytest.mark.parametrize("wrong", [1, 3])
def test_a_few_wrong_trials_among_very_many_are_enough(wrong: int) -> None:
    generator = np.random.default_rng(8)
    labels = np.arange(200_000) % 2
    scores = generator.normal(10.0 * labels, 1)
    scores[:wrong] = 9.0
    calibration = fit_calibration(scores, labels)
    assert 0 < calibration.slope < 100
    assert cllr(calibration(scores), labels) < 0.01


# -- Quality measures ------------------------------------------------------------------------------


def test_a_quality_measure_helps_where_it_says_something() -> None:
    scores, labels, quality = durations(2)
    others = durations(3)  # not what it was fitted on
    alone = fit_calibration(scores, labels)
    both = fit_calibration(scores, labels, quality={"length": quality["length"]})
    assert both.quality["length"] < 0
    test_scores, test_labels, test_quality = others
    without = cllr(alone(test_scores), test_labels)
    with_it = cllr(both(test_scores, {"length": test_quality["length"]}), test_labels)
    assert with_it < 0.9 * without
    useless = fit_calibration(scores, labels, quality={"noise": quality["noise"]})
    assert cllr(useless(test_scores, {"noise": test_quality["noise"]}), test_labels) == (
        pytest.approx(without, rel=0.02)
    )


def test_ratios_are_the_affine_map() -> None:
    calibration = Calibration(2.0, -1.0, {"a": 0.5, "b": -3.0})
    ratios = calibration(np.array([1.0, 2.0], np.float32), {"b": [1, 0], "a": [4.0, 2.0]})
    assert ratios.dtype == np.float64
    assert ratios.tolist() == [2 - 1 + 2 - 3, 4 - 1 + 1]
    assert Calibration(2.0, -1.0)([1.0]).tolist() == [1.0]
    assert Calibration(2.0, -1.0)([1.0], {}).tolist() == [1.0]


# -- Perfectly separated ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([0.0, 1.0], [0, 1]),
        ([1.0, 0.0], [0, 1]),
        ([0.0, 1.0, 1.0, 2.0], [0, 0, 1, 1]),  # they touch, and still steeper is better
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]),
        (np.arange(1000) / 7, np.arange(1000) > 3),
    ],
)
def test_separated_trials_are_refused_and_a_ridge_cures_it(scores: Any, labels: Any) -> None:
    with pytest.raises(ScoringError, match=r"separate target .* perfectly, .* small ridge such as"):
        fit_calibration(scores, labels)
    calibration = fit_calibration(scores, labels, ridge=1e-4)
    assert math.isfinite(calibration.slope)
    assert math.isfinite(calibration.offset)
    assert cllr(calibration(scores), labels) < 0.51  # 0.5 is the best where they touch


def test_a_larger_ridge_gives_a_smaller_slope() -> None:
    scores, labels = overlapping(9)
    slopes = [fit_calibration(scores, labels, ridge=r).slope for r in (0, 1e-6, 1e-3, 1, 1e6)]
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-3)
    assert 0 < slopes[-1] < 1e-3


# -- Files -----------------------------------------------------------------------------------------
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    quality=st.dictionaries(
        st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
)
def test_a_saved_calibration_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], quality: dict[str, float]
) -> None:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    calibration = Calibration(numbers[0], numbers[1], quality)
    calibration.save(path)
    read = Calibration.load(path)
    assert read == calibration
    assert [math.copysign(1, number) for number in (read.slope, read.offset)] == [
        math.copysign(1, number) for number in numbers
    ]
    assert list(read.quality) == list(quality)


def test_a_fitted_calibration_scores_the_same_after_a_file(tmp_path: Path) -> None:
    scores, labels, quality = durations(4)
    calibration = fit_calibration(scores, labels, quality=quality)
    calibration.save(tmp_path / "a.json")
    read = Calibration.load(str(tmp_path / "a.json"))
    np.testing.assert_array_equal(read(scores, quality), calibration(scores, quality))
    text = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert list(text) == ["format", "slope", "offset", "quality"]
    assert text["format"] == FORMAT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot be read as a calibration"),
        ("{", r"cannot be read as a calibration"),
        (b"\xff\xfe", r"cannot be read as a calibration"),
        ("[]", r'is not a calibration: it lacks "format": "voxblink2 calibration 1"'),
        ("3", r"is not a calibration"),
        ("null", r"is not a calibration"),
        ({"slope": 1.0, "offset": 0.0, "quality": {}, "format": None}, r"is not a calibration"),
        ({"format": "voxblink2 calibration 2"}, r"is not a calibration"),
        ({"slope": 1.0, "offset": 0.0}, r"has \['offset', 'slope'\]; a calibration has slope, of"),
        ({"slope": 1.0, "quality": {}}, r"has \['quality', 'slope'\]"),
        ({"slope": 1.0, "offset": 0.0, "quality": []}, r"has \['offset', 'quality', 'slope'\]"),
        ({"slope": 1.0, "offset": 0.0, "quality": {}, "more": 1}, r"has \['more', 'offset', "),
        ({"slope": "1", "offset": 0.0, "quality": {}}, r"weights are numbers, got '1'"),
        ({"slope": 1.0, "offset": None, "quality": {}}, r"weights are numbers, got None"),
        ({"slope": True, "offset": 0.0, "quality": {}}, r"weights are numbers, got True"),
        ({"slope": 1.0, "offset": 0.0, "quality": {"a": [1]}}, r"weights are numbers, got \[1\]"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "bad.json"
    if isinstance(text, dict):
        text = json.dumps({"format": FORMAT} | text)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScoringError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_calibration_that_is_not_finite_is_refused(tmp_path: Path, number: float) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"format": FORMAT, "slope": number, "offset": 0.0, "quality": {}}))
    with pytest.raises(ScoringError, match=r"numbers, got (nan|inf|-inf)"):
        Calibration.load(path)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ScoringError, match=r"cannot be read as a calibration") as caught:
            Calibration.load(path)
        assert str(path) in str(caught.value)


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_target": 0.0}, r"p_target must lie between 0 and 1, got 0\.0"),
        ({"p_target": 1.0}, r"p_target must lie between 0 and 1, got 1\.0"),
        ({"p_target": math.nan}, r"p_target must lie between 0 and 1, got nan"),
        ({"ridge": -1e-9}, r"ridge must be 0 or more, got -1e-09"),
        ({"ridge": math.inf}, r"ridge must be 0 or more, got inf"),
        ({"ridge": math.nan}, r"ridge must be 0 or more, got nan"),
        ({"labels": [1, 1, 1, 1, 1]}, r"labels are all 1"),
        ({"labels": [1, 0]}, r"scores has 5 values and labels 2"),
        ({"scores": [1, 2, 3, math.inf, 4]}, r"scores must be finite, got inf in row 3"),
        ({"scores": [0.1] * 5}, r"scores are all 0\.1\d*; nothing can be fitted"),
        ({"scores": [0] * 5}, r"scores are all 0\.0; nothing can be fitted"),
        ({"quality": {"a": [2] * 5}}, r"quality\['a'\] are all 2\.0; nothing can be fitted"),
        ({"quality": {"a": [1, 2, 3]}}, r"scores has 5 values and quality\['a'\] 3; both must"),
        ({"quality": {"a": ["x"] * 5}}, r"quality\['a'\] must be numbers, got <U1"),
        ({"quality": {"a": [1, 2, math.nan, 1, 1]}}, r"quality\['a'\] must be finite, got nan in"),
        (
            {"quality": {"a": [1, 3, 2, 5, 4], "b": [3, 7, 5, 11, 9]}},
            r"scores, quality\['a'\], quality\['b'\]: one follows from the others; leave it out",
        ),
        (
            {"quality": {"a": [30.0, 10.0, 20.0, 40.0, 50.0]}},
            r"scores, quality\['a'\]: one follows from the others",
        ),
    ],
)
def test_what_cannot_be_fitted_is_named(options: dict[str, Any], message: str) -> None:
    arguments = {"scores": [3, 1, 2, 4, 5], "labels": [1, 0, 1, 0, 1], **options}
    with pytest.raises(ScoringError, match=message) as caught:
        fit_calibration(arguments.pop("scores"), arguments.pop("labels"), **arguments)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (None, r"quality has \[\]; this calibration was fitted with \['length'\]"),
        ({"width": [1.0, 2.0]}, r"quality has \['width'\]; this calibration was fitted with \['le"),
        ({"length": [1.0]}, r"scores has 2 values and quality\['length'\] 1; both must agree"),
        ({"length": [1.0, math.nan]}, r"quality\['length'\] must be finite, got nan in row 1"),
    ],
)
def test_measures_must_be_those_of_the_fit(quality: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        Calibration(1.0, 0.0, {"length": 2.0})([0.1, 0.2], quality)


def test_measures_of_a_calibration_without_any_are_refused() -> None:
    with pytest.raises(ScoringError, match=r"quality has \['length'\]; .* was fitted with \[\]"):
        Calibration(1.0, 0.0)([0.1], {"length": [1.0]})


def test_scores_to_calibrate_are_checked() -> None:
    with pytest.raises(ScoringError, match=r"scores must be finite, got nan in row 0"):
        Calibration(1.0, 0.0)([math.nan])


def test_a_prior_far_from_the_middle_is_no_separation() -> None:
    scores, labels = overlapping(10)
    calibration = fit_calibration(scores, labels, p_target=1e-6)
    assert 0 < calibration.slope < 100


@pytest.mark.parametrize("far", [1e3, 1e5, 1e6])
def test_a_target_far_above_all_others_is_no_separation(far: float) -> None:
    labels = np.arange(200) % 2
    scores = np.random.default_rng(1).normal(2 * labels)
    expected = fit_calibration(scores, labels)
    calibration = fit_calibration(np.append(scores, far), np.append(labels, 1))
    # It costs nothing, whatever the map, and only makes the other targets count a little less.
    assert calibration.slope == pytest.approx(expected.slope, rel=0.05)
    assert calibration.offset == pytest.approx(expected.offset, rel=0.05)


@pytest.mark.parametrize("size", [1e-300, 1e200, 1.797e308 / 4])
def test_scores_of_any_size_are_calibrated_alike(size: float) -> None:
    labels = np.arange(400) % 2
    scores = np.random.default_rng(1).normal(labels, 1).clip(-3.9, 3.9)
    llr = fit_calibration(scores, labels)(scores)
    np.testing.assert_allclose(fit_calibration(scores * size, labels)(scores * size), llr)


def test_ratios_above_the_largest_number_are_refused() -> None:
    with pytest.raises(ScoringError, match="log-likelihood ratios must be finite, got inf in row"):
        Calibration(slope=10.0, offset=0.0)([0.0, 1.7e308])
