"""Archives are those that tarfile would write."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.export.tar_writer import TarWriter, tar_header

names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"),
    min_size=1,
    max_size=100,
)


contents = st.binary(max_size=1200) | st.integers(4000, 9000).map(bytes)


class Output:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write_all(self, pieces: Sequence[Any]) -> None:
        self.pieces += map(bytes, pieces)


@given(st.lists(st.tuples(names, contents), max_size=5))
def test_the_same_bytes_as_tarfile(files: list[tuple[str, bytes]]) -> None:
    ours, theirs = Output(), io.BytesIO()
    writer = TarWriter(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            writer.add(name, memoryview(data))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    writer.finish()
    assert b"".join(ours.pieces) == theirs.getvalue()


def test_many_pieces_are_written_in_turns() -> None:
    ours = Output()
    writer = TarWriter(ours)
    for number in range(100):
        writer.add(f"{number}", bytes([number]) * 5000)
    assert len(ours.pieces) == 192  # the others wait
    writer.finish()
    with tarfile.open(fileobj=io.BytesIO(b"".join(ours.pieces))) as archive:
        assert [member.name for member in archive] == [f"{number}" for number in range(100)]


def test_sizes_of_gigabytes() -> None:
    member = tarfile.TarInfo("large")
    member.size = 8**11 - 1
    assert tar_header("large", member.size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="is too long for a tar archive"):
        tar_header("x" * 101, 0)
