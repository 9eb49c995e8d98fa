"""Finding the parts of an archive: whatever way it is named, whatever lies beside it."""

from __future__ import annotations

import io
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples

from voxblink2_lib.archive.parts import JoinedFile, find_archives
from voxblink2_lib.errors import SourceError

PROPERTY = fewer_examples(2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / f"VB2_audio.tar.gz.{number:02}").write_bytes(b"%02d" % number)
    (tmp_path / "md5sums.txt").touch()
    return tmp_path


def content(named: str | Path) -> bytes:
    (archive,) = find_archives(str(named))
    with JoinedFile(archive.parts) as file:
        return file.readall()


IN_ORDER = b"".join(b"%02d" % number for number in range(12))


@pytest.mark.parametrize("named", ["", "VB2_audio.tar.gz.00", "VB2_audio.tar.gz.*", "*audio*"])
def test_a_folder_the_first_part_and_patterns_name_all_parts(folder: Path, named: str) -> None:
    assert content(folder / named) == IN_ORDER


def test_parts_are_in_the_order_of_their_numbers_however_written(folder: Path) -> None:
    for path in sorted(folder.glob("VB2*"), reverse=True):
        number = int(path.name.rpartition(".")[2])
        path.rename(path.with_name(f"VB2_audio.tar.gz.{number + 1}"))
    assert content(folder) == IN_ORDER


def test_letters_of_split_are_numbers_too(tmp_path: Path) -> None:
    letters = string.ascii_lowercase
    names = [f"VB2_audio.tar.gz{first}{second}" for first in "ab" for second in letters]
    for name in names:
        (tmp_path / name).write_bytes(name[-2:].encode())
    assert content(tmp_path) == "".join(name[-2:] for name in names).encode()
    (tmp_path / "VB2_audio.tar.gzad").unlink()
    with pytest.raises(SourceError, match=r"A part of .* is missing: VB2_audio.tar.gzad; seen"):
        find_archives(str(tmp_path))


def test_gaps_are_named(folder: Path) -> None:
    # Some tools count from 1; that the very first is missing shows when the stream is read.
    for number in (0, 4, 7):
        (folder / f"VB2_audio.tar.gz.{number:02}").unlink()
    with pytest.raises(
        SourceError,
        match=r"2 parts of .*/VB2_audio.tar.gz are missing: "
        r"VB2_audio.tar.gz.04, VB2_audio.tar.gz.07; seen were 9, from VB2_audio.tar.gz.01 to "
        r"VB2_audio.tar.gz.11. Fetch them",
    ):
        find_archives(str(folder))


def test_a_part_that_is_there_twice_is_named(folder: Path) -> None:
    (folder / "VB2_audio.tar.gz.3").touch()
    with pytest.raises(SourceError, match=r"VB2_audio.tar.gz.0?3 and VB2_audio.tar.gz.0?3 in"):
        find_archives(str(folder))


def test_a_part_that_is_not_the_first_is_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"not the first part .*VB2_audio.tar.gz.00, or their"):
        find_archives(str(folder / "VB2_audio.tar.gz.05"))


def test_a_joined_archive_beside_its_parts_is_refused(folder: Path) -> None:
    (folder / "VB2_audio.tar.gz").touch()
    with pytest.raises(SourceError, match=r"lies beside parts .* Name one of both"):
        find_archives(str(folder))
    (archive,) = find_archives(str(folder / "VB2_audio.tar.gz"))
    assert len(archive.parts) == 1


def test_many_tars_of_a_folder_are_archives_of_their_own(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tgz", "c.tar.gz.1", "c.tar.gz.0", "notes.txt"):
        (tmp_path / name).touch()
    found = [(archive.name, len(archive.parts)) for archive in find_archives(str(tmp_path))]
    assert found == [("a.tgz", 1), ("b.tar", 1), ("c.tar.gz", 2)]


def test_what_is_no_archive_is_shown(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no archive: it is empty. Name the parts"):
        find_archives(str(tmp_path))
    for name in "fabdce":
        (tmp_path / f"{name}\n.zip").touch()
    with pytest.raises(SourceError, match=r"it has a\\n.zip, .* and 1 more. Name the parts"):
        find_archives(str(tmp_path))
    with pytest.raises(SourceError, match=r"There is no file '.*nowhere', and none that it"):
        find_archives(str(tmp_path / "nowhere"))


@PROPERTY
@given(
    pieces=st.lists(st.binary(max_size=9), min_size=1, max_size=6),
    moves=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8),
)
def test_parts_read_as_one_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], moves: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / str(number) for number in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        path.write_bytes(piece)
    whole = io.BytesIO(b"".join(pieces))
    with JoinedFile(paths) as raw, io.BufferedReader(raw, 4) as file:
        for offset, size in moves:
            assert file.seek(offset) == whole.seek(offset)
            assert file.read(size) == whole.read(size)
        assert file.seek(0, io.SEEK_END) == len(whole.getvalue())
        for offset in range(len(whole.getvalue())):
            part, position = raw.place(offset)
            assert isinstance(part, Path)
            assert part.read_bytes()[position] == whole.getvalue()[offset]


def test_a_part_that_shrinks_while_it_is_read_is_named(folder: Path) -> None:
    (archive,) = find_archives(str(folder))
    first = folder / "VB2_audio.tar.gz.00"
    first.write_bytes(bytes(1 << 20))
    with JoinedFile(archive.parts) as file:
        assert file.read(1) == b"\0"
        first.write_bytes(b"")
        file.seek(1 << 19)
        with pytest.raises(SourceError, match=r"gz.00 became shorter while it was read"):
            file.read(1)
