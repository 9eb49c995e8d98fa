"""Files of scores: read in every form, written so that the same bits are read, found by trial."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import list_files, score_files
from voxblink2_lib.scoring.score_files import (
    SUFFIXES,
    ScoreFile,
    match_scores,
    read_scores,
    write_scores,
)
from voxblink2_lib.scoring.trials import ScoredTrials, TrialList

Row = tuple[str, str, float, bool | None]
TWO: list[Row] = [("a.wav", "b.wav", 0.75, True), ("a.wav", "c.wav", -1.5, False)]
BARE: list[Row] = [(*row[:3], None) for row in TWO]

FORMS: dict[str, tuple[str, list[Row]]] = {
    "Kaldi": ("a.wav b.wav 0.75\na.wav c.wav -1.5\n", BARE),
    "with labels": ("a.wav b.wav 0.75 target\na.wav c.wav -1.5 nontarget\n", TWO),
    "label before the score": ("a.wav b.wav 1 0.75\na.wav c.wav 0 -1.5\n", TWO),
    "label in front": ("1 a.wav b.wav 0.75\n0 a.wav c.wav -1.5\n", TWO),
    "VoxSRC": ("0.75 a.wav b.wav\n-1.5 a.wav c.wav\n", BARE),
    "VoxSRC with labels": ("0.75 a.wav b.wav 1\n-1.5 a.wav c.wav 0\n", TWO),
    "whole numbers": ("a b 1\na c -2\n", [("a", "b", 1.0, None), ("a", "c", -2.0, None)]),
    "score and label whole": ("a b 3 1\na c 0 0\n", [
        ("a", "b", 3.0, True), ("a", "c", 0.0, False)
    ]),
    "exponents": ("a b 7.5e-1 tgt\na c -.15e+1 imp\n", [
        ("a", "b", 0.75, True), ("a", "c", -1.5, False)
    ]),
    "plus signs": ("a b +0.75\na c -1.5\n", [("a", "b", 0.75, None), ("a", "c", -1.5, None)]),
    "names that are numbers": ("1001 1002 0.75\n", [("1001", "1002", 0.75, None)]),
    "names that are numbers, VoxSRC": ("0.75 1001 1002\n", [("1001", "1002", 0.75, None)]),
    "NIST": ("modelid\tsegmentid\tside\tLLR\nm1\tx.sph\ta\t0.75\n", [("m1", "x.sph", 0.75, None)]),
    "CSV": ("test,score,enrol,label\nb.wav,0.75,a.wav,True\nc.wav,-1.5,a.wav,False\n", TWO),
    "semicolons in quotes": ('"score";"utt1";"utt2"\n"0.75";"a.wav";"b.wav"\n', BARE[:1]),
}  # fmt: skip


def rows_of(file: ScoreFile) -> list[Row]:
    trials = file.trials
    labels = [None] * len(file.scores) if trials.labels is None else trials.labels.tolist()
    sides = ([trials.names[row] for row in rows] for rows in (trials.enrolment, trials.test))
    return list(zip(*sides, file.scores.tolist(), labels, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, rows = FORMS[form]
    path = tmp_path / "scores"
    packed = (text.encode(), gzip.compress(text.replace("\n", "\r\n").encode("utf-16")))
    for content in packed:
        path.write_bytes(content)
        assert rows_of(read_scores(path)) == rows
    monkeypatch.setattr(list_files, "_fast_columns", lambda *_: None)
    assert rows_of(read_scores(path)) == rows


def test_parquet_with_named_columns(tmp_path: Path) -> None:
    columns = {"Score": [0.75, -1.5], "enroll": ["a.wav"] * 2, "test": ["b.wav", "c.wav"]}
    pq.write_table(pa.table({**columns, "label": [1, 0]}), tmp_path / "scores.parquet")
    assert rows_of(read_scores(tmp_path / "scores.parquet")) == TWO
    pq.write_table(pa.table({**columns, "Score": [0.5, np.nan]}), tmp_path / "scores.parquet")
    with pytest.raises(ScoringError, match=r"scores.parquet, row 1: the score is nan; allowed"):
        read_scores(tmp_path / "scores.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty\. Allowed are 'enrol test score', 'enrol test score label', 'score enrol"),
        ("a b c\n", r"line 1: 'a b c' is not the score of a trial\. Allowed are"),
        ("1 2 3\n", r"line 1: '1 2 3' is not the score of a trial"),
        ("1.5 b 2.5\n", r"line 1: '1\.5 b 2\.5' is not the score of a trial"),
        (
            "a b 1.5\n\na b nan\n",
            r"line 3: 'a b nan' has the score 'nan'; allowed are finite decim",
        ),
        ("a b 1.5\na b inf\n", r"line 2: 'a b inf' has the score 'inf'"),
        ("a b 1.5\na b 1e999\n", r"line 2: .* has the score '1e999'"),
        ("a b 1.5\na b\n", r"line 2: 'a b' has 2 words, but line 1 has 3"),
        ("a b 1.5 tgt\na b 1.5 x\n", r"line 2: the label is 'x'\. Allowed are"),
        ("enrol;test;score\na;b;0,5\n", r"line 2: 'a;b;0,5' has the score '0,5'"),
        ("enrol,test\na,b\n", r"line 1: 'enrol,test' is not the score of a trial"),
        ("enrol,test,score\n", r"contains no trial"),
    ],
    ids=str,
)
def test_what_is_no_score_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.txt"
    path.write_text(text)
    with pytest.raises(ScoringError, match=message) as caught:
        read_scores(path)
    assert str(caught.value).startswith(str(path))


# -- There and back --------------------------------------------------------------------------------

NAMES = ["a", "b/1.wav", "名", "x y", "c,d", '"q"', "#c", "e;f", "1.5", "t\tab"]
WRITTEN = {
    ".txt": ["a", "b/1.wav", "名", "e;f"],
    ".csv": ["a", "b/1.wav", "名", "x y", "e;f", "1.5"],
    ".tsv": ["a", "b/1.wav", "名", "x y", "c,d", "e;f", "1.5"],
    ".parquet": NAMES,
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_scores_come_back_with_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    width: Any = data.draw(st.sampled_from([32, 64]))
    finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
    scores = np.array(data.draw(st.lists(finite, min_size=1, max_size=9)), f"f{width // 8}")
    count, names = len(scores), WRITTEN[suffix]
    sides = np.array(data.draw(st.lists(
        st.integers(0, len(names) - 1), min_size=2 * count, max_size=2 * count
    )))  # fmt: skip
    labels = data.draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    flags = None if labels is None else np.array(labels)
    trials = TrialList(names, sides[:count], sides[count:], flags)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    part = None if flags is None else flags[rows]
    scored = ScoredTrials(scores[rows], rows, sides[:count][rows], sides[count:][rows], part, [])
    path = tmp_path_factory.mktemp("scores") / f"scores{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_files, "_ROWS", data.draw(st.sampled_from([1, 2, 100])))
        write_scores(path, trials, scored)
    result = read_scores(path)
    expected = [
        (names[trials.enrolment[row]], names[trials.test[row]], float(scores[row]),
         None if flags is None else bool(flags[row]))
        for row in rows.tolist()
    ]  # fmt: skip
    assert rows_of(result) == expected
    assert np.signbit(result.scores).tolist() == np.signbit(scores[rows]).tolist()
    if width == 32:
        assert result.scores.dtype == np.float32


def single_score() -> ScoredTrials:
    row = np.array([0])
    return ScoredTrials(np.array([1.5]), row, row, row, None, [])


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv"])
def test_names_that_text_would_change_are_refused(suffix: str, tmp_path: Path) -> None:
    for name in set(NAMES) - set(WRITTEN[suffix]):
        trials = TrialList([name], np.array([0]), np.array([0]), None)
        scored = single_score()
        with pytest.raises(ScoringError, match=r"cannot be written in this format .* \.parquet"):
            write_scores(tmp_path / f"scores{suffix}", trials, scored)
    assert not list(tmp_path.iterdir())


def test_other_extensions_and_folders_are_refused(tmp_path: Path) -> None:
    trials = TrialList(["a"], np.array([0]), np.array([0]), None)
    scored = single_score()
    for name in ("scores", "scores.npy"):
        with pytest.raises(ScoringError, match=r"allowed are \.txt, \.csv, \.tsv, \.parquet"):
            write_scores(tmp_path / name, trials, scored)
    for name in ("none/scores.txt", "folder.txt"):
        (tmp_path / "folder.txt").mkdir(exist_ok=True)
        with pytest.raises(ScoringError, match="it is a folder, or in one that is missing"):
            write_scores(tmp_path / name, trials, scored)


# -- By trial --------------------------------------------------------------------------------------


def of(*rows: Any) -> ScoreFile:
    names = sorted({name for row in rows for name in row[:2]})
    enrolment, test = (np.array([names.index(row[side]) for row in rows]) for side in (0, 1))
    labels = np.array([row[3] for row in rows]) if len(rows[0]) > 3 else None
    return ScoreFile(
        TrialList(names, enrolment, test, labels), np.array([row[2] for row in rows]), "file"
    )


KEY = of(
    ("a", "b", 0, True), ("b", "a", 0, False), ("a", "c", 0, False), ("a", "b", 0, True)
).trials


def test_scores_are_found_by_trial() -> None:
    file = of(("x/a.wav", "b", 3.0), ("c", "c", 9.0), ("x/a.wav", "c", 1.0), ("b", "x/a.wav", 2.0))
    scored, others = match_scores(file, KEY)
    assert scored.scores.tolist() == [3, 2, 1, 3]
    assert (scored.rows.tolist(), scored.missing, others) == ([0, 1, 2, 3], [], 1)
    assert scored.labels is not None
    assert scored.labels.tolist() == [True, False, False, True]


@pytest.mark.parametrize("repeated", [("a", "b", 3.0), ("a", "c", 1.0)])
def test_a_trial_may_be_there_twice_with_one_score(repeated: Any) -> None:
    file = of(("a", "b", 3.0), ("a", "c", 1.0), ("b", "a", 2.0), repeated)
    assert match_scores(file, KEY)[0].scores.tolist() == [3, 2, 1, 3]
    with pytest.raises(
        ScoringError, match=r"trial \d and trial 4 are the same trial, 'a' .*, with the scores \d"
    ):
        match_scores(of(*(row[:3] for row in rows_of(file)[:3]), (*repeated[:2], 9.0)), KEY)


def test_missing_scores_are_named_or_counted() -> None:
    file = of(("a", "b", 3.0), ("a", "d", 1.0))
    with pytest.raises(
        ScoringError,
        match=r"2 of 4 trials have no score in file; the first is trial 2, 'b' against 'a'\. Names "
        r"without a match: 'c' \(nearest: '[abd]'\)\. .*--missing skip",
    ):
        match_scores(file, KEY)
    scored, others = match_scores(file, KEY, missing="skip")
    assert (scored.scores.tolist(), scored.rows.tolist()) == ([3, 3], [0, 3])
    assert (scored.missing, others) == (["c"], 1)
    with pytest.raises(
        ScoringError, match=r"4 of 4 trials have no score in file; the first is tri"
    ):
        match_scores(of(("x", "y", 1.0)), KEY, missing="skip")


def test_labels_that_differ_are_refused() -> None:
    file = of(("a", "b", 3.0, True), ("b", "a", 2.0, True), ("a", "c", 1.0, False))
    with pytest.raises(
        ScoringError,
        match=r"trial 2: 'b' against 'a' is a target trial there, and a non-target trial in the "
        r"list \(trial 2\); labels differ in 1 of 4 trials",
    ):
        match_scores(file, KEY)
