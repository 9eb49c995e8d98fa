"""Read the many small files of a tar archive in runs: their headers are checked together.

A run is of members that any writer makes: files and folders without extended headers.
:class:`~voxblink2_lib.archive.tar_reader.TarReader` reads every other member, and raises all
errors, so that the result is the same as without runs.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from voxblink2_lib.archive.tar_reader import (
    BLOCK_BYTES,
    Positioned,
    Readable,
    TarMember,
    TarReader,
)

RUN_BYTES = 2 << 20
_PIECE_BYTES = 256 << 10
_FILE, _FOLDER = ord("0"), ord("5")
_KINDS = (b"0", b"5")
_ENDS = (0, ord(" "))
# Of a header's fields, those that a plain member has and what they mean.
_SIZE, _CHECKSUM = slice(124, 135), slice(148, 154)
_AFTER_SIZE, _AFTER_CHECKSUM, _KIND, _PREFIX = 135, 154, 156, 345
_NAME_BYTES = 100


class Run(NamedTuple):
    """Files that follow each other in an archive.

    Attributes:
        offset: where it begins, in bytes of the archive.
        names: of the files; folders between them are left out.
        starts: where the content of each begins in ``data``.
        ends: where it ends.
        data: bytes of the archive, of which the run is a part.
    """

    offset: int
    names: list[str]
    starts: list[int]
    ends: list[int]
    data: bytes


class PartlyReadable(Readable, Protocol):
    """What can be read as far as it is sound."""

    def read1(self, size_bytes: int, /) -> bytes:
        """Return some bytes, at most that many; none only at the end."""


class RunReader(TarReader):
    """Reads an archive as runs of files, and what is not plain member by member.

    Args:
        stream: the archive, decompressed; its reads are complete unless it ends.
        packed: the file it is decompressed from, or ``stream`` itself.
        offset: position of the stream in the archive, where a member begins.
        run_bytes: the most that a run has; larger files are no part of one.
    """

    def __init__(
        self,
        stream: PartlyReadable,
        packed: Positioned,
        *,
        offset: int = 0,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self._ahead = _ReadAhead(stream, run_bytes)
        super().__init__(self._ahead, packed, offset=offset)

    def runs(self) -> Iterator[Run | TarMember]:
        """Yield all files in runs; other members alone, whose content :meth:`read` returns.

        Raises:
            TarFormatError: as :meth:`TarReader.__iter__` does, after the same members.
        """
        members = iter(self)
        while True:
            while (run := self._take_run()) is not None:
                yield run
            member = next(members, None)
            if member is None:
                return
            yield member
            self._skip()

    def _take_run(self) -> Run | None:
        """Return the plain members that come next, or ``None`` where the next is not plain."""
        data, first = self._ahead.fill()
        places, sizes = _walk(data, first)
        if not places:
            return None
        blocks = np.frombuffer(data, np.uint8, offset=first)
        blocks = blocks[: len(blocks) // BLOCK_BYTES * BLOCK_BYTES].reshape(-1, BLOCK_BYTES)
        headers = blocks[(np.array(places) - first) // BLOCK_BYTES]
        names = headers[:, :_NAME_BYTES].copy().view(f"S{_NAME_BYTES}").ravel().tolist()
        kinds = headers[:, _KIND].tolist()
        run = Run(self._offset, [], [], [], data)
        end = first
        for number in range(_plain_count(headers, np.array(sizes))):
            name = names[number]
            # Whoever reads the archive may refuse a name that reaches outside it.
            if not name or name.startswith(b"/") or b".." in name or b"\0" in name:
                break
            start = places[number] + BLOCK_BYTES
            end = start + sizes[number]
            if kinds[number] == _FILE:
                run.names.append(name.decode("utf-8", "surrogateescape"))
                run.starts.append(start)
                run.ends.append(end)
        if end == first:
            return None
        size_bytes = end - first + -(end - first) % BLOCK_BYTES
        self._ahead.skip(size_bytes)
        self.member_offset = self._offset
        self._count(size_bytes)
        return run


class _ReadAhead:
    """A stream with a buffer, which can be looked into."""

    def __init__(self, stream: PartlyReadable, size_bytes: int) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._buffer = b""
        self._at = 0
        self._damage: Exception | None = None

    def fill(self) -> tuple[bytes, int]:
        """Return a buffer, and where in it what comes next is.

        Filled up only when it is half empty, as that moves what is in it.
        """
        rest = len(self._buffer) - self._at
        if rest <= self._size_bytes // 2:
            pieces = [self._buffer[self._at :], *self._pieces(self._size_bytes - rest)]
            self._buffer, self._at = b"".join(pieces), 0
        return self._buffer, self._at

    def _pieces(self, size_bytes: int) -> Iterator[bytes]:
        """Yield what comes before the end or the damage, which is raised when it is wanted."""
        try:
            while self._damage is None and size_bytes:
                data = self._stream.read1(min(size_bytes, _PIECE_BYTES))
                if not data:
                    return
                yield data
                size_bytes -= len(data)
        except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
            self._damage = error

    def skip(self, size_bytes: int) -> None:
        """Pass over bytes of the buffer."""
        self._at += size_bytes

    def read(self, size_bytes: int) -> bytes:
        """Return that many bytes, fewer only at the end."""
        data = self._buffer[self._at : self._at + size_bytes]
        self._at += len(data)
        if len(data) < size_bytes:
            if self._damage is not None:
                raise self._damage
            data += self._stream.read(size_bytes - len(data))
        return data


def _walk(data: bytes, at: int) -> tuple[list[int], list[int]]:
    """Return where the headers of files and folders are that are whole, and their sizes."""
    places: list[int] = []
    sizes: list[int] = []
    while len(field := data[at + 124 : at + 135]) == 11 and data[at + 156 : at + 157] in _KINDS:
        try:
            size_bytes = int(field, 8)
        except ValueError:
            break
        after = at + BLOCK_BYTES + size_bytes + -size_bytes % BLOCK_BYTES
        if size_bytes < 0 or after > len(data):
            break
        places.append(at)
        sizes.append(size_bytes)
        at = after
    return places, sizes


def _plain_count(headers: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> int:
    """Return how many of the first headers are plain and have the right checksum."""
    kinds = headers[:, _KIND]
    is_plain = (kinds == _FILE) | ((kinds == _FOLDER) & (sizes == 0))
    is_plain &= headers[:, _PREFIX] == 0
    is_plain &= _are_octal(headers[:, _SIZE]) & np.isin(headers[:, _AFTER_SIZE], _ENDS)
    is_plain &= _are_octal(headers[:, _CHECKSUM])
    is_plain &= np.isin(headers[:, _AFTER_CHECKSUM : _AFTER_CHECKSUM + 2], _ENDS).all(axis=1)
    stored = (headers[:, _CHECKSUM] - ord("0")) @ (8 ** np.arange(5, -1, -1))
    field = slice(_CHECKSUM.start, _CHECKSUM.start + 8)
    sums = headers.sum(axis=1, dtype=np.int64) - headers[:, field].sum(axis=1, dtype=np.int64)
    is_plain &= stored == sums + 8 * ord(" ")
    return len(sizes) if is_plain.all() else int(is_plain.argmin())


def _are_octal(fields: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    are_octal: npt.NDArray[np.bool_] = np.all((fields >= ord("0")) & (fields < ord("8")), axis=1)
    return are_octal
