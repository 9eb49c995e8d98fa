"""``score verify``: a result names its files by hash, and gives the same numbers again."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib import cli
from voxblink2_lib.cli import main
from voxblink2_lib.cli.score_result import INPUTS
from voxblink2_lib.files import sha256_of
from voxblink2_lib.scoring import result_check

NAMES = [f"id{10000 + s}/abcdefghij{s}/{n:05}.wav" for s in range(12) for n in range(3)]
PAIRS = [(NAMES[i], NAMES[j], i // 3 == j // 3) for i in range(36) for j in range(i)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with trials, embeddings, a cohort, conditions and protocols: the current one."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(13)
    vectors = np.repeat(generator.normal(size=(12, 8)), 3, axis=0)
    vectors += 1.1 * generator.normal(size=(36, 8))
    Path("trials").write_text("".join(f"{int(c)} {a} {b}\n" for a, b, c in PAIRS))
    Path("bare").write_text("".join(f"{a} {b}\n" for a, b, _ in PAIRS))
    Path("gender").write_text("".join(f"{n} {'mf'[i // 3 % 2]}\n" for i, n in enumerate(NAMES)))
    Path("map").write_text("".join(f"m{i} {NAMES[i]} {NAMES[i + 1]}\n" for i in (0, 9, 21)))
    Path("models").write_text("".join(f"{int(i == j)} m{i} {NAMES[j + 2]}\n" for i in (0, 9, 21)
                                      for j in (0, 9, 21)))  # fmt: skip
    for name, names, rows in (
        ("embeddings", NAMES, vectors),
        ("cohort", [f"c{row}" for row in range(9)], generator.normal(size=(9, 8))),
    ):
        table = pa.table({"utterance": names, "embedding": list(rows.astype(np.float32))})
        pq.write_table(table, f"{name}.parquet")
    np.save("array.npy", vectors.astype(np.float32))
    Path("array.txt").write_text("\n".join(NAMES))
    Path("ossi/p1").mkdir(parents=True)
    lines = [f"{name} {row // 3}\n" for row, name in enumerate(NAMES)]
    Path("ossi/p1/gallery").write_text("".join(lines[:18:3]))
    Path("ossi/p1/probe").write_text("".join(lines[1:18:3] + lines[18:]))
    return tmp_path


Run = Callable[..., Any]


@pytest.fixture
def score(files: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of ``score``; return its object, of a refusal the message."""

    def run(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert main(["score", *map(str, words), "--json"]) == code
        record = json.loads(capsys.readouterr().out)
        return record["message"] if code == 2 else record

    return run


def kept(score: Run, *words: object) -> Path:
    """Score, keep what is printed, and return the file."""
    path = Path("result.json")
    path.write_text(json.dumps(score(*words)))
    return path


SV = ("sv", "--trials", "trials", "--embeddings", "embeddings.parquet")
COMMANDS: dict[str, tuple[object, ...]] = {
    "sv": SV,
    "options": (*SV, "--p-target", 0.01, 0.5, "--interval", "speakers", "--missing", "skip"),
    "cohort": (*SV, "--cohort", "cohort.parquet", "--top-n", 5, "--same-ids", "--corpus", "a b"),
    "centred": (*SV, "--cohort", "cohort.parquet", "--centre", "cohort", "--norm", "as-norm2"),
    "centred by a file": (*SV, "--centre", "cohort.parquet", "--preset", "sre21"),
    "conditions": (*SV, "--condition", "gender", "--interval", "trials"),
    "models": (*SV[:2], "models", *SV[3:], "--enrol", "map", "--enrolment", "max"),
    "array": (*SV[:4], "array.npy"),
    "file": ("file", "scores.txt", "--trials", "trials"),
    "ossi": ("ossi", "--protocol", "ossi", *SV[3:], "--far", 0.1, 0.5, "--interval", "probes"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_result_gives_every_number_again(words: tuple[object, ...], score: Run) -> None:
    if "scores.txt" in words:
        score(*SV, "--out", "scores.txt")
    checked = score("verify", kept(score, *words))
    assert checked["verified"]
    assert (checked["tolerance"], checked["differences"]) == (0, [])
    assert checked["compared"] > 12
    assert all(file["agrees"] for file in checked["files"])


def test_a_result_says_what_it_was_made_of(score: Run) -> None:
    words = ("--p-target", 0.1, "--condition", "gender", "--enrol", "map", "--utt2spk", "gender")
    record = score(*SV[:2], "models", *SV[3:], *words)
    proof = record["proof"]
    inputs = {
        "trials": "models",
        "embeddings": "embeddings.parquet",
        "enrol": "map",
        "utt2spk": "gender",
        "condition": "gender",
    }
    assert proof["inputs"] == {
        name: {"path": path, "sha256": sha256_of(Path(path))} for name, path in inputs.items()
    }
    assert proof["options"] == {
        "missing": "error",
        "p_target": [0.1],
        "condition": [],
    }
    assert (proof["command"], proof["model"]) == ("score sv", None)
    assert {"voxblink2", "numpy", "scipy", "processor"} <= proof["versions"].keys()
    assert (record["trials"], record["scored"]) == (9, 9)


def test_every_option_that_names_a_file_is_an_input() -> None:
    (commands,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    (group,) = (
        a for a in commands.choices["score"]._actions if isinstance(a, argparse._SubParsersAction)
    )
    outputs = {"plot", "out", "result"}
    audio = {"audio", "model", "segments"}  # of these come embeddings, which are an input
    places = {"FILE", "FILE|cohort", "MAP", "KEY", "DIR", "SCORES", "PLACE"}
    named = {
        action.dest
        for command in ("sv", "ossi", "file")
        for action in group.choices[command]._actions
        if places & {action.metavar, *(action.metavar or ())}
    }
    assert named - outputs - audio == set(INPUTS)


def test_a_changed_file_is_named_with_both_hashes(score: Run, files: Path) -> None:
    result = kept(score, *SV)
    before = sha256_of(Path("trials"))
    Path("trials").write_text(Path("trials").read_text().replace("\n0", "\n1", 1))
    checked = score("verify", result, code=1)
    assert (checked["verified"], checked["compared"]) == (False, None)
    assert checked["files"][0] == {
        "input": "trials",
        "path": "trials",
        "recorded": before,
        "here": sha256_of(Path("trials")),
        "agrees": False,
    }


def test_people_are_told_what_changed(score: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = kept(score, *COMMANDS["ossi"])
    (old, new) = sha256_of(Path("ossi/p1/probe")), sha256_of(Path("trials"))
    shutil.copy("trials", "ossi/p1/probe")
    Path("ossi/p2").mkdir()
    shutil.copy("ossi/p1/gallery", "ossi/p2/probe")
    capsys.readouterr()
    assert main(["score", "verify", str(result)]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Files     2 of 4 have the SHA-256 of the result",
        "          protocol: ossi/p1/gallery",
        "Changed   protocol: ossi/p1/probe",
        f"          SHA-256 {old} in the result",
        f"          SHA-256 {new} here",
        f"New       protocol: ossi/p2/probe is not in the result, SHA-256 "
        f"{sha256_of(Path('ossi/p2/probe'))}",
        "          embeddings: embeddings.parquet",
        "Numbers   not computed again: they would be of other files",
    ]
    shutil.rmtree("ossi/p2")
    Path("ossi/p1/probe").unlink()
    assert main(["score", "verify", str(result)]) == 1
    assert f"Missing   protocol: ossi/p1/probe, with the SHA-256 {old}" in capsys.readouterr().out


def test_files_are_looked_for_beside_the_result_and_where_they_are_said_to_be(
    score: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out").mkdir()
    score(*SV[:4], "array.npy", "--out", "out/scores.csv")
    elsewhere = files.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.chdir(elsewhere)
    result = files / "out" / "scores.csv.json"
    assert score("verify", result)["verified"]
    (files / "array.npy").rename(files / "moved.npy")
    message = score("verify", result, code=2)
    assert "was made of embeddings '../array.npy', which is neither beside it nor here" in message
    assert message.endswith("Name its place: --embeddings PLACE.")
    (files / "array.txt").rename(files / "moved.txt")  # the names beside it are another file of it
    assert score("verify", result, "--embeddings", files / "moved.npy")["verified"]
    message = score("verify", result, "--cohort", files / "trials", code=2)
    assert "--cohort: " in message
    assert "It was made of trials, embeddings." in message


def test_scores_without_labels_are_computed_again_too(score: Run) -> None:
    score("sv", "--trials", "bare", *SV[3:], "--out", "scores.txt")
    result = Path("scores.txt.json")
    assert score("verify", result)["verified"]
    record = json.loads(result.read_text())
    record["proof"]["out"]["sha256"] = "0" * 64
    result.write_text(json.dumps(record))
    (difference,) = score("verify", result, code=1)["differences"]
    assert difference["name"] == "SHA-256 of the scores"


@pytest.mark.parametrize(
    ("shift", "other", "code"),
    [(0, False, 0), (1e-12, False, 1), (1e-12, True, 0), (2e-4, True, 1)],
)
def test_numbers_are_the_same_to_the_last_bit_unless_versions_differ(
    shift: float, other: bool, code: int, score: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = kept(score, *SV)
    record = json.loads(result.read_text())
    record["min_cllr"] += shift
    result.write_text(json.dumps(record))
    if other:
        versions = result_check.current_versions() | {"numpy": "1.99.0"}
        monkeypatch.setattr(result_check, "current_versions", lambda: versions)
    checked = score("verify", result, code=code)
    assert checked["tolerance"] == (1e-4 if other else 0)
    assert [each["name"] for each in checked["differences"]] == ["min_cllr"] * code
    here = np.__version__
    assert checked["other_versions"] == [f"numpy {here} there, 1.99.0 here"] * other


def changed(**keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda proof: proof.update(keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda proof: proof.clear(), r"has the format None of None; read are format 1 of"),
        (changed(format=2), r"has the format 2 of 'score sv'; read are format 1 .* that wrote it"),
        (changed(command="export"), r"of 'export'; read are format 1 of score sv, score ossi"),
        (changed(inputs={}), r"the key 'proof' is not what score writes: its inputs are"),
        (changed(inputs=3), r"the key 'proof' is not what score writes"),
        (changed(versions="new"), r"the key 'proof' is not what score writes"),
        (lambda proof: proof["options"].update(plot="x.png"), r"its options are not those of"),
        (lambda proof: proof["options"].update(out="x.txt"), r"its options are not those of"),
        (lambda proof: proof["options"].update(p_target=[0.1, "--plot=x.png"]), r"they are sv --"),
        (lambda proof: proof["options"].update(interval="days"), r"invalid choice: 'days'"),
        (lambda proof: proof["options"].update(speed=1), r"unrecognized arguments: --speed=1"),
        (lambda proof: proof["inputs"]["trials"].update(path="/dev/zero"), r"which is neither"),
    ],
)  # fmt: skip
def test_a_forged_result_writes_no_file_and_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, score: Run, files: Path
) -> None:
    result = kept(score, *SV)
    record = json.loads(result.read_text())
    change(record["proof"])
    result.write_text(json.dumps(record))
    before = sorted(files.iterdir())
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(score("verify", result, code=2))
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "does not say what it was made of"),
        ("[]", "cannot be read as a result of score (JSON): it is not an object"),
        ("{", "cannot be read as a result of score (JSON)"),
        ("[" * 100_000, "cannot be read as a result of score (JSON)"),
    ],
)
def test_what_is_no_result_is_refused(text: str, message: str, score: Run) -> None:
    Path("x.json").write_text(text)
    assert message in score("verify", "x.json", code=2)
    assert "there is no such file" in score("verify", "nowhere.json", code=2)
