"""Find the release.

A release is a folder (``meta/<speaker>/<video>/<utterance>.txt``, or the archive
``vb2_meta.tar.gz`` in it) or the archive itself, which is read as a stream and never unpacked. It
may be at a URL.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.archive.remote import RemoteFile, is_url, local_path
from voxblink2_lib.errors import ReleaseError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.release import builtin
from voxblink2_lib.release.annotation_files import AnnotationFile, read_batches, walk
from voxblink2_lib.release.remote import RemotePlace, find_release, remote_state

RELEASE_VARIABLE = "VOXBLINK2_RELEASE"
META_ARCHIVE = "vb2_meta.tar.gz"
BUILTIN_RELEASE = "demo"
# Folders and archives of annotations, of VoxBlink2 and of VoxBlink1.
_ANNOTATIONS = ("meta", META_ARCHIVE, "timestamp", "timestamp.tar.gz")
# One file after the other: few at a time.
_BATCH_BYTES = 64 << 10


class ReleaseState(NamedTuple):
    """State of a release.

    Attributes:
        signature: see :meth:`Release.signature`.
        size: bytes of the archive, or number of files in the folder.
    """

    signature: str
    size: int


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

    @property
    def is_archive(self) -> bool:
        """Whether it is one file, and not a folder."""
        return isinstance(self.path, RemoteFile) or (
            isinstance(self.path, Path) and self.path.is_file()
        )

    def signature(self, *, progress: Progress = no_progress) -> str:
        """Return a text that changes when the release's files change.

        An archive is identified by size and modification time, a folder by path, size and
        modification time of every file; at a URL, in place of the time by what its server says of
        its content, such as an ETag.

        Args:
            progress: counts the speakers of a folder.
        """
        return self.state(progress=progress).signature

    def state(self, *, progress: Progress = no_progress) -> ReleaseState:
        """Return the signature, and how much there is to read."""
        if not isinstance(self.path, Path):
            return ReleaseState(*remote_state(self.path, progress=progress))
        if self.path.is_file():
            state = self.path.stat()
            return ReleaseState(f"archive {state.st_size} {state.st_mtime_ns}", state.st_size)
        digest = hashlib.sha256()
        files, speaker = 0, ""
        total = _count_speakers(self.path)
        with progress("Checking the release", unit="speaker", total=total) as advance:
            for name, entry in walk(self.path):
                if (first := name.split("/", 2)[1]) != speaker:
                    speaker = first
                    advance(1)
                files += 1
                # Of a link, the file; of a dangling one, the link: annotations() will reject it.
                stat = entry.stat(follow_symlinks=os.path.exists(entry.path))
                digest.update(os.fsencode(f"{name} {stat.st_size} {stat.st_mtime_ns}\n"))
        return ReleaseState(f"folder {digest.hexdigest()}", files)

    def annotations(self) -> Iterator[AnnotationFile]:
        """Yield every file of the release, in the order it is stored.

        Raises:
            ReleaseError: the archive is damaged, or holds a member that no release has
                (absolute names, ``..``, links, devices); or its server does not send it.
        """
        for placed in read_batches(self.path, batch_bytes=_BATCH_BYTES):
            yield from placed.batch.files()


def _count_speakers(meta: Path) -> int | None:
    try:
        return len(os.listdir(meta))
    except OSError:  # to walk through it will say why
        return None


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
