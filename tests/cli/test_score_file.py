"""``score file`` and ``score sv --out``: the same figures to the last bit, whoever wrote scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring.score_files import read_scores

NAMES = [f"id{10000 + s}/abcdefghij{s}/{n:05}.wav" for s in range(12) for n in range(3)]
_RNG = np.random.default_rng(13)
VECTORS = np.repeat(_RNG.normal(size=(12, 8)), 3, axis=0) + 1.1 * _RNG.normal(size=(36, 8))
PAIRS = [(NAMES[i], NAMES[j], i // 3 == j // 3) for i in range(36) for j in range(i)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trials, the same without labels, embeddings and a cohort."""
    folder = tmp_path_factory.mktemp("score")
    (folder / "trials").write_text("".join(f"{int(c)} {a} {b}\n" for a, b, c in PAIRS))
    (folder / "bare").write_text("".join(f"{a} {b}\n" for a, b, _ in PAIRS))
    for name, names, vectors in (
        ("embeddings", NAMES, VECTORS),
        ("cohort", [f"c{row}" for row in range(9)], _RNG.normal(size=(9, 8))),
    ):
        table = pa.table({"utterance": names, "embedding": list(vectors.astype(np.float32))})
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command and return its object; of one that fails, its message."""

    def run(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert main(["score", *map(str, words), "--json"]) == code
        result = json.loads(capsys.readouterr().out)
        result.pop("proof", None)  # see test_score_verify.py
        return result["message"] if code else result

    return run


def sv(folder: Path, *words: object, trials: str = "trials") -> list[object]:
    return [
        *("sv", "--trials", folder / trials, "--embeddings", folder / "embeddings.parquet", *words)
    ]


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("normalized", [False, True])
def test_scores_that_were_written_give_the_same_figures(
    suffix: str, normalized: bool, files: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / f"scores.{suffix}"
    more = ["--cohort", files / "cohort.parquet"] if normalized else []
    words = ["--p-target", 0.01, 0.5, "--interval", "speakers"]
    expected = run(*sv(files, "--out", out, *more, *words))
    for key in ([], ["--trials", files / "trials"]):
        result = run("file", out, *key, *words)
        assert result.pop("other_scores") == 0
        # Of a cohort, a file of scores has nothing to say.
        assert result.pop("overlap").items() <= expected["overlap"].items()
        assert result | {"overlap": expected["overlap"]} == expected | {"normalization": None}


def test_lists_without_labels_are_scored_and_evaluated_later(
    files: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.txt"
    record = run(*sv(files, "--out", out, trials="bare"))
    clean = {"duplicate_trials": 0, "self_trials": 0, "pairs_with_both_labels": 0}
    counts = {"trials": 630, "scored": 630, "missing": [], "normalization": None}
    assert record == counts | {"overlap": clean}
    assert out.read_text().split("\n")[0].split()[:2] == list(PAIRS[0][:2])
    assert main([str(word) for word in ["score", *sv(files, "--out", out, trials="bare")]]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Trials    630 of 630 scored, without labels",
        f"Scores in {out}",
        f"Result in {out}.json",
    ]
    assert f"{out} has no labels" in run("file", out, code=2)
    result = run("file", out, "--trials", files / "trials")
    assert result == run(*sv(files)) | {"other_scores": 0}


def test_without_a_place_for_scores_labels_are_needed_before_anything_is_read(
    files: Path, tmp_path: Path, run: Run
) -> None:
    for more in ([], ["--out", tmp_path / "x.txt", "--interval", "trials"]):
        words = sv(files, *more, "--embeddings", "none.npy", trials="bare")
        assert f"{files / 'bare'} has no labels" in run(*words, code=2)


def test_only_trials_that_were_scored_are_written(files: Path, tmp_path: Path, run: Run) -> None:
    trials = tmp_path / "trials"
    trials.write_text((files / "trials").read_text() + "0 nobody/1 x\n")
    out = tmp_path / "scores.parquet"
    words = sv(files, "--trials", trials, "--missing", "skip", "--out", out)
    assert (run(*words)["scored"], len(read_scores(out).scores)) == (630, 630)
    message = run("file", out, "--trials", trials, code=2)
    assert "1 of 631 trials have no score in" in message
    assert "'nobody/1' (nearest: " in message
    result = run("file", out, "--trials", trials, "--missing", "skip")
    assert (result["trials"], result["scored"], len(result["missing"])) == (631, 630, 2)


def test_other_scores_are_counted(
    files: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out, few = tmp_path / "scores.csv", tmp_path / "few"
    run(*sv(files, "--out", out))
    few.write_text("\n".join((files / "trials").read_text().splitlines()[:20]))
    result = run("file", out, "--trials", few, "--plot", tmp_path / "det.png")
    assert (result["trials"], result["other_scores"]) == (20, 610)
    assert (tmp_path / "det.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["score", "file", str(out), "--trials", str(few)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Others    610 scores are of no trial of the list"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["file", "{tmp}/none"], "{tmp}/none cannot be read: No such file"),
        (["file", "{tmp}/odd"], "{tmp}/odd, line 2: 'a b x' has the score 'x'; allowed are finite"),
        (["file", "{tmp}/odd", "--p-target", "0"], "p_target must lie between 0 and 1"),
        (["file", "{tmp}/odd", "--plot", "{tmp}/x.xyz"], "x.xyz cannot be written as a plot"),
        (["sv", "--trials", "x", "--embeddings", "x", "--out", "x.npy"], "x.npy cannot be written"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(
    words: Sequence[str], message: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "odd").write_text("a b 1.5\na b x\n")
    result = run(*(word.format(tmp=tmp_path) for word in words), code=2)
    assert message.format(tmp=tmp_path) in result


# -- Models of several utterances ------------------------------------------------------------------


@pytest.fixture
def models(files: Path, tmp_path: Path) -> list[object]:
    """The words for trials of models, which are enrolled with two utterances each."""
    lines = [f"m{s}\t{NAMES[3 * s]}\t{NAMES[3 * s + 1]}\n" for s in range(12)]
    (tmp_path / "enroll.map").write_text("".join(lines))
    trials = [f"m{s} {NAMES[3 * t + 2]} {int(s == t)}\n" for s in range(12) for t in range(12)]
    (tmp_path / "model-trials").write_text("".join(trials))
    (tmp_path / "utt2spk").write_text("".join(f"{name} {name[:7]}\n" for name in NAMES))
    (tmp_path / "cohort2spk").write_text("".join(f"c{row} {row % 4}\n" for row in range(9)))
    return sv(files, "--trials", tmp_path / "model-trials", "--enrol", tmp_path / "enroll.map")


def test_models_are_scored_in_each_way(
    models: list[object], files: Path, tmp_path: Path, run: Run
) -> None:
    ways = ["mean", "normalized-mean", "mean-of-scores", "max"]
    records = [run(*models, "--enrolment", way) for way in ways]
    assert [(record["scored"], record["targets"]) for record in records] == [(144, 12)] * 4
    assert run(*models) == records[0]
    assert len({record["eer_threshold"] for record in records}) == 4
    speakers = ["--interval", "speakers", "--utt2spk", tmp_path / "utt2spk"]
    assert run(*models, *speakers) == run(*models, "--interval", "speakers")
    cohort = ["--cohort", files / "cohort.parquet", "--cohort-utt2spk", tmp_path / "cohort2spk"]
    assert run(*models, *cohort)["normalization"] == "AS-norm 1, 4 nearest of 4"
    out = tmp_path / "scores.txt"
    record = run(*models, "--out", out, "--enrolment", "max")
    # The file does not say what models are made of.
    assert record["overlap"].pop("enrolled_tests") == 0
    assert run("file", out) == record | {"other_scores": 0}
    assert out.read_text().startswith("m0 id10000/")


def test_options_of_models_go_together(
    models: list[object], files: Path, tmp_path: Path, run: Run
) -> None:
    message = run(*sv(files, "--enrolment", "max"), code=2)
    assert message == "--enrolment goes with --enrol, which is missing."
    message = run(*models, "--cohort-utt2spk", tmp_path / "cohort2spk", code=2)
    assert message == "--cohort-utt2spk goes with --cohort, which is missing."
    (tmp_path / "enroll.map").write_text("m0 x\n")
    assert "11 models of the trials are not in" in run(*models, code=2)
