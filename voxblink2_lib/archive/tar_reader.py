"""Read a tar archive as a stream, and believe none of the numbers in its headers.

``tarfile`` reads whatever size a PAX or long-name header declares at once, follows chains of them
by recursion, and goes on skipping after the end of the file. The one here reads the same forms
(V7, ustar, PAX, GNU), with a limit for each number, and knows no sparse files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

BLOCK_BYTES = 512
# A header that extends the next one holds a name: Linux allows 4 KiB for one.
MAX_EXTENSION_BYTES = 64 << 10
# tar writes at most three before a member: a PAX header, a long name and a long link.
MAX_EXTENSIONS = 16
# gzip makes annotations a quarter (made ones, all alike, a 60th, xz a 260th), zeros a thousandth.
# A small archive may be anything.
MAX_EXPANSION = 500
FREE_BYTES = 64 << 20

_CHUNK_BYTES = 1 << 16
_END_MARK = bytes(BLOCK_BYTES)
_PAX_KINDS = b"xX"
_GLOBAL_KIND = b"g"
_LONG_NAME_KIND = b"L"
_LONG_LINK_KIND = b"K"
_EXTENSION_KINDS = _PAX_KINDS + _GLOBAL_KIND + _LONG_NAME_KIND + _LONG_LINK_KIND
_GNU_KINDS = (b"L", b"K", b"S")  # Their headers have other things where ustar has its prefix.


class Readable(Protocol):
    """What is read from its beginning to its end."""

    def read(self, size_bytes: int, /) -> bytes:
        """Return that many bytes, fewer only at the end."""


class BufferReadable(Protocol):
    """What can be read into memory that is there."""

    def readinto(self, target: memoryview, /) -> int:
        """Write so many bytes that a buffer is full, fewer only at the end; return how many."""


class Positioned(Protocol):
    """What knows how far it was read."""

    def tell(self) -> int:
        """Return the position in bytes."""


class TarFormatError(ValueError):
    """What was read where, that no sound archive has, and what is allowed."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of an archive: its name, its type's byte, and how many bytes it says it has."""

    name: str
    kind: bytes
    size_bytes: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind in (b"0", b"\0", b"7")

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.kind == b"5"


@dataclass(slots=True)
class _Extension:
    """What the headers before a member say about it."""

    name: str | None = None
    size_bytes: int | None = None


class TarReader:
    """Reads members in the order of the archive.

    Args:
        stream: the archive, decompressed; its reads are complete unless it ends.
        packed: the file it is decompressed from, or ``stream`` itself. Its position tells how
            far the archive has expanded.
        offset: position of the stream in the archive, where a member begins.
        skip: goes forward by some bytes, where that is faster than reading them.

    Attributes:
        member_offset: where the member that was yielded last begins, with all of its headers.
    """

    def __init__(
        self,
        stream: Readable,
        packed: Positioned,
        *,
        offset: int = 0,
        skip: Callable[[int], object] | None = None,
    ) -> None:
        self._skip_bytes = skip
        self._stream = stream
        self._packed = packed
        self._offset = self.member_offset = offset
        self._allowed_bytes = FREE_BYTES
        self._unread_bytes = 0
        self._padding_bytes = 0

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members; what is left of one is skipped when the next is wanted.

        Raises:
            TarFormatError: a header is damaged or beyond the limits, the archive has no end mark,
                or it expands more than a release can.
        """
        while (member := self._next()) is not None:
            self._unread_bytes = member.size_bytes if member.is_file else 0
            self._padding_bytes = -self._unread_bytes % BLOCK_BYTES
            yield member
            self._skip()
        # The checksum of a compressed file is at its very end.
        while data := self._stream.read(_CHUNK_BYTES):
            self._count(len(data))

    def read(self) -> bytes:
        """Return the content of the member that was yielded last: limit its size before.

        Raises:
            TarFormatError: the archive ends early.
        """
        data = self._read(self._unread_bytes)
        self._unread_bytes = 0
        return data

    def read_into(self, target: memoryview) -> None:
        """Write the content of the member that was yielded last to a buffer of its size.

        Args:
            target: the buffer. The stream must be able to be read into it.

        Raises:
            TarFormatError: the archive ends early.
        """
        size_bytes = cast(BufferReadable, self._stream).readinto(target)
        self._count_read(size_bytes, len(target))
        self._unread_bytes = 0

    @property
    def unread_bytes(self) -> int:
        """How much of the content of the member that was yielded last is not read."""
        return self._unread_bytes

    @property
    def content_offset(self) -> int:
        """Where the content of the member that was yielded last begins, until it is read."""
        return self._offset

    def _next(self) -> TarMember | None:
        extension = _Extension()
        self.member_offset = self._offset
        for _ in range(MAX_EXTENSIONS + 1):
            at = self._offset
            header = self._read(BLOCK_BYTES)
            if header == _END_MARK:
                return None
            _check_sum(header, at)
            kind = header[156:157]
            size_bytes = _number(header[124:136], at)
            if kind not in _EXTENSION_KINDS:
                return _member(header, size_bytes, extension)
            self._extend(extension, kind, size_bytes, at)
        raise TarFormatError(
            f"more than {MAX_EXTENSIONS} headers in a row that extend the next one, the last at "
            f"byte {at}; at most {MAX_EXTENSIONS} are allowed"
        )

    def _extend(self, extension: _Extension, kind: bytes, size_bytes: int, at: int) -> None:
        if size_bytes > MAX_EXTENSION_BYTES:
            raise TarFormatError(
                f"a header of type {kind.decode()!r} at byte {at} that declares {size_bytes} "
                f"bytes; at most {MAX_EXTENSION_BYTES} are allowed"
            )
        data = self._read(size_bytes)
        self._read(-size_bytes % BLOCK_BYTES)
        if kind == _LONG_NAME_KIND:
            extension.name = _text(data)
        elif kind != _LONG_LINK_KIND:
            _extend_by_pax(extension, data, at, everywhere=kind == _GLOBAL_KIND)

    def _skip(self) -> None:
        rest = self._unread_bytes + self._padding_bytes
        self._unread_bytes = self._padding_bytes = 0
        if self._skip_bytes is not None and rest > _CHUNK_BYTES:
            # What ends within the member shows at the next header.
            self._skip_bytes(rest)
            self._count(rest)
            return
        while rest:
            rest -= len(self._read(min(rest, _CHUNK_BYTES)))

    def _read(self, size_bytes: int) -> bytes:
        data = self._stream.read(size_bytes)
        self._count_read(len(data), size_bytes)
        return data

    def _count_read(self, size_bytes: int, wanted_bytes: int) -> None:
        if size_bytes < wanted_bytes:
            raise TarFormatError(
                f"the end of the file at byte {self._offset + size_bytes}, within a member or "
                "before the end mark"
            )
        self._count(size_bytes)

    def _count(self, size_bytes: int) -> None:
        self._offset += size_bytes
        if self._offset <= self._allowed_bytes:
            return
        packed_bytes = self._packed.tell()
        self._allowed_bytes = FREE_BYTES + MAX_EXPANSION * packed_bytes
        if self._offset > self._allowed_bytes:
            raise TarFormatError(
                f"{self._offset} bytes out of {packed_bytes} compressed ones; at most "
                f"{MAX_EXPANSION} times as many and {FREE_BYTES} are allowed"
            )


def _check_sum(header: bytes, at: int) -> None:
    """Compare the sum of a header's bytes; old archives have added them as signed ones."""
    rest = header[:148] + header[156:]
    unsigned = sum(rest) + 8 * ord(" ")
    stored = _number(header[148:156], at)
    if stored == unsigned:
        return
    if stored != unsigned - 256 * sum(byte > 127 for byte in rest):
        raise TarFormatError(f"a header with a wrong checksum at byte {at}")


def _number(field: bytes, at: int) -> int:
    if field[0] == 0o200:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip() or b"0"
    # int() alone would take signs and underscores.
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise TarFormatError(f"a header at byte {at} with {field!r} in place of an octal number")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _member(header: bytes, size_bytes: int, extension: _Extension) -> TarMember:
    kind = header[156:157]
    name = extension.name
    if name is None:
        name = _text(header[:100])
        if kind not in _GNU_KINDS and (prefix := _text(header[345:500])):
            name = f"{prefix}/{name}"
    if kind == b"\0" and name.endswith("/"):
        kind = b"5"  # V7 had no type of its own for folders.
    if kind == b"5":
        name = name.rstrip("/")
    return TarMember(
        name, kind, size_bytes if extension.size_bytes is None else extension.size_bytes
    )


def _extend_by_pax(extension: _Extension, data: bytes, at: int, *, everywhere: bool) -> None:
    """Take from the records of a PAX header what a release needs."""
    for key, value in _pax_records(data, at):
        if key.startswith(b"GNU.sparse."):
            raise TarFormatError(f"a PAX header of a sparse file at byte {at}; a release has none")
        if key not in (b"path", b"size"):
            continue
        if everywhere:
            raise TarFormatError(
                f"a global PAX header at byte {at} that gives all members the same {key.decode()}"
            )
        if key == b"path":
            if b"\0" in value:
                raise TarFormatError(f"a PAX header at byte {at} with a zero byte in a name")
            extension.name = _text(value).rstrip("/")
        elif value.isdigit() and len(value) < 20:
            extension.size_bytes = int(value)
        else:
            raise TarFormatError(f"a PAX header at byte {at} with {value[:40]!r} for a size")


def _pax_records(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start < len(data):
        digits, space, _ = data[start : start + 8].partition(b" ")
        end = start + int(digits) if digits.isdigit() and space else start
        key, equals, value = data[start + len(digits) + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise TarFormatError(
                f"a PAX header at byte {at} whose record at byte {start} is not "
                "'<length> <key>=<value>'"
            )
        yield key, value[:-1]
        start = end
