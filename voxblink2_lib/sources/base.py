"""The protocol of a source of media, and the records it takes and returns."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from voxblink2_lib.archive.recognition import find_cut_audio, names_archive_at_url
from voxblink2_lib.errors import SourceError
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts
from voxblink2_lib.records import CUT_AUDIO, VideoKey
from voxblink2_lib.redaction import is_redacted, redact, redacted_source, secrets_in
from voxblink2_lib.sources.options import FetchOptions, Route

VIDEO_ID_FIELD = "{video_id}"
YOUTUBE_TEMPLATE = f"https://www.youtube.com/watch?v={VIDEO_ID_FIELD}"

# Returns 204 and no content, from a server nearby.
_YOUTUBE_PROBE_URL = "https://www.youtube.com/generate_204"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as the user named it.

    Attributes:
        kind: value of the shards' ``source`` column.
        place: URL template, folder, or where cut audio is.
        options: of downloads over the network.
        route: proxy and cookies of requests.
    """

    kind: Literal["youtube", "url", "folder", "cut-audio"]
    place: str
    options: FetchOptions = field(default_factory=FetchOptions)
    route: Route = field(default_factory=Route)

    @property
    def is_remote(self) -> bool:
        """Whether media are downloaded over the network."""
        return self.kind not in {"folder", CUT_AUDIO}

    @property
    def named(self) -> str:
        """What a user would write."""
        return self.kind if self.kind == "youtube" else self.place

    @property
    def label(self) -> str:
        """What a user would write, without secrets: the name by which a store remembers it."""
        return redacted_source(self.named)

    @property
    def host(self) -> str:
        """The name under which requests are counted, for budgets and pauses."""
        if self.kind != "url":
            return self.kind
        return urlsplit(self.place).netloc.rpartition("@")[2]

    @property
    def front_page(self) -> str:
        """A URL of a remote source that is cheap to serve, to probe whether it answers."""
        if self.kind == "youtube":
            return _YOUTUBE_PROBE_URL
        parts = urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc}/".replace(VIDEO_ID_FIELD, "x" * 11)


class Media(NamedTuple):
    """The local media files of one video.

    Attributes:
        path: the file; the one with the video stream, if video was requested.
        size_bytes: bytes downloaded over the network, or the size of the files.
        audio_path: the file with the audio, if that is another file.
        facts: which renditions they are, as far as the source states it.
    """

    path: Path
    size_bytes: int
    audio_path: Path | None = None
    facts: MediaFacts = NO_FACTS

    @property
    def audio(self) -> Path:
        """The file with the audio."""
        return self.audio_path or self.path


class Source(Protocol):
    """Provides the media of videos."""

    def fetch(
        self,
        key: VideoKey,
        *,
        needed_seconds: float,
        tmp: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> AbstractContextManager[Media]:
        """Provide the media of one video; leaving the context removes downloaded files.

        Args:
            key: the video.
            needed_seconds: how much of its beginning is needed.
            tmp: an existing folder for temporary files.
            answered: called at least once, when the source has answered a request.

        Raises:
            FetchError: the video is unavailable; the message is the source's own.
        """


def parse_source(named: str | None, options: FetchOptions | None = None) -> SourceSpec:
    """Parse a source as a user names it.

    Args:
        named: ``"youtube"``, a URL with ``{video_id}``, or a folder of media named
            ``<speaker>/<video>.<ext>``, or cut audio: parts of the authors' archive, a tar, or a
            folder of files ``<speaker>/<video>/<utterance>.<ext>``. ``None`` means YouTube.
        options: of downloads over the network.

    Raises:
        SourceError: it is none of these, it lacks its secrets, or the options do not apply to it.
    """
    if named is not None and is_redacted(named):
        raise SourceError(
            f"The store remembers the source as {named}; its user name, password and the values of "
            "its query are not stored. Name it again in full: --source URL"
        )
    return stored_source(named, options)


def stored_source(named: str | None, options: FetchOptions | None = None) -> SourceSpec:
    """Parse a source as a store remembers it: it may lack secrets that its server requires.

    Args:
        named: see :func:`parse_source`.
        options: likewise.

    Raises:
        SourceError: it is no source, or the options do not apply to it.
    """
    options = options or FetchOptions()
    if named is None or named == "youtube":
        return SourceSpec("youtube", YOUTUBE_TEMPLATE, options)
    if names_archive_at_url(named):
        _check_no_options(named, options)
        return SourceSpec("cut-audio", named)
    if "://" in named:
        _check_url(named)
        return SourceSpec("url", named, options)
    place = Path(os.path.expanduser(named))
    is_cut = find_cut_audio(named) is not None
    if not is_cut and not os.path.isdir(place):  # False for names that cannot be
        raise SourceError(
            f"The source {_shown(named)} is neither 'youtube', nor a URL with {VIDEO_ID_FIELD}, "
            "nor an existing folder, nor cut audio. A folder must contain media named "
            "<speaker>/<video>.<ext>; cut audio is the parts of the authors' archive "
            "(VB2_audio.tar.gz.00 ...: their folder, or the first), a tar, or a folder of files "
            "<speaker>/<video>/<utterance>.<ext>."
        )
    _check_no_options(named, options)
    return SourceSpec("cut-audio" if is_cut else "folder", str(place.absolute()))


def _check_no_options(named: str, options: FetchOptions) -> None:
    if options != FetchOptions(fetches=options.fetches):
        where = "an archive at a URL" if "://" in named else "on this machine"
        raise SourceError(
            f"The source {_shown(named)} is {where}; options such as proxy, "
            "cookies, budget or sleep have no effect on it. Leave them out."
        )


def _shown(named: str) -> str:
    return repr(redact(named, secrets_in(named)))


def _check_url(named: str) -> None:
    if not named.startswith(("http://", "https://")) or VIDEO_ID_FIELD not in named:
        raise SourceError(
            f"The source {_shown(named)} is not a URL from which media can be downloaded: it "
            f"must begin with http:// or https:// and contain {VIDEO_ID_FIELD} in place of the "
            "video's id, for example https://media.example.org/{video_id}.m4a"
        )
    unknown = set(re.findall(r"{[a-z_]*}", named)) - {VIDEO_ID_FIELD}
    if unknown:
        raise SourceError(
            f"The source {_shown(named)} contains {', '.join(sorted(unknown))}; only "
            f"{VIDEO_ID_FIELD} is filled in."
        )
