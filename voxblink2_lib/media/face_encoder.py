"""Cut a window out of a decoded picture, and encode such cuts as one MP4 clip.

Pictures stay in YUV with 4:2:0 chroma from decoder to encoder, and only the window is scaled.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from voxblink2_lib.records import FRAMES_PER_SECOND

# Of x264's presets this one gives nearly the smallest clips at a third of the default's time.
_PRESET = "veryfast"

# A key picture a second, so that readers of a part need not decode from the beginning.
_KEY_INTERVAL_FRAMES = FRAMES_PER_SECOND

# Without this, x264 gives other bytes for the same pictures in a few clips of a hundred, even with
# one thread: parts of it that are tuned to the processor read what nobody wrote.
_X264_PARAMETERS = "cpu-independent=1"
_LIMITED, _FULL = 1, 2
_CHROMA_ZERO = 128

# Their planes can be cut as they are; all other formats are converted first.
_PLANAR = {"yuv420p", "yuvj420p"}
Planes = npt.NDArray[np.uint8]
Window = tuple[float, float, float, float]


class _Span(NamedTuple):
    """One axis of a window: which pixels of the cut lie in the picture, and from where to where."""

    first: int
    stop: int
    start: float
    end: float


def cut_window(frame: Any, window: Window, *, size: int) -> Planes:
    """Cut a window out of a picture and scale it to a square.

    What lies outside the picture becomes black.

    Args:
        frame: a decoded ``av.VideoFrame``.
        window: left, top, right and bottom in pixels of the picture as it is shown.
        size: width and height of the cut, even.

    Returns:
        The planes Y, U and V below each other, as FFmpeg packs ``yuv420p``: shape
        (size * 3 // 2, size).
    """
    if frame.format.name not in _PLANAR:
        frame = frame.reformat(format="yuv420p")
    turns = quarter_turns(frame)
    stored = _unturned(window, turns, frame.width, frame.height)
    black = 0 if is_full_range(frame) else 16
    packed = np.empty((size * 3 // 2, size), np.uint8)
    chroma = size // 2
    chroma_rows = packed[size:].reshape(2, chroma, chroma)
    half: Window = tuple(edge / 2 for edge in stored)  # type: ignore[assignment]  # four again
    y, u, v = frame.planes
    packed[:size] = np.rot90(_cut_plane(y, stored, size, black), turns)
    chroma_rows[0] = np.rot90(_cut_plane(u, half, chroma, _CHROMA_ZERO), turns)
    chroma_rows[1] = np.rot90(_cut_plane(v, half, chroma, _CHROMA_ZERO), turns)
    return packed


def quarter_turns(frame: Any) -> int:
    """Return by how many quarter turns, counterclockwise, a picture is turned to be shown."""
    return int(round(frame.rotation / 90) % 4)


def shown_size(frame: Any) -> tuple[int, int]:
    """Return width and height of a picture as it is shown."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)


def is_full_range(frame: Any) -> bool:
    """Say whether black is 0, and not 16 as in most video."""
    return bool(frame.format.name == "yuvj420p" or frame.color_range == _FULL)


def _unturned(window: Window, turns: int, width: int, height: int) -> Window:
    """Return a window of the shown picture as a window of the stored one.

    Args:
        window: left, top, right, bottom in the picture as it is shown.
        turns: quarter turns, counterclockwise, from the stored to the shown picture.
        width: of the stored picture.
        height: of the stored picture.
    """
    left, top, right, bottom = window
    if turns == 1:
        return width - bottom, left, width - top, right
    if turns == 2:
        return width - right, height - bottom, width - left, height - top
    if turns == 3:
        return top, height - right, bottom, height - left
    return window


def _cut_plane(plane: Any, window: Window, size: int, fill: int) -> Planes:
    left, top, right, bottom = window
    across = _span(left, right, plane.width, size)
    down = _span(top, bottom, plane.height, size)
    if across.first >= across.stop or down.first >= down.stop:
        return np.full((size, size), fill, np.uint8)
    # The plane's rows are longer than the picture is wide; nothing is copied.
    pixels = np.frombuffer(plane, np.uint8)
    shape = (plane.width, plane.height)
    image = Image.frombuffer("L", shape, pixels, "raw", "L", plane.line_size, 1)
    cut = image.resize(
        (across.stop - across.first, down.stop - down.first),
        Image.Resampling.BILINEAR,  # averages over as many pixels as become one
        (across.start, down.start, across.end, down.end),
    )
    if cut.size == (size, size):
        return np.asarray(cut)
    whole = np.full((size, size), fill, np.uint8)
    whole[down.first : down.stop, across.first : across.stop] = np.asarray(cut)
    return whole


def _span(start: float, end: float, length: int, size: int) -> _Span:
    """Return which of an axis's pixels lie wholly in the picture, and what they are cut from."""
    step = (end - start) / size
    first = max(0, math.ceil(-start / step))
    stop = min(size, math.floor((length - start) / step))
    # Rounding may leave an edge a hair outside.
    return _Span(first, stop, max(0.0, start + first * step), min(length, start + stop * step))


class FaceVideo:
    """An MP4 clip in memory: H.264, 25 pictures a second, the same bytes at every run.

    Args:
        like: a decoded picture whose colours' meaning (range, matrix) the clip keeps.
        size: width and height.
        crf: x264's quality, 0 (lossless) to 51.
    """

    def __init__(self, like: Any, *, size: int, crf: int) -> None:
        import av

        self._buffer = io.BytesIO()
        flags = {"fflags": "+bitexact"}
        self._container = av.open(self._buffer, "w", format="mp4", container_options=flags)
        # Without B pictures, stored order is shown order and the clip starts at its time zero.
        # One thread: x264's choices depend on how many there are.
        options = {
            "preset": _PRESET,
            "crf": str(crf),
            "bf": "0",
            "g": str(_KEY_INTERVAL_FRAMES),
            "flags": "+bitexact",
            "x264-params": _X264_PARAMETERS,
        }
        self._stream = self._container.add_stream(
            "libx264", rate=FRAMES_PER_SECOND, options=options
        )
        context = self._stream.codec_context
        context.thread_count = 1
        context.width = context.height = size
        context.pix_fmt = "yuv420p"
        context.color_range = _FULL if is_full_range(like) else _LIMITED
        context.colorspace = like.colorspace
        context.color_primaries = like.color_primaries
        context.color_trc = like.color_trc
        self.frames = 0

    def add(self, planes: Planes) -> None:
        """Add what :func:`cut_window` returned as the next picture."""
        import av

        frame = av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """End the clip and return its bytes."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()
