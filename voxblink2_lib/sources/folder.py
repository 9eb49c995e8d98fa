"""A folder of media that were downloaded before: ``<speaker>/<video>.<ext>``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from voxblink2_lib.errors import FetchError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.base import Media

# In order of preference, when a video is there more than once: sound alone decodes fastest, and
# of pictures H.264, which is what MP4 files mostly hold.
WITH_PICTURES = ("mp4", "mkv", "mov", "m4v", "webm", "ts", "avi", "flv", "3gp", "mpg")
EXTENSIONS = (
    *("wav", "flac", "m4a", "opus", "ogg", "oga", "mp3", "aac", "mka"),
    *("webm", "mp4", "mkv", "mov", "m4v", "ts", "avi", "flv", "3gp", "mpg"),
)


class MediaFolder:
    """Serves files of a folder as they are.

    Args:
        folder: holds one folder a speaker.
        pictures: look for files with pictures only.
    """

    def __init__(self, folder: Path, *, pictures: bool = False) -> None:
        self._folder = folder
        self._extensions = WITH_PICTURES if pictures else EXTENSIONS

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
        # No globbing: a video id is looked up as it is written.
        for extension in (*self._extensions, *map(str.upper, self._extensions)):
            path = f"{stem}.{extension}"
            if os.path.isfile(path):
                if not os.access(path, os.R_OK):
                    raise FetchError(f"{path} cannot be read: permission denied", status="gone")
                yield Media(Path(path), os.path.getsize(path))
                return
        raise FetchError(
            f"no file {key.speaker_id}/{key.video_id}.<ext> in {self._folder} "
            f"(endings looked for: {', '.join(self._extensions)})",
            status="gone",
        )
