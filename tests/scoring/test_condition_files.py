"""Conditions by utterance and by trial: every form of file, names, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import read_conditions
from voxblink2_lib.scoring.condition_files import Condition
from voxblink2_lib.scoring.enrolment import EnrolmentMap
from voxblink2_lib.scoring.trials import TrialList

# a against b, a against c, c against a, and a against b again.
TRIALS = TrialList(
    ["a.wav", "b.wav", "c.wav"], np.array([0, 0, 2, 0]), np.array([1, 2, 0, 1]), None
)
PAIRED = ["f", "f/m", "m/f", "f"]
BY_UTTERANCE = {
    "plain": "a f\nb f\nc m\n",
    "comma": "a.wav,f\nb.wav,f\nc.wav,m\n",
    "header": "utterance\tgender\na\tf\nb\tf\nc\tm\n",
    "other columns": "side;gender;segmentid;label\nx;f;a.sph;1\nx;f;b.sph;1\nx;m;c.sph;1\n",
    "repeated": "# comment\n\na f\r\nb f\r\na f\r\nc m\r\n",
}
BY_TRIAL = {
    "plain": "a b f\na c f/m\nc a m/f\n",
    "header": "gender,test,enrol\nf,b,a\nf/m,c,a\nm/f,a,c\n",
    "NIST": "modelid\tsegmentid\ttargettype\tgender\na\tb\tx\tf\na\tc\tx\tf/m\nc\ta\tx\tm/f\n",
    "others": "a b f\na b f\nb b z\na c f/m\nc a m/f\n",
}


def words(condition: Condition) -> list[str]:
    return [condition.values[code] for code in condition.codes]


@pytest.mark.parametrize("text", [*BY_UTTERANCE.values(), *BY_TRIAL.values()])
def test_every_form_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "conditions"
    for content in (text.encode(), gzip.compress(text.encode("utf-16"))):
        path.write_bytes(content)
        columns = ["gender"] if "gender" in text else []
        (condition,) = read_conditions(path, TRIALS, columns=columns)
        assert condition.name == ("gender" if columns else "condition")
        assert (words(condition), condition.values) == (PAIRED, ["f", "f/m", "m/f"])


def test_every_other_column_is_a_condition_unless_some_are_named(tmp_path: Path) -> None:
    text = "utt,gender,score,Duration Bin\na,f,0.5,long\nb,f,0.5,long\nc,m,0.5,short\n"
    path = tmp_path / "conditions.csv"
    path.write_text(text)
    both = read_conditions(path, TRIALS)
    assert [condition.name for condition in both] == ["gender", "Duration Bin"]
    assert words(both[1]) == ["long", "long/short", "short/long", "long"]
    (named,) = read_conditions(path, TRIALS, columns=["Duration Bin"])
    assert words(named) == words(both[1])
    table = {"enrol": ["a", "a", "c"], "test": ["b", "c", "a"], "bin": [1, 2, 1]}
    pq.write_table(pa.table(table), tmp_path / "conditions.parquet")
    (read,) = read_conditions(tmp_path / "conditions.parquet", TRIALS)
    assert (read.name, words(read)) == ("bin", ["1", "2", "1", "1"])


def test_a_model_has_the_value_of_its_first_utterance_or_its_own(tmp_path: Path) -> None:
    trials = TrialList(["m1", "m2", "x"], np.array([0, 1]), np.array([2, 2]), None)
    models = EnrolmentMap({"m1": ["a", "b"], "m2": ["b", "a"]}, "map")
    path = tmp_path / "conditions"
    path.write_text("a f\nb m\nx f\n")
    assert words(read_conditions(path, trials, models=models)[0]) == ["f", "m/f"]
    path.write_text("a f\nb m\nx f\nm2 f\n")
    assert words(read_conditions(path, trials, models=models)[0]) == ["f", "f"]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", [], r"conditions is empty\. Allowed are 'utterance value', 'enrol test value', or"),
        ("a\n", [], r"line 1: 'a' is not the condition of an utterance or a trial\. Allowed are"),
        ("a f\n\nb f x\n", [], r"line 3: 'b f x' has 3 words, but line 1 has 2\. Allowed are"),
        ("a f\n", ["gender"], r"has no header, so it has no column 'gender'\. Allowed are"),
        ("utt,sex\na,f\n", ["gender"], r"has no column 'gender'; conditions in it are sex\."),
        ("utt,x,x\na,f,f\n", [], r"has 2 columns 'x'; conditions in it are x\."),
        ("utt,label\na,1\n", [], r"has no column of a condition\. Allowed are"),
        ("utt,sex\n", [], r"conditions contains no condition\. Allowed are"),
        ("utt,sex\na,\nb,f\n", [], r"conditions, line 2: 'a,' has no sex\. Allowed are"),
        ("a f\nb f\na m\n", [], r"line 3: 'a' has condition 'm' here, and condition 'f' before\."),
        ("a f\nb f\n", [], r"1 of 3 names have no value in .*: 'c\.wav' \(nearest: '.'\)\. Add li"),
        (
            "a b f\na b m\na c f\nc a f\n",
            [],
            r"line 2 are the same trial, 'a' against 'b', with two values\. Keep one of them",
        ),
        (
            "a b f\nc a f\n",
            [],
            r"1 of 4 trials have no value in .*; the first is trial 2, 'a\.wav' against 'c\.wav'\. "
            r"Add lines 'enrol test value'",
        ),
        (
            "a b f\na d f\n",
            [],
            r"2 of 4 trials have no value .* Names without a match: 'c\.wav' \(nearest: '.'\)\.",
        ),
    ],
)
def test_what_is_refused_is_named(text: str, columns: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "conditions"
    path.write_text(text)
    with pytest.raises(ScoringError, match=message):
        read_conditions(path, TRIALS, columns=columns)


def test_numbers_are_no_condition(tmp_path: Path) -> None:
    names = [str(number) for number in range(201)]
    trials = TrialList(names, np.arange(201), np.arange(201), None)
    path = tmp_path / "conditions"
    for text in ("".join(f"{n} {n}s\n" for n in names), "".join(f"{n} {n} {n}s\n" for n in names)):
        path.write_text(text)
        with pytest.raises(
            ScoringError, match=r"'condition' has 201 values among the trials, more than 200\. Sort"
        ):
            read_conditions(path, trials)
