"""A release at a URL: where it is in a bucket or a Hub repository, and how its files are read.

An archive is streamed. A folder ``meta`` with a file for each utterance is read a speaker at a
time, some files at once; an archive is much faster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from voxblink2_lib.archive.remote import (
    RemoteFile,
    RemoteFolder,
    find_remote,
    remote_file,
    stamp_of,
)
from voxblink2_lib.errors import ReleaseError, SourceError, first_line
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.redaction import redacted_source

_FETCHED_AT_ONCE = 64

RemotePlace = RemoteFile | RemoteFolder


class RemoteAnnotation(NamedTuple):
    """One file of a release in a folder: its path, and its bytes or the reason why there are none.

    Attributes:
        path: begins with the folder's name.
        data: its content.
        problem: why there is none.
    """

    path: str
    data: bytes = b""
    problem: str = ""


def find_release(url: str, meta_archive: str) -> RemotePlace:
    """Find the annotations at a URL.

    Args:
        url: an archive; a folder ``meta``; or a folder that has one of both.
        meta_archive: name of the archive.

    Raises:
        ReleaseError: there are none, or the server cannot be reached.
    """
    with _as_release_error():
        place = find_remote(url)
        if place is None:
            raise ReleaseError(
                f"The release {redacted_source(url)} does not exist. Check data_dir."
            )
        if isinstance(place, RemoteFile) or place.name == "meta":
            return place
        for name in ("meta", meta_archive):
            inner = find_remote(place.child(name))
            # A server of web pages answers anything.
            if inner is not None and isinstance(inner, RemoteFolder) == (name == "meta"):
                return inner
    raise ReleaseError(
        f"{place} is not a VoxBlink2 release: it has neither a folder meta nor a file "
        f"{meta_archive}. Name the folder that holds one of them, or the archive itself."
    )


def remote_state(place: RemotePlace, *, progress: Progress = no_progress) -> tuple[str, int]:
    """Return a text that changes when the files of a release do, and how much there is to read.

    That is the bytes of an archive, or the number of files in a folder.

    Args:
        place: what :func:`find_release` returned.
        progress: counts the speakers of a folder.
    """
    if isinstance(place, RemoteFile):
        with _as_release_error():
            return f"archive {stamp_of(place)}", place.size_bytes
    digest, files, entries = hashlib.sha256(), 0, _entries(place)
    with progress("Checking the release", unit="speaker", total=len(entries)) as advance:
        for entry in entries:
            for name, file in _files_of(place, *entry):
                digest.update(f"{name} {stamp_of(file)}\n".encode("utf-8", "surrogateescape"))
                files += 1
            advance(1)
    return f"folder {digest.hexdigest()}", files


def remote_annotations(folder: RemoteFolder, *, max_bytes: int) -> Iterator[RemoteAnnotation]:
    """Yield the files of a folder ``meta``, in order.

    Args:
        folder: the folder.
        max_bytes: the most that a file may have.

    Raises:
        ReleaseError: the server does not send them.
    """
    files = _files(folder)
    while some := list(islice(files, _FETCHED_AT_ONCE)):
        small = [name for name, file in some if file.size_bytes <= max_bytes]
        with _as_release_error():
            contents = folder.contents(small) if small else {}
        for name, file in some:
            path = f"{folder.name}/{name}"
            if name not in contents:
                problem = (
                    f"too large for an annotation: {file.size_bytes} bytes, at most {max_bytes}"
                )
                yield RemoteAnnotation(path, problem=problem)
            else:
                yield _annotation(path, file, contents[name])


def _annotation(path: str, file: RemoteFile, content: bytes | Exception) -> RemoteAnnotation:
    if isinstance(content, bytes):
        return RemoteAnnotation(path, content)
    if isinstance(content, FileNotFoundError):
        return RemoteAnnotation(path, problem=f"cannot be read: {first_line(content)}")
    with _as_release_error(), file.open() as stream:  # with a few tries
        return RemoteAnnotation(path, stream.read())


def _files(folder: RemoteFolder) -> Iterator[tuple[str, RemoteFile]]:
    """Yield the files below a folder, listing one inner folder at a time: there are millions."""
    for entry in _entries(folder):
        yield from _files_of(folder, *entry)


def _entries(folder: RemoteFolder) -> list[tuple[str, bool]]:
    with _as_release_error():
        return folder.names()


def _files_of(folder: RemoteFolder, name: str, is_folder: bool) -> Iterator[tuple[str, RemoteFile]]:
    with _as_release_error():
        if is_folder:
            for path, file in RemoteFolder(folder.child(name)).files():
                yield f"{name}/{path}", file
        else:
            yield name, remote_file(folder.child(name))


@contextmanager
def _as_release_error() -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise ReleaseError(str(error)) from error
