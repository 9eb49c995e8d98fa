"""Embeddings of two models are never compared: a cosine between them means nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import Embeddings, TrialList, evaluate_trials, read_embeddings
from voxblink2_lib.scoring.enrolment import speaker_means
from voxblink2_lib.scoring.source_models import SourceModel

OURS, THEIRS = SourceModel("a" * 64, "kaldi hamming"), SourceModel("b" * 64, "voxblink2 std")
TRIALS = TrialList(["a", "b"], np.array([0, 0]), np.array([1, 0]), np.array([False, True]))


def embeddings(names: str, source: str, model: SourceModel | None) -> Embeddings:
    vectors = np.random.default_rng(5).normal(size=(len(names), 4)).astype(np.float32)
    return Embeddings(list(names), vectors, source, model=model)


def write(path: Path, names: str, model: SourceModel | None) -> Path:
    """Write embeddings as ``embed`` does, or as one who says nothing of a model."""
    vectors = np.random.default_rng(5).normal(size=(len(names), 4)).astype(np.float32)
    table = pa.table({"name": list(names), "embedding": list(vectors)})
    if model:
        record = {"sha256": model.model, "front_end": model.front_end}
        table = table.replace_schema_metadata({"voxblink2_model": json.dumps(record)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_cohort_of_another_model_is_refused(by_speaker: bool) -> None:
    cohort = embeddings("cde", "cohort.parquet", THEIRS)
    if by_speaker:
        cohort = speaker_means(cohort, {"c": "x", "d": "x", "e": "y"}, "utt2spk")
    match = (
        r"different models: trials\.parquet \(a{12}, front end kaldi hamming\) and cohort\.parquet "
        r"\(b{12}, front end voxblink2 std\)\. Their cosines mean nothing\. Embed the audio of both"
    )
    with pytest.raises(ScoringError, match=match):
        evaluate_trials(
            TRIALS,
            embeddings("ab", "trials.parquet", OURS),
            cohort=cohort,
            top_n=2,
            allow_overlap=True,
        )


@pytest.mark.parametrize("model", [OURS, None])
def test_a_cohort_of_the_same_model_or_an_unknown_one_is_taken(model: SourceModel | None) -> None:
    report = evaluate_trials(
        TRIALS,
        embeddings("ab", "trials.parquet", OURS),
        cohort=embeddings("cde", "cohort.parquet", model),
        top_n=2,
        allow_overlap=True,
    )
    assert report.scored == 2


def test_a_folder_of_two_models_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "all" / "1.parquet", "ab", OURS)
    write(tmp_path / "all" / "2.parquet", "cd", None)
    assert read_embeddings(tmp_path / "all").model == OURS
    write(tmp_path / "all" / "3.parquet", "ef", THEIRS)
    with pytest.raises(ScoringError, match=r"different models: .*1\.parquet .* and .*3\.parquet "):
        read_embeddings(tmp_path / "all")


def test_what_a_file_says_of_its_model_may_be_anything(tmp_path: Path) -> None:
    strange = SourceModel("x", "\x1b[31m" + "long" * 100)
    result = read_embeddings(write(tmp_path / "a.parquet", "ab", strange))
    assert result.model == strange
    with pytest.raises(ScoringError, match=r"\.\.\. \(length 405\)"):
        evaluate_trials(
            TRIALS, result, cohort=embeddings("cde", "c", OURS), top_n=2, allow_overlap=True
        )
