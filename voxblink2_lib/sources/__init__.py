"""Where media come from: YouTube or an address template (both through yt-dlp), or a folder."""

from __future__ import annotations

import functools
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from voxblink2_lib.errors import SourceError
from voxblink2_lib.records import VideoKey

_PLACE = "{video_id}"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source as the user named it.

    Attributes:
        kind: what the shards' ``source`` column says.
        place: address template or folder.
    """

    kind: Literal["youtube", "url", "folder"]
    place: str


class Media(NamedTuple):
    """Media that are here now.

    Attributes:
        path: the file; with the pictures, where they were asked for.
        size_bytes: of all files.
        sound_path: the file with the sound, where that is another one.
    """

    path: Path
    size_bytes: int
    sound_path: Path | None = None

    @property
    def sound(self) -> Path:
        """The file with the sound."""
        return self.sound_path or self.path


class Source(Protocol):
    """Something that media come from."""

    def fetch(
        self, key: VideoKey, *, needed_seconds: float, tmp: Path
    ) -> AbstractContextManager[Media]:
        """Bring one video; leaving the context removes what was fetched.

        Args:
            key: the video.
            needed_seconds: only this much of its beginning is needed.
            tmp: an existing folder for temporary files.

        Raises:
            FetchError: the video did not come, in the source's own words.
        """


def parse_source(named: str | None) -> SourceSpec:
    """Read what a user wrote as source.

    Args:
        named: ``"youtube"``, an address with ``{video_id}``, or a folder of media named
            ``<speaker>/<video>.<ext>``. ``None`` means YouTube.

    Raises:
        SourceError: it is none of these.
    """
    if named is None or named == "youtube":
        return SourceSpec("youtube", "https://www.youtube.com/watch?v={video_id}")
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
        return SourceSpec("url", named)
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise SourceError(
            f"The source {named!r} is not 'youtube', no address with {_PLACE}, and no folder that "
            "is there. A folder must hold media named <speaker>/<video>.<ext>."
        )
    return SourceSpec("folder", str(folder.absolute()))


@functools.lru_cache(maxsize=1)
def open_source(spec: SourceSpec, *, pictures: bool = False) -> Source:
    """Return the source that a spec names; the same one for the life of a worker.

    Args:
        spec: what the user named.
        pictures: bring pictures and sound, and not sound alone.
    """
    if spec.kind == "folder":
        from voxblink2_lib.sources.media import MediaFolder

        return MediaFolder(Path(spec.place), pictures=pictures)
    from voxblink2_lib.sources.youtube import YtDlpSource

    return YtDlpSource(spec.place, pictures=pictures)
