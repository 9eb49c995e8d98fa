"""How a video frame is turned and mirrored for display.

A file, or the stream in it, may hold a matrix that maps pixels as they are stored to pixels as they
are displayed. Of all matrices, eight map a frame onto the grid of pixels again: four quarter turns,
each of them with or without a mirror image.

    stored       displayed: mirrored      displayed: then turned once, counterclockwise
    A B          B A                      A C
    C D          D C                      B D
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Window = tuple[float, float, float, float]

# Nine numbers of 32 bits, as FFmpeg's ``av_display_rotation_set`` writes them: a b u c d v x y w.
_MATRIX = struct.Struct("=9i")


class Orientation(NamedTuple):
    """How to get from a stored frame to the displayed one.

    Attributes:
        turns: quarter turns, counterclockwise, from 0 to 3.
        is_mirrored: whether left and right are exchanged before that.
    """

    turns: int = 0
    is_mirrored: bool = False

    def display_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the displayed frame, given those of the stored one."""
        return (height, width) if self.turns % 2 else (width, height)

    def to_stored(self, window: Window, width: int, height: int) -> Window:
        """Return a window of the displayed frame as a window of the stored frame.

        Args:
            window: left, top, right, bottom in the frame as it is displayed.
            width: of the stored frame.
            height: of the stored frame.

        >>> Orientation(turns=1).to_stored((0, 0, 10, 20), 320, 180)
        (300, 0, 320, 10)
        >>> Orientation(is_mirrored=True).to_stored((0, 0, 10, 20), 320, 180)
        (310, 0, 320, 20)
        """
        left, top, right, bottom = window
        if self.turns == 1:
            left, top, right, bottom = width - bottom, left, width - top, right
        elif self.turns == 2:
            left, top, right, bottom = width - right, height - bottom, width - left, height - top
        elif self.turns == 3:
            left, top, right, bottom = top, height - right, bottom, height - left
        if self.is_mirrored:
            left, right = width - right, width - left
        return left, top, right, bottom

    def displayed(self, plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return stored pixels as they are displayed; a view, nothing is copied."""
        return np.rot90(plane[:, ::-1] if self.is_mirrored else plane, self.turns)


UPRIGHT = Orientation()


class OrientationReader:
    """Reads how the frames of one stream are displayed.

    PyAV keeps a frame whose matrix was read in memory until Python's garbage collector runs. So the
    matrix is read once, and again where its angle, which costs nothing, is another.
    """

    def __init__(self) -> None:
        self._angle: int | None = None
        self._orientation = UPRIGHT

    def read(self, frame: Any) -> Orientation:
        """Return the orientation of a decoded ``av.VideoFrame``."""
        try:
            angle = frame.rotation
        except ValueError:  # a matrix that maps all pixels to one has no angle
            return UPRIGHT
        if angle != self._angle:
            self._angle = angle
            self._orientation = read_orientation(frame)
        return self._orientation


def read_orientation(frame: Any) -> Orientation:
    """Return the orientation of a decoded ``av.VideoFrame``; other angles become right ones."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    return UPRIGHT if data is None else _of_matrix(bytes(data))


def _of_matrix(matrix: bytes) -> Orientation:
    """Return the orientation in a display matrix.

    A stored pixel at (p, q) is displayed at (a p + c q, b p + d q), shifted. Exchanging left and
    right leaves q where it is, so (c, d) is the turn alone, and the sign of the area the mirror.
    """
    a, b, _, c, d, *_ = _MATRIX.unpack(matrix)
    area = a * d - b * c
    if not area:
        return UPRIGHT
    return Orientation(round(math.atan2(c, d) / (math.pi / 2)) % 4, area < 0)
