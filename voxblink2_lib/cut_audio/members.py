"""The members of cut audio in their order, from its beginning or from where a run was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from voxblink2_lib.archive.gzip_stream import SeekPoint
from voxblink2_lib.archive.parts import Archive
from voxblink2_lib.archive.reader import ArchiveReader, Place
from voxblink2_lib.archive.recognition import CutAudio
from voxblink2_lib.archive.remote import size_of
from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.errors import SourceError
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.records import is_speaker_id

# A little less than 1 GB: work in flight is repeated as well.
POINT_BYTES = 900_000_000
_FILE = b"0"
# Prefixes, speaker, video and file.
_MOST_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Position:
    """Where a member begins.

    Attributes:
        archive: place of its archive among all, from 0.
        offset: in bytes of the tar.
        name: of the member, in a folder of files.
        sizes: of the parts of its archive that are not read again to go on there.
    """

    archive: int = 0
    offset: int = 0
    name: str = ""
    sizes: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Position:
        """Return the position of a JSON object."""
        return cls(**{**record, "sizes": tuple(record["sizes"])})


class FileRange(NamedTuple):
    """Bytes of a file."""

    path: Path
    offset: int
    size_bytes: int

    @property
    def is_in_tar(self) -> bool:
        """Whether it is a member of a tar, which its header comes before, and no whole file."""
        return self.offset > 0

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            SourceError: the file has become shorter.
            OSError: it cannot be read.
        """
        with open(self.path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.size_bytes, self.offset)
        if len(data) < self.size_bytes:
            raise SourceError(f"{self.path} became shorter while it was read.")
        return data


class MemberStream(AbstractContextManager["MemberStream"], Protocol):
    """Members of cut audio. A context manager, which closes the files."""

    total: int
    unit: str

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members; what is left of one is skipped when the next is wanted.

        Raises:
            ArchiveDamagedError: the archive is damaged or ends early.
        """

    def file_range(self) -> FileRange | None:
        """Return where the content of the member that was yielded last is, as it is."""

    def read(self) -> bytes:
        """Return the content of the member that was yielded last."""

    def read_into(self, target: memoryview) -> None:
        """Write the content of the member that was yielded last to a buffer of its size."""

    @property
    def position(self) -> Position:
        """Where the member that was yielded last begins; at the end, the end."""

    @property
    def done(self) -> int:
        """How much is used up, in :attr:`unit`."""

    @property
    def point(self) -> SeekPoint | None:
        """The last point before the member at which a compressed archive can be entered."""


def open_members(audio: CutAudio, position: Position, points: SeekPoints) -> MemberStream:
    """Open cut audio.

    Args:
        audio: where it is.
        position: where to begin.
        points: where archives can be entered.

    Raises:
        SourceError: the parts before the position are not those that were read.
    """
    if audio.folder is not None:
        return _FolderMembers(audio.folder, position)
    return _ArchiveMembers(audio.archives, position, points)


class _ArchiveMembers:
    """The members of several archives, one after the other."""

    unit = "B"

    def __init__(
        self, archives: tuple[Archive, ...], position: Position, points: SeekPoints
    ) -> None:
        self._archives = archives
        self._points = points
        self._sizes = [list(map(size_of, archive.parts)) for archive in archives]
        self._before = [sum(map(sum, self._sizes[:number])) for number in range(len(archives) + 1)]
        self.total = self._before[-1]
        self._begin, self._number = position, position.archive
        self._is_begun = False
        self._member_bytes = 0
        self._reader: ArchiveReader | None = None
        if position.archive < len(archives):
            self._check_sizes(position)
            self._reader = self._open(position.archive, position.offset)

    def _check_sizes(self, position: Position) -> None:
        archive, sizes = self._archives[position.archive], self._sizes[position.archive]
        for part, size, before in zip(archive.parts, sizes, position.sizes, strict=False):
            if size != before:
                raise SourceError(
                    f"{part} has {size:,} bytes; it had {before:,} when its audio came into the "
                    "store. Put the part back that was read, or name another store for this "
                    "archive with --store."
                )

    def _open(self, number: int, offset: int) -> ArchiveReader:
        place = Place(offset, self._points.before(number, offset))
        return ArchiveReader(self._archives[number], place=place, point_bytes=POINT_BYTES)

    def __enter__(self) -> _ArchiveMembers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.__exit__()
            self._reader = None

    def __iter__(self) -> Iterator[TarMember]:
        while self._reader is not None:
            for member in self._reader:
                self._member_bytes, self._is_begun = member.size_bytes, True
                yield member
            self.__exit__()
            self._number, self._is_begun = self._number + 1, False
            self._begin = Position(self._number)
            if self._number < len(self._archives):
                self._reader = self._open(self._number, 0)

    def file_range(self) -> FileRange | None:
        assert self._reader is not None
        place = self._reader.content_place()
        return None if place is None else FileRange(*place, self._member_bytes)

    def read(self) -> bytes:
        assert self._reader is not None
        return self._reader.read()

    def read_into(self, target: memoryview) -> None:
        assert self._reader is not None
        self._reader.read_into(target)

    @property
    def position(self) -> Position:
        if self._reader is None or not self._is_begun:
            return self._begin
        used, sizes = self._reader.entered_offset, []
        for size in self._sizes[self._number]:
            used -= size
            if used <= 0:  # the present part, and empty ones, may be mended
                break
            sizes.append(size)
        return Position(self._number, self._reader.place.offset, sizes=tuple(sizes))

    @property
    def done(self) -> int:
        before = self._before[min(self._number, len(self._archives))]
        return before + (self._reader.packed_offset if self._reader else 0)

    @property
    def point(self) -> SeekPoint | None:
        return self._reader.place.point if self._reader else None


class _FolderMembers:
    """The files of a folder, in the order of their paths."""

    unit = "speaker"
    point = None

    def __init__(self, folder: Path, position: Position) -> None:
        self._folder = folder
        self._begin = tuple(position.name.split("/")) if position.name else ()
        self._position = position
        self.total = _count_speakers(folder, _MOST_LEVELS)
        self.done = 0
        self._file: FileRange | None = None

    def __enter__(self) -> _FolderMembers:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[TarMember]:
        if self._position.archive:
            return  # all of it was read
        for path, entry in self._below(self._folder, ()):
            name, size_bytes = "/".join(path), entry.stat().st_size
            self._position = Position(name=name)
            self._file = FileRange(Path(entry.path), 0, size_bytes)
            yield TarMember(name, _FILE, size_bytes)
        self._position = Position(archive=1)

    def _below(
        self, folder: Path, above: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], os.DirEntry[str]]]:
        for entry in _listed(folder):
            path = (*above, entry.name)
            # What is below a folder begins as its path does.
            if path >= self._begin[: len(path)]:
                if entry.is_dir():
                    if len(path) < _MOST_LEVELS:  # links may lead round in a circle
                        yield from self._below(Path(entry.path), path)
                elif entry.is_file() and path >= self._begin:
                    yield path, entry
            self.done += _is_speaker(entry)

    def file_range(self) -> FileRange:
        assert self._file is not None
        return self._file

    def read(self) -> bytes:
        return self.file_range().read()

    def read_into(self, target: memoryview) -> None:
        target[:] = self.read()

    @property
    def position(self) -> Position:
        return self._position


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with named_system_errors(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_speaker(entry: os.DirEntry[str]) -> bool:
    return is_speaker_id(entry.name) and entry.is_dir()


def _count_speakers(folder: Path, levels: int) -> int:
    entries = _listed(folder)
    if count := sum(map(_is_speaker, entries)):
        return count
    folders = [Path(entry.path) for entry in entries if entry.is_dir()] if levels > 1 else []
    return sum(_count_speakers(inner, levels - 1) for inner in folders)
