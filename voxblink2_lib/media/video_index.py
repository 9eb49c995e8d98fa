"""When each video frame of a media file is displayed, read from its packets without decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.container import open_media, packets_of, read_only
from voxblink2_lib.media.shared_stamps import PACKED_FORMATS, share_stamps, true_stamps
from voxblink2_lib.media.tracks import video_stream

# Packets are stored in decoding order: a frame may be displayed this much earlier than the frames
# stored before it.
_REORDER_SECONDS = 2.0

# Times are sums of rounded numbers: smaller differences mean equal times.
_EPSILON_SECONDS = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class FrameTimes:
    """The video frames of a file, in display order.

    Attributes:
        stamps: timestamps of the container, shape (n,), strictly rising.
        seconds: display time of each frame, counted from the first one, shape (n,).
        end_seconds: end of the last frame.
        packet_stamps: timestamps of all packets in decoding order, shape (m,); more than there
            are frames if some packets are not displayed. Where packets of the file share one, each
            has the one that it should have.
        packet_is_key: whether decoding can begin with a packet, shape (m,).
    """

    stamps: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    end_seconds: float
    packet_stamps: npt.NDArray[np.int64]
    packet_is_key: npt.NDArray[np.bool_]

    def nearest(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the indices of the frames nearest to times; of two at equal distance, the earlier.

        Args:
            seconds: the times, counted from the first frame, shape (k,).
        """
        later = np.searchsorted(self.seconds, seconds).clip(1, max(1, len(self.seconds) - 1))
        earlier = later - 1
        later = np.minimum(later, len(self.seconds) - 1)
        to_later = self.seconds[later] - seconds
        is_later = to_later + _EPSILON_SECONDS < seconds - self.seconds[earlier]
        return np.where(is_later, later, earlier)


def read_frame_times(path: Path, *, until_seconds: float = float("inf")) -> FrameTimes:
    """Read the display times of the frames of a file's first video stream.

    Args:
        path: a media file, which may be truncated.
        until_seconds: read up to this many seconds after the first frame.

    Raises:
        MediaError: the file is not a media file, or has no video.
    """
    with open_media(path) as container:
        stream = video_stream(container)
        read_only(container, stream)
        packets = _read(stream, packets_of(container, stream), until_seconds)
        formats = set(container.format.name.split(","))
        tick, rates = Fraction(stream.time_base), (stream.guessed_rate, stream.average_rate)
    if formats & PACKED_FORMATS and share_stamps(packets.stamps, packets.durations):
        packets.stamps = true_stamps(path, packets.stamps, packets.durations)
    frame_stamps = np.unique(packets.stamps[packets.is_displayed])
    if not len(frame_stamps):
        raise MediaError("the media file has no video frames")
    seconds = _seconds(frame_stamps - frame_stamps[0], tick, rates)
    return FrameTimes(
        stamps=frame_stamps,
        seconds=seconds,
        end_seconds=float(seconds[-1]) + float(packets.durations[-1] * tick),
        packet_stamps=packets.stamps,
        packet_is_key=packets.is_key,
    )


@dataclass(slots=True, eq=False)
class _Packets:
    """Packets in decoding order, all of shape (m,).

    Attributes:
        stamps: their timestamps.
        durations: in the same unit; 0 if unknown.
        is_key: whether decoding can begin with one.
        is_displayed: whether its frame is shown.
    """

    stamps: npt.NDArray[np.int64]
    durations: npt.NDArray[np.int64]
    is_key: npt.NDArray[np.bool_]
    is_displayed: npt.NDArray[np.bool_]


def _read(stream: Any, packets: Iterator[Any], until_seconds: float) -> _Packets:
    tick = Fraction(stream.time_base)
    rows: list[tuple[int, int, bool, bool]] = []
    first: int | None = None
    is_vp8 = stream.codec_context.name in {"vp8", "libvpx"}
    for packet in packets:
        is_displayed = not packet.is_discard and not (is_vp8 and _is_hidden(packet))
        if first is None and is_displayed:
            first = packet.pts
        rows.append((packet.pts, packet.duration or 0, packet.is_keyframe, is_displayed))
        if first is not None and (packet.pts - first) * tick > until_seconds + _REORDER_SECONDS:
            break
    table = np.array(rows, np.int64).reshape(-1, 4)
    is_key, is_displayed = table[:, 2:].T.astype(np.bool_)
    return _Packets(table[:, 0].copy(), table[:, 1].copy(), is_key, is_displayed)


def _is_hidden(packet: Any) -> bool:
    """Return whether a VP8 packet is only a reference for others (RFC 6386, 9.1: show_frame)."""
    return not memoryview(packet)[0] >> 4 & 1


def _seconds(
    stamps: npt.NDArray[np.int64], tick: Fraction, rates: Iterable[Fraction | None]
) -> npt.NDArray[np.float64]:
    """Turn timestamps into seconds, undoing a coarse clock's rounding if the rate is constant.

    Matroska and FLV count milliseconds: frames at 29.97 fps have the timestamps 0, 33, 67, ...
    If all timestamps are what n / rate rounds to, n / rate is the display time.

    Args:
        stamps: counted from the first one, shape (n,).
        tick: unit of the timestamps, in seconds.
        rates: candidates; the first that fits is taken.
    """
    seconds = np.asarray(stamps * float(tick), np.float64)
    for rate in filter(None, rates):
        indices = np.rint(seconds * float(rate))
        exact = np.asarray(indices * rate.denominator / rate.numerator, np.float64)
        # The first timestamp is rounded as well, so the errors span one tick in all.
        if np.ptp(seconds - exact) <= float(tick) + _EPSILON_SECONDS and np.all(np.diff(indices)):
            return exact
    return seconds
