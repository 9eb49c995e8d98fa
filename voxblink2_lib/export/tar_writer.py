"""Write tar archives of small files: the same bytes for the same files, whoever writes them."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from typing import Any, Protocol

_BLOCK_BYTES = 512
_SMALL_BYTES = 4096
# Some megabytes of speech. Systems take at least 1,024.
_PIECES_AT_ONCE = 64
# Fields of a header of the format ustar: where they begin, and how long they are.
_NAME_BYTES = 100
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)


def _header() -> bytes:
    """Return the header of an empty file without a name, whose checksum counts as spaces."""
    header = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    header[_CHECKSUM] = b" " * 8
    return bytes(header)


# tarfile takes 20 us to make a header, a third of what it takes to write a clip.
_HEADER = _header()
_BEFORE_SIZE = _HEADER[_NAME_BYTES : _SIZE.start]
_AFTER_SIZE = _HEADER[_SIZE.stop : _CHECKSUM.start]
_AFTER_CHECKSUM = _HEADER[_CHECKSUM.stop :]
_OTHERS_SUM = sum(_HEADER) - sum(_HEADER[_SIZE])


class _Output(Protocol):
    def write_all(self, pieces: Sequence[Any], /) -> None: ...


class TarWriter:
    """Writes files one after another; owner, mode and time are the same for all.

    Args:
        output: where to write.
    """

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._size_bytes = 0
        # Headers, small files and what fills up blocks are one piece with what comes next.
        self._small = b""
        self._pieces: list[Any] = []

    def add(self, name: str, data: Any) -> None:
        """Add a file.

        Args:
            name: at most 100 bytes, which the ids of an utterance never exceed.
            data: its bytes, at most 8 GiB. They are written later, and must not change until then.
        """
        size = memoryview(data).nbytes
        fill = -size % _BLOCK_BYTES
        self._size_bytes += _BLOCK_BYTES + size + fill
        self._small += tar_header(name, size)
        if size <= _SMALL_BYTES:
            self._small += bytes(data) + bytes(fill)
            return
        self._pieces += [self._small, data]
        self._small = bytes(fill)
        if len(self._pieces) >= _PIECES_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Write the end: two blocks of zeros, filled up to a record of twenty."""
        end = 2 * _BLOCK_BYTES
        end += -(self._size_bytes + end) % tarfile.RECORDSIZE
        self._pieces += [self._small + bytes(end)]
        self._write()

    def _write(self) -> None:
        self._output.write_all(self._pieces)
        self._pieces = []


def tar_header(name: str, size: int) -> bytes:
    """Return the header of a file.

    Raises:
        ValueError: the name is too long.
    """
    encoded = name.encode("ascii")
    if len(encoded) > _NAME_BYTES:
        raise ValueError(f"{name!r} is too long for a tar archive")
    digits = b"%011o\0" % size
    total = _OTHERS_SUM + sum(encoded) + sum(digits)
    return b"%b%b%b%b%06o\0 %b" % (
        encoded.ljust(_NAME_BYTES, b"\0"),
        _BEFORE_SIZE,
        digits,
        _AFTER_SIZE,
        total,
        _AFTER_CHECKSUM,
    )
