"""Read the annotation files of a release safely, from a folder or from an archive as a stream."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from voxblink2_lib.archive.tar_reader import TarFormatError, TarMember, TarReader
from voxblink2_lib.errors import ReleaseError

MAX_FILE_BYTES = 8 << 20

# What the decompressors raise on damaged input.
_DAMAGED = (TarFormatError, EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """One file of the release: its path in it, and its bytes or the reason why they are absent."""

    path: str
    data: bytes = b""
    problem: str = ""


def read_files(path: Path) -> Iterator[AnnotationFile]:
    """Yield every file of a release, in the order it is stored.

    Args:
        path: the ``meta`` folder or the archive.

    Raises:
        ReleaseError: see :meth:`voxblink2_lib.release.location.Release.annotations`.
    """
    yield from _read_archive(path) if path.is_file() else _read_folder(path)


def walk(meta: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files three levels down, and files at a wrong level, in order."""

    def below(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{prefix}/{entry.name}"
                if entry.is_dir() and depth < 3:
                    yield from below(entry.path, name, depth + 1)
                else:
                    yield name, entry

    try:
        yield from below(os.fspath(meta), meta.name, 1)
    except PermissionError as error:
        raise ReleaseError(
            f"The release {meta} cannot be read: {error.filename}: permission denied. "
            "A part of a release would give a wrong corpus; make all of it readable."
        ) from error


def _read_folder(meta: Path) -> Iterator[AnnotationFile]:
    for name, entry in walk(meta):
        try:
            if not entry.is_file():
                yield AnnotationFile(name, problem="not a regular file")
            elif entry.stat().st_size > MAX_FILE_BYTES:
                yield AnnotationFile(name, problem=_too_large(entry.stat().st_size))
            else:
                yield AnnotationFile(name, Path(entry.path).read_bytes())
        except OSError as error:
            yield AnnotationFile(name, problem=f"cannot be read: {error.strerror}")


def _too_large(size_bytes: int) -> str:
    return f"too large for an annotation: {size_bytes} bytes, at most {MAX_FILE_BYTES}"


@contextmanager
def _open_archive(path: Path) -> Iterator[TarReader]:
    with open(path, "rb") as packed:
        start = packed.peek(6)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(packed) as stream:
                yield TarReader(cast(BinaryIO, stream), packed)
        elif start.startswith(b"BZh"):
            with bz2.open(packed) as stream:
                yield TarReader(cast(BinaryIO, stream), packed)
        elif start.startswith(b"\xfd7zXZ\0"):
            with lzma.open(packed) as stream:
                yield TarReader(cast(BinaryIO, stream), packed)
        else:
            yield TarReader(packed, packed)


def _read_archive(path: Path) -> Iterator[AnnotationFile]:
    count = 0
    try:
        with _open_archive(path) as archive:
            for member in archive:
                _refuse_hostile(path, member)
                if member.is_folder:
                    continue
                count += 1
                if member.size_bytes > MAX_FILE_BYTES:
                    yield AnnotationFile(member.name, problem=_too_large(member.size_bytes))
                else:
                    yield AnnotationFile(member.name, archive.read())
    except ReleaseError:
        raise
    except _DAMAGED as error:
        raise ReleaseError(
            f"The archive {path} is damaged or not a tar archive: after {count} files it reads "
            f"{error!s}. Nothing was read from it; download it again."
        ) from error


def _refuse_hostile(path: Path, member: TarMember) -> None:
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
