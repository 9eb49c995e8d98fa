"""What lies in a folder of media: ``<speaker>/<video>.<ext>``, as yt-dlp names it."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.records import VideoKey

# In order of preference, if a video exists more than once: audio only decodes fastest, and of
# video H.264, the usual codec of MP4 files.
VIDEO_EXTENSIONS = (
    *("mp4", "mkv", "mov", "m4v", "webm", "ts", "avi", "flv", "3gp", "mpg", "mpeg", "m2ts", "mts"),
    *("ogv", "wmv", "asf", "3g2", "f4v", "vob", "mxf", "rm", "rmvb", "dv", "nut"),
)
AUDIO_EXTENSIONS = (
    *("wav", "flac", "m4a", "opus", "ogg", "oga", "mp3", "aac", "mka", "weba", "ac3", "eac3"),
    *("amr", "awb", "wma", "m4b", "mp2", "dts", "aiff", "aif", "caf", "au", "w64", "wv", "tta"),
    *("ape", "spx", "sph"),
)
# WebM before the other videos: most often it is YouTube's Opus, without pictures.
MEDIA_EXTENSIONS = (
    *AUDIO_EXTENSIONS,
    "webm",
    *(extension for extension in VIDEO_EXTENSIONS if extension != "webm"),
)

# Speakers whose listings are kept; runs go through a release speaker by speaker.
_MAX_LISTINGS = 16

# A folder that changed less than this before it was listed may change again within the same tick of
# its clock, unnoticed. File systems tick every 2 s at worst (FAT).
_SETTLED_NS = 3_000_000_000

# "f" begins the mark of a format, and these languages: <video>.fr.m4a, <video>.fil-PH.m4a.
_LANGUAGE = re.compile(r"f[a-z]{1,2}(-[a-z0-9]+)*", re.IGNORECASE)
_UNFINISHED = re.compile(r"\.(part|ytdl|temp)\b", re.IGNORECASE)


class MediaName(NamedTuple):
    """The name of a media file, taken apart.

    Attributes:
        name: the whole name.
        extension: in lower case, without the dot.
        format_id: yt-dlp's, if the file is one of several that were not merged; else empty.
    """

    name: str
    extension: str
    format_id: str

    @property
    def is_boosted(self) -> bool:
        """Whether YouTube has compressed its loudness."""
        return "drc" in self.format_id.lower().split("-")


def parse_name(name: str) -> MediaName | None:
    """Take the name of a file apart; ``None`` if it is not that of a whole media file.

    >>> parse_name("-truth_0001.f140-drc.m4a")
    MediaName(name='-truth_0001.f140-drc.m4a', extension='m4a', format_id='140-drc')
    >>> parse_name("-truth_0001.temp.mp4")
    >>> parse_name("-truth_0001.mp4.part")
    """
    mark, _, extension = name.partition(".")[2].rpartition(".")
    extension = extension.lower()
    if extension not in MEDIA_EXTENSIONS or is_unfinished(name):
        return None
    if mark and (mark[0] != "f" or mark == "f" or _LANGUAGE.fullmatch(mark)):
        return None
    return MediaName(name, extension, mark[1:])


def is_unfinished(name: str) -> bool:
    """Return whether a name is that of a download, or a conversion, that did not finish."""
    return _UNFINISHED.search(name) is not None


class _Listing(NamedTuple):
    """The names in a speaker's folder, by video, and when the folder had changed last."""

    changed_ns: int
    names: dict[str, list[str]]


class FolderListings:
    """The names of files by video; each speaker's folder is listed once, and again if it changes.

    Args:
        folder: contains one folder for each speaker.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listings: OrderedDict[str, _Listing] = OrderedDict()

    def names(self, key: VideoKey) -> Sequence[str]:
        """Return the names that begin with a video's id and a dot, or are the id, sorted.

        Raises:
            PermissionError: the speaker's folder cannot be listed.
        """
        folder = os.path.join(self._folder, key.speaker_id)
        try:
            changed_ns = os.stat(folder).st_mtime_ns
            listing = self._listings.get(key.speaker_id)
            is_known = listing is not None and listing.changed_ns == changed_ns
            # Not every file system tells when a folder has changed.
            if listing is None or not is_known or key.video_id not in listing.names:
                listing = self._list(key.speaker_id, folder, changed_ns)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return sorted(listing.names.get(key.video_id, ()))

    def _list(self, speaker_id: str, folder: str, changed_ns: int) -> _Listing:
        listed_ns = time.time_ns()
        names: dict[str, list[str]] = defaultdict(list)
        for name in os.listdir(folder):
            names[name.partition(".")[0]].append(name)
        listing = _Listing(changed_ns, dict(names))
        self._listings.pop(speaker_id, None)
        if listed_ns - changed_ns > _SETTLED_NS:
            self._listings[speaker_id] = listing
            if len(self._listings) > _MAX_LISTINGS:
                self._listings.popitem(last=False)
        return listing
