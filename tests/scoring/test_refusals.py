"""Every refusal of a file names the file, the line, and what is accepted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import read_conditions, read_embeddings, read_trials
from voxblink2_lib.scoring.enrolment import read_enrolment, read_speakers
from voxblink2_lib.scoring.score_files import match_scores, read_scores
from voxblink2_lib.scoring.trial_lists import read_labelled

TRIALS = "# two\n1 a b\n\n0 c d\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("trials").write_text(TRIALS)
    return tmp_path


def conditions(path: str) -> Any:
    return read_conditions(path, read_trials("trials"))


def matched(path: str) -> Any:
    return match_scores(read_scores(path), read_trials("trials"))


CASES: list[tuple[Callable[[str], Any], str | bytes, str]] = [
    (read_trials, "1 a b\nx a b\n", r"^f, line 2: the label is 'x'\. Allowed are '1 enrol test'"),
    (read_trials, "1 a b\n1 a\n", r"^f, line 2: '1 a' has 2 words, but line 1 has 3\. Allowed"),
    (read_trials, "hello\n", r"^f, line 1: 'hello' is not a trial\. Allowed are '1 enrol test'"),
    (read_trials, "\n# x\n", r"^f is empty\. Allowed are '1 enrol test'"),
    (read_trials, b"1 a b\n1 \xe9 b\n", r"^f, line 2: byte b'\\xe9' is not UTF-8 text\. Save the"),
    (read_trials, b"\xff\xfe1\0 \0a", r"^f is not whole UTF-16 text: .* Copy .* allowed are whole"),
    (read_trials, gzip.compress(b"1 a b\n" * 99)[:-6], r"^f cannot be read: .*Copy the file again"),
    (read_scores, "a b .5 1\na c nan 0\n", r"^f, line 2: .* the score 'nan'; allowed are finite"),
    (read_scores, "a b x\n", r"^f, line 1: 'a b x' is not the score of a trial\. Allowed are 'enr"),
    (matched, "a b .5\na b .6\nc d 1\n", r"^f, line 1 and f, line 2 are the same trial, 'a' aga"),
    (
        matched,
        "a b .5 0\nc d .4 0\n",
        r"^f, line 1: 'a' against 'b' is a non-target trial there, and a target trial in the list "
        r"\(trials, line 2\); labels differ in 1 of 2 trials\. Mend one",
    ),
    (matched, "a b .5\n", r"^1 of 2 trials have no score in f; the first is trials, line 4, 'c' a"),
    (read_enrolment, "m a\nn\n", r"^f, line 2: 'n' has no utterance\. Allowed are 'model utter"),
    (read_enrolment, "", r"^f is empty\. Allowed are 'model utterance'"),
    (read_speakers, "a b\nc d\na c\n", r"^f, line 3: 'a' has the speaker 'c' here, and 'b' befor"),
    (read_labelled, "a 1\nb\n", r"^f, line 2: 'b' has 1 word, but line 1 has 2\. Each line holds"),
    (conditions, "a x\na y\n", r"^f, line 2: 'a' has condition 'y' here, and condition 'x' before"),
    (conditions, "a b c d\n", r"^f, line 1: 'a b c d' is not the condition .* Allowed are 'utter"),
    (conditions, "a b x\n", r"^1 of 2 trials have no value in f; the first is trials, line 4, 'c'"),
    (
        conditions,
        "a b x\na b y\nc d x\n",
        r"^f, line 1 and f, line 2 are the same trial, 'a' against 'b', with two values\. Keep one",
    ),
]


@pytest.mark.parametrize(
    ("read", "content", "message"), CASES, ids=[str(row) for row in range(len(CASES))]
)
def test_text(read: Callable[[str], Any], content: str | bytes, message: str) -> None:
    Path("f").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ScoringError, match=message):
        read("f")


@pytest.mark.parametrize(
    ("read", "columns", "message"),
    [
        (read_trials, {"enrol": ["a", None]}, r"^f.parquet, row 1: it has no enrolment\. Allowed"),
        (read_trials, {"label": ["1", "x"]}, r"^f.parquet, row 1: the label is 'x'\. Allowed are"),
        (
            read_scores,
            {"score": [1.0, float("nan")]},
            r"^f.parquet, row 1: the score is nan; allowed are finite numbers\. Allowed are 'enrol",
        ),
        (
            read_scores,
            {"score": ["0.5", "x"]},
            r"^f.parquet, column 'score': it is of the type string; allowed are numbers\. Allowed",
        ),
        (
            read_scores,
            {},
            r"^f.parquet: the columns enrol, test are not those of the score of a tr",
        ),
    ],
)
def test_parquet(read: Callable[[str], Any], columns: dict[str, list[Any]], message: str) -> None:
    pq.write_table(pa.table({"enrol": ["a", "b"], "test": ["c", "d"]} | columns), "f.parquet")
    with pytest.raises(ScoringError, match=message):
        read("f.parquet")


def test_a_file_that_ends_too_early_is_read_to_a_line_that_is_named() -> None:
    content = gzip.compress(b"1 aaaa bbbb\n" * 800_000, 0)
    Path("f").write_bytes(content[: 9 << 20])
    with pytest.raises(ScoringError, match=r"^f, behind line 699,050, cannot be read: Compressed"):
        read_trials("f")


def test_an_ark_that_is_not_there_is_named_with_its_line() -> None:
    Path("f.scp").write_text("a nowhere.ark:3\n")
    with pytest.raises(ScoringError, match=r"^f.scp: line 1 names 'nowhere.ark', which is no fi"):
        read_embeddings("f.scp")
