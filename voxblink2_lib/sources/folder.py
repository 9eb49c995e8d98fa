"""A folder of media that were downloaded before: ``<speaker>/<video>.<ext>``.

<video>.mp4                            a whole video
<video>.f137.mp4   <video>.f140.m4a    pictures and sound that yt-dlp has not merged
<video>.mp4        <video>.m4a         the same, if the first has no sound
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import FetchError, MediaError
from voxblink2_lib.media.container import open_media
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.media.tracks import has_audio, has_video
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.base import Media
from voxblink2_lib.sources.folder_listing import (
    MEDIA_EXTENSIONS,
    VIDEO_EXTENSIONS,
    FolderListings,
    MediaName,
    is_unfinished,
    parse_name,
)

# More names than these make a message no clearer.
_NAMED_EXTENSIONS = 10
_NAMED_FILES = 3


class MediaFolder:
    """Provides the files of a folder unchanged.

    Args:
        folder: contains one folder for each speaker.
        with_video: accept files with video only.
    """

    def __init__(self, folder: Path, *, with_video: bool = False) -> None:
        self._folder = folder
        self._extensions = VIDEO_EXTENSIONS if with_video else MEDIA_EXTENSIONS
        self._with_video = with_video
        self._listings = FolderListings(folder)

    @contextlib.contextmanager
    def fetch(
        self,
        key: VideoKey,
        *,
        needed_seconds: float,
        tmp: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> Iterator[Media]:
        """See :class:`voxblink2_lib.sources.base.Source`."""
        del needed_seconds, tmp, answered
        yield self._media(key)

    def _media(self, key: VideoKey) -> Media:
        speaker = self._folder / key.speaker_id
        try:
            names = self._listings.names(key)
        except PermissionError as error:
            message = f"{speaker} cannot be listed: permission denied"
            raise FetchError(message, status="gone") from error
        files = [file for name in names if (file := _file(speaker, name))]
        candidates = _ranked(files, self._extensions)
        if not candidates:
            raise FetchError(self._nothing(key, names, files), status="gone")
        unfinished = [name for name in names if is_unfinished(name)]
        if len(files) == 1 and not unfinished:
            chosen = _Chosen(candidates[0])  # not opened twice
        elif self._with_video:
            chosen = _film(candidates, _ranked(files, MEDIA_EXTENSIONS))
        else:
            chosen = _sound(candidates, _ranked(files, VIDEO_EXTENSIONS))
        if unfinished and chosen.lack:
            raise FetchError(
                f"{chosen.file.path} {chosen.lack}; {_list_of(unfinished)} there: "
                "the download did not finish",
                status="gone",
            )
        return chosen.media()

    def _nothing(self, key: VideoKey, names: Sequence[str], files: Sequence[_File]) -> str:
        """Return that no file is there, what was looked for, and what lies there instead."""
        tried = ", ".join(self._extensions[:_NAMED_EXTENSIONS])
        more = len(self._extensions) - _NAMED_EXTENSIONS
        message = (
            f"no file {key.speaker_id}/{key.video_id}.<ext> in {self._folder} "
            f"(extensions tried: {tried} and {more} more, see docs/usage.md)"
        )
        if not names:
            return message
        unfinished = [name for name in names if is_unfinished(name)]
        if unfinished:
            return f"{message}; {_list_of(unfinished)} there: the download did not finish"
        if files:
            names = [file.path.name for file in files]
            return f"{message}; {_list_of(names)} there, without pictures"
        return f"{message}; {_list_of(names)} there, which is no such file"


def _list_of(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_NAMED_FILES])
    more = len(names) - _NAMED_FILES
    listed += f" and {more} more" * (more > 0)
    return f"{listed} {'lies' if len(names) == 1 else 'lie'}"


class _Content(NamedTuple):
    """What a media file contains."""

    audio: bool
    video: bool


class _File:
    """A file of a video.

    Attributes:
        path: where it is.
        name: its name, taken apart.
        size_bytes: of the file.
    """

    def __init__(self, path: Path, name: MediaName, size_bytes: int) -> None:
        self.path = path
        self.name = name
        self.size_bytes = size_bytes
        self._content: _Content | None = None

    @property
    def content(self) -> _Content:
        """What the file contains; nothing if it cannot be read.

        Raises:
            FetchError: permission is denied.
        """
        if self._content is None:
            self.check_access()
            try:
                with named_if_damaged(self.path), open_media(self.path) as container:
                    self._content = _Content(has_audio(container), has_video(container))
            except MediaError:
                self._content = _Content(audio=False, video=False)
        return self._content

    def check_access(self) -> None:
        """Raise a FetchError if permission is denied."""
        if not os.access(self.path, os.R_OK):
            raise FetchError(f"{self.path} cannot be read: permission denied", status="gone")


def _file(folder: Path, name: str) -> _File | None:
    """Return a media file of a folder; ``None`` if the name is none of a media file."""
    parsed = parse_name(name)
    if parsed is None:
        return None
    path = folder / name
    try:
        status = os.stat(path)
    except OSError:
        return None  # A link that leads nowhere, or a file that was removed just now.
    return _File(path, parsed, status.st_size) if stat.S_ISREG(status.st_mode) else None


def _ranked(files: Sequence[_File], extensions: Sequence[str]) -> list[_File]:
    """Return the files with one of the extensions, the one to take first.

    Whole files come before those that were not merged; then the order of the extensions decides,
    then what is not compressed in loudness, then the larger file, then the name.
    """

    def rank(file: _File) -> tuple[bool, int, bool, int, str]:
        name = file.name
        return (
            bool(name.format_id),
            extensions.index(name.extension),
            name.is_boosted,
            -file.size_bytes,
            name.name,
        )

    return sorted((file for file in files if file.name.extension in extensions), key=rank)


class _Chosen(NamedTuple):
    """The file or the two files that are taken.

    Attributes:
        file: the only one, or the one with the pictures.
        sound: the one with the sound, if that is another.
        lack: what they do not contain, for a message.
    """

    file: _File
    sound: _File | None = None
    lack: str = ""

    def media(self) -> Media:
        self.file.check_access()
        if self.sound is None:
            return Media(self.file.path, self.file.size_bytes)
        size_bytes = self.file.size_bytes + self.sound.size_bytes
        return Media(self.file.path, size_bytes, self.sound.path)


def _film(films: Sequence[_File], all_files: Sequence[_File]) -> _Chosen:
    """Choose the file with pictures, and another one for the sound if that has none."""
    film = next((file for file in films if file.content.video), None)
    if film is None:
        return _Chosen(films[0], lack="has no pictures")
    if film.content.audio:
        return _Chosen(film)
    sound = next((file for file in all_files if file.content.audio), None)
    return _Chosen(film, sound, lack="" if sound else "has no sound")


def _sound(files: Sequence[_File], films: Sequence[_File]) -> _Chosen:
    """Choose the file with sound, and the pictures that it was separated from."""
    sound = next((file for file in files if file.content.audio), None)
    if sound is None:
        return _Chosen(files[0], lack="has no sound")
    if not sound.content.video:
        # Where the video begins is seen from the pictures; so clips are those of "audio-visual".
        for film in films:
            if film.content.video and not film.content.audio:
                return _Chosen(film, sound)
    return _Chosen(sound)
