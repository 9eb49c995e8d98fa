"""Crop a window from decoded video frames, and encode the crops as one MP4 clip.

Frames stay in YUV with 4:2:0 chroma from decoder to encoder, and only the window is scaled.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from voxblink2_lib.media.orientation import UPRIGHT, Orientation, Window
from voxblink2_lib.records import FRAMES_PER_SECOND

# Of x264's presets, this one gives nearly the smallest clips at a third of the default's time.
_PRESET = "veryfast"

# A keyframe each second, so that readers of a part need not decode from the beginning.
_KEY_INTERVAL_FRAMES = FRAMES_PER_SECOND

# Without this, x264 gives different bytes for equal frames in a few clips of a hundred, even with
# one thread: code of it that is tuned to the processor reads uninitialized memory.
_X264_PARAMETERS = "cpu-independent=1"

# FFmpeg's AVColorRange: black is 16, or 0.
_LIMITED, _FULL = 1, 2
_CHROMA_ZERO = 128

# The planes of these formats are cropped directly; all other formats are converted first.
_PLANAR = {"yuv420p", "yuvj420p"}

Planes = npt.NDArray[np.uint8]


class _Span(NamedTuple):
    """One axis of a window: its part inside the video frame.

    Attributes:
        first: first pixel of the crop that is inside.
        stop: the pixel after the last one.
        start: where this part begins in the video frame.
        end: where it ends.
    """

    first: int
    stop: int
    start: float
    end: float


def cut_window(
    frame: Any, window: Window, *, size: int, orientation: Orientation = UPRIGHT
) -> Planes:
    """Crop a window from a video frame and scale it to a square.

    Pixels outside the video frame become black.

    Args:
        frame: a decoded ``av.VideoFrame``.
        window: left, top, right and bottom in pixels of the frame as it is displayed.
        size: width and height of the crop, even.
        orientation: how the frame is displayed.

    Returns:
        The planes Y, U and V below each other, as FFmpeg packs ``yuv420p``: shape
        (size * 3 // 2, size).
    """
    if frame.format.name not in _PLANAR:
        frame = frame.reformat(format="yuv420p")
    stored = orientation.to_stored(window, frame.width, frame.height)
    black = 0 if is_full_range(frame) else 16
    packed = np.empty((size * 3 // 2, size), np.uint8)
    chroma_size = size // 2
    chroma = packed[size:].reshape(2, chroma_size, chroma_size)
    left, top, right, bottom = stored
    half = (left / 2, top / 2, right / 2, bottom / 2)
    y, u, v = frame.planes
    packed[:size] = orientation.displayed(_crop_plane(y, stored, size, black))
    chroma[0] = orientation.displayed(_crop_plane(u, half, chroma_size, _CHROMA_ZERO))
    chroma[1] = orientation.displayed(_crop_plane(v, half, chroma_size, _CHROMA_ZERO))
    return packed


def is_full_range(frame: Any) -> bool:
    """Return whether black is 0, and not 16 as in most video."""
    return bool(frame.format.name == "yuvj420p" or frame.color_range == _FULL)


def _crop_plane(plane: Any, window: Window, size: int, fill: int) -> Planes:
    left, top, right, bottom = window
    across = _span(left, right, plane.width, size)
    down = _span(top, bottom, plane.height, size)
    if across.first >= across.stop or down.first >= down.stop:
        return np.full((size, size), fill, np.uint8)
    # The plane's rows are padded beyond the frame's width; nothing is copied.
    pixels = np.frombuffer(plane, np.uint8)
    shape = (plane.width, plane.height)
    image = Image.frombuffer("L", shape, pixels, "raw", "L", plane.line_size, 1)
    scaled = image.resize(
        (across.stop - across.first, down.stop - down.first),
        Image.Resampling.BILINEAR,  # averages over all pixels that become one
        (across.start, down.start, across.end, down.end),
    )
    if scaled.size == (size, size):
        return np.asarray(scaled)
    padded = np.full((size, size), fill, np.uint8)
    padded[down.first : down.stop, across.first : across.stop] = np.asarray(scaled)
    return padded


def _span(start: float, end: float, length: int, size: int) -> _Span:
    """Return which of an axis's pixels are entirely inside the frame, and their source."""
    step = (end - start) / size
    first = max(0, math.ceil(-start / step))
    stop = min(size, math.floor((length - start) / step))
    # Rounding may leave an edge slightly outside.
    return _Span(first, stop, max(0.0, start + first * step), min(length, start + stop * step))


class FaceVideo:
    """An MP4 clip in memory: H.264, 25 fps, the same bytes at every run.

    Args:
        like: a decoded ``av.VideoFrame`` whose colour range and matrix the clip keeps.
        size: width and height.
        crf: x264's quality, 0 (lossless) to 51.

    Attributes:
        frames: how many frames were added.
    """

    def __init__(self, like: Any, *, size: int, crf: int) -> None:
        import av

        self._buffer = io.BytesIO()
        flags = {"fflags": "+bitexact"}
        self._container = av.open(self._buffer, "w", format="mp4", container_options=flags)
        # Without B-frames, stored order is display order and the clip starts at its time zero.
        # One thread: x264's decisions depend on how many there are.
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
        """Add a crop, as returned by :func:`cut_window`, as the next frame."""
        import av

        frame = av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")
        frame.pts = self.frames
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """Close the clip and return its bytes."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()
