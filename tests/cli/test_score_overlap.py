"""Contaminated lists on the command line: refused, or in the text and the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.cli import main

NAMES = [f"id{10000 + s}/abcdefghij{s}/{n:05}.wav" for s in range(4) for n in range(3)]
OTHERS = [f"id{10000 + s}/zzzzzzzzzz{s}/{n:05}.wav" for s in range(3, 7) for n in range(3)]
PAIRS = [(NAMES[i], NAMES[j], i // 3 == j // 3) for i in range(12) for j in range(i)]


def write_embeddings(path: Path, names: list[str], corpus: str | None = None) -> None:
    vectors = np.random.default_rng(7).normal(size=(len(names), 8)).astype(np.float32)
    table = pa.table({"name": names, "embedding": list(vectors)})
    metadata = {"voxblink2_corpus": corpus} if corpus else None
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trials").write_text("".join(f"{int(c)} {a} {b}\n" for a, b, c in PAIRS))
    (tmp_path / "bare").write_text("".join(f"{a} {b}\n" for a, b, _ in PAIRS))
    write_embeddings(tmp_path / "embeddings.parquet", NAMES)
    write_embeddings(tmp_path / "voxceleb.parquet", NAMES, "VoxCeleb1")
    write_embeddings(tmp_path / "cohort.parquet", OTHERS, "VoxCeleb1")
    return tmp_path


def sv(folder: Path, *words: object, trials: str = "trials") -> list[str]:
    given = ["--trials", folder / trials, "--embeddings", folder / "embeddings.parquet"]
    return [str(word) for word in ("score", "sv", *given, *words)]


def outputs(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0
) -> tuple[str, dict[str, Any]]:
    """Run a command for people and with ``--json``; return what both print."""
    capsys.readouterr()
    assert main(words) == code
    text = capsys.readouterr()
    assert main([*words, "--json"]) == code
    return text.err if code else text.out, json.loads(capsys.readouterr().out)


def test_each_command_refuses_a_trial_against_itself_and_goes_on_if_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = folder / "scores.txt"
    outputs(capsys, sv(folder, "--out", scores))
    with (folder / "trials").open("a") as file:
        file.write(f"1 {NAMES[0]} {NAMES[0]}\n")
    with (folder / "bare").open("a") as file:
        file.write(f"{NAMES[0]} {NAMES[0]}\n")
    with scores.open("a") as file:
        file.write(f"{NAMES[0]} {NAMES[0]} 1.0 target\n")
    for words, listed in (
        (sv(folder), folder / "trials"),
        (sv(folder, "--out", folder / "out.txt", trials="bare"), folder / "bare"),
        (["score", "file", str(scores)], scores),
    ):
        text, answer = outputs(capsys, words, code=2)
        assert f"1 trial is of an utterance with itself, such as {listed}, line 67: " in text
        assert "(--allow-overlap)" in answer["message"]
        assert not (folder / "out.txt").exists()
        text, answer = outputs(capsys, [*words, "--allow-overlap"])
        assert answer["overlap"]["self_trials"] == 1
        assert "Overlap   1 trial is of an utterance with itself" in text
        (folder / "out.txt").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("embeddings", "words", "shared"),
    [
        ("voxceleb.parquet", [], 1),
        ("embeddings.parquet", [], 0),
        ("embeddings.parquet", ["--corpus", "voxceleb 1"], 1),
        ("embeddings.parquet", ["--same-ids"], 1),
        ("embeddings.parquet", ["--corpus", "VoxBlink1"], 0),
    ],
)
def test_speakers_of_a_cohort_are_compared_within_a_corpus(
    embeddings: str,
    words: list[str],
    shared: int,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--embeddings", folder / embeddings, "--cohort", folder / "cohort.parquet", *words]
    if shared:
        text, _ = outputs(capsys, sv(folder, *given), code=2)
        assert f"1 speaker of the cohort {folder}/cohort.parquet is also among" in text
    text, answer = outputs(capsys, sv(folder, *given, "--allow-overlap"))
    assert answer["overlap"]["cohort_speakers"] == shared
    unknown = answer["overlap"]["cohort_ids_of_unknown_corpora"]
    assert unknown == (embeddings == "embeddings.parquet" and not words)
    assert ("Overlap   1 speaker id is both in" in text) == bool(unknown)


def test_a_file_of_speakers_says_who_is_in_the_cohort(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ours").write_text("".join(f"{name} {name[6]}\n" for name in NAMES))
    (folder / "theirs").write_text("".join(f"{name} {name[6]}\n" for name in OTHERS))
    given = ["--cohort", folder / "cohort.parquet", "--cohort-utt2spk", folder / "theirs"]
    words = sv(folder, *given, "--utt2spk", folder / "ours", "--same-ids")
    assert "1 speaker of the cohort" in outputs(capsys, words, code=2)[0]


@pytest.mark.parametrize("words", [["--same-ids"], ["--corpus", "A"], ["--cohort-corpus", "A"]])
def test_what_needs_a_cohort_is_refused_without_it(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _ = outputs(capsys, sv(folder, *words), code=2)
    assert f"{words[0]} goes with --cohort, which is missing." in text


def test_ossi_refuses_an_enrolled_probe_and_goes_on_if_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "gallery").write_text(f"{NAMES[0]} 0\n{NAMES[3]} 1\n")
    (folder / "probe").write_text(f"{NAMES[1]} 0\n{NAMES[3]} 1\n{NAMES[6]} 2\n")
    given = ["--protocol", folder, "--embeddings", folder / "embeddings.parquet", "--far", "0.5"]
    words = ["score", "ossi", *map(str, given)]
    text, _ = outputs(capsys, words, code=2)
    assert f"is also enrolled, such as {folder}/probe, line 2: {NAMES[3]!r}" in text
    text, answer = outputs(capsys, [*words, "--allow-overlap"])
    assert answer["protocols"][0]["overlap"]["enrolled_probes"] == 1
    assert f"Overlap   1 probe of {folder.name} is also enrolled" in text
