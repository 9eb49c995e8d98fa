"""Crop windows are those of the boxes, computed a second time with fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_video import Box, track
from support.video_oracle import expected_edges

from voxblink2_lib.media.windows import (
    Scale,
    boxes_of_all_frames,
    centres_fit,
    crop_windows,
    is_outside,
    scale_to,
)
from voxblink2_lib.records import FaceTrack, WindowShape

places = st.integers(-32768, 32767)
lengths = st.integers(1, 32767)
boxes = st.tuples(places, places, lengths, lengths)
# Of 64ths, so that floating point holds them, and the fractions, exactly.
margins = st.integers(0, 128).map(lambda parts: Fraction(parts, 64))
scales = st.integers(1, 300).map(lambda parts: Fraction(parts, 64))
edges = st.integers(-40, 40).map(lambda halves: halves / 2)


def windows(*rows: tuple[float, ...]) -> npt.NDArray[np.float64]:
    return np.array(rows, np.float64).reshape(-1, 4)


# -- Windows ---------------------------------------------------------------------------------------
@given(
    rows=st.lists(boxes, min_size=1, max_size=4),
    scale=st.tuples(scales, scales),
    margin=margins,
    shape=st.sampled_from(["square", "stretched"]),
)
def test_windows_are_those_of_the_boxes(
    rows: list[Box], scale: tuple[Fraction, Fraction], margin: Fraction, shape: WindowShape
) -> None:
    computed = crop_windows(
        np.array(rows, np.int16),
        scale=(float(scale[0]), float(scale[1])),
        margin=float(margin),
        shape=shape,
    )
    square = shape == "square"
    expected = [expected_edges(row, scale=scale, margin=margin, square=square) for row in rows]
    np.testing.assert_allclose(computed, np.array(expected, np.float64), rtol=0, atol=1e-6)


def test_by_default_a_window_is_the_box() -> None:
    computed = crop_windows(np.array([[-3, 5, 10, 20]], np.int16))
    assert computed.tolist() == [[-3.0, 5.0, 7.0, 25.0]]


def test_a_margin_is_added_on_each_side_as_a_fraction_of_its_length() -> None:
    computed = crop_windows(np.array([[100, 100, 40, 80]], np.int16), margin=0.25)
    assert computed.tolist() == [[90.0, 80.0, 150.0, 200.0]]


def test_a_square_is_widened_about_the_centre_after_margin_and_scale() -> None:
    computed = crop_windows(
        np.array([[100, 100, 40, 80]], np.int16), scale=(0.5, 0.25), margin=0.5, shape="square"
    )
    # 20 x 20 about (60, 35), then 40 x 40.
    assert computed.tolist() == [[40.0, 15.0, 80.0, 55.0]]


def test_no_boxes_give_no_windows() -> None:
    assert crop_windows(np.empty((0, 4), np.int16), shape="square").shape == (0, 4)


# -- Inside or outside -----------------------------------------------------------------------------

FRAME_SIZE = (12, 9)


@given(left=edges, top=edges, wide=st.integers(1, 40), high=st.integers(1, 40))
def test_a_window_is_outside_if_it_has_no_point_in_common_with_the_frame(
    left: float, top: float, wide: int, high: int
) -> None:
    window = windows((left, top, left + wide / 2, top + high / 2))[0]
    # Every quarter pixel within: edges are at halves, so none is missed.
    inside = any(left < x / 4 < left + wide / 2 for x in range(1, 4 * FRAME_SIZE[0])) and any(
        top < y / 4 < top + high / 2 for y in range(1, 4 * FRAME_SIZE[1])
    )
    assert is_outside(window, FRAME_SIZE) is not inside


@pytest.mark.parametrize(
    "window", [(-5, 0, 0, 5), (0, -5, 5, 0), (12, 0, 20, 5), (0, 9, 5, 20)], ids=str
)
def test_a_window_that_only_touches_the_frame_is_outside(
    window: tuple[float, float, float, float],
) -> None:
    assert is_outside(windows(window)[0], FRAME_SIZE)
    toward = np.sign([6 - window[0], 4.5 - window[1]]) * 0.01
    assert not is_outside(windows(window)[0] + np.tile(toward, 2), FRAME_SIZE)


@given(st.lists(st.tuples(edges, edges, st.integers(1, 40), st.integers(1, 40)), max_size=3))
def test_windows_fit_if_all_their_centres_are_in_the_frame(
    rows: list[tuple[float, float, int, int]],
) -> None:
    around = windows(*((x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in rows))
    expected = all(0 <= x < FRAME_SIZE[0] and 0 <= y < FRAME_SIZE[1] for x, y, _, _ in rows)
    assert centres_fit(around, FRAME_SIZE) is expected


@pytest.mark.parametrize(
    ("centre", "fits"),
    [
        ((0.0, 0.0), True),
        ((11.9, 8.9), True),
        ((12.0, 4.0), False),
        ((4.0, 9.0), False),
        ((-0.1, 4.0), False),
        ((4.0, -0.1), False),
    ],
)
def test_centres_on_the_right_and_lower_edge_are_not_in_the_frame(
    centre: tuple[float, float], fits: bool
) -> None:
    x, y = centre
    good = (5, 5, 7, 7)
    assert centres_fit(windows(good, (x - 30, y - 2, x + 30, y + 2), good), FRAME_SIZE) is fits


# -- Scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame_size", "expected"),
    [
        ((320, 180), 1.0),
        ((1280, 720), 1.0),
        ((1280, 721), 721 / 720),
        ((1920, 1080), 1.5),
        ((608, 1080), 1.5),
        ((1920, 720), 1.0),
        ((3840, 2160), 3.0),
    ],
)
def test_without_a_size_boxes_are_of_720_lines_at_most(
    frame_size: tuple[int, int], expected: float
) -> None:
    assert scale_to(track(0, 0), frame_size) == Scale(expected, expected, "assumed")


@given(
    reference_height=st.integers(1, 720),
    frame_size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_without_a_size_boxes_are_scaled_from_the_lines_that_the_source_lists(
    reference_height: int, frame_size: tuple[int, int]
) -> None:
    scale = scale_to(track(0, 0), frame_size, reference_height=reference_height)
    assert scale.across == scale.down == pytest.approx(frame_size[1] / reference_height)
    assert scale.evidence == "offered"


@given(
    annotated_size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    frame_size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    reference_height=st.sampled_from([0, 360, 720]),
)
def test_with_a_size_boxes_are_scaled_from_it(
    annotated_size: tuple[int, int], frame_size: tuple[int, int], reference_height: int
) -> None:
    annotated = track(0, 0, frame_size=annotated_size)
    scale = scale_to(annotated, frame_size, reference_height=reference_height)
    across, down, evidence = scale
    assert evidence == "header"
    assert across == pytest.approx(frame_size[0] / annotated_size[0])
    assert down == pytest.approx(frame_size[1] / annotated_size[1])


# -- Frames without a box --------------------------------------------------------------------------


@st.composite
def tracks_with_gaps(draw: st.DrawFn) -> FaceTrack:
    """Tracks with gaps of at most 25 frames."""
    first = draw(st.integers(0, 1000))
    steps = draw(st.lists(st.integers(1, 26), max_size=6))
    rows = [first + sum(steps[:count]) for count in range(len(steps) + 1)]
    boxes_of = dict(
        zip(rows, draw(st.lists(boxes, min_size=len(rows), max_size=len(rows))), strict=True)
    )
    return track(first, rows[-1], lambda frame: boxes_of[frame], rows=rows)


@given(tracks_with_gaps())
def test_between_rows_boxes_are_interpolated_linearly(face_track: FaceTrack) -> None:
    boxes = boxes_of_all_frames(face_track)
    rows = face_track.frames.tolist()
    assert boxes.shape == (rows[-1] - rows[0] + 1, 4)
    assert boxes.dtype == np.int16
    for position, frame in enumerate(range(rows[0], rows[-1] + 1)):
        after = next(number for number, row in enumerate(rows) if row >= frame)
        if rows[after] == frame:
            assert boxes[position].tolist() == face_track.boxes[after].tolist()
            continue
        part = Fraction(frame - rows[after - 1], rows[after] - rows[after - 1])
        for column in range(4):
            start, end = (int(face_track.boxes[number][column]) for number in (after - 1, after))
            exact = start + part * (end - start)
            # Halves may be rounded either way; floating point is not exact.
            assert abs(int(boxes[position][column]) - exact) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_a_gap_of_25_frames_is_interpolated() -> None:
    face_track = track(10, 36, lambda frame: (frame, 0, 2 * frame, 30), rows=[10, 36])
    expected = [[frame, 0, 2 * frame, 30] for frame in range(10, 37)]
    assert boxes_of_all_frames(face_track).tolist() == expected


def test_a_gap_of_26_frames_is_reported() -> None:
    face_track = track(5, 60, rows=[5, 6, 33, 34, 60])
    message = "has no box for 26 frames after frame 6; at most 25 are interpolated"
    with pytest.raises(ValueError, match=message):
        boxes_of_all_frames(face_track)


@pytest.mark.parametrize(
    ("width", "height"), [(0, 20), (20, 0), (0, 0), (-3, 20), (20, -32768)], ids=str
)
def test_a_box_with_no_area_is_reported(width: int, height: int) -> None:
    face_track = track(7, 12, lambda frame: (1, 2, width, height) if frame >= 9 else (1, 2, 3, 4))
    message = rf"has a box with no area at frame 9 \({width} x {height} pixels\)"
    with pytest.raises(ValueError, match=message):
        boxes_of_all_frames(face_track)


def test_a_row_for_each_frame_is_unchanged() -> None:
    face_track = track(3, 9, lambda frame: (frame, -frame, 32767, 1))
    assert boxes_of_all_frames(face_track).tolist() == face_track.boxes.tolist()
