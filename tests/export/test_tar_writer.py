"""Archives are those that tarfile would write."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.export.tar_writer import TarWriter, tar_header

names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/"),
    min_size=1,
    max_size=100,
)


@given(st.lists(st.tuples(names, st.binary(max_size=1200)), max_size=5))
def test_the_same_bytes_as_tarfile(files: list[tuple[str, bytes]]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = TarWriter(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            writer.add(name, memoryview(data))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    writer.finish()
    assert ours.getvalue() == theirs.getvalue()


def test_sizes_of_gigabytes() -> None:
    member = tarfile.TarInfo("large")
    member.size = 8**11 - 1
    assert tar_header("large", member.size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="is too long for a tar archive"):
        tar_header("x" * 101, 0)
