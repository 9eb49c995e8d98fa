"""What a source of media is: its specification, its protocol, and what it returns."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from voxblink2_lib.errors import SourceError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources.options import FetchOptions, Route

_PLACE = "{video_id}"

# Answers nothing, with 204, and is never far away.
_YOUTUBE_PAGE = "https://www.youtube.com/generate_204"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as the user named it.

    Attributes:
        kind: what the shards' ``source`` column says.
        place: address template or folder.
        options: how it is asked over the network.
        via: the outgoing address.
    """

    kind: Literal["youtube", "url", "folder"]
    place: str
    options: FetchOptions = field(default_factory=FetchOptions)
    via: Route = field(default_factory=Route)

    @property
    def is_remote(self) -> bool:
        """Whether media come over the network."""
        return self.kind != "folder"

    @property
    def named(self) -> str:
        """What a user would write."""
        return self.kind if self.kind == "youtube" else self.place

    @property
    def host(self) -> str:
        """What counts requests: the source's name, for budgets and pauses."""
        return urlsplit(self.place).netloc if self.kind == "url" else self.kind

    @property
    def front_page(self) -> str:
        """An address at a remote source that costs its server nothing, to see if it answers."""
        if self.kind == "youtube":
            return _YOUTUBE_PAGE
        parts = urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc}/".replace(_PLACE, "x" * 11)


class Media(NamedTuple):
    """Media that are here now.

    Attributes:
        path: the file; with the pictures, where they were asked for.
        size_bytes: what it took: bytes that came over the network, or the size of the file.
        audio_path: the file with the sound, where that is another one.
    """

    path: Path
    size_bytes: int
    audio_path: Path | None = None

    @property
    def sound(self) -> Path:
        """The file with the sound."""
        return self.audio_path or self.path


class Source(Protocol):
    """Something that media come from."""

    def fetch(
        self,
        key: VideoKey,
        *,
        needed_seconds: float,
        tmp: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> AbstractContextManager[Media]:
        """Bring one video; leaving the context removes what was fetched.

        Args:
            key: the video.
            needed_seconds: only this much of its beginning is needed.
            tmp: an existing folder for temporary files.
            answered: called when the source has answered a request, at least once.

        Raises:
            FetchError: the video did not come, in the source's own words.
        """


def parse_source(named: str | None, options: FetchOptions | None = None) -> SourceSpec:
    """Read what a user wrote as source.

    Args:
        named: ``"youtube"``, an address with ``{video_id}``, or a folder of media named
            ``<speaker>/<video>.<ext>``. ``None`` means YouTube.
        options: how it is asked over the network.

    Raises:
        SourceError: it is none of these, or the options are of no use for it.
    """
    options = options or FetchOptions()
    if named is None or named == "youtube":
        return SourceSpec("youtube", "https://www.youtube.com/watch?v={video_id}", options)
    if "://" in named:
        if not named.startswith(("http://", "https://")) or _PLACE not in named:
            raise SourceError(
                f"The source {named!r} is not an address that media can be fetched from: it must "
                f"begin with http:// or https:// and hold {_PLACE} where the video's id goes, "
                "for example https://media.example.org/{video_id}.m4a"
            )
        others = set(re.findall(r"{[a-z_]*}", named)) - {_PLACE}
        if others:
            raise SourceError(
                f"The source {named!r} has {', '.join(sorted(others))}, which is not known: only "
                f"{_PLACE} is filled in."
            )
        return SourceSpec("url", named, options)
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise SourceError(
            f"The source {named!r} is not 'youtube', no address with {_PLACE}, and no folder that "
            "is there. A folder must hold media named <speaker>/<video>.<ext>."
        )
    if options != FetchOptions(fetches=options.fetches):
        raise SourceError(
            f"The source {named!r} is a folder on this machine; options such as proxy, cookies, "
            "budget or sleep would change nothing. Leave them out."
        )
    return SourceSpec("folder", str(folder.absolute()))
