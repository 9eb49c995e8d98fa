"""When each picture of a media file is shown, read from its packets, decoding nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.timeline import demuxed, open_media, picture_streams

# Packets come in the order of decoding: pictures may be shown that much earlier than stored.
_REORDER_SECONDS = 2.0
_EPSILON_SECONDS = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class FrameTimes:
    """The pictures of a file, in the order in which they are shown.

    Attributes:
        stamps: time stamps of the container, shape (n,), strictly rising.
        seconds: when each is shown, from the first one on, shape (n,).
        end_seconds: end of the last one.
        packet_stamps: time stamps of all packets in the order of decoding, shape (m,); more
            than there are pictures where some are not shown.
        packet_is_key: whether decoding can begin with a packet, shape (m,).
    """

    stamps: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    end_seconds: float
    packet_stamps: npt.NDArray[np.int64]
    packet_is_key: npt.NDArray[np.bool_]

    def nearest(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the numbers of the pictures nearest to some times; of two, the earlier."""
        later = np.searchsorted(self.seconds, seconds).clip(1, max(1, len(self.seconds) - 1))
        earlier = later - 1
        later = np.minimum(later, len(self.seconds) - 1)
        # Times are sums of rounded numbers: what differs by less is the same distance.
        to_later = self.seconds[later] - seconds
        is_later = to_later + _EPSILON_SECONDS < seconds - self.seconds[earlier]
        return np.where(is_later, later, earlier)


def read_frame_times(path: Path, *, until_seconds: float = float("inf")) -> FrameTimes:
    """Read when the pictures of a file's first video stream are shown.

    Args:
        path: a media file, which may be cut short.
        until_seconds: read up to so many seconds after the first picture.

    Raises:
        MediaError: the file is no media file, or has no pictures.
    """
    with open_media(path) as container:
        stream = video_stream(container)
        return _read(stream, packets_of(container, stream), until_seconds)


def video_stream(container: Any) -> Any:
    """Return the video stream of an open file, the others put aside.

    Raises:
        MediaError: there is none, or none that can be decoded.
    """
    from av.stream import Discard

    streams = picture_streams(container)
    if not streams:
        raise MediaError("the media file has no pictures")
    if streams[0].codec_context is None:
        raise MediaError("the media file's pictures have an unknown encoding")
    for stream in container.streams:
        if stream is not streams[0]:
            stream.discard = Discard.all
    return streams[0]


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream that have a time stamp, in the order of decoding."""
    for packet in demuxed(container, stream):
        if packet.pts is not None and packet.size:
            yield packet


def _read(stream: Any, packets: Iterator[Any], until_seconds: float) -> FrameTimes:
    tick = Fraction(stream.time_base)
    stamps: list[int] = []
    keys: list[bool] = []
    shown: list[bool] = []
    first: int | None = None
    is_vp8 = stream.codec_context.name in {"vp8", "libvpx"}
    duration_seconds = 0.0
    for packet in packets:
        stamps.append(packet.pts)
        keys.append(packet.is_keyframe)
        shown.append(not packet.is_discard and not (is_vp8 and _is_hidden(packet)))
        if first is None and shown[-1]:
            first = packet.pts
        if first is not None and (packet.pts - first) * tick > until_seconds + _REORDER_SECONDS:
            break
        duration_seconds = float((packet.duration or 0) * tick)
    every = np.array(stamps, np.int64)
    pictures = np.unique(every[np.array(shown, np.bool_)])
    if not len(pictures):
        raise MediaError("the media file has no pictures")
    times = _seconds(pictures - pictures[0], tick, stream.average_rate)
    return FrameTimes(
        stamps=pictures,
        seconds=times,
        end_seconds=float(times[-1]) + duration_seconds,
        packet_stamps=every,
        packet_is_key=np.array(keys, np.bool_),
    )


def _is_hidden(packet: Any) -> bool:
    """Say whether a packet of VP8 is only for others to depend on (RFC 6386, 9.1: show_frame)."""
    return not memoryview(packet)[0] >> 4 & 1


def _seconds(
    stamps: npt.NDArray[np.int64], tick: Fraction, rate: Fraction | None
) -> npt.NDArray[np.float64]:
    """Turn stamps into seconds, undoing a coarse clock's rounding where the rate is constant.

    Matroska and FLV count milliseconds: pictures at 29.97 a second are stamped 0, 33, 67, ...
    If all stamps are what n / rate rounds to, n / rate is when they are shown.
    """
    seconds = stamps * float(tick)
    if rate:
        numbers = np.rint(seconds * float(rate))
        exact = numbers * rate.denominator / rate.numerator
        # The first stamp is rounded as well, so the errors span one tick, wherever that lies.
        if np.ptp(seconds - exact) <= float(tick) + _EPSILON_SECONDS and np.all(np.diff(numbers)):
            return np.asarray(exact, np.float64)
    return np.asarray(seconds, np.float64)
