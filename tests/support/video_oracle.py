"""What a crop of a synthetic video must contain, and what it does contain.

The first is computed from exact fractions, by no part of the library. The second is decoded by
FFmpeg's program.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.synthetic_video import RAMP, RAMP_LOW, Matrix, Planes, luma_of, run_ffmpeg
from voxblink2_lib.records import Utterance

Edges = tuple[float, float, float, float]

_FAR = 20
_SAME_LUMA = 3
# Without a pixel format nothing is converted: full range stays full range.
_RAW = ("-vsync", "passthrough", "-f", "rawvideo")


# -- Expected --------------------------------------------------------------------------------------


def nearest(times: Sequence[Fraction], frame: int) -> int:
    """Return the index of the video frame nearest to a frame at 25 fps; of two, the earlier."""
    due = Fraction(frame, 25)
    return min(range(len(times)), key=lambda index: (abs(times[index] - due), index))


def due_frames(times: Sequence[Fraction], utterance: Utterance) -> list[int]:
    """Return the indices of the video frames that the clip of an utterance must contain."""
    frames = range(utterance.first_frame, utterance.last_frame + 1)
    return [nearest(times, frame) for frame in frames]


def expected_edges(
    box: Iterable[int],
    *,
    scale: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1)),
    margin: Fraction = Fraction(0),
    square: bool = False,
) -> tuple[Fraction, ...]:
    """Return left, top, right and bottom of a box's window."""
    x, y, width, height = (Fraction(int(number)) for number in box)
    across, down = scale[0] * (x + width / 2), scale[1] * (y + height / 2)
    wide, high = scale[0] * width * (1 + 2 * margin), scale[1] * height * (1 + 2 * margin)
    if square:
        wide = high = max(wide, high)
    return across - wide / 2, down - high / 2, across + wide / 2, down + high / 2


def displayed_by(matrix: Matrix, plane: Planes) -> Planes:
    """Return a plane as a display matrix says, pixel by pixel.

    Args:
        matrix: a, b, c and d: a pixel at (p, q) is displayed at (a p + c q, b p + d q).
        plane: shape (height, width).
    """
    a, b, c, d = matrix
    q, p = np.indices(plane.shape)
    x, y = a * p + c * q, b * p + d * q
    x, y = x - x.min(), y - y.min()
    displayed = np.empty((y.max() + 1, x.max() + 1), plane.dtype)
    displayed[y, x] = plane
    return displayed


# -- Decoded ---------------------------------------------------------------------------------------


def read_clips(clips: Sequence[bytes], *, size: int) -> list[Planes]:
    """Return the frames of clips, as FFmpeg's program decodes them.

    Returns:
        Planes Y, U and V below each other, for each clip of shape (n, size * 3 // 2, size).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs: list[str] = []
        outputs: list[str] = []
        for number, clip in enumerate(clips):
            (folder / f"{number}.mp4").write_bytes(clip)
            inputs += ["-i", str(folder / f"{number}.mp4")]
            outputs += ["-map", f"{number}:v", *_RAW, str(folder / f"{number}.yuv")]
        run_ffmpeg(*inputs, *outputs)
        return [
            np.fromfile(folder / f"{number}.yuv", np.uint8).reshape(-1, size * 3 // 2, size)
            for number in range(len(clips))
        ]


def read_video(path: Path, size: tuple[int, int], *, as_stored: bool = False) -> list[list[Planes]]:
    """Return the planes of all frames of a video, as FFmpeg's program displays them.

    Args:
        path: a video of the format yuv420p.
        size: width and height, even, of the frames as they are displayed.
        as_stored: neither turn nor mirror them; then the size is the stored one.
    """
    raw = run_ffmpeg(
        *(("-noautorotate",) if as_stored else ()), "-i", str(path), "-map", "0:v:0", *_RAW, "-"
    )
    width, height = size
    frames = np.frombuffer(raw, np.uint8).reshape(-1, width * height * 3 // 2)
    luma, quarter = width * height, width * height // 4
    return [
        [
            frame[:luma].reshape(height, width),
            frame[luma : luma + quarter].reshape(height // 2, -1),
            frame[luma + quarter :].reshape(height // 2, -1),
        ]
        for frame in frames
    ]


def indices_in(clip: Planes, *, near: Sequence[int]) -> list[int]:
    """Return which frame of its video each frame of a clip is, or -1 for none.

    Args:
        clip: from :func:`read_clips`.
        near: an index for each; only those at most 20 from it are considered.
    """
    size = clip.shape[2]
    assert len(clip) == len(near)
    lumas = [float(np.median(planes[:size])) for planes in clip]
    return [_index(luma, guess) for luma, guess in zip(lumas, near, strict=True)]


def _index(luma: float, guess: int) -> int:
    near = range(max(0, guess - _FAR), guess + _FAR + 1)
    best = min(near, key=lambda index: abs(luma_of(index) - luma))
    return best if abs(luma_of(best) - luma) <= _SAME_LUMA else -1


def edges_in(clip: Planes, size: tuple[int, int]) -> Iterator[Edges]:
    """Yield left, top, right and bottom of the window that each frame of a clip shows.

    Args:
        clip: from :func:`read_clips`.
        size: width and height of the video.
    """
    count = clip.shape[2] // 2
    for planes in clip:
        u, v = planes[2 * count :].reshape(2, count, count).astype(np.float64)
        left, right = _ends(u.mean(axis=0), size[0])
        top, bottom = _ends(v.mean(axis=1), size[1])
        yield left, top, right, bottom


def _ends(ramp: npt.NDArray[np.float64], length: int) -> tuple[float, float]:
    slope, start = np.polyfit(np.arange(len(ramp)) + 0.5, ramp, 1)
    ends = (np.array([start, start + slope * len(ramp)]) - RAMP_LOW) * length / RAMP
    return float(ends[0]), float(ends[1])
