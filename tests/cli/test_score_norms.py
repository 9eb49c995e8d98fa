"""``score sv --norm`` and ``--centre``: what they do is what the library does, and is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import as_norm, cosine_scores, s_norm
from voxblink2_lib.scoring.score_files import read_scores

_RNG = np.random.default_rng(8)
SPEAKERS, COHORT_SIZE = 12, 30
VECTORS = 2 + np.repeat(_RNG.normal(size=(SPEAKERS, 8)), 3, axis=0) + _RNG.normal(size=(36, 8))
VECTORS = VECTORS.astype(np.float32)
COHORT = (2 + _RNG.normal(size=(COHORT_SIZE, 8))).astype(np.float32)
NAMES = [f"id{10000 + row // 3}/abcdefghijk/{row % 3:05}.wav" for row in range(36)]
ROWS = np.array([(i, j) for i in range(36) for j in range(i)])

Run = Callable[..., Any]


def write(path: Path, names: list[str], vectors: Any) -> None:
    pq.write_table(pa.table({"utterance": names, "embedding": list(vectors)}), path)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Score all pairs; return the scores and how they were normalized, or the message."""
    write(tmp_path / "embeddings.parquet", NAMES, VECTORS)
    write(tmp_path / "cohort.parquet", [f"c{row}" for row in range(COHORT_SIZE)], COHORT)
    lines = (f"{int(i // 3 == j // 3)} {NAMES[i]} {NAMES[j]}\n" for i, j in ROWS)
    (tmp_path / "trials").write_text("".join(lines))

    def run(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        out = tmp_path / "scores.parquet"
        line = ["score", "sv", "--trials", tmp_path / "trials", "--out", out, "--json"]
        line += ["--embeddings", tmp_path / "embeddings.parquet", *words]
        places = {"COHORT": tmp_path / "cohort.parquet"}
        assert main([str(places.get(str(word), word)) for word in line]) == code
        record = json.loads(capsys.readouterr().out)
        return record["message"] if code else (read_scores(out).scores, record["normalization"])

    return run


def expected(top_n: int | None, variant: Literal[1, 2] = 1, mean: Any = 0.0) -> Any:
    vectors = VECTORS - np.float32(mean)
    sides: dict[str, Any] = {"enrolment_rows": ROWS[:, 0], "test_rows": ROWS[:, 1]}
    scores = cosine_scores(vectors, *sides.values())
    more: dict[str, Any] = {"embeddings": vectors, "cohort": COHORT - np.float32(mean)}
    if top_n is None:
        return s_norm(scores, **sides, **more)
    return as_norm(scores, **sides, **more, top_n=top_n, variant=variant)


@pytest.mark.parametrize(
    ("words", "text", "top_n", "variant"),
    [
        (["--norm", "s-norm"], "s-norm, cohort of 30", None, 1),
        (["--norm", "as-norm1", "--top-n", 7], "AS-norm 1, 7 nearest of 30", 7, 1),
        (["--top-n", 7], "AS-norm 1, 7 nearest of 30", 7, 1),
        (["--norm", "as-norm2", "--top-n", 7], "AS-norm 2, 7 nearest of 30", 7, 2),
        (["--norm", "as-norm2"], "AS-norm 2, 30 nearest of 30", None, 2),
    ],
)
def test_a_norm_is_the_library_s(
    words: list[object], text: str, top_n: int | None, variant: Literal[1, 2], run: Run
) -> None:
    scores, normalization = run("--cohort", "COHORT", *words)
    assert normalization == text
    np.testing.assert_allclose(scores, expected(top_n, variant), rtol=1e-5, atol=1e-5)


def test_as_norms_differ(run: Run) -> None:
    first, second = (
        run("--cohort", "COHORT", "--norm", norm, "--top-n", 7)[0]
        for norm in ("as-norm1", "as-norm2")
    )
    assert np.abs(first - second).max() > 0.1


def test_centring_comes_before_cosines_and_cohort(run: Run) -> None:
    mean = COHORT.mean(axis=0)
    scores, text = run("--centre", "COHORT")
    centred = VECTORS - mean
    np.testing.assert_allclose(scores, cosine_scores(centred, ROWS[:, 0], ROWS[:, 1]), atol=1e-5)
    assert text.startswith("centred by the mean of 30 embeddings of ")
    words = ("--cohort", "COHORT", "--top-n", 7, "--centre")
    (first, text), (second, same) = run(*words, "cohort"), run(*words, "COHORT")
    np.testing.assert_array_equal(first, second)
    assert text == same
    assert text.endswith("cohort.parquet; AS-norm 1, 7 nearest of 30")
    np.testing.assert_allclose(first, expected(7, mean=mean), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--norm", "s-norm"], "--norm goes with --cohort, which is missing"),
        (["--top-n", 5], "--top-n goes with --cohort, which is missing"),
        (["--centre", "cohort"], "--centre cohort goes with --cohort, which is missing"),
        (["--cohort", "COHORT", "--norm", "s-norm", "--top-n", 5], "--top-n goes with AS-norm"),
        (["--cohort", "COHORT", "--norm", "z-norm"], "invalid choice: 'z-norm'"),
        (["--centre", "nowhere.npy"], "nowhere.npy"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[object], message: str, run: Run) -> None:
    assert message in run(*words, code=2)
