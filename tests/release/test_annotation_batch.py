"""Many annotation files at once: the same as one after the other."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.release_builder import SPEAKER, VIDEO, make_rows, member_name, voxblink1, voxblink2

from voxblink2_lib.release import annotation_batch
from voxblink2_lib.release.annotation import read_annotation
from voxblink2_lib.release.annotation_batch import ROW_COLUMNS, read_batch
from voxblink2_lib.release.annotation_files import FileBatch

TWICE = "the release has this utterance twice; the first is kept"


def batch_of(files: list[tuple[str, bytes]]) -> FileBatch:
    return FileBatch([path for path, _ in files], [data for _, data in files], [""] * len(files))


def alone(number: int, path: str, data: bytes) -> dict[str, Any] | str:
    """Return a row as the reader of single files gives it, or its message."""
    try:
        annotation = read_annotation(path, data)
    except ValueError as error:
        return str(error)
    utterance = annotation.utterance
    width, height = annotation.frame_size or (None, None)
    x, y, w, h = annotation.boxes.T.tolist()
    values = (
        number, utterance.speaker_id, utterance.video_id, utterance.utterance_id,
        utterance.first_frame, utterance.last_frame, annotation.start_seconds,
        annotation.duration_seconds, width, height, annotation.digest(),
        annotation.frames.tolist(), x, y, w, h,
    )  # fmt: skip
    return dict(zip(ROW_COLUMNS.names, values, strict=True))


def check(files: list[tuple[str, bytes]]) -> None:
    """Check that files read at once are what they are one by one."""
    expected = [alone(number, *file) for number, file in enumerate(files)]
    annotated = read_batch(batch_of(files))
    assert annotated.rows.schema == ROW_COLUMNS
    rows = [repr(row) for row in annotated.rows.to_pylist()]  # as nan is not equal to itself
    assert rows == [repr(row) for row in expected if isinstance(row, dict)]
    assert [(reject.file, reject.path, reject.reason) for reject in annotated.rejects] == [
        (number, files[number][0], reason)
        for number, reason in enumerate(expected)
        if isinstance(reason, str)
    ]


def named(contents: list[bytes]) -> list[tuple[str, bytes]]:
    return [(member_name(utterance=f"{number:05}"), data) for number, data in enumerate(contents)]


def count_alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the paths that are read one by one from now on."""
    paths: list[str] = []

    def read(path: str, data: bytes) -> Any:
        paths.append(path)
        return read_annotation(path, data)

    monkeypatch.setattr(annotation_batch, "read_annotation", read)
    return paths


# -- Well-formed -----------------------------------------------------------------------------------

BOX = st.integers(-(2**15), 2**15 - 1)


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    frames = sorted(draw(st.sets(st.integers(0, 99_999), min_size=1, max_size=8)))
    rows = [(frame, *(draw(BOX) for _ in range(4))) for frame in frames]
    start = draw(st.sampled_from(["0.000", "12.34", "", "x", "nan", "1e3"]))
    data = voxblink2(rows, start=start, newline=draw(st.sampled_from(["\n", "\r\n"])))
    if draw(st.booleans()):
        data = b"Resolution: 1280x720\n" + data
    if draw(st.booleans()):
        data = data.replace(b"\t", draw(st.sampled_from([b" ", b" \t", b"  "])))
    return data if draw(st.booleans()) else data.rstrip(b"\r\n")


@given(contents=st.lists(well_formed(), max_size=8))
def test_well_formed_files_are_read_at_once(contents: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        paths = count_alone(patch)
        check(named(contents))
        assert not paths


@pytest.mark.parametrize("piece_bytes", [1, 300, 2000])
def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(annotation_batch, "_PIECE_BYTES", piece_bytes)
    contents = [voxblink2(make_rows(n, 2 * n + 3)) for n in range(20)]
    contents[7] = b"0 1 2 3\n"
    check(named(contents))


def test_other_releases_are_read_too() -> None:
    files = [(member_name("id00012", VIDEO, f"{n:05}"), voxblink1()) for n in range(3)]
    check(files)


# -- Nearly well-formed ----------------------------------------------------------------------------

EDITS = [b"", b"-", b"--", b"+", b"0", b"9", b"99999", b"1.0", b".5", b"1e2", b"0x1", b"nan",
         b"\t", b"\n", b" ", b"\r", b"\x0b", b"\x1c", b"\0", b":", b"FRAME", b"frame", b"_",
         b"\xc2\xa0", b"\xff", b"\xef\xbb\xbf", b"\nFRAME\n", b"x: y\n"]  # fmt: skip


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """Draw a file with some places replaced, in the header or in the numbers."""
    data = draw(well_formed())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        width = draw(st.integers(0, 6))
        data = data[:at] + draw(st.sampled_from(EDITS)) + data[at + width :]
    return data


@given(contents=st.lists(nearly(), max_size=6))
def test_nearly_well_formed_files_are_what_they_are_alone(contents: list[bytes]) -> None:
    check(named(contents))


@given(contents=st.lists(st.binary(max_size=60) | st.text("0123456789 \t\n-.:FRAME", max_size=80)))
def test_hostile_files_are_what_they_are_alone(contents: list[bytes | str]) -> None:
    check(named([data.encode() if isinstance(data, str) else data for data in contents]))


NUMBERS = [
    "-1 1 1 1 1",
    "0 32768 1 1 1",
    "0 -32769 1 1 1",
    "0 1 1 1 -32768",
    "100000 1 1 1 1",
    "2147483648 1 1 1 1",
    "99999999999999999999 1 1 1 1",
    "0 1 1 1",
    "0 1 1 1 1 1",
    "-0 -0 0 0 0",
    "007 08 09 1 1",
    "0 1-2 1 1 1",
    "0 - 1 1 1",
    "0 1 1 1 1\n0 1 1 1 1",
    "5 1 1 1 1\n4 1 1 1 1",
    "0 1 1\n1 1 1 1 1 1 1",
    "",
    "0 1 1 1 1\n\n1 1 1 1 1",
    "0 1 1 1 1\n-1 1 1 1 1",
]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_at_the_limits(text: str) -> None:
    good = voxblink2()
    data = voxblink2([]) + text.replace(" ", "\t").encode() + b"\n"
    check(named([good, data, good]))
    check(named([data]))


HEADERS = [
    b"Identity: id000009\n",
    b"Reference: abcdefghijx\n",
    b"no colon\n",
    b"\n",
    b"  \n",
    b"Size: 0x0\n",
    b"Size: 40000 1\n",
    "Größe: 1\n".encode(),
    b"Identity: " + b"x" * 999 + b"\n",
]


@pytest.mark.parametrize("line", HEADERS)
@pytest.mark.parametrize("is_last", [False, True])
def test_headers(line: bytes, is_last: bool) -> None:
    data = voxblink2()
    data = data.replace(b"FRAME", line + b"FRAME") if is_last else line + data
    check(named([voxblink2(), data]))


@pytest.mark.parametrize(
    "path", ["x.txt", "meta/id1/abcdefghijk/1.txt", f"meta/{SPEAKER}/a/1.txt", "a/b/c.csv"]
)
def test_paths(path: str) -> None:
    check([(path, voxblink2()), (member_name(), voxblink2())])


def test_a_problem_is_the_reason() -> None:
    batch = FileBatch([member_name(), "meta/x"], [voxblink2(), b""], ["", "not a regular file"])
    annotated = read_batch(batch)
    assert len(annotated.rows) == 1
    assert annotated.rejects == [(1, "meta/x", "not a regular file")]


# -- Twice -----------------------------------------------------------------------------------------


def test_the_first_of_a_video_is_kept() -> None:
    good, other = voxblink2(make_rows(0, 5)), voxblink2(make_rows(7, 9))
    files = [
        (member_name(utterance="1"), good),
        (member_name(utterance="2"), b"bad"),
        (member_name(utterance="1"), other),
        (member_name(video="bcdefghijkl", utterance="1"), voxblink2(video="bcdefghijkl")),
        (member_name(utterance="1"), other),
    ]
    annotated = read_batch(batch_of(files))
    assert annotated.rows["file"].to_pylist() == [0, 3, 4]
    assert annotated.rows["last_frame"].to_pylist() == [5, 24, 9]
    assert [(reject.file, reject.reason) for reject in annotated.rejects][1:] == [(2, TWICE)]


def test_a_large_file_is_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_batch, "_PIECE_BYTES", 1000)
    paths = count_alone(monkeypatch)
    check(named([voxblink2(make_rows(0, 999)), voxblink2(make_rows(0, 9))]))
    assert paths == [member_name(utterance="00000")]


@pytest.mark.slow
def test_many_random_files() -> None:
    chance = random.Random(1)
    contents = []
    for _ in range(3000):
        rows = make_rows(0, chance.randrange(1, 300))
        data = bytearray(voxblink2(rows))
        if chance.random() < 0.3:
            data[chance.randrange(len(data))] = chance.randrange(256)
        contents.append(bytes(data))
    check(named(contents))
