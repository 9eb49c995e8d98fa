"""Open a source once per worker thread."""

from __future__ import annotations

import threading
from pathlib import Path

from voxblink2_lib.sources.base import Source, SourceSpec


class _Opened(threading.local):
    """The sources of a thread: yt-dlp's objects are not made to be shared."""

    def __init__(self) -> None:
        self.sources: dict[tuple[SourceSpec, bool], Source] = {}


_opened = _Opened()


def open_source(spec: SourceSpec, *, pictures: bool = False) -> Source:
    """Return the source that a spec names; the same one for the life of a thread.

    Args:
        spec: what the user named.
        pictures: bring pictures and sound, and not sound alone.
    """
    known = _opened.sources
    if (spec, pictures) not in known:
        known[spec, pictures] = _open(spec, pictures=pictures)
    return known[spec, pictures]


def close_sources() -> None:
    """Forget the sources of this thread, and with them their connections."""
    _opened.sources.clear()


def _open(spec: SourceSpec, *, pictures: bool) -> Source:
    if spec.kind == "folder":
        from voxblink2_lib.sources.folder import MediaFolder

        return MediaFolder(Path(spec.place), pictures=pictures)
    from voxblink2_lib.sources.ytdlp import YtDlpSource

    return YtDlpSource(spec.place, pictures=pictures, options=spec.options, via=spec.via)
