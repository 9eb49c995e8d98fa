"""Runs of files in a tar archive: the same members and errors as one after the other."""

from __future__ import annotations

import io
import random
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.archive.tar_reader import TarFormatError, TarReader
from voxblink2_lib.archive.tar_runs import Run, RunReader

FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
Answer = tuple[list[tuple[str, bytes, bytes, int]], str]


def archive(members: list[tuple[str, bytes, int]], *, form: int, kind: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for number, (name, types, size) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.type = kind or types
            info.size = size if info.isreg() else 0
            tar.addfile(info, io.BytesIO(random.Random(number).randbytes(size)))
    return file.getvalue()


def by_members(data: bytes) -> Answer:
    """Read with the reader of members: name, kind, content and place of each, and the error."""
    stream = io.BytesIO(data)
    reader = TarReader(stream, stream)
    members: list[tuple[str, bytes, bytes, int]] = []
    try:
        members.extend(
            (member.name, member.kind, reader.read(), reader.member_offset)
            for member in reader
            if not member.is_folder
        )
    except TarFormatError as error:
        return members, str(error)
    return members, ""


def by_runs(data: bytes, *, run_bytes: int) -> Answer:
    stream = io.BytesIO(data)
    reader = RunReader(stream, stream, run_bytes=run_bytes)
    members: list[tuple[str, bytes, bytes, int]] = []
    try:
        for item in reader.runs():
            if isinstance(item, Run):
                assert reader.member_offset == item.offset
                members += contents(item, data)
            elif not item.is_folder:
                members.append((item.name, item.kind, reader.read(), reader.member_offset))
    except TarFormatError as error:
        return members, str(error)
    return members, ""


def contents(run: Run, data: bytes) -> list[tuple[str, bytes, bytes, int]]:
    # Headers of files in a run are the block before their content.
    return [
        (name, b"0", run.data[start:end], data.index(run.data[start - 512 : start], run.offset))
        for name, start, end in zip(run.names, run.starts, run.ends, strict=True)
    ]


NAMES = st.one_of(
    st.integers(0, 10**6).map(lambda number: f"meta/id000001/video{number:06}/00001.txt"),
    st.integers(1, 300).map(lambda length: f"meta/{'x' * length}"),
    st.sampled_from(["meta/é.txt", "meta/a..b", "a/../b", "/etc/x", "..", "meta/d/"]),
)
KINDS = st.sampled_from([b"0"] * 6 + [b"5", b"2", b"1", b"7", b"\0"])
MEMBERS = st.lists(
    st.tuples(NAMES, KINDS, st.integers(0, 3000)), max_size=12, unique_by=lambda member: member[0]
)


@given(members=MEMBERS, form=st.sampled_from(FORMS), run_bytes=st.sampled_from([512, 4096, 10**6]))
def test_runs_have_the_members_of_the_archive(
    members: list[tuple[str, bytes, int]], form: int, run_bytes: int
) -> None:
    try:
        data = archive(members, form=form)
    except ValueError:  # ustar takes no name that long
        return
    assert by_runs(data, run_bytes=run_bytes) == by_members(data)


@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    stop=st.floats(0, 1),
    run_bytes=st.sampled_from([2048, 10**6]),
)
def test_what_is_damaged_is_told_after_the_same_members(
    changes: list[tuple[int, int]], stop: float, run_bytes: int
) -> None:
    members = [(f"meta/id000001/video000001/{n:05}.txt", b"0", 100 * n) for n in range(9)]
    data = bytearray(archive(members, form=tarfile.GNU_FORMAT))
    for at, byte in changes:
        # Mostly headers, where a change means something.
        data[at % len(data) if at % 2 else at % 512 + 512 * (at % 5)] = byte
    cut = bytes(data[: int(stop * 2 * len(data))])
    assert by_runs(cut, run_bytes=run_bytes) == by_members(cut)


@pytest.mark.parametrize("form", FORMS)
def test_plain_files_come_in_few_runs(form: int) -> None:
    members = [(f"meta/id000001/video000001/{n:05}.txt", b"0", 1000) for n in range(500)]
    stream = io.BytesIO(archive(members, form=form))
    runs = list(RunReader(stream, stream, run_bytes=1 << 18).runs())
    assert 2 < len(runs) < 12
    assert all(isinstance(run, Run) for run in runs)


class Broken(io.BytesIO):
    """A stream that fails where it should end."""

    def read1(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise EOFError("the stream is cut")
        return data


def test_what_is_before_the_damage_of_a_stream_is_read_first() -> None:
    members = [(f"meta/id000001/video000001/{n:05}.txt", b"0", 1000) for n in range(50)]
    stream = Broken(archive(members, form=tarfile.GNU_FORMAT)[: 45 * 1536])
    runs = RunReader(stream, stream, run_bytes=1 << 20).runs()
    run = next(runs)
    assert isinstance(run, Run)
    assert run.names == [name for name, _, _ in members[:45]]
    with pytest.raises(EOFError, match="the stream is cut"):
        next(runs)
