"""Which pieces a cache holds, and what they take together: one file, read and written in O(1).

The file has a head, then a line for each piece, oldest first::

    head, tail, total, checksum                 where the lines begin and end; bytes of all pieces
    1764453661123456789 1048576 audio-00000.…   time, size in bytes, name of the piece

What is used is not moved; the time of its file is. When a piece that was used since its line was
written comes to the head, it gets a new line at the tail instead of being removed (the algorithm
CLOCK, or second chance: F. J. Corbató, "A Paging Experiment with the Multics System", 1968).

Whoever works on the file holds the lock of the folder. A process that dies leaves lines after the
tail, which do not count, or a line of a piece that is not there, which leaves the count when it
comes to the head. So pieces are at times counted twice, and never left out.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

QUEUE = ".queue"
_MAGIC = b"vb2queue"
_HEAD = struct.Struct("<8sQQQ")
_CHECKSUM = struct.Struct("<I")
_FIRST = 64
_LINE_BYTES = 4096  # no name is longer
# Of one removal, so that one is never a pass over all pieces.
_SECOND_CHANCES = 64
_COMPACTED_BYTES = 1 << 20


class _Line(NamedTuple):
    """A piece in the queue.

    Attributes:
        time_ns: when it was stored, or when it was last used when the line was written.
        size: in bytes.
        name: of its file.
    """

    time_ns: int
    size: int
    name: str

    def as_bytes(self) -> bytes:
        """Return it as it is in the file."""
        return os.fsencode(f"{self.time_ns} {self.size} {self.name}\n")


class PieceQueue:
    """The queue of a folder, for the holder of the folder's lock. Use it in a ``with`` block.

    Args:
        folder: of the pieces. If the queue is missing or not whole, it is made of what is there.

    Attributes:
        total: bytes of all pieces in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = os.open(folder / QUEUE, os.O_RDWR | os.O_CREAT, 0o666)
        self._head, self._tail, self.total = self._read_head() or self._scan()

    def __enter__(self) -> PieceQueue:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, name: str, size: int, time_ns: int) -> int:
        """Count one more piece; return where its line is."""
        place = self._tail
        self._append(_Line(time_ns, size, name))
        self.total += size
        return place

    def take_back(self, place: int, name: str, size: int, time_ns: int) -> None:
        """Count a piece no more that was added but not stored, unless its line has moved since."""
        line = _Line(time_ns, size, name).as_bytes()
        if os.pread(self._file, len(line), place) == line:
            # A process that dies now leaves it in the total, until the queue is compacted.
            os.pwrite(
                self._file, line.replace(b" %d " % size, b" %0*d " % (len(str(size)), 0)), place
            )
            self.total -= size

    def make_room(self, size: int, most_bytes: int) -> None:
        """Remove the pieces that were used longest ago until one more fits."""
        chances = _SECOND_CHANCES
        while self._head < self._tail and self.total + size > most_bytes:
            line = self._oldest()
            if line is None:
                self._head, self._tail, self.total = self._scan()
                continue
            path = self._folder / line.name
            used_ns = _used_ns(path)
            if chances and used_ns is not None and used_ns > line.time_ns:
                chances -= 1
                self._append(line._replace(time_ns=used_ns))
                continue
            path.unlink(missing_ok=True)
            self.total -= line.size
        if self._head == self._tail:
            self.total = 0

    def commit(self) -> None:
        """Make what was done since the queue was opened count."""
        os.pwrite(self._file, _packed_head(self._head, self._tail, self.total), 0)
        gone = self._head - _FIRST
        if gone > max(_COMPACTED_BYTES, self._tail - self._head):
            self._compact()

    def _read_head(self) -> tuple[int, int, int] | None:
        content = os.pread(self._file, _HEAD.size + _CHECKSUM.size, 0)
        if len(content) != _HEAD.size + _CHECKSUM.size or content[:8] != _MAGIC:
            return None
        head = content[: _HEAD.size]
        if _CHECKSUM.unpack(content[_HEAD.size :])[0] != zlib.crc32(head):
            return None
        return _HEAD.unpack(head)[1:]

    def _scan(self) -> tuple[int, int, int]:
        lines = sorted(_pieces_in(self._folder))
        content = b"".join(line.as_bytes() for line in lines)
        os.pwrite(self._file, content, _FIRST)
        return _FIRST, _FIRST + len(content), sum(line.size for line in lines)

    def _append(self, line: _Line) -> None:
        content = line.as_bytes()
        if os.pwrite(self._file, content, self._tail) != len(content):
            raise OSError("the queue of the pieces was not written whole")
        self._tail += len(content)

    def _oldest(self) -> _Line | None:
        """Take the first line; ``None`` if it is none: the machine stopped before it was there."""
        content = os.pread(self._file, min(_LINE_BYTES, self._tail - self._head), self._head)
        text, end, _ = content.partition(b"\n")
        time_ns, _, rest = text.partition(b" ")
        size, _, name = rest.partition(b" ")
        if not (end and time_ns.isdigit() and size.isdigit() and _is_piece(os.fsdecode(name))):
            return None
        self._head += len(text) + len(end)
        return _Line(int(time_ns), int(size), os.fsdecode(name))

    def _compact(self) -> None:
        """Write the queue anew, without the lines before its head."""
        content = os.pread(self._file, self._tail - self._head, self._head)
        total = sum(int(line.split(b" ", 2)[1]) for line in content.splitlines())
        new = self._folder / f"{QUEUE}.new"
        with contextlib.suppress(OSError):  # else the next one does it
            head = _packed_head(_FIRST, _FIRST + len(content), total)
            new.write_bytes(head.ljust(_FIRST, b"\0") + content)
            new.replace(self._folder / QUEUE)


def _packed_head(head: int, tail: int, total: int) -> bytes:
    packed = _HEAD.pack(_MAGIC, head, tail, total)
    return packed + _CHECKSUM.pack(zlib.crc32(packed))


def _used_ns(path: Path) -> int | None:
    """Return when a piece was used; ``None`` if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _pieces_in(folder: Path) -> Iterator[_Line]:
    for entry in os.scandir(folder):
        if not (_is_piece(entry.name) and entry.is_file(follow_symlinks=False)):
            continue
        with contextlib.suppress(FileNotFoundError):
            state = entry.stat(follow_symlinks=False)
            yield _Line(state.st_mtime_ns, state.st_size, entry.name)


def _is_piece(name: str) -> bool:
    return ".arrow." in name and not name.startswith(".") and not {"/", "\n"} & set(name)
