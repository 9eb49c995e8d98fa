"""``score sv`` and ``score file`` with ``--condition``: the library's rows, as JSON and as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.cli import main
from voxblink2_lib.scoring import measure_conditions, read_conditions
from voxblink2_lib.scoring.score_files import read_scores

NAMES = [f"id{10000 + s}/abcdefghij{s % 10}/{n:05}.wav" for s in range(24) for n in range(3)]
_RNG = np.random.default_rng(13)
VECTORS = np.repeat(_RNG.normal(size=(24, 8)), 3, axis=0) + 1.1 * _RNG.normal(size=(72, 8))
PAIRS = [(NAMES[i], NAMES[j], i // 3 == j // 3) for i in range(72) for j in range(i)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions")
    (folder / "trials").write_text("".join(f"{int(c)} {a} {b}\n" for a, b, c in PAIRS))
    table = pa.table({"utterance": NAMES, "embedding": list(VECTORS.astype(np.float32))})
    pq.write_table(table, folder / "embeddings.parquet")
    # Nine speakers are f.
    (folder / "genders.tsv").write_text("utterance\tgender\tbin\n" + "".join(
        f"{name.replace('/', '-')}\t{'f' if row < 27 else 'm'}\t{row % 2}\n"
        for row, name in enumerate(NAMES)
    ))  # fmt: skip
    arguments = ["--trials", folder / "trials", "--embeddings", folder / "embeddings.parquet"]
    assert main(["score", "sv", *map(str, arguments), "--out", str(folder / "scores.txt")]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    capsys.readouterr()
    assert main(["score", *map(str, words), "--json"]) == code
    record = json.loads(capsys.readouterr().out)
    record.pop("proof", None)  # see test_score_verify.py
    return record


def sv(files: Path, *words: object) -> list[object]:
    return [
        *("sv", "--trials", files / "trials", "--embeddings", files / "embeddings.parquet", *words)
    ]


def test_both_commands_give_the_rows_of_the_library(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--condition", files / "genders.tsv", "--p-target", 0.1, 0.5]
    record = run(capsys, *sv(files, *options))
    assert run(capsys, "file", files / "scores.txt", *options) == record | {"other_scores": 0}
    scores = read_scores(files / "scores.txt")
    conditions = read_conditions(files / "genders.tsv", scores.trials)
    reports = measure_conditions(scores.trials, scores.scored(), conditions, p_target=(0.1, 0.5))
    assert record["conditions"] == [report.as_dict() for report in reports]
    assert [each["condition"] for each in record["conditions"]] == ["gender", "bin"]
    assert [row["value"] for row in record["conditions"][0]["values"]] == ["f", "m", "m/f"]
    assert "conditions" not in run(capsys, *sv(files))


def test_a_table_for_people(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["file", files / "scores.txt", "--condition", files / "genders.tsv", "gender"]
    assert main(["score", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["gender", "trials", "targets", "EER", "errors", "minDCF(0.01)",
                                "errors"]  # fmt: skip
    names = ["f", "m", "m/f", "pooled", "mean", "equalized"]
    assert [line.split()[0] for line in table[1:7]] == names
    assert table[3].split() == ["m/f", "1,215", "0", "-", "-", "-", "-"]
    record = run(capsys, *words)
    pooled, mean = record["eer"], record["conditions"][0]["mean"]
    assert table[4].split()[3] == f"{100 * pooled:.3f}"
    assert table[5].split() == [
        *("mean", f"{100 * mean['eer']:.3f}", "%", "*", f"{mean['min_dcf'][0]['min_dcf']:.4f}", "*")
    ]
    assert table[7:] == [
        "errors: misses + false acceptances; mean: of the rows; equalized: at one threshold, all "
        "rows of the same weight",
        "* fewer than 30 errors of a kind, or a mean with such a row",
        "-: not both target and non-target trials; in no mean",
    ]


def test_intervals_of_rows(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["file", files / "scores.txt", "--condition", files / "genders.tsv", "gender"]
    assert main(["score", *map(str, words), "--interval", "speakers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    by_name = {line.split()[0]: line for line in lines[lines.index("") + 1 :]}
    assert "[" in by_name["m"]
    assert "[" in by_name["pooled"]
    assert "[" not in by_name["f"] + by_name["mean"]
    reasons = [line.split(":")[0] for line in lines if line.startswith("No intervals")]
    assert reasons == ["No intervals of f", "No intervals of the mean and of equalized"]
    assert "speakers: 9 of the enrolment sides of a condition and" in by_name["No"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{files}/genders.tsv", "sex"], "genders.tsv has no column 'sex'; conditions in it are g"),
        (["{files}/nothing"], "nothing"),
        (["{files}/trials"], "2,556 of 2,556 trials have no value in"),
    ],
)
def test_what_is_refused(
    files: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(files=files) for word in words]
    record = run(capsys, *sv(files, "--condition", *given), code=2)
    assert message in record["message"]


def test_lists_without_labels_have_no_conditions(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare").write_text("".join(f"{a} {b}\n" for a, b, _ in PAIRS[:9]))
    options = ["--embeddings", files / "embeddings.parquet", "--out", tmp_path / "scores.txt"]
    options += ["--condition", files / "genders.tsv"]
    record = run(capsys, "sv", "--trials", tmp_path / "bare", *options, code=2)
    assert "bare has no labels" in record["message"]
    assert not (tmp_path / "scores.txt").exists()
