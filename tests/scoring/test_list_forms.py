"""Lists as people have them: every form gives the same trials, read fast or line by line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import list_files, list_text
from voxblink2_lib.scoring.trial_lists import read_labelled, read_trials

Trial = tuple[str, str, bool | None]

TWO: list[Trial] = [("a/1.wav", "b/2.wav", True), ("a/1.wav", "c/3.wav", False)]

SRE16 = """modelid\tsegmentid\tside\ttargettype\tphone
1001_sre16\tdtadhlw_sre16.sph\ta\tnontarget\t
1001_sre16\tdtadzmv_sre16.sph\ta\ttarget\tsame
"""
SRE_ROWS: list[Trial] = [
    ("1001_sre16", "dtadhlw_sre16.sph", False),
    ("1001_sre16", "dtadzmv_sre16.sph", True),
]
CN_CELEB = """id00800-enroll test/id00800-singing-01-001.wav 1
id00800-enroll test/id00801-speech-02-002.wav 0
"""
CN_ROWS: list[Trial] = [
    ("id00800-enroll", "test/id00800-singing-01-001.wav", True),
    ("id00800-enroll", "test/id00801-speech-02-002.wav", False),
]
NEMO = "1 id10270@5r0dWxy17C8@00001.wav id10270@x6uYqmx31kE@00002.wav\n"
NEMO_ROWS: list[Trial] = [("id10270@5r0dWxy17C8@00001.wav", "id10270@x6uYqmx31kE@00002.wav", True)]

# What a file has, and the trials in it.
FORMS: dict[str, tuple[str, list[Trial]]] = {
    "VoxCeleb": ("1 a/1.wav b/2.wav\n0 a/1.wav c/3.wav\n", TWO),
    "Kaldi": ("a/1.wav b/2.wav target\na/1.wav c/3.wav nontarget\n", TWO),
    "tgt imp": ("a/1.wav b/2.wav tgt\na/1.wav c/3.wav imp\n", TWO),
    "non-target": ("a/1.wav b/2.wav Target\na/1.wav c/3.wav Non-Target\n", TWO),
    "True False": ("a/1.wav b/2.wav True\na/1.wav c/3.wav False\n", TWO),
    "1.0 0.0": ("1.0 a/1.wav b/2.wav\n0.0 a/1.wav c/3.wav\n", TWO),
    "1 -1": ("a/1.wav b/2.wav 1\na/1.wav c/3.wav -1\n", TWO),
    "+1 -1": ("+1 a/1.wav b/2.wav\n-1 a/1.wav c/3.wav\n", TWO),
    "SRE key": (SRE16, SRE_ROWS),
    "SRE key without header": (SRE16.split("\n", 1)[1].replace("\t\n", "\tx\n"), SRE_ROWS),
    "SRE key, empty words": ("1001\tseg.sph\t\ttarget\n", [("1001", "seg.sph", True)]),
    "SRE trials": (
        "modelid\tsegmentid\tside\n1001_sre16\tdtadhlw_sre16.sph\ta\n",
        [("1001_sre16", "dtadhlw_sre16.sph", None)],
    ),
    "VoxSRC CSV": ("label,utt1,utt2\n1,a/1.wav,b/2.wav\n0,a/1.wav,c/3.wav\n", TWO),
    "utt1 utt2 alone": ("utt1,utt2\nx,y\n", [("x", "y", None)]),
    "CN-Celeb": (CN_CELEB, CN_ROWS),
    "NeMo": (NEMO, NEMO_ROWS),
    "no labels": ("x y\nx z\n", [("x", "y", None), ("x", "z", None)]),
    "quotes": ('"1","a/1.wav","b/2.wav"\n"0","a/1.wav","c/3.wav"\n', TWO),
    "quotes and spaces": ('"a/1.wav" "b/2.wav" 1\n"a/1.wav" "c/3.wav" 0\n', TWO),
    "quoted header": ('"enrol";"test";"label"\n"a/1.wav";"b/2.wav";1\na/1.wav;c/3.wav;0\n', TWO),
    "blanks in names": (
        'enrol,test,label\nmy file.wav,"b, c.wav",1\n',
        [("my file.wav", "b, c.wav", True)],
    ),
    "quotes in names": ('1 "a ""x"" b" c\n', [("a " + '"x"' + " b", "c", True)]),
    "semicolons": ("a/1.wav;b/2.wav;1\na/1.wav;c/3.wav;0\n", TWO),
    "semicolons, header": ("Label;Enrol;Test\n1;a/1.wav;b/2.wav\n0; a/1.wav ;c/3.wav\n", TWO),
    "extra columns": (
        "id,enrol,x,test,,label\n1,a/1.wav,,b/2.wav,,1\n2,a/1.wav,y z,c/3.wav,,0\n",
        TWO,
    ),
    "more words": ("1 a/1.wav b/2.wav en f\n0 a/1.wav c/3.wav de m\n", TWO),
    "header of other words": ("Enrollment_ID\tTest-ID\tKey\na/1.wav\tb/2.wav\ttgt\n", TWO[:1]),
    "comments": ("# made by hand\n\n1 a/1.wav b/2.wav\n  # x\n;; y\n0 a/1.wav c/3.wav\n", TWO),
    "comment before a header": ("#x\nlabel,enrol,test\n1,a/1.wav,b/2.wav\n", TWO[:1]),
    "blank lines": ("\n \n1 a/1.wav b/2.wav\n\t\n\n0 a/1.wav c/3.wav\n\n", TWO),
    "lines of separators": ("enrol,test,label\n,,\na/1.wav,b/2.wav,1\n,,\n", TWO[:1]),
}

PACKED: dict[str, Callable[[str], bytes]] = {
    "UTF-8": str.encode,
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip of two parts": lambda text: gzip.compress(text[:9].encode()) + gzip.compress(
        text[9:].encode()
    ),
    "gzip of UTF-16, CRLF": lambda text: gzip.compress(text.replace("\n", "\r\n").encode("utf-16")),
    "no last line end": lambda text: text.rstrip("\n").encode(),
}  # fmt: skip


def listed(path: Path) -> list[Trial]:
    trials = read_trials(path)
    count = len(trials.enrolment)
    labels = [None] * count if trials.labels is None else trials.labels.tolist()
    sides = ([trials.names[row] for row in rows] for rows in (trials.enrolment, trials.test))
    return list(zip(*sides, labels, strict=True))


@pytest.fixture
def line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_files, "_fast_columns", lambda *_: None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", PACKED)
def test_every_form_is_read(form: str, packed: str, tmp_path: Path) -> None:
    text, rows = FORMS[form]
    path = tmp_path / "trials"
    path.write_bytes(PACKED[packed](text))
    assert listed(path) == rows


@pytest.mark.usefixtures("line_by_line")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_line_by_line(form: str, tmp_path: Path) -> None:
    test_every_form_is_read(form, "UTF-8", tmp_path)
    test_every_form_is_read(form, "CRLF", tmp_path)


@pytest.mark.parametrize("chunk_bytes", [1, 7])
@pytest.mark.parametrize("packed", PACKED)
def test_borders_of_chunks_do_not_show(
    packed: str, chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
    for form in ("comments", "SRE key", "quoted header", "CN-Celeb"):
        test_every_form_is_read(form, packed, tmp_path)


@pytest.mark.parametrize("label", [[1, 0], [True, False], ["tgt", "imp"], [1.0, -1.0], None])
def test_parquet_with_named_columns(label: list[object] | None, tmp_path: Path) -> None:
    columns = {
        "Test": ["b/2.wav", "c/3.wav"],
        "enroll": pa.array(["a/1.wav"] * 2).cast("large_string"),
    }
    if label:
        columns["label"] = label
    pq.write_table(pa.table(columns), tmp_path / "trials.parquet")
    rows = [row if label else (*row[:2], None) for row in TWO]
    assert listed(tmp_path / "trials.parquet") == rows


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": ["x"], "test": ["y"]},
            r"the columns a, test are not those of a trial\. Allowed are",
        ),
        ({"enrol": ["x", None], "test": ["y", "z"]}, r"row 1: it has no enrolment"),
        (
            {"enrol": ["x"], "test": ["y"], "label": ["?"]},
            r"row 0: the label is '\?'\. Allowed are",
        ),
        ({"enrol": [], "test": []}, r"is empty\. Allowed are"),
        ({"enrol": [["x"]], "test": ["y"]}, r"cannot be read as Parquet: .* Allowed are"),
    ],
    ids=str,
)
def test_parquet_that_is_no_list(
    columns: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "trials.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ScoringError, match=message) as caught:
        read_trials(path)
    assert str(path) in str(caught.value)


def test_labelled_utterances_come_in_the_same_forms(tmp_path: Path) -> None:
    for form in ("# x\na 1\n\nb 2\n", '"a","1"\nb,2\n', "label;utterance\n1;a\n2;b\n"):
        (tmp_path / "gallery").write_bytes(gzip.compress(form.encode("utf-16")))
        assert read_labelled(tmp_path / "gallery") == (["a", "b"], ["1", "2"])


# -- Fast and careful ------------------------------------------------------------------------------

PLAIN_WORDS = [
    "a",
    "b/1.wav",
    "é",
    "1",
    "0",
    "",
    " ",
    " a",
    "a ",
    "x y",
    "#",
    "#c",
    ";;",
    "\t",
    "\r",
]
ODD_WORDS = ["\xa0", "\x0b", "\x85", '"', '"a"', '"a b"', '"a,b"', '"a;b"', '"a\tb"', '""', 'a"b']
WORDS = st.sampled_from([*PLAIN_WORDS, *ODD_WORDS, '"a""b"', '" a"', '"a"b', '"a" b'])
SEPARATORS = st.sampled_from([" ", "\t", ",", ";", ", ", " ; ", "  ", "\t\t"])


@st.composite
def odd_lists(draw: st.DrawFn) -> str:
    """Lists of which most lines fit; separators and words are odd in some."""
    separator = draw(SEPARATORS)
    header = draw(st.sampled_from(["", "", "label{0}enrol{0}test\n", "x{0}label{0}enrol{0}test\n"]))
    text = header.format(separator)
    for _ in range(draw(st.integers(1, 6))):
        words = [draw(st.sampled_from(["1", "0"])), "a", "b"]
        words = ["x", *words] if header.startswith("x") else words
        for _ in range(draw(st.integers(0, 2))):
            words[draw(st.integers(0, len(words) - 1))] = draw(WORDS)
        text += draw(st.sampled_from([separator] * 4 + [" ", ","])).join(words)
        text += draw(
            st.sampled_from(["\n"] * 4 + ["\n\n", "\r\n", " \n", "\t\n", separator + "\n"])
        )
    return text


def outcome(path: Path) -> object:
    try:
        return listed(path)
    except ScoringError as error:
        return str(error)


@given(text=odd_lists(), chunk_bytes=st.sampled_from([1, 9, 1 << 20]))
@example(text="label,enrol,test\n1,a,b\t\n", chunk_bytes=1)
def test_fast_is_what_careful_is(
    tmp_path_factory: pytest.TempPathFactory, text: str, chunk_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("lists") / "trials"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_text, "_CHUNK_BYTES", chunk_bytes)
        fast = outcome(path)
        patch.setattr(list_files, "_fast_columns", lambda *_: None)
        assert fast == outcome(path)


@pytest.mark.parametrize(
    "form",
    [name for name in FORMS if name not in {"comments", "blanks in names", "quotes in names"}],
)
def test_usual_forms_are_read_fast(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_files, "_careful_columns", None)
    if form not in {"lines of separators"}:
        for packed in ("UTF-8", "CRLF", "gzip", "UTF-16"):
            test_every_form_is_read(form, packed, tmp_path)
