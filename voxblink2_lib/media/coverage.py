"""How many seconds of a video a file covers, read from its packets without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.clock import Clock
from voxblink2_lib.media.container import demuxed, open_media, read_only
from voxblink2_lib.media.tracks import audio_streams
from voxblink2_lib.media.video_index import read_frame_times


def covered_seconds(path: Path, *, audio: bool, video: bool) -> float:
    """Return how many seconds of the video a file covers in all streams that are needed.

    Args:
        path: a media file, which may be truncated.
        audio: whether audio is needed.
        video: whether video frames are needed.

    Returns:
        Seconds from the start of the video; 0 if the file cannot be read, or lacks a stream.
    """
    try:
        ends = [read_frame_times(path).end_seconds] if video else []
        ends += [_audio_seconds(path)] if audio else []
    except MediaError:
        return 0.0
    return min(ends)


def _audio_seconds(path: Path) -> float:
    with open_media(path) as container:
        stream = audio_streams(container)[0]
        read_only(container, stream)
        clock = Clock.of(container, stream)
        start, end = _span(container, stream)
        return max(0.0, end - max(0.0, clock.video_start_seconds or start))


def _span(container: Any, stream: Any) -> tuple[float, float]:
    """Return the time stamp of the first packet, and the end of the last one."""
    tick = float(stream.time_base or 0)
    first: float | None = None
    end = 0.0
    for packet in demuxed(container, stream):
        if packet.pts is None:
            continue
        start = packet.pts * tick
        first = start if first is None else first
        end = max(end, start + (packet.duration or 0) * tick)
    return first or 0.0, end
