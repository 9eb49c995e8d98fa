"""Find the release, and read its annotation files safely.

A release is a folder (``meta/<speaker>/<video>/<utterance>.txt``, or the archive
``vb2_meta.tar.gz`` in it) or the archive itself, which is read as a stream and never unpacked. It
may be at a URL.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from voxblink2_lib.archive.remote import RemoteFile, RemoteFolder, is_url, local_path, open_binary
from voxblink2_lib.archive.tar_reader import TarFormatError, TarMember, TarReader
from voxblink2_lib.errors import ReleaseError, SourceError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.release import builtin
from voxblink2_lib.release.remote import (
    RemotePlace,
    find_release,
    remote_annotations,
    remote_signature,
)

RELEASE_VARIABLE = "VOXBLINK2_RELEASE"
META_ARCHIVE = "vb2_meta.tar.gz"
BUILTIN_RELEASE = "demo"
_MAX_FILE_BYTES = 8 << 20
# Folders and archives of annotations, of VoxBlink2 and of VoxBlink1.
_ANNOTATIONS = ("meta", META_ARCHIVE, "timestamp", "timestamp.tar.gz")

# What the decompressors raise on damaged input.
_DAMAGED = (TarFormatError, EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """One file of the release: its path in it, and its bytes or the reason why they are absent."""

    path: str
    data: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that can be read.

    Attributes:
        path: the ``meta`` folder or the archive, here or at a URL.
        default_source: source of its media, a folder, where it has one of its own: only the
            built-in release has.
    """

    path: Path | RemotePlace
    default_source: str | None = None

    def signature(self, *, progress: Progress = no_progress) -> str:
        """Return a text that changes when the release's files change.

        An archive is identified by size and modification time, a folder by path, size and
        modification time of every file; at a URL, in place of the time by what its server says of
        its content, such as an ETag.

        Args:
            progress: counts the files of a folder.
        """
        if not isinstance(self.path, Path):
            return remote_signature(self.path, progress=progress)
        if self.path.is_file():
            state = self.path.stat()
            return f"archive {state.st_size} {state.st_mtime_ns}"
        digest = hashlib.sha256()
        with progress("Checking the release", unit="file") as advance:
            for name, entry in _walk(self.path):
                advance(1)
                # Of a link, the file; of a dangling one, the link: annotations() will reject it.
                state = entry.stat(follow_symlinks=os.path.exists(entry.path))
                digest.update(os.fsencode(f"{name} {state.st_size} {state.st_mtime_ns}\n"))
        return f"folder {digest.hexdigest()}"

    def annotations(self) -> Iterator[AnnotationFile]:
        """Yield every file of the release, in the order it is stored.

        Raises:
            ReleaseError: the archive is damaged, or holds a member that no release has
                (absolute names, ``..``, links, devices); or its server does not send it.
        """
        if isinstance(self.path, RemoteFolder):
            for file in remote_annotations(self.path, max_bytes=_MAX_FILE_BYTES):
                yield AnnotationFile(*file)
        elif isinstance(self.path, RemoteFile) or self.path.is_file():
            yield from _read_archive(self.path)
        else:
            yield from _read_folder(self.path)


def open_release(data_dir: str | os.PathLike[str] | None) -> Release:
    """Find the release that a user names.

    Args:
        data_dir: a folder (of VoxBlink1, ``resource`` or the one above it), an archive, either at
            a URL, ``"demo"``, or ``None`` for what the environment variable ``VOXBLINK2_RELEASE``
            names.

    Raises:
        ReleaseError: nothing is named, or the path is not a readable release.
    """
    named = os.fspath(data_dir) if data_dir is not None else os.environ.get(RELEASE_VARIABLE)
    if not named:
        raise ReleaseError(
            "No release was named. The VoxBlink2 release is a set of annotation files that its "
            "authors publish (see github.com/VoxBlink2/ScriptsForVoxBlink2); the one needed here "
            f"is {META_ARCHIVE}. Name it, or a folder that holds it, with "
            f"data_dir=... (--data-dir on the command line) or the variable {RELEASE_VARIABLE}. "
            'data_dir="demo" names the small built-in release.'
        )
    if named == BUILTIN_RELEASE:
        return Release(builtin.RELEASE / META_ARCHIVE, default_source=str(builtin.MEDIA))
    if is_url(named):
        return Release(find_release(named, META_ARCHIVE))
    path = local_path(named)
    if not os.path.exists(path):  # Path.exists raises an error for a name that is too long
        raise ReleaseError(f"The release {path} does not exist. Check data_dir.")
    if not os.access(path, os.R_OK):
        raise ReleaseError(f"The release {path} cannot be read: permission denied.")
    if path.is_file():
        return Release(path)
    for folder in (path, path / "resource"):
        for name in _ANNOTATIONS:
            if (folder / name).exists() and not _is_about_speakers(folder / name):
                return Release(folder / name)
    if path.name in _ANNOTATIONS and not _is_about_speakers(path):
        return Release(path)
    raise ReleaseError(
        f"{path} is not a VoxBlink2 release: it has neither a folder meta nor a file "
        f"{META_ARCHIVE} (of VoxBlink1: timestamp or timestamp.tar.gz; its meta has lists of "
        "speakers). Name the folder that holds one of them, or the archive itself."
    )


def _is_about_speakers(path: Path) -> bool:
    """Return whether this is the folder ``meta`` of VoxBlink1, which has no annotations."""
    return any((path / name).is_file() for name in ("spk2gender", "spk2lan", "spk2loc", "utt2dur"))


def _walk(meta: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
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
    for name, entry in _walk(meta):
        try:
            if not entry.is_file():
                yield AnnotationFile(name, problem="not a regular file")
            elif entry.stat().st_size > _MAX_FILE_BYTES:
                yield AnnotationFile(name, problem=_too_large(entry.stat().st_size))
            else:
                yield AnnotationFile(name, Path(entry.path).read_bytes())
        except OSError as error:
            yield AnnotationFile(name, problem=f"cannot be read: {error.strerror}")


def _too_large(size_bytes: int) -> str:
    return f"too large for an annotation: {size_bytes} bytes, at most {_MAX_FILE_BYTES}"


@contextmanager
def _open_archive(path: Path | RemoteFile) -> Iterator[TarReader]:
    with open_binary(path) as packed:
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


def _read_archive(path: Path | RemoteFile) -> Iterator[AnnotationFile]:
    count = 0
    try:
        with _open_archive(path) as archive:
            for member in archive:
                _refuse_hostile(path, member)
                if member.is_folder:
                    continue
                count += 1
                if member.size_bytes > _MAX_FILE_BYTES:
                    yield AnnotationFile(member.name, problem=_too_large(member.size_bytes))
                else:
                    yield AnnotationFile(member.name, archive.read())
    except ReleaseError:
        raise
    except SourceError as error:  # its server does not send it
        raise ReleaseError(f"{error} Nothing was read from it.") from error
    except _DAMAGED as error:
        raise ReleaseError(
            f"The archive {path} is damaged or not a tar archive: after {count} files it reads "
            f"{error!s}. Nothing was read from it; download it again."
        ) from error


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
