"""Read the annotation files of a release safely, from a folder or from an archive as a stream.

Files are handed out in batches. The place of a batch is where the reading goes on after a stop: in
a folder the name of its first file; in an archive the position of its first member, with the last
seek point before it where it is compressed by gzip. What bzip2 or xz have compressed is unpacked
again.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

from voxblink2_lib.archive.gzip_stream import GzipDamageError, GzipStream, SeekPoint
from voxblink2_lib.archive.reader import Place, place_of
from voxblink2_lib.archive.remote import RemoteFile, RemoteFolder, open_binary
from voxblink2_lib.archive.tar_reader import TarFormatError, TarMember
from voxblink2_lib.archive.tar_runs import RUN_BYTES, Run, RunReader
from voxblink2_lib.errors import ReleaseError, SourceError
from voxblink2_lib.release.remote import RemotePlace, remote_annotations

MAX_FILE_BYTES = 8 << 20
# What is unpacked again after a stop; a seek point takes 32 kB.
POINT_BYTES = 32 << 20
_MAX_BATCH_FILES = 4096
_SKIPPED_BYTES = 1 << 20

# What the decompressors raise on damaged input.
_DAMAGED = (TarFormatError, GzipDamageError, EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """One file of the release: its path in it, and its bytes or the reason why they are absent."""

    path: str
    data: bytes = b""
    problem: str = ""


class FileBatch(NamedTuple):
    """Files that follow each other in a release.

    Attributes:
        paths: of the files in the release.
        contents: their bytes.
        problems: why the bytes of a file are absent; empty where they are not.
    """

    paths: list[str]
    contents: list[bytes]
    problems: list[str]

    def files(self) -> Iterator[AnnotationFile]:
        """Yield the files."""
        for path, data, problem in zip(*self, strict=True):
            yield AnnotationFile(path, data, problem)


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """Where a batch begins in a release.

    Attributes:
        files: number of files before.
        position: how far the release is read then: bytes of the archive's file, or files.
        path: path of the first file, in a folder.
        tar: its place in an archive.
    """

    files: int = 0
    position: int = 0
    path: str = ""
    tar: Place = field(default_factory=Place)

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return {
            "files": self.files,
            "position": self.position,
            "path": self.path,
            "tar": self.tar.as_dict(),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> BatchPlace:
        """Return the place of a JSON object."""
        return cls(**{**record, "tar": Place.from_dict(record["tar"])})


class PlacedBatch(NamedTuple):
    """A batch, its place, and the position after it; see :class:`BatchPlace`."""

    place: BatchPlace
    batch: FileBatch
    end_position: int


def read_batches(
    path: Path | RemotePlace, *, place: BatchPlace | None = None, batch_bytes: int = RUN_BYTES
) -> Iterator[PlacedBatch]:
    """Yield every file of a release, in the order it is stored, in batches.

    Args:
        path: the ``meta`` folder or the archive, here or at a URL.
        place: where to begin; by default at the start.
        batch_bytes: about so many bytes of files are in a batch.

    Raises:
        ReleaseError: see :meth:`voxblink2_lib.release.location.Release.annotations`.
    """
    place = place or BatchPlace()
    if isinstance(path, RemoteFolder):
        yield from _read_remote_folder(path, place, batch_bytes)
    elif isinstance(path, RemoteFile) or path.is_file():
        yield from _read_archive(path, place, batch_bytes)
    else:
        yield from _read_folder(path, place, batch_bytes)


@dataclass(slots=True)
class _Collector:
    """Collects files to batches of about the same size."""

    place: BatchPlace
    batch_bytes: int
    batch: FileBatch = field(default_factory=lambda: FileBatch([], [], []))
    size_bytes: int = 0

    def add(self, path: str, data: bytes, problem: str = "") -> None:
        for values, value in zip(self.batch, (path, data, problem), strict=True):
            cast(list[Any], values).append(value)
        self.size_bytes += len(data)

    @property
    def is_full(self) -> bool:
        return self.size_bytes >= self.batch_bytes or len(self.batch.paths) >= _MAX_BATCH_FILES

    @property
    def files(self) -> int:
        return self.place.files + len(self.batch.paths)

    def take(self, position: int) -> PlacedBatch:
        """Return the files so far as a batch, and begin another."""
        placed = PlacedBatch(self.place, self.batch, position)
        self.place = BatchPlace(self.files, position)
        self.batch, self.size_bytes = FileBatch([], [], []), 0
        return placed


# -- Folders ---------------------------------------------------------------------------------------


def walk(meta: Path, *, start: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files three levels down, and files at a wrong level, in order.

    Args:
        meta: the folder.
        start: the name to begin with, as it was yielded.
    """

    def below(
        folder: str, prefix: str, depth: int, start: list[str]
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{prefix}/{entry.name}"
                if start and entry.name < start[0]:
                    continue
                if entry.is_dir() and depth < 3:
                    rest = start[1:] if start and entry.name == start[0] else []
                    yield from below(entry.path, name, depth + 1, rest)
                else:
                    yield name, entry

    try:
        yield from below(os.fspath(meta), meta.name, 1, start.split("/")[1:])
    except PermissionError as error:
        raise ReleaseError(
            f"The release {meta} cannot be read: {error.filename}: permission denied. "
            "A part of a release would give a wrong corpus; make all of it readable."
        ) from error


def _read_folder(meta: Path, place: BatchPlace, batch_bytes: int) -> Iterator[PlacedBatch]:
    collector = _Collector(place, batch_bytes)
    for name, entry in walk(meta, start=place.path):
        if not collector.batch.paths:
            collector.place = BatchPlace(collector.files, collector.files, path=name)
        collector.add(name, *_content(entry))
        if collector.is_full:
            yield collector.take(collector.files)
    if collector.batch.paths:
        yield collector.take(collector.files)


def _read_remote_folder(
    folder: RemoteFolder, place: BatchPlace, batch_bytes: int
) -> Iterator[PlacedBatch]:
    collector = _Collector(place, batch_bytes)
    files = remote_annotations(folder, max_bytes=MAX_FILE_BYTES)
    for file in islice(files, place.files, None):
        collector.add(*file)
        if collector.is_full:
            yield collector.take(collector.files)
    if collector.batch.paths:
        yield collector.take(collector.files)


def _content(entry: os.DirEntry[str]) -> tuple[bytes, str]:
    """Return the bytes of a file, or none and the reason."""
    try:
        if not entry.is_file():
            return b"", "not a regular file"
        if entry.stat().st_size > MAX_FILE_BYTES:
            return b"", _too_large(entry.stat().st_size)
        return Path(entry.path).read_bytes(), ""
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"


def _too_large(size_bytes: int) -> str:
    return f"too large for an annotation: {size_bytes} bytes, at most {MAX_FILE_BYTES}"


# -- Archives --------------------------------------------------------------------------------------


def _read_archive(
    path: Path | RemoteFile, place: BatchPlace, batch_bytes: int
) -> Iterator[PlacedBatch]:
    collector = _Collector(place, batch_bytes)
    try:
        with open_binary(path) as packed, _open_stream(packed, place.tar) as stream:
            reader = RunReader(stream.data, packed, offset=place.tar.offset, run_bytes=batch_bytes)
            for item in reader.runs():
                if not collector.batch.paths:
                    collector.place = BatchPlace(
                        collector.files, collector.place.position, tar=stream.place(reader)
                    )
                if isinstance(item, Run):
                    for name, start, end in zip(item.names, item.starts, item.ends, strict=True):
                        if end - start <= MAX_FILE_BYTES:
                            collector.add(name, item.data[start:end])
                        else:
                            collector.add(name, b"", _too_large(end - start))
                else:
                    _add_member(path, collector, reader, item)
                if collector.is_full:
                    yield collector.take(packed.tell())
            if collector.batch.paths:
                yield collector.take(packed.tell())
    except SourceError as error:  # its server does not send it
        raise ReleaseError(f"{error} Nothing was read from it.") from error
    except _DAMAGED as error:
        raise ReleaseError(
            f"The archive {path} is damaged or not a tar archive: after {collector.files} files it "
            f"reads {error!s}. Nothing was read from it; download it again."
        ) from error


def _add_member(
    path: Path | RemoteFile, collector: _Collector, reader: RunReader, member: TarMember
) -> None:
    """Add a member that is part of no run."""
    _refuse_hostile(path, member)
    if member.is_folder:
        return
    if member.size_bytes > MAX_FILE_BYTES:
        collector.add(member.name, b"", _too_large(member.size_bytes))
    else:
        collector.add(member.name, reader.read())


@dataclass(slots=True)
class _Stream:
    """The bytes of a tar from a place on, and the seek points that were passed."""

    data: Any
    points: list[SeekPoint]

    def place(self, reader: RunReader) -> Place:
        """Return where what was yielded last begins."""
        return place_of(reader.member_offset, self.points)


@contextmanager
def _open_stream(packed: BufferedReader, place: Place) -> Iterator[_Stream]:
    points = [point for point in [place.point] if point is not None]
    with _unpacked(packed, place.point, points) as data:
        if data is packed:
            packed.seek(place.offset)
        while rest := place.offset - data.tell():
            if not data.read(min(rest, _SKIPPED_BYTES)):
                raise EOFError("the archive is shorter than before")
        yield _Stream(data, points)


@contextmanager
def _unpacked(
    packed: BufferedReader, point: SeekPoint | None, points: list[SeekPoint]
) -> Iterator[Any]:
    start = packed.peek(6)
    if start.startswith(b"\x1f\x8b"):
        gzip_stream = GzipStream(
            packed, point=point, on_point=points.append, point_bytes=POINT_BYTES
        )
        with closing(gzip_stream):
            yield gzip_stream
    elif start.startswith(b"BZh"):
        with bz2.open(packed) as bzip2_stream:
            yield bzip2_stream
    elif start.startswith(b"\xfd7zXZ\0"):
        with lzma.open(packed) as xz_stream:
            yield xz_stream
    else:
        yield packed


def _refuse_hostile(path: Path | RemoteFile, member: TarMember) -> None:
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        problem = "has a name that reaches outside the archive"
    elif member.kind == b"S":
        problem = "is a sparse file"
    elif not (member.is_file or member.is_folder):
        problem = "is a link or a device"
    else:
        return
    raise ReleaseError(
        f"The archive {path} is not a VoxBlink2 release: member {member.name!r} {problem}. "
        "Nothing was read from it."
    )
