"""Whether a place has cut audio, and in which form: parts of an archive, tars, or files."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxblink2_lib.archive.layout import AUDIO_EXTENSIONS
from voxblink2_lib.archive.parts import Archive, find_archives, is_archive_name
from voxblink2_lib.records import is_speaker_id, is_video_id

# Folders above those of the speakers: audio/, wav/, dev/aac/.
_MOST_PREFIXES = 3
# So many folders are looked into on each level.
_LOOKED_AT = 64
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CutAudio:
    """Cut audio that was found.

    Attributes:
        place: what was named.
        archives: tars, whole or in parts, in their order; none of a folder of files.
        folder: of the files.
    """

    place: str
    archives: tuple[Archive, ...] = ()
    folder: Path | None = None

    @property
    def identity(self) -> str:
        """What shows that it is the same: names and beginnings of archives.

        Neither where they are nor how many parts are there: the last ones may be fetched later.
        """
        if self.folder is not None:
            return f"folder {self.folder}"
        names = [archive.name for archive in self.archives]
        digest = hashlib.sha256()
        for archive in self.archives:
            with open(archive.parts[0], "rb") as file:
                digest.update(file.read(_HEAD_BYTES))
        return json.dumps([names, digest.hexdigest()[:16]])


def find_cut_audio(named: str) -> CutAudio | None:
    """Return the cut audio that a place has; ``None`` if it has none.

    Args:
        named: a folder of parts, tars or files ``<speaker>/<video>/<utterance>.<ext>`` below any
            prefix; the first part; a tar; or a pattern of those.

    Raises:
        SourceError: these are parts of an archive, and one is missing or there twice.
    """
    path = Path(named).expanduser()
    if os.path.isdir(path):
        if any(is_archive_name(name) for name in os.listdir(path)):
            return CutAudio(named, tuple(find_archives(named)))
        return CutAudio(named, folder=path.absolute()) if has_cut_files(path) else None
    if os.path.isfile(path) and is_archive_name(path.name):
        return CutAudio(named, tuple(find_archives(named)))
    if glob.has_magic(named) and any(is_archive_name(Path(name).name) for name in glob.glob(named)):
        return CutAudio(named, tuple(find_archives(named)))
    return None


def has_cut_files(folder: Path) -> bool:
    """Return whether a folder has a file ``<speaker>/<video>/<utterance>.<ext>``, by a look."""
    return any(
        _extension(name) in AUDIO_EXTENSIONS
        for speaker in _speakers(folder, _MOST_PREFIXES)
        for video in _folders(speaker)
        if is_video_id(video.name)
        for name in _names(Path(video.path))
    )


def _speakers(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the first folders of speakers, in this folder or below."""
    others = []
    for entry in _folders(folder):
        if is_speaker_id(entry.name):
            yield Path(entry.path)
        else:
            others.append(Path(entry.path))
    if depth:
        for other in others:
            yield from _speakers(other, depth - 1)


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = (entry for entry in entries if entry.is_dir())
            return [entry for entry, _ in zip(found, range(_LOOKED_AT), strict=False)]
    except OSError:
        return []


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()
