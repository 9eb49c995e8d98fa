"""How a frame is displayed follows from its matrix, which is read as rarely as possible."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from av.sidedata.sidedata import Type
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_video import MATRICES, Matrix
from support.video_oracle import displayed_by

from voxblink2_lib.media.orientation import (
    UPRIGHT,
    Orientation,
    OrientationReader,
    read_orientation,
)


class Frame:
    """A frame that counts how often its matrix is read."""

    def __init__(self, matrix: Matrix | None, angle: int | None = 0) -> None:
        self._angle = angle
        self._data: dict[Any, bytes] = {}
        self.reads = 0
        if matrix is not None:
            a, b, c, d = (number * 0x10000 for number in matrix)
            self._data[Type.DISPLAYMATRIX] = struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)

    @property
    def rotation(self) -> int:
        if self._angle is None:
            raise ValueError("cannot convert float NaN to integer")
        return self._angle

    @property
    def side_data(self) -> dict[Any, bytes]:
        self.reads += 1
        return self._data


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_each_of_the_eight_is_told_from_the_others(matrix: Matrix) -> None:
    plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
    orientation = read_orientation(Frame(matrix))
    np.testing.assert_array_equal(orientation.displayed(plane), displayed_by(matrix, plane))
    assert len({read_orientation(Frame(each)) for each in MATRICES}) == 8


@given(
    turns=st.integers(0, 3),
    is_mirrored=st.booleans(),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    edges=st.tuples(*[st.integers(0, 9)] * 4),
)
def test_a_window_shows_the_same_before_and_after(
    turns: int, is_mirrored: bool, size: tuple[int, int], edges: tuple[int, int, int, int]
) -> None:
    width, height = size
    stored = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    orientation = Orientation(turns, is_mirrored)
    displayed = orientation.displayed(stored)
    assert orientation.display_size(width, height) == displayed.shape[::-1]
    across = sorted(min(edge, displayed.shape[1]) for edge in edges[:2])
    down = sorted(min(edge, displayed.shape[0]) for edge in edges[2:])
    left, top, right, bottom = orientation.to_stored(
        (across[0], down[0], across[1], down[1]), width, height
    )
    part = stored[int(top) : int(bottom), int(left) : int(right)]
    expected = displayed[slice(*down), slice(*across)]
    np.testing.assert_array_equal(orientation.displayed(part), expected)


@pytest.mark.parametrize("matrix", [None, (0, 0, 0, 0), (1, 1, 1, 1)])
def test_without_a_matrix_that_shows_an_area_a_frame_is_upright(matrix: Matrix | None) -> None:
    assert read_orientation(Frame(matrix)) == UPRIGHT
    assert OrientationReader().read(Frame(matrix, angle=None)) == UPRIGHT


def test_the_matrix_is_read_once_for_each_change_of_its_angle() -> None:
    mirrored = [Frame((1, 0, 0, -1), angle=0) for _ in range(3)]
    turned = [Frame((0, -1, 1, 0), angle=90) for _ in range(3)]
    reader = OrientationReader()
    assert [reader.read(frame) for frame in mirrored] == [Orientation(2, is_mirrored=True)] * 3
    assert [reader.read(frame) for frame in turned] == [Orientation(1)] * 3
    assert [frame.reads for frame in (*mirrored, *turned)] == [1, 0, 0, 1, 0, 0]
