"""A folder of media that were downloaded before: ``<speaker>/<video>.<ext>``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from voxblink2_lib.errors import FetchError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.base import Media

# In order of preference, if a video exists more than once: audio only decodes fastest, and of
# video H.264, the usual codec of MP4 files.
VIDEO_EXTENSIONS = ("mp4", "mkv", "mov", "m4v", "webm", "ts", "avi", "flv", "3gp", "mpg")
MEDIA_EXTENSIONS = (
    *("wav", "flac", "m4a", "opus", "ogg", "oga", "mp3", "aac", "mka"),
    *("webm", "mp4", "mkv", "mov", "m4v", "ts", "avi", "flv", "3gp", "mpg"),
)


class MediaFolder:
    """Provides the files of a folder unchanged.

    Args:
        folder: contains one folder for each speaker.
        with_video: accept files with video only.
    """

    def __init__(self, folder: Path, *, with_video: bool = False) -> None:
        self._folder = folder
        self._extensions = VIDEO_EXTENSIONS if with_video else MEDIA_EXTENSIONS

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
        stem = self._folder / key.speaker_id / key.video_id
        # Not by globbing, because a video id could contain a pattern.
        for extension in (*self._extensions, *map(str.upper, self._extensions)):
            path = f"{stem}.{extension}"
            if os.path.isfile(path):
                if not os.access(path, os.R_OK):
                    raise FetchError(f"{path} cannot be read: permission denied", status="gone")
                yield Media(Path(path), os.path.getsize(path))
                return
        raise FetchError(
            f"no file {key.speaker_id}/{key.video_id}.<ext> in {self._folder} "
            f"(extensions tried: {', '.join(self._extensions)})",
            status="gone",
        )
