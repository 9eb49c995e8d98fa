"""Read a gzip stream of any length, check its checksums, and enter it again where it was left.

The stream of the authors' archive is one gzip member of 1.9 TB. Every :data:`POINT_BYTES` of
output, at the next end of a deflate block, the reader hands out a :class:`SeekPoint`: with it the
reading goes on there, and the checksum at the end of the member is that of all of it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

from voxblink2_lib.archive.raw_deflate import (
    DeflateError,
    Entrance,
    RawInflater,
)

# zlib finds an end of a block within some 100 kB.
POINT_BYTES = 1_000_000_000
_INPUT_BYTES, _OUTPUT_BYTES = 1 << 18, 1 << 18
_MAGIC = b"\x1f\x8b\x08"
_FIXED_HEADER, _TRAILER = struct.Struct("<3sBIBB"), struct.Struct("<II")
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 2, 4, 8, 16, 0xE0
_MAX_NAME_BYTES = 1 << 16


class SeekableFile(Protocol):
    """What a compressed stream is read from."""

    def read(self, size_bytes: int, /) -> bytes | None:
        """Return some bytes, none only at the end."""

    def seek(self, offset: int, /) -> int:
        """Go to a position."""


class GzipDamageError(ValueError):
    """The stream is damaged or ends early.

    Args:
        problem: what is wrong.
        packed_offset: at which byte of the compressed stream it was seen.
        is_anywhere: the checksum of all is wrong, and nothing says which bytes are.
    """

    def __init__(self, problem: str, packed_offset: int, *, is_anywhere: bool = False) -> None:
        super().__init__(f"{problem} (at byte {packed_offset:,} of the compressed stream)")
        self.problem = problem
        self.packed_offset = packed_offset
        self.is_anywhere = is_anywhere


@dataclass(frozen=True, slots=True)
class SeekPoint:
    """Where a gzip stream can be entered, and what is known of the member before.

    Attributes:
        packed_offset: in bytes of the compressed stream.
        offset: in bytes of the output.
        entrance: what zlib needs.
        crc: CRC-32 of the member's output so far.
        member_bytes: how much output that is.
    """

    packed_offset: int
    offset: int
    entrance: Entrance
    crc: int
    member_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        window = base64.b64encode(zlib.compress(self.entrance.window)).decode()
        return {**asdict(self), "entrance": [*self.entrance[:2], window]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SeekPoint:
        """Return the point of a JSON object."""
        bits, byte_before, window = record["entrance"]
        entrance = Entrance(bits, byte_before, zlib.decompress(base64.b64decode(window)))
        return cls(**{**record, "entrance": entrance})


class GzipStream:
    """Reads the output of a gzip file, member after member, checking each.

    Args:
        packed: the file. It is read from the point on.
        point: where to begin; by default at the start.
        on_point: called with each new point.
        point_bytes: the least output between two points.
    """

    def __init__(
        self,
        packed: SeekableFile,
        *,
        point: SeekPoint | None = None,
        on_point: Callable[[SeekPoint], object] | None = None,
        point_bytes: int = POINT_BYTES,
    ) -> None:
        self._packed = packed
        self._on_point = on_point
        self._point_bytes = point_bytes
        self._input = memoryview(b"")
        self._output = memoryview(bytearray(_OUTPUT_BYTES))
        self._inflater: RawInflater | None = None
        self._damage: GzipDamageError | None = None
        self._packed_offset = self._inflated_bytes = self._crc = self._member_bytes = 0
        self._last_byte = 0
        if point is not None:
            self._packed_offset, self._inflated_bytes = point.packed_offset, point.offset
            self._crc, self._member_bytes = point.crc, point.member_bytes
            self._inflater = RawInflater(point.entrance)
        packed.seek(self._packed_offset)
        self._last_point = self._inflated_bytes

    def tell(self) -> int:
        """Return the position in the output."""
        return self._inflated_bytes

    @property
    def packed_offset(self) -> int:
        """How far the compressed stream is used up, in bytes."""
        return self._packed_offset

    def close(self) -> None:
        """Free what the reader holds; the file stays open."""
        if self._inflater is not None:
            self._inflater.close()
            self._inflater = None

    def read(self, size_bytes: int) -> bytes:
        """Return that much output, less only at the end of the stream.

        Raises:
            GzipDamageError: the stream is damaged or ends early.
        """
        pieces: list[bytes] = []
        while size_bytes and (piece := self.read1(size_bytes)):
            pieces.append(piece)
            size_bytes -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size_bytes: int) -> bytes:
        """Return some output, at most that much; none only at the end of the stream.

        Raises:
            GzipDamageError: the stream is damaged or ends early, and all before has been read.
        """
        target = self._output[:size_bytes]
        return bytes(target[: self._fill(target)])

    def readinto(self, target: memoryview) -> int:
        """Write output until a buffer is full, or the stream at its end; return how much it is.

        Raises:
            GzipDamageError: the stream is damaged or ends early.
        """
        written = 0
        while written < len(target) and (size_bytes := self._fill(target[written:])):
            written += size_bytes
        return written

    def _fill(self, target: memoryview) -> int:
        """Inflate some more, if there is any; return how much."""
        if self._damage is not None:
            raise self._damage
        before = self._inflated_bytes
        while target and self._inflated_bytes == before:
            if self._inflater is None and not self._begin_member():
                break
            try:
                self._inflate(target)
            except GzipDamageError as error:
                if self._inflated_bytes == before:
                    raise
                self._damage = error  # The trailer is wrong: raised when its output is read.
        return self._inflated_bytes - before

    def _inflate(self, target: memoryview) -> None:
        assert self._inflater is not None
        if not self._input and not self._read_input():
            self._fail("the stream ends within a member")
        is_due = self._inflated_bytes - self._last_point >= self._point_bytes
        if not is_due:
            target = target[: self._last_point + self._point_bytes - self._inflated_bytes]
        try:
            size_bytes, used = self._inflater.inflate(self._input, target, stop_at_block=is_due)
        except DeflateError as error:
            self._fail(f"the data are damaged: zlib says {str(error)!r}")
        self._use(used)
        self._crc = zlib.crc32(target[:size_bytes], self._crc)
        self._member_bytes += size_bytes
        self._inflated_bytes += size_bytes
        if self._inflater.is_at_end:
            self.close()
            self._end_member()
        elif is_due:
            self._make_point(self._inflater)

    def _make_point(self, inflater: RawInflater) -> None:
        entrance = inflater.entrance(self._last_byte)
        if entrance is None:
            return
        self._last_point = self._inflated_bytes
        if self._on_point is not None:
            place = (self._packed_offset, self._inflated_bytes)
            self._on_point(SeekPoint(*place, entrance, self._crc, self._member_bytes))

    # -- Headers and trailers of members -----------------------------------------------------------

    def _begin_member(self) -> bool:
        """Read the header of a member; return whether there is one more."""
        if self._packed_offset and not self._skip_padding():
            return False
        magic, flags, *_ = _FIXED_HEADER.unpack(self._take(_FIXED_HEADER.size))
        if magic != _MAGIC or flags & _RESERVED:
            self._fail("no gzip header is where one must be")
        if flags & _FEXTRA:
            self._take(int.from_bytes(self._take(2), "little"))
        for flag in (_FNAME, _FCOMMENT):
            if flags & flag:
                self._take_text()
        if flags & _FHCRC:
            self._take(2)
        self._inflater = RawInflater()
        self._crc = self._member_bytes = 0
        return True

    def _skip_padding(self) -> bool:
        """Skip zero bytes between members, as gzip does; return whether anything follows."""
        while self._input or self._read_input():
            zeros = len(self._input) - len(bytes(self._input).lstrip(b"\0"))
            self._use(zeros)
            if self._input:
                return True
        return False

    def _end_member(self) -> None:
        crc, size_bytes = _TRAILER.unpack(self._take(_TRAILER.size))
        if size_bytes != self._member_bytes & 0xFFFF_FFFF:
            self._fail(
                f"the length at the end of the stream is {size_bytes:,} (modulo 4 GiB), its "
                f"content has {self._member_bytes:,} bytes",
                is_anywhere=True,
            )
        if crc != self._crc:
            self._fail(
                f"the CRC-32 at the end of the stream is {crc:08x}, that of its content is "
                f"{self._crc:08x}: some bytes before are wrong",
                is_anywhere=True,
            )

    def _take_text(self) -> None:
        for _ in range(_MAX_NAME_BYTES):
            if self._take(1) == b"\0":
                return
        self._fail(f"a name in a gzip header is longer than {_MAX_NAME_BYTES:,} bytes")

    def _take(self, size_bytes: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size_bytes:
            if not self._input and not self._read_input():
                self._fail("the stream ends within a header or trailer of gzip")
            piece = self._input[: size_bytes - len(pieces)]
            pieces += piece
            self._use(len(piece))
        return bytes(pieces)

    def _read_input(self) -> bool:
        self._input = memoryview(bytearray(self._packed.read(_INPUT_BYTES) or b""))
        return bool(self._input)

    def _use(self, size_bytes: int) -> None:
        if size_bytes:
            self._last_byte = self._input[size_bytes - 1]
            self._input = self._input[size_bytes:]
            self._packed_offset += size_bytes

    def _fail(self, problem: str, *, is_anywhere: bool = False) -> NoReturn:
        raise GzipDamageError(problem, self._packed_offset, is_anywhere=is_anywhere)
