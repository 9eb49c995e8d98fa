"""Give each video frame a time of its own where packets of an MPEG stream share a timestamp.

A program stream states times for packs of two kilobytes, and a demuxer gives each to the picture
that begins in the pack. Where the start of a picture lies across two packs, the picture gets the
time of one that is displayed later, or earlier. At 25 fps, in display order:

    true         22 23 24 25 26 27 28
    stated       22 23 25 26 26 27 28      stated - true   0 0 1 1 0 0 0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.media.container import open_media, packets_of, read_only
from voxblink2_lib.media.damage import is_of_the_machine
from voxblink2_lib.media.tracks import video_stream

# Formats that state times for packs of pictures, and not for each picture.
PACKED_FORMATS = frozenset({"mpeg", "mpegts"})

# Frames, centred on one, whose median is right: fewer than half of them share timestamps.
_NEIGHBOURS = 25

# Of frames that share a timestamp, one may have it from rounded durations: they are nearer to each
# other than this part of a frame.
_SHARED_PART = 0.25

Stamps = npt.NDArray[np.int64]


def share_stamps(stamps: Stamps, durations: Stamps) -> bool:
    """Return whether packets of displayed frames have the same timestamp, or nearly so."""
    gaps = np.diff(np.sort(stamps))
    return bool(np.any(gaps <= _SHARED_PART * np.median(durations)))


def true_stamps(path: Path, stamps: Stamps, durations: Stamps) -> Stamps:
    """Return the timestamps of packets, with those corrected that contradict the display order.

    Args:
        path: the media file. Its frames are decoded once to learn in which order they are shown.
        stamps: of its first packets that have a timestamp, in decoding order, shape (n,).
        durations: of the same packets, in the same unit, shape (n,).

    Returns:
        Shape (n,).
    """
    order = _display_order(path, len(stamps))
    corrected = stamps.copy()
    corrected[order] = settled(stamps[order], durations[order])
    return corrected


def settled(stamps: Stamps, durations: Stamps) -> Stamps:
    """Return timestamps of frames in display order, with those corrected that do not rise.

    Only where a few contradict the frames around them: what rises may well be true, of a video
    that lost frames for instance.

    Args:
        stamps: shape (n,).
        durations: in the same unit, 0 if unknown; shape (n,).

    >>> settled(np.array([22, 23, 25, 26, 26, 27, 28] + [*range(29, 50)]), np.full(28, 1))[:7]
    array([22, 23, 24, 25, 26, 27, 28])
    """
    known = durations[durations > 0]
    if len(stamps) < _NEIGHBOURS or not len(known):
        return stamps
    lasts = np.where(durations > 0, durations, int(np.median(known)))
    expected = np.cumsum(lasts) - lasts
    offsets = stamps - expected
    medians = _running_median(offsets)
    is_wrong = np.abs(offsets - medians) > lasts / 2
    falls = np.diff(stamps) <= _SHARED_PART * lasts[:-1]
    is_wrong = _runs_with(is_wrong, falls)
    return np.where(is_wrong, expected + medians, stamps)


def _display_order(path: Path, count: int) -> npt.NDArray[np.intp]:
    """Return the positions of packets in the order in which their frames are displayed.

    Those that cannot be decoded are left out.
    """
    order: dict[int, None] = {}
    with open_media(path) as container:
        stream = video_stream(container)
        read_only(container, stream)
        context = stream.codec_context
        context.thread_count = 1
        for position, packet in enumerate(packets_of(container, stream)):
            if position >= count:
                break
            # Decoders give a frame the timestamp of its packet, whatever it is.
            packet.pts = position
            order.update(dict.fromkeys(_decoded(context, packet)))
        order.update(dict.fromkeys(_decoded(context, None)))
    return np.fromiter(order, np.intp)


def _decoded(context: Any, packet: Any) -> list[int]:
    import av

    try:
        frames = context.decode(packet)
    except av.error.FFmpegError as error:
        if is_of_the_machine(error):
            raise
        return []
    return [frame.pts for frame in frames if frame.pts is not None]


def _running_median(values: Stamps) -> Stamps:
    half = _NEIGHBOURS // 2
    padded = np.pad(values, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS)
    return np.asarray(np.median(windows, axis=1), np.int64)


def _runs_with(
    is_member: npt.NDArray[np.bool_], falls: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return the members of runs at or in which the time does not rise.

    Args:
        is_member: of a run, shape (n,).
        falls: whether the time does not rise from a frame to the next, shape (n - 1,).
    """
    touches = np.concatenate([falls, [False]]) | np.concatenate([[False], falls])
    edges = np.diff(np.concatenate([[False], is_member, [False]]).astype(np.int8))
    chosen = np.zeros_like(is_member)
    for start, stop in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        chosen[start:stop] = touches[start:stop].any()
    return chosen
