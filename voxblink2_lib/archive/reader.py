"""Read the members of an archive from its beginning, or from where a reader was before."""

from __future__ import annotations

import contextlib
import functools
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.archive.gzip_stream import POINT_BYTES, GzipDamageError, GzipStream, SeekPoint
from voxblink2_lib.archive.parts import Archive, JoinedFile
from voxblink2_lib.archive.tar_reader import TarFormatError, TarMember, TarReader
from voxblink2_lib.errors import SourceError

_GZIP = b"\x1f\x8b"
_SKIPPED_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
# The parts are read ahead of the members by some input and output of zlib.
_AHEAD_BYTES = 2 << 20


class ArchiveDamagedError(SourceError):
    """An archive is damaged or ends early; the message names the part and the place in it.

    Args:
        message: what is wrong, and what to do.
        is_anywhere: the checksum of all is wrong, and nothing says which bytes are.
    """

    def __init__(self, message: str, *, is_anywhere: bool = False) -> None:
        super().__init__(message)
        self.is_anywhere = is_anywhere


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member begins, and how to get there.

    Attributes:
        offset: in bytes of the tar.
        point: the last point before, in a gzip archive; ``None`` for its start.
    """

    offset: int = 0
    point: SeekPoint | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return {"offset": self.offset, "point": self.point and self.point.as_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Place:
        """Return the place of a JSON object."""
        point = record["point"]
        return cls(record["offset"], None if point is None else SeekPoint.from_dict(point))


def place_of(offset: int, points: list[SeekPoint]) -> Place:
    """Return the place of a member; points that are of no use any more are removed.

    Args:
        offset: where it begins, in bytes of the tar.
        points: those that were passed, in order. Some may be behind the begin of the member: they
            are of use for later ones.
    """
    while len(points) > 1 and points[1].offset <= offset:
        del points[0]
    usable = [point for point in points[:1] if point.offset <= offset]
    return Place(offset, usable[0] if usable else None)


class ArchiveReader:
    """Reads the members of one archive. A context manager, which closes the parts.

    Args:
        archive: its parts.
        place: where to begin.
        point_bytes: the least output between two seek points.
    """

    def __init__(
        self, archive: Archive, *, place: Place | None = None, point_bytes: int = POINT_BYTES
    ) -> None:
        place = place or Place()
        self._packed = JoinedFile(archive.parts)
        self._points = [point for point in [place.point] if point is not None]
        self._gzip: GzipStream | None = None
        if self._packed.read(len(_GZIP)) == _GZIP:
            self._gzip = GzipStream(
                self._packed,
                point=place.point,
                on_point=self._points.append,
                point_bytes=point_bytes,
            )
        # Its reads are complete unless the archive ends; those of a raw file end with a part.
        self._plain = io.BufferedReader(self._packed, _BUFFER_BYTES)
        self._offset = place.offset
        self._tar: TarReader | None = None

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._gzip is not None:
            self._gzip.close()
        self._plain.close()

    @property
    def packed_offset(self) -> int:
        """How far the parts are used up, in bytes."""
        return self._plain.tell() if self._gzip is None else self._gzip.packed_offset

    @property
    def entered_offset(self) -> int:
        """At which byte of the parts a reader enters them to go on at :attr:`place`."""
        if self._gzip is None:
            return self.place.offset
        point = self.place.point
        return point.packed_offset if point else 0

    @property
    def place(self) -> Place:
        """Where the member that was yielded last begins."""
        offset = self._offset if self._tar is None else self._tar.member_offset
        return place_of(offset, self._points)

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members; what is left of one is skipped when the next is wanted.

        Raises:
            ArchiveDamagedError: the archive is damaged or ends early.
        """
        with self._named():
            stream = self._entered()
            skip = None if self._gzip else functools.partial(_go_on, stream)
            # What is cut audio expands as far as silence does: no limit.
            self._tar = TarReader(stream, stream, offset=self._offset, skip=skip)
            yield from self._tar

    def read(self) -> bytes:
        """Return the content of the member that was yielded last.

        Raises:
            ArchiveDamagedError: the archive is damaged or ends early.
        """
        assert self._tar is not None
        with self._named():
            return self._tar.read()

    def read_into(self, target: memoryview) -> None:
        """Write the content of the member that was yielded last to a buffer of its size.

        Raises:
            ArchiveDamagedError: the archive is damaged or ends early.
        """
        assert self._tar is not None
        with self._named():
            self._tar.read_into(target)

    def content_place(self) -> tuple[Path, int] | None:
        """Return the file that has the content of the member, as it is, and where in it.

        ``None`` where the content is compressed, goes over the end of a part, is at a URL, or was
        read.
        """
        if self._gzip is not None or self._tar is None or not self._tar.unread_bytes:
            return None
        start = self._tar.content_offset
        path, offset = self._packed.place(start)
        last, _ = self._packed.place(start + self._tar.unread_bytes - 1)
        return (path, offset) if path == last and isinstance(path, Path) else None

    def _entered(self) -> Any:
        """Return the stream of the tar, at the place where to begin."""
        if self._gzip is None:
            self._plain.seek(self._offset)
            return self._plain
        while rest := self._offset - self._gzip.tell():
            if not self._gzip.read(min(rest, _SKIPPED_BYTES)):
                raise EOFError("the archive is shorter than before")
        return self._gzip

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (GzipDamageError, TarFormatError, EOFError, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ArchiveDamagedError:
        part, offset = self._packed.place(self.packed_offset)
        problem = error.problem if isinstance(error, GzipDamageError) else f"it has {error}"
        advice = "Fetch this part again, or the ones after it where they are missing"
        if self._tar is None or not self._tar.member_offset:
            advice = "Name the first part, or a tar, plain or gzip"
        elif offset < _AHEAD_BYTES:
            advice = f"{advice}; the damage may also be at the end of the part before"
        is_anywhere = getattr(error, "is_anywhere", False)
        if is_anywhere:
            advice = "Any part may be the damaged one"
        return ArchiveDamagedError(
            f"{part}, at byte {offset:,}: {problem}. {advice}.", is_anywhere=is_anywhere
        )


def _go_on(stream: io.BufferedReader, size_bytes: int) -> None:
    stream.seek(size_bytes, io.SEEK_CUR)
