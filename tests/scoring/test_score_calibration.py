"""A calibration of score files is the best affine map, and knows what it was fitted on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from support.score_oracle import Array

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.score_calibration import (
    FitInputs,
    ScoreCalibration,
    fit_score_calibration,
    trials_digest,
)
from voxblink2_lib.scoring.trials import TrialList

COUNT = 600


def inputs(seed: int = 0, systems: int = 2, **changes: Any) -> FitInputs:
    """Return so many systems, each with some of the truth, and a measure that shifts them all."""
    generator = np.random.default_rng(seed)
    labels = np.arange(COUNT) % 3 == 0
    length = generator.uniform(0, 2, COUNT)
    scores = [generator.normal(labels + 0.3 * length, 0.7) for _ in range(systems)]
    trials = TrialList(
        [f"u{n}" for n in range(COUNT + 1)], np.arange(COUNT), np.arange(1, COUNT + 1), labels
    )
    names = [f"{n}.txt" for n in range(systems)]
    digests = [f"{n:064}" for n in range(systems)]
    rest = {"quality": {"length": length}, "quality_columns": ["length"], "is_log": False}
    given_ = {"paths": names, "digests": digests, "scores": scores, "trials": trials, **rest}
    return FitInputs(**{**given_, "sources": {"quality": "1" * 64}, **changes})


@pytest.mark.parametrize("p_target", [0.5, 0.05])
@pytest.mark.parametrize("systems", [1, 2, 3])
def test_a_fusion_is_scikit_learns_weighted_regression(systems: int, p_target: float) -> None:
    given_ = inputs(systems=systems)
    fitted = fit_score_calibration(given_, p_target=p_target)
    labels = np.asarray(given_.trials.labels)
    weights = np.where(labels, p_target / labels.sum(), (1 - p_target) / (~labels).sum())
    columns = np.column_stack([*given_.scores, given_.quality["length"]])
    other = LogisticRegression(C=np.inf, tol=1e-13, max_iter=10_000, solver="newton-cholesky")
    other.fit(columns, labels, sample_weight=weights * COUNT)
    ours = [*(system.weight for system in fitted.systems), *fitted.quality.values()]
    assert ours == pytest.approx(other.coef_[0], rel=1e-6)
    prior = np.log(p_target / (1 - p_target))
    assert fitted.offset == pytest.approx(other.intercept_[0] - prior, rel=1e-6)
    ratios = fitted.ratios(given_.scores, given_.quality)
    np.testing.assert_allclose(ratios, other.decision_function(columns) - prior, rtol=1e-5)


def slopes_of(given_: FitInputs, ratios: Array) -> Array:
    """The derivative of the cross-entropy by every factor, at a prior of a half."""
    labels = np.asarray(given_.trials.labels)
    wrong = 1 / (1 + np.exp(np.where(labels, ratios, -ratios)))
    pull = np.where(labels, -wrong / labels.sum(), wrong / (~labels).sum())
    columns = np.column_stack([*given_.scores, *given_.quality.values(), np.ones(COUNT)])
    return np.asarray(pull @ columns)


@given(seed=st.integers(0, 500))
def test_no_factor_can_be_better(seed: int) -> None:
    given_ = inputs(seed)
    fitted = fit_score_calibration(given_)
    slopes = slopes_of(given_, fitted.ratios(given_.scores, given_.quality))
    assert np.abs(slopes).max() < 1e-13


def test_the_order_of_rows_does_not_count() -> None:
    given_ = inputs()
    order = np.random.default_rng(1).permutation(COUNT)
    trials = given_.trials
    turned = given_._replace(
        scores=[each[order] for each in given_.scores],
        quality={name: each[order] for name, each in given_.quality.items()},
        trials=TrialList(
            trials.names,
            trials.enrolment[order],
            trials.test[order],
            np.asarray(trials.labels)[order],
        ),
    )
    first, second = fit_score_calibration(given_), fit_score_calibration(turned)
    assert second.trials_sha256 == first.trials_sha256
    assert second.offset == pytest.approx(first.offset, rel=1e-12)
    for known, other in zip(first.systems, second.systems, strict=True):
        assert other.weight == pytest.approx(known.weight, rel=1e-12)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    given_ = inputs()
    fitted = fit_score_calibration(given_, p_target=0.05, ridge=1e-6)
    fitted.save(tmp_path / "calibration.json")
    read = ScoreCalibration.load(tmp_path / "calibration.json")
    assert read == fitted
    np.testing.assert_array_equal(
        read.ratios(given_.scores, given_.quality), fitted.ratios(given_.scores, given_.quality)
    )
    assert (read.trials, read.targets, read.p_target, read.ridge) == (COUNT, COUNT / 3, 0.05, 1e-6)
    assert read.sources == {"quality": "1" * 64}
    assert set(read.versions) == {"voxblink2", "numpy"}


def test_what_it_was_fitted_on_is_known_by_file_and_by_trials() -> None:
    given_ = inputs()
    fitted = fit_score_calibration(given_)
    others = TrialList(["a", "b"], np.array([0]), np.array([1]), None)
    assert fitted.fitted_on(["f" * 64, "e" * 64], others) is None
    text = fitted.fitted_on(["f" * 64, given_.digests[0]], others)
    assert text == "score file 2 is a file that it was fitted on"
    text = fitted.fitted_on(["f" * 64], replace(given_.trials, labels=None))
    assert text == "the 600 trials are those that it was fitted on"


@given(st.data())
def test_a_digest_is_of_the_set_of_trials(data: st.DataObject) -> None:
    pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1)
    rows = data.draw(pairs)
    others = data.draw(st.permutations(rows) | pairs)

    def digest(listed: list[tuple[int, int]], name: str) -> str:
        names = [name.format(n) for n in range(5)]
        enrolment, test = np.array(listed).T
        return trials_digest(TrialList(names, enrolment, test, None))

    first = digest(rows, "id1027{}/x6uYqmx31kE/00001.wav")
    second = digest(others, "id1027{}-x6uYqmx31kE-00001")
    assert (first == second) == (set(rows) == set(others))


def test_separated_trials_are_refused_in_words_and_a_ridge_cures_it() -> None:
    labels = np.asarray(inputs().trials.labels)
    given_ = inputs(systems=1, scores=[labels + 0.1], quality={})
    with pytest.raises(ScoringError, match=r"perfectly, so the best slope is infinite.*--ridge 1e"):
        fit_score_calibration(given_)
    assert fit_score_calibration(given_, ridge=1e-4).systems[0].weight > 1


def test_scores_of_other_systems_or_measures_are_refused() -> None:
    given_ = inputs()
    fitted = fit_score_calibration(given_)
    with pytest.raises(ScoringError, match=r"fitted on, 2, in this order: 0\.txt, 1\.txt; got 1\."):
        fitted.ratios(given_.scores[:1], given_.quality)
    with pytest.raises(ScoringError, match=r"'length' is missing; .* with length\. Name a file"):
        fitted.ratios(given_.scores, {"snr": given_.quality["length"]})
    more = {**given_.quality, "snr": given_.quality["length"]}
    assert fitted.ratios(given_.scores, more).shape == (COUNT,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("format"), r'lacks "format": "voxblink2 score calibration 1"'),
        (lambda record: record.pop("offset"), r"cannot be read as a calibration: .*offset"),
        (lambda record: record.update(more=1), r"cannot be read as a calibration: .*more"),
        (lambda record: record.update(trials=[]), r"json: what is fitted must be a number, got"),
        (lambda record: record.update(quality=[1]), r"cannot be read as a calibration"),
        (lambda record: record.update(systems=[]), r"has no system\. Name a file that"),
        (
            lambda record: record.update(offset="x"),
            r"json: what is fitted must be a number, got 'x'",
        ),
    ],
)
def test_what_is_no_calibration_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    record = fit_score_calibration(inputs()).as_dict()
    change(record)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ScoringError, match=message):
        ScoreCalibration.load(path)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ScoringError, match=r"x\.json cannot be read: No such file or directory\. N"
    ):
        ScoreCalibration.load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("a b 1\n")
    with pytest.raises(ScoringError, match=r"x\.json cannot be read as a calibration: "):
        ScoreCalibration.load(tmp_path / "x.json")
