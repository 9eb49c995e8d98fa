"""Whether a folder can be the source of a selection at all, and what it looks like if it cannot."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from voxblink2_lib.records import VideoKey, is_speaker_id, is_video_id
from voxblink2_lib.sources.folder_listing import (
    MEDIA_EXTENSIONS,
    VIDEO_EXTENSIONS,
    is_unfinished,
    parse_name,
)
from voxblink2_lib.sources.folder_shape import appearance, shown, stem, video_in

# An example of each obstacle is kept in this order: the first that was met explains most.
_OBSTACLES = {
    "unreadable": "{} cannot be read: permission denied. Make it readable.",
    "dangling": "{} is a link that leads nowhere. Mount what it leads to, or copy the media.",
    "unfinished": "{} is of a download that did not finish. Finish the downloads first.",
    "pictureless": "{} has no pictures, which the configuration audio-visual needs. Name a folder "
    "of videos, or use --config audio.",
}


def folder_problem(
    folder: Path, keys: Iterable[VideoKey] | None, *, with_video: bool = False
) -> str:
    """Return why a folder cannot be the source of a selection; empty if it can.

    It can if one of the videos has a file there; the search ends at the first. Its cost is one
    listing of the folder, and one for each selected speaker who has a folder there.

    Args:
        folder: the source.
        keys: the selected videos, all of a speaker in a row; ``None`` if they are not known, then
            any ``<speaker>/<video>.<ext>`` will do.
        with_video: accept files with video only.

    Returns:
        What was looked for, what the folder looks like instead, and what to do.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return (
            f"The source {folder} cannot be listed: {error.strerror}. Make it readable, or name "
            "another folder with --source."
        )
    search = _Search(folder, names, with_video=with_video)
    if search.finds_any() if keys is None else search.finds(keys):
        return ""
    looks_like = search.obstacle() or appearance(
        folder, names, selected=search.speakers, speaker_of=search.speaker_of
    )
    return f"{search.goal()} {looks_like}"


class _Search:
    """Looks for a usable file, and keeps an example of each obstacle.

    Args:
        folder: the source.
        names: what it contains.
        with_video: accept files with video only.

    Attributes:
        speakers: the selected speakers.
        speaker_of: the speaker of each selected video that lies beside the folders of speakers.
    """

    def __init__(self, folder: Path, names: Iterable[str], *, with_video: bool) -> None:
        self._folder = folder
        self._names = frozenset(names)
        self._extensions = frozenset(VIDEO_EXTENSIONS if with_video else MEDIA_EXTENSIONS)
        self._obstacles: dict[str, Path] = {}
        self._first: VideoKey | None = None
        self._videos = 0
        self.speakers: set[str] = set()
        self.speaker_of: dict[str, str] = {}

    def finds(self, keys: Iterable[VideoKey]) -> bool:
        """Return whether one of the videos has a usable file."""
        beside = {video_in(name) for name in self._names}
        for speaker_id, videos in groupby(keys, key=lambda key: key.speaker_id):
            self.speakers.add(speaker_id)
            stems = self._stems(speaker_id) if speaker_id in self._names else {}
            for video in videos:
                self._first = self._first or video
                self._videos += 1
                if video.video_id in beside:
                    self.speaker_of[video.video_id] = speaker_id
                if any(map(self._is_usable, stems.get(video.video_id, ()))):
                    return True
        return False

    def finds_any(self) -> bool:
        """Return whether there is a usable file of any video."""
        return any(
            self._is_usable(path)
            for speaker_id in sorted(self._names)
            if is_speaker_id(speaker_id)
            for video_id, paths in self._stems(speaker_id).items()
            if is_video_id(video_id)
            for path in paths
        )

    def _stems(self, speaker_id: str) -> dict[str, list[Path]]:
        """Return the files of a speaker by what precedes the first dot."""
        speaker = self._folder / speaker_id
        stems = defaultdict(list)
        try:
            for name in os.listdir(speaker):
                stems[stem(name)].append(speaker / name)
        except PermissionError:
            self._obstacles.setdefault("unreadable", speaker)
        except OSError:
            if speaker.is_symlink() and not speaker.exists():
                self._obstacles.setdefault("dangling", speaker)
        return stems

    def _is_usable(self, path: Path) -> bool:
        obstacle = self._judge(path)
        if obstacle is not None:
            self._obstacles.setdefault(obstacle, path)
        return obstacle is None

    def _judge(self, path: Path) -> str | None:
        """Return what is wrong with a file whose name begins as it should."""
        if is_unfinished(path.name):
            return "unfinished"
        name = parse_name(path.name)
        if name is None:
            return "other"
        if not path.is_file():
            return "dangling" if path.is_symlink() and not path.exists() else "other"
        if name.extension not in self._extensions:
            return "pictureless"
        return None if os.access(path, os.R_OK) else "unreadable"

    def goal(self) -> str:
        """Return what was looked for in vain."""
        if self._first is None:
            return f"The source {self._folder} has no usable file <speaker>/<video>.<ext>."
        return (
            f"The source {self._folder} has a usable file of none of the {self._videos:,} selected "
            f"videos; looked for <speaker>/<video>.<ext>, such as {'/'.join(self._first)}.mp4."
        )

    def obstacle(self) -> str:
        """Return what is wrong with files that are there; empty if there are none."""
        named = (
            text.format(shown(str(self._obstacles[kind])))
            for kind, text in _OBSTACLES.items()
            if kind in self._obstacles
        )
        return next(named, "")
