"""Open a source once per worker thread."""

from __future__ import annotations

import threading
from pathlib import Path

from voxblink2_lib.sources.base import Source, SourceSpec


class _OpenSources(threading.local):
    """The sources of a thread: yt-dlp's objects are not safe to share between threads."""

    def __init__(self) -> None:
        self.sources: dict[tuple[SourceSpec, bool], Source] = {}


_open_sources = _OpenSources()


def open_source(spec: SourceSpec, *, with_video: bool = False) -> Source:
    """Return the source of a specification; the same object for the life of a thread.

    Args:
        spec: the source as the user named it.
        with_video: provide video and audio, not audio only.
    """
    sources = _open_sources.sources
    if (spec, with_video) not in sources:
        sources[spec, with_video] = _open(spec, with_video=with_video)
    return sources[spec, with_video]


def close_sources() -> None:
    """Drop the sources of this thread, and their connections. For tests only.

    A worker keeps its connections until it ends; tests of many sources in one process would
    accumulate them.
    """
    _open_sources.sources.clear()


def _open(spec: SourceSpec, *, with_video: bool) -> Source:
    if spec.kind == "folder":
        from voxblink2_lib.sources.folder import MediaFolder

        return MediaFolder(Path(spec.place), with_video=with_video)
    from voxblink2_lib.sources.ytdlp import YtDlpSource

    return YtDlpSource(spec.place, with_video=with_video, options=spec.options, route=spec.route)
