"""Lists of trials in every format in use, line by line; scores that do not depend on the row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, cosine

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import trials as trials_module
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.trials import (
    TrialList,
    cosine_scores,
    read_labelled,
    read_trials,
    score_trials,
    speakers_of,
)

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
    monkeypatch.setattr(trials_module, "_CHUNK_BYTES", 100)


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
    monkeypatch.setattr(trials_module, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(trials_module, "_BLOCK_BYTES", 300)
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
            label, enrol, test = words
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
        patch.setattr(trials_module, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(trials_module, "_BLOCK_BYTES", block_bytes)
        assert listed(read_trials(path)) == naive(text)


def test_many_trials_in_real_blocks(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 3000, (2, 300_000))
    names = [f"id{10000 + row // 10}/video{row % 10:06}/{row:05}.wav" for row in range(3000)]
    labels = rows[0] // 10 == rows[1] // 10
    text = "\n".join(
        f"{int(label)} {names[a]} {names[b]}" for label, a, b in zip(labels, *rows, strict=True)
    )
    assert len(text) > trials_module._BLOCK_BYTES  # so several threads read
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
        ("1 only/two", r"'1 only/two' has 2 words where 3 are needed"),
        ("one", r"'one' has 1 words where 3 are needed"),
        ("1 now/there are/four words", r"'1 now/there are/four words' has 4 words where 3 are nee"),
        ("2 a b", r"the label is '2'; allowed are 1, 0, target, nontarget"),
        ("yes a b", r"the label is 'yes'; allowed are 1, 0, target, nontarget"),
    ],
)
def test_the_line_that_is_wrong_is_named(
    tmp_path: Path, line: int, wrong: str, message: str
) -> None:
    if line == 1 and "label" in message:
        message = r"line 1: '.*' is not a trial"
    lines = [f"{number % 2} some/{number} other/{number}" for number in range(100)]
    lines[line - 1] = wrong
    path = tmp_path / "trials.txt"
    # Lines are those with words, as the message says.
    texts = ("\n".join(lines), "\n \n" + "\n\n".join(lines))
    for text, chunk_bytes in product(texts, (10, 300, 1 << 20)):
        write(path, text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trials_module, "_CHUNK_BYTES", chunk_bytes)
            patch.setattr(trials_module, "_BLOCK_BYTES", 250)
            with pytest.raises(ScoringError, match=message) as caught:
                read_trials(path)
        assert re.match(rf"{path}, line {line}\b", str(caught.value))
        assert "Allowed are '1 enrol test', 'enrol test target|nontarget'" in str(caught.value)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("chunk_bytes", [10, 1 << 20])
def test_the_header_is_a_line_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(trials_module, "_CHUNK_BYTES", chunk_bytes)
    path = write(tmp_path / "trials.csv", "enrol,test,label\na,b,1\na,c,0\na,d,maybe\n")
    with pytest.raises(ScoringError, match=r"line 4 .*the label is 'maybe'"):
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
        ("1.0 a b\n", r"line 1: '1\.0 a b' is not a trial"),
        ("enrol,enrol,label\na,b,1\n", r"line 1: 'enrol enrol label' is not a trial"),
        ("enrol,test,score\na,b,1\n", r"line 1: 'enrol test score' is not a trial"),
        ("target,test,label\na,b,1\n", r"line 1: 'target test label' is not a trial"),
        (b"1 a\xff b\n", r"cannot be read as text"),
        ("1 a b\n0 a b\n".encode("utf-16"), r"line 1|cannot be read as text"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00 \xff\xff", r"line 1|cannot be read as text"),
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
    monkeypatch.setattr(trials_module, "_CHUNK_BYTES", chunk_bytes)
    path = write(tmp_path / "gallery", text)
    assert read_labelled(path) == (["a/1", "b/2", "a/1"], ["3", "0", "x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is empty\. Each line holds an utterance and its label\."),
        ("a 1\nb\n", r"line 2 .*'b' has 1 words where 2 are needed\. Each line holds an utterance"),
        ("a 1\n\nb 2 3\n", r"line 2 \(empty lines not counted\): 'b 2 3' has 3 words where 2 are"),
    ],
)
def test_a_line_without_a_label_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "gallery", text)
    with pytest.raises(ScoringError, match=message) as caught:
        read_labelled(path)
    assert str(path) in str(caught.value)


def test_speakers_are_told_by_names() -> None:
    names = ["id10270/x6uYqmx31kE/00001.wav", "id000002-YJUT3czS6OI-00001", "wav/id10001/a/1.wav"]
    assert speakers_of(names) == ["id10270", "id000002", "id10001"]
    assert speakers_of([]) == []


@pytest.mark.parametrize(
    "name", ["", "x/1.wav", "id1/a.wav", "id1234567/a.wav", "pid10270/a", "id10270"]
)
def test_a_name_that_does_not_tell_its_speaker_is_named(name: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(f"{name!r} does not contain its speaker")):
        speakers_of(["id10270/a/1.wav", name])


# -- Cosines ---------------------------------------------------------------------------------------


def random_rows(seed: int, rows: int, dimensions: int) -> Array:
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(rows, dimensions)) * generator.uniform(0.1, 9, (rows, 1))
    ).astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 3, 192, 256])
@pytest.mark.parametrize("trials", [1, 2, 1024, 3000])
def test_scores_are_cosines(trials: int, dimensions: int) -> None:
    vectors = random_rows(1, 60, dimensions)
    rows = np.random.default_rng(2).integers(0, 60, (2, trials))
    result = cosine_scores(vectors, rows[0], rows[1])
    assert result.dtype == np.float32
    expected = [cosine(vectors[a], vectors[b]) for a, b in rows.T]
    # float32: a rounding error of 6e-8 for each of some sums of parts
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    assert (np.abs(result) <= 1 + 1e-6).all()


def embeddings_with_copies(dimensions: int) -> Iterator[Array]:
    """Yield the same rows in arrays that lie otherwise in memory."""
    plain = random_rows(3, 40, dimensions)
    plain[20:] = plain[:20]
    yield plain
    yield np.asfortranarray(plain)
    yield plain.astype(">f4")
    yield plain.astype(np.float64)
    yield np.repeat(plain, 2, axis=1)[:, ::2]
    yield plain[::-1].copy()[::-1]
    for odd_bytes in (1, 2, 4, 12):
        raw = np.empty(plain.nbytes + odd_bytes, np.uint8)
        odd = raw[odd_bytes:].view(np.float32).reshape(plain.shape)
        odd[:] = plain
        yield odd


@pytest.mark.parametrize("dimensions", [1, 3, 192, 256])
def test_equal_pairs_have_equal_bits_in_any_row_order_place_and_side(dimensions: int) -> None:
    generator = np.random.default_rng(4)
    rows = generator.integers(0, 40, (2, 2500))
    bits: dict[tuple[int, int], set[int]] = {}
    for vectors in embeddings_with_copies(dimensions):
        order = generator.permutation(2500)
        start = int(generator.integers(0, 1500))
        for pairs in (rows, rows[::-1], rows[:, order], rows[:, start : start + 999], rows[:, :1]):
            scores = cosine_scores(vectors, pairs[0], pairs[1])
            for pair, score in zip((pairs % 20).T, scores.view(np.uint32).tolist(), strict=True):
                first, second = sorted(pair.tolist())
                bits.setdefault((first, second), set()).add(score)
    assert len(bits) == 210
    assert {len(result) for result in bits.values()} == {1}


def test_lengths_do_not_matter_up_to_rounding() -> None:
    vectors = random_rows(5, 30, 64)
    lengths = 10.0 ** np.random.default_rng(0).integers(-12, 13, (30, 1))
    rows = np.random.default_rng(2).integers(0, 30, (2, 200))
    first = cosine_scores(vectors, rows[0], rows[1])
    other = cosine_scores(vectors * lengths, rows[0], rows[1])
    np.testing.assert_allclose(other, first, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1e-44, 1e-25, 1e-10, 1e10, 1e18, 1e25, 1e38])
def test_very_short_and_very_long_embeddings_have_their_cosine_or_are_refused(
    length: float,
) -> None:
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]]) * length
    try:
        result = cosine_scores(vectors, [0, 0, 1], [1, 0, 1])
    except ScoringError as error:
        assert "embeddings: row 0 has the length" in str(error)  # noqa: PT017 - either will do
    else:
        np.testing.assert_allclose(result, [0.6, 1, 1], rtol=1e-6)


def test_no_trials_have_no_scores() -> None:
    none = np.empty(0, np.int64)
    assert cosine_scores(random_rows(1, 3, 4), none, none).shape == (0,)


def test_lists_tensors_and_memory_maps_serve(tmp_path: Path) -> None:
    vectors = random_rows(6, 5, 8)
    expected = cosine_scores(vectors, [0, 1, 2], [3, 4, 2])
    np.save(tmp_path / "vectors.npy", vectors)
    for same in (
        vectors.tolist(),
        torch.tensor(vectors, requires_grad=True),
        np.load(tmp_path / "vectors.npy", mmap_mode="r"),
    ):
        np.testing.assert_array_equal(cosine_scores(same, [0, 1, 2], [3, 4, 2]), expected)
    rows = (np.array([0, 1, 2], np.uint8), torch.tensor([3, 4, 2]))
    np.testing.assert_array_equal(cosine_scores(vectors, *rows), expected)


@pytest.mark.parametrize(
    ("vectors", "enrolment", "test", "message"),
    [
        ([[1, 0], [0, 0]], [0], [0], r"embeddings: row 1 has the length 0"),
        ([[1, 0], [0, np.nan]], [0], [0], r"embeddings must be finite, got nan in row 1"),
        ([1, 2], [0], [0], r"embeddings must have the shape \(rows, dimensions\), got \(2,\)"),
        ([[1, 0], [0, 1]], [0], [2], r"test_rows must lie between 0 and 1, .*; got 2 in row 0"),
        ([[1, 0], [0, 1]], [0, -1], [0, 0], r"enrolment_rows must lie .*; got -1 in row 1"),
        ([[1, 0], [0, 1]], [0, 1], [0], r"enrolment_rows has 2 values and test_rows 1; both must"),
        ([[1, 0], [0, 1]], [0.0], [0], r"enrolment_rows must be rows of embeddings, integers"),
        ([[1, 0], [0, 1]], [[0]], [0], r"enrolment_rows must be rows .* of shape \(1, 1\)"),
    ],
)
def test_what_cannot_be_scored_is_named(
    vectors: Any, enrolment: Any, test: Any, message: str
) -> None:
    with pytest.raises(ScoringError, match=message) as caught:
        cosine_scores(vectors, enrolment, test)
    assert isinstance(caught.value, ValueError)


# -- Trials by name --------------------------------------------------------------------------------


def trial_list(trials: list[Trial]) -> TrialList:
    names = sorted({name for trial in trials for name in trial[:2]})
    return TrialList(
        names,
        np.array([names.index(enrol) for enrol, _, _ in trials]),
        np.array([names.index(test) for _, test, _ in trials]),
        np.array([label for _, _, label in trials]),
    )


LETTERS = [
    ("a", "b", True),
    ("a", "c", False),
    ("d", "a", False),
    ("b", "c", True),
    ("b", "a", True),
]


def embeddings_of(names: str) -> Embeddings:
    vectors = {name: random_rows(ord(name), 1, 6)[0] for name in names}
    return Embeddings(list(names), np.stack(list(vectors.values())), "memory")


@pytest.mark.parametrize("names", ["abcd", "dcba", "xaybzcd"])
def test_trials_are_scored_by_name(names: str) -> None:
    embeddings = embeddings_of(names)
    result = score_trials(trial_list(LETTERS), embeddings)
    by_name = dict(zip(names, embeddings.vectors, strict=True))
    expected = [cosine(by_name[a], by_name[b]) for a, b, _ in LETTERS]
    np.testing.assert_allclose(result.scores, expected, rtol=0, atol=1e-6)
    assert result.rows.tolist() == [0, 1, 2, 3, 4]
    assert [names[row] for row in result.enrolment] == [a for a, _, _ in LETTERS]
    assert [names[row] for row in result.test] == [b for _, b, _ in LETTERS]
    assert result.labels.tolist() == [label for _, _, label in LETTERS]
    assert result.missing == []
    # The same pair the other way round ties exactly.
    assert result.scores[0] == result.scores[4]


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_a_name_that_no_trial_asks_for_is_not_missed(missing: Any) -> None:
    trials = trial_list(LETTERS)
    two = TrialList(trials.names, trials.enrolment[[0, 4]], trials.test[[0, 4]], trials.labels[:2])
    assert len(score_trials(two, embeddings_of("ab"), missing=missing).scores) == 2


def test_missing_embeddings_are_an_error_that_counts_and_names_the_first() -> None:
    with pytest.raises(
        ScoringError,
        match=r"1 of 4 utterances have no embedding in memory, so 2 of 5 trials cannot be scored; "
        r"the first is trial 2, 'c' is missing\. Embeddings are named like 'a'\..*"
        r"missing='skip'",
    ):
        score_trials(trial_list(LETTERS), embeddings_of("abd"))


def test_the_name_in_the_message_is_one_of_the_trial_in_the_message() -> None:
    # b comes before c among the names, c before b among the trials.
    trials = trial_list([("a", "a", True), ("a", "c", False), ("b", "a", False)])
    with pytest.raises(ScoringError, match=r"the first is trial 2, 'c' is missing"):
        score_trials(trials, embeddings_of("a"))
    with pytest.raises(ScoringError, match=r"2 of 3 utterances .* so 2 of 3 trials"):
        score_trials(trials, embeddings_of("a"))


def test_missing_embeddings_are_skipped_and_counted() -> None:
    whole = score_trials(trial_list(LETTERS), embeddings_of("abcd"))
    result = score_trials(trial_list(LETTERS), embeddings_of("abc"), missing="skip")
    assert result.missing == ["d"]
    assert result.rows.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(result.scores, whole.scores[result.rows])
    np.testing.assert_array_equal(result.labels, whole.labels[result.rows])
    assert len(result.enrolment) == len(result.test) == 4
    result = score_trials(trial_list(LETTERS), embeddings_of("cb"), missing="skip")
    assert result.missing == ["a", "d"]
    assert result.rows.tolist() == [3]


@pytest.mark.parametrize("names", ["xyz", "d"])
def test_a_list_of_which_nothing_can_be_scored_is_an_error(names: str) -> None:
    with pytest.raises(
        ScoringError,
        match=rf"None of the 5 trials has both embeddings in memory: the list has names like 'a', "
        rf"the embeddings like '{names[0]}'",
    ):
        score_trials(trial_list(LETTERS), embeddings_of(names), missing="skip")


def test_another_word_for_missing_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"missing is 'ignore'; allowed are 'error' and 'skip'"):
        score_trials(trial_list(LETTERS), embeddings_of("a"), missing="ignore")  # type: ignore[arg-type]


def test_a_list_from_a_file_is_scored(tmp_path: Path) -> None:
    write(tmp_path / "trials.txt", lines_of(LETTERS, "{label} {enrol} {test}\n"))
    result = score_trials(read_trials(tmp_path / "trials.txt"), embeddings_of("dacb"))
    expected = score_trials(trial_list(LETTERS), embeddings_of("abcd"))
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.labels, expected.labels)
