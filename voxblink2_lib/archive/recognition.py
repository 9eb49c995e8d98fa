"""Whether a place has cut audio, and in which form: parts of an archive, tars, or files."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from voxblink2_lib.archive.layout import AUDIO_EXTENSIONS, StrangerError, utterance_of
from voxblink2_lib.archive.parts import Archive, find_archives, is_archive_name
from voxblink2_lib.archive.reader import ArchiveDamagedError, ArchiveReader
from voxblink2_lib.archive.remote import has_pattern, is_url, open_binary
from voxblink2_lib.archive.urls import is_web, name_in, split_query
from voxblink2_lib.errors import SourceError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.records import is_speaker_id, is_video_id

# Folders above those of the speakers: audio/, wav/, dev/aac/.
_MOST_PREFIXES = 3
# So many folders are looked into on each level, and so many files at the beginning of an archive.
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
    def root(self) -> str:
        """The folder, the archive without the number of a part, the folder of several, or a URL."""
        if self.folder is not None:
            return str(self.folder)
        first = self.archives[0].parts[0]
        if not isinstance(first, Path):
            return self.place
        folder = first.parent.absolute()
        return str(folder / self.archives[0].name if len(self.archives) == 1 else folder)

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
            with open_binary(archive.parts[0]) as file:
                digest.update(file.read(_HEAD_BYTES))
        return json.dumps([names, digest.hexdigest()[:16]])


def find_cut_audio(named: str) -> CutAudio | None:
    """Return the cut audio that a place has; ``None`` if it has none.

    Args:
        named: a folder of parts, tars or files ``<speaker>/<video>/<utterance>.<ext>`` below any
            prefix; the first part; a tar; or a pattern of those. At a URL, parts or tars.

    Raises:
        SourceError: these are parts of an archive, and one is missing or there twice; or an
            archive of something else, or one whose beginning is damaged; or a URL has no archive,
            or cannot be read.
    """
    if is_url(named):
        return CutAudio(named, tuple(find_archives(named)))
    path = Path(named).expanduser()
    if os.path.isdir(path):
        # What else lies there, such as the archive of annotations, is none of it.
        archives = _archives(named, _names(path), is_folder=True)
        if archives:
            return CutAudio(named, archives)
        return CutAudio(named, folder=path.absolute()) if has_cut_files(path) else None
    names = [path.name] if os.path.isfile(path) else []
    if not names and glob.has_magic(named):
        names = [Path(name).name for name in glob.glob(os.fspath(path))]
    archives = _archives(named, names, is_folder=False)
    return CutAudio(named, archives) if archives else None


def _archives(named: str, names: Iterable[str], *, is_folder: bool) -> tuple[Archive, ...]:
    """Return the archives of a place that begin with utterances.

    Raises:
        ArchiveDamagedError: there is nothing else, and the beginning cannot be read.
        SourceError: no folder is named, and these are archives of something else.
    """
    if not any(map(is_archive_name, names)):
        return ()
    problems = {archive: _problem(archive) for archive in find_archives(named)}
    if "" in problems.values():
        return tuple(
            archive
            for archive, found in problems.items()
            if not isinstance(found, str) or not found
        )
    damages = [found for found in problems.values() if isinstance(found, ArchiveDamagedError)]
    if damages and not (is_folder and any(map(is_speaker_id, names))):
        raise damages[0]
    if not is_folder:
        raise SourceError(
            f"{named} has no cut audio: its first files are no utterances, such as "
            f"{next(iter(problems.values()))}. Cut audio is named "
            "<speaker>/<video>/<utterance>.<ext>, below any prefix."
        )
    return ()


def _problem(archive: Archive) -> str | ArchiveDamagedError:
    """Return what an archive begins with, empty if an utterance is among its first files."""
    strangers = []
    try:
        with ArchiveReader(archive) as reader:
            files = (member for member in reader if not member.is_folder)
            for member in itertools.islice(files, _LOOKED_AT):
                try:
                    utterance_of(member)
                except StrangerError as error:
                    strangers.append(f"{visible(member.name)} ({error})")
                else:
                    return ""
    except ArchiveDamagedError as error:
        return error
    return strangers[0] if strangers else "none at all"


def names_archive_at_url(named: str) -> bool:
    """Return whether a source can only be an archive at a URL. Nothing is asked of its server.

    >>> [names_archive_at_url(url) for url in ("s3://bucket/parts", "https://x/{video_id}.wav")]
    [True, False]
    """
    if not is_url(named) or "{video_id}" in named:
        return False
    path, _ = split_query(named)
    is_archive = path.endswith("/") or has_pattern(named) or is_archive_name(name_in(named))
    return is_archive or not is_web(named)


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
