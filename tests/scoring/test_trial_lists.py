"""Lists of trials in every format in use, line by line."""

from __future__ import annotations

import gzip
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import list_files, list_text
from voxblink2_lib.scoring.trial_lists import read_labelled, read_trials
from voxblink2_lib.scoring.trials import TrialList

Trial = tuple[str, str, bool]

# The same four trials in every format below.
FOUR: list[Trial] = [
    ("id10270/5r0dWxy17C8/00001.wav", "id10270/x6uYqmx31kE/00002.wav", True),
    ("id10270/5r0dWxy17C8/00001.wav", "id10300/ize_eiCFEg0/00003.wav", False),
    ("id10300/ize_eiCFEg0/00003.wav", "id10270/x6uYqmx31kE/00002.wav", False),
    ("id10300/-bOuZcXvS3c/00007.wav", "id10300/ize_eiCFEg0/00003.wav", True),
]
# Words that a reader of CSV could take for something else.
NAMES = ["a/1.wav", "b", "NA", "null", "nan", "", "#c", '"d"', "'", "é/ü", "名", "-x", "1e5", "00"]
NAMES = [name for name in NAMES if name] + ["2", "True", "\\N", "a;b", "a|b", "a:b", "\ufeffz"]


def lines_of(trials: list[Trial], template: str, words: tuple[str, str] = ("0", "1")) -> str:
    return "".join(
        template.format(enrol=enrol, test=test, label=words[label]) for enrol, test, label in trials
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def listed(result: TrialList) -> list[Trial]:
    """Return the trials in words, and check that a list is what it says."""
    assert result.labels is not None
    assert len(set(result.names)) == len(result.names)
    assert (result.enrolment.dtype, result.test.dtype, result.labels.dtype) == (
        np.dtype(np.int64),
        np.dtype(np.int64),
        np.dtype(bool),
    )
    rows = np.concatenate([result.enrolment, result.test])
    np.testing.assert_array_equal(np.unique(rows), np.arange(len(result.names)))
    return [
        (result.names[a], result.names[b], label)
        for a, b, label in zip(
            result.enrolment.tolist(), result.test.tolist(), result.labels.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("inner", ["data/test_vox", "test_vox", "."])
def test_the_release_may_be_named(inner: str, tmp_path: Path) -> None:
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    write(tmp_path / inner / "trials", "1 a b\n0 a c\n")
    assert read_trials(tmp_path).names == ["a", "b", "c"]
    with pytest.raises(ScoringError, match="cannot be read"):
        read_trials("x" * 5000)


def of_text(path: Path, text: str | bytes) -> list[Trial]:
    return listed(read_trials(write(path / "trials.txt", text)))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_text, "_CHUNK_BYTES", 100)


# -- Formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{label} {enrol} {test}\n", ("0", "1")),
        ("{enrol} {test} {label}\n", ("nontarget", "target")),
        ("{enrol} {test} {label}\n", ("NonTarget", "Target")),
        ("{enrol} {test} {label}\n", ("0", "1")),
        ("{label}\t{enrol}\t{test}\n", ("0", "1")),
        ("{enrol}\t{test}\t{label}\n", ("nontarget", "target")),
        ("{label},{enrol},{test}\n", ("0", "1")),
        ("{enrol},{test},{label}\n", ("0", "1")),
        ("{enrol},{test},{label}\n", ("nontarget", "target")),
        ("{enrol}, {test}, {label}\n", ("0", "1")),
        ("{label}   {enrol}     {test}\n", ("0", "1")),
        ("  {label} {enrol} {test}\n", ("0", "1")),
        (" {label} {enrol} {test}\n", ("0", "1")),
        ("{label} {enrol} {test} \n", ("0", "1")),
        ("{label} {enrol} {test}\t\n", ("0", "1")),
        ("\t{label} {enrol}\t {test}  \n", ("0", "1")),
        ("{label} {enrol} {test}\r\n", ("0", "1")),
        ("{label} {enrol} {test} \r\n", ("0", "1")),
        ("{enrol}\t{test}\t{label}\r\n", ("0", "1")),
        ("{enrol},{test},{label}\r\n", ("nontarget", "target")),
        ("{label} {enrol} {test}\n\n", ("0", "1")),
        ("\n\n{label} {enrol} {test}\n", ("0", "1")),
        ("{label} {enrol} {test}\r\n\r\n", ("0", "1")),
        ("{label} {enrol} {test}\n  \n \t\n", ("0", "1")),
        ("{enrol}\t{test}\t{label}\r\n \r\n\t\r\n", ("0", "1")),
    ],
)
def test_every_format_is_read(tmp_path: Path, template: str, words: tuple[str, str]) -> None:
    for before in ("", "\ufeff"):
        text = before + lines_of(FOUR, template, words)
        assert of_text(tmp_path, text) == FOUR
        assert of_text(tmp_path, text.rstrip()) == FOUR  # no new line at the end


@pytest.mark.parametrize("separator", [" ", "\t", ","])
def test_what_ends_a_file_without_a_new_line_does_not_matter(
    tmp_path: Path, separator: str
) -> None:
    text = lines_of(FOUR, "{label} {enrol} {test}\n").rstrip().replace(" ", separator)
    for end in (" ", "  ", "\t", ","):
        assert of_text(tmp_path, text + end) == FOUR


HEADERS = [
    ("enrol,test,label\n", "{enrol},{test},{label}\n"),
    ("label,test,enrol\n", "{label},{test},{enrol}\n"),
    ("test,label,enrol\n", "{test},{label},{enrol}\n"),
    ("Enrolment,Test,Target\r\n", "{enrol},{test},{label}\r\n"),
    ("label enroll test\n", "{label} {enrol} {test}\n"),
    ("LABEL\tTEST\tENROLLMENT\n", "{label}\t{test}\t{enrol}\n"),
    ("\n\nenrol, test, label\n\n", "{enrol}, {test}, {label}\n"),
]


@pytest.mark.parametrize(("header", "template"), HEADERS)
def test_a_header_names_the_columns(tmp_path: Path, header: str, template: str) -> None:
    # Were the header's words kept, said() would find names that no trial has.
    for words in (("0", "1"), ("nontarget", "target")):
        text = header + lines_of(FOUR, template, words)
        assert of_text(tmp_path, text) == FOUR
        assert of_text(tmp_path, "\ufeff" + text) == FOUR


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("header", "template"), HEADERS)
def test_a_header_is_that_of_all_chunks(tmp_path: Path, header: str, template: str) -> None:
    assert of_text(tmp_path, header + lines_of(FOUR * 9, template)) == FOUR * 9


def test_names_that_look_like_a_header_or_a_label_are_names(tmp_path: Path) -> None:
    trials = [("enrol", "test", True), ("label", "target", False), ("1", "0", True)]
    text = "a b target\n" + lines_of(trials, "{enrol} {test} {label}\n", ("nontarget", "target"))
    assert of_text(tmp_path, text) == [("a", "b", True), *trials]
    text = "1 a b\n" + lines_of(trials, "{label} {enrol} {test}\n")
    assert of_text(tmp_path, text) == [("a", "b", True), *trials]


def test_a_label_in_front_and_behind_is_the_one_behind(tmp_path: Path) -> None:
    assert of_text(tmp_path, "1 a 0\n0 a 1\n") == [("1", "a", False), ("0", "a", True)]


def test_a_name_is_one_row_on_both_sides_and_in_all_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = lines_of(FOUR * 50, "{label} {enrol} {test}\n")
    whole = read_trials(write(tmp_path / "a.txt", text))
    assert sorted(whole.names) == sorted({name for trial in FOUR for name in trial[:2]})
    monkeypatch.setattr(list_text, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(list_files, "_BLOCK_BYTES", 300)
    parts = read_trials(tmp_path / "a.txt")
    assert sorted(parts.names) == sorted(whole.names)
    assert listed(parts) == listed(whole) == FOUR * 50


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1 a b\n")
    assert listed(read_trials(str(tmp_path / "a.txt"))) == [("a", "b", True)]


# -- Against a naive reader ------------------------------------------------------------------------


def naive(text: str) -> list[Trial]:
    """Read trials whose first column is the label."""
    result = []
    for line in re.split(r"\r?\n", text.removeprefix("\ufeff")):
        words = re.split(r"[ \t,]+", line.strip(" \t,"))
        if words != [""]:
            label, enrol, test = (re.sub('^"(.+)"$', r"\1", word) for word in words)
            result.append((enrol, test, label == "1"))
    return result


@st.composite
def lists_of_trials(draw: st.DrawFn) -> str:
    plain = draw(st.booleans())
    between = st.sampled_from([" "] if plain else [" ", "\t", ",", "  ", " \t", ", "])
    around = st.sampled_from([""] if plain else ["", " ", "\t", "  "])
    ends = st.sampled_from(["\n"] if plain else ["\n", "\r\n", "\n\n", "\r\n\r\n", " \n", "\n \n"])
    name = st.one_of(
        st.sampled_from(NAMES), st.from_regex(r"[a-zé][a-z0-9/_.-]{0,12}", fullmatch=True)
    )
    text = draw(st.sampled_from(["", "\ufeff", "\n", "\n\r\n"]))
    for _ in range(draw(st.integers(1, 25))):
        words = [draw(st.sampled_from("01")), draw(name), draw(name)]
        line = words[0] + draw(between) + words[1] + draw(between) + words[2]
        text += draw(around) + line + draw(around) + draw(ends)
    return text.rstrip(" \t\r\n") if draw(st.booleans()) else text


@given(
    text=lists_of_trials(),
    chunk_bytes=st.sampled_from([1, 2, 3, 5, 17, 40, 1 << 20]),
    block_bytes=st.sampled_from([200, 333, 1 << 20]),
)
def test_borders_of_chunks_and_blocks_do_not_show(
    tmp_path_factory: pytest.TempPathFactory, text: str, chunk_bytes: int, block_bytes: int
) -> None:
    path = write(tmp_path_factory.mktemp("lists") / "trials.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(list_files, "_BLOCK_BYTES", block_bytes)
        assert listed(read_trials(path)) == naive(text)


def test_many_trials_in_real_blocks(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 3000, (2, 300_000))
    names = [f"id{10000 + row // 10}/video{row % 10:06}/{row:05}.wav" for row in range(3000)]
    labels = rows[0] // 10 == rows[1] // 10
    text = "\n".join(
        f"{int(label)} {names[a]} {names[b]}" for label, a, b in zip(labels, *rows, strict=True)
    )
    assert len(text) > list_files._BLOCK_BYTES  # so several threads read
    result = read_trials(write(tmp_path / "trials.txt", text))
    at = np.array([names.index(name) for name in result.names])
    np.testing.assert_array_equal(at[result.enrolment], rows[0])
    np.testing.assert_array_equal(at[result.test], rows[1])
    np.testing.assert_array_equal(result.labels, labels)


# -- Wrong lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [1, 2, 40, 100])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("1 only/two", r"'1 only/two' has 2 words, but line {first} has 3"),
        ("one", r"'one' has 1 word, but line {first} has 3"),
        (
            "1 now/there are/four words",
            r"'1 now/there are/four words' has 4 words, but line {first}",
        ),
        ("2 a b", r"the label is '2'\. Allowed are '1 enrol test'.* Labels are 1\|0, 1\.0\|0\.0"),
        ("yes a b", r"the label is 'yes'\. Allowed are"),
    ],
)
def test_the_line_that_is_wrong_is_named(
    tmp_path: Path, line: int, wrong: str, message: str
) -> None:
    lines = [f"{number % 2} some/{number} other/{number}" for number in range(100)]
    lines[line - 1] = wrong
    path = tmp_path / "trials.txt"
    # Lines are those of an editor: blank ones and comments count.
    texts = {1: "\n".join(lines), 2: "\n# a comment\n" + "\n\n".join(lines)}
    for (step, text), chunk_bytes in product(texts.items(), (10, 300, 1 << 20)):
        write(path, text)
        first = 1 if step == 1 else 3
        expected, number = message.format(first=first), first + step * (line - 1)
        if line == 1:  # which shows what the others must be
            four = "four" in wrong
            number = first + step * four
            expected = "has 3 words, but line . has 4" if four else f"'{wrong}' is not a trial"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
            patch.setattr(list_files, "_BLOCK_BYTES", 250)
            with pytest.raises(ScoringError, match=expected) as caught:
                read_trials(path)
        assert str(caught.value).startswith(f"{path}, line {number}:")
        assert "Allowed are '1 enrol test', 'enrol test target|nontarget'" in str(caught.value)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("chunk_bytes", [10, 1 << 20])
def test_the_header_is_a_line_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
    path = write(tmp_path / "trials.csv", "enrol,test,label\na,b,1\na,c,0\na,d,maybe\n")
    with pytest.raises(ScoringError, match=r"line 4: the label is 'maybe'"):
        read_trials(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty\. Allowed are"),
        ("\n\n", r"is empty"),
        (" \t\n\r\n ,\n", r"is empty"),
        ("\ufeff", r"is empty"),
        ("enrol,test,label\n", r"contains no trial\. Allowed are"),
        ("label enrol test", r"contains no trial"),
        ("a b c\n", r"line 1: 'a b c' is not a trial\. Allowed are '1 enrol test'"),
        ("enrol,enrol,label\na,b,1\n", r"line 1: 'enrol,enrol,label' is not a trial"),
        ("score,test,label\na,b,1\n", r"line 1: 'score,test,label' is not a trial"),
        ("1.5 a b\n", r"line 1: '1\.5 a b' is not a trial"),
        ("enrol,test,label\na,b,1\n,b,1\n", r"line 3: ',b,1' has no enrolment"),
        (
            b"1 a b\n1 a\xff b\n",
            r"line 2: byte b'\\xff' is not UTF-8 text\. Save the list as UTF-8",
        ),
        ("1 a b\n0 a b\n".encode("utf-16-le"), r"line 1: a byte of zero is not UTF-8 text"),
        ("1 a b\n0 a b\n".encode("utf-16")[:-1], r"is not whole UTF-16 text"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00 \xff\xff", r"cannot be read: Error -3"),
        (
            gzip.compress(b"1 a b\n" * 99, mtime=0)[:-9],
            r"cannot be read: Compressed file ended before",
        ),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path / "trials.txt", text)
    with pytest.raises(ScoringError, match=message) as caught:
        read_trials(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory")):
        for reader in (read_trials, read_labelled):
            with pytest.raises(ScoringError, match=rf"{path} cannot be read: {why}"):
                reader(path)


# -- Lists of utterances and labels ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a/1 3\nb/2 0\na/1 x\n",
        "\ufeffa/1\t3\r\nb/2\t0\r\na/1\tx",
        "\n a/1   3 \n\nb/2, 0\na/1 x ",
        "a/1 3\nb/2 0\na/1 x ",
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
def test_labelled_utterances_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk_bytes: int
) -> None:
    monkeypatch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
    path = write(tmp_path / "gallery", text)
    assert read_labelled(path) == (["a/1", "b/2", "a/1"], ["3", "0", "x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty\. Each line holds an utterance and its label\."),
        ("a 1\nb\n", r"line 2: 'b' has 1 word, but line 1 has 2\. Each line holds an utterance"),
        ("a 1\n\nb 2 3\n", r"line 3: 'b 2 3' has 3 words, but line 1 has 2"),
    ],
)
def test_a_line_without_a_label_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "gallery", text)
    with pytest.raises(ScoringError, match=message) as caught:
        read_labelled(path)
    assert str(path) in str(caught.value)
