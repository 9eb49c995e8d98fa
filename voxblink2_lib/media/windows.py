"""Crop windows of a face track: which part of each video frame becomes the clip.

Boxes are x, y, width and height in pixels of the rendition that was annotated. A window is left,
top, right and bottom in pixels of the downloaded video, as it is displayed:

    0          left          right     width
    |            |=============)         |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import (
    MAX_ANNOTATED_LINES,
    MAX_GAP_FRAMES,
    BoxesEvidence,
    FaceTrack,
    WindowShape,
)

Windows = npt.NDArray[np.float64]


def boxes_of_all_frames(track: FaceTrack) -> npt.NDArray[np.int16]:
    """Return one box for each frame of an utterance, interpolated linearly where rows are missing.

    Returns:
        x, y, width and height. Shape: [frames, 4].

    Raises:
        ValueError: more than 25 frames in a row have no box, or a box has no area.
    """
    empty = np.flatnonzero(np.any(track.boxes[:, 2:] <= 0, axis=1))
    if len(empty):
        width, height = track.boxes[empty[0], 2:]
        raise ValueError(
            f"has a box with no area at frame {track.frames[empty[0]]} ({width} x {height} pixels)"
        )
    gaps = np.diff(track.frames) - 1
    if len(gaps) and gaps.max() > MAX_GAP_FRAMES:
        before = track.frames[np.argmax(gaps)]
        raise ValueError(
            f"has no box for {gaps.max()} frames after frame {before}; at most "
            f"{MAX_GAP_FRAMES} are interpolated"
        )
    if not len(gaps) or not gaps.any():
        return track.boxes
    frames = np.arange(track.utterance.first_frame, track.utterance.last_frame + 1)
    columns = [np.interp(frames, track.frames, column) for column in track.boxes.T]
    return np.asarray(np.rint(np.stack(columns, axis=1)), np.int16)


class Scale(NamedTuple):
    """Factors from a track's pixels to those of a video frame, and what they are taken from."""

    across: float
    down: float
    evidence: BoxesEvidence


def scale_to(track: FaceTrack, frame_size: tuple[int, int], *, reference_height: int = 0) -> Scale:
    """Return the factors, across and down, from a track's pixels to those of a video frame.

    The size in the annotation's header decides; else the lines of the rendition that the source
    lists. Without both, a video of more than 720 lines is taken to be a larger rendition of one
    with 720, and any other to be the annotated one.

    Args:
        track: the boxes.
        frame_size: width and height of the video frame, as it is displayed.
        reference_height: lines of the rendition that boxes without a header refer to; 0 if unknown.
    """
    width, height = frame_size
    if track.frame_size is not None:
        return Scale(width / track.frame_size[0], height / track.frame_size[1], "header")
    if reference_height:
        factor = height / reference_height
        return Scale(factor, factor, "offered")
    factor = max(1.0, height / MAX_ANNOTATED_LINES)
    return Scale(factor, factor, "assumed")


def crop_windows(
    boxes: npt.NDArray[np.int16],
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    margin: float = 0.0,
    shape: WindowShape = "stretched",
) -> Windows:
    """Return the crop windows of boxes. They may extend beyond the video frame.

    Args:
        boxes: x, y, width, height, shape (n, 4).
        scale: pixels of the video frame for one of the boxes, across and down.
        margin: what to add on each side, as a fraction of the box's width or height.
        shape: ``"square"`` widens the shorter side about the box's centre, ``"stretched"``
            keeps the box as it is.

    Returns:
        Left, top, right and bottom, shape (n, 4).

    >>> crop_windows(np.array([[10, 20, 40, 60]], np.int16), shape="square").tolist()
    [[0.0, 20.0, 60.0, 80.0]]
    """
    corners = boxes[:, :2] * np.array(scale)
    sizes = boxes[:, 2:] * np.array(scale)
    centres = corners + sizes / 2
    sizes = sizes * (1 + 2 * margin)
    if shape == "square":
        sizes = np.repeat(sizes.max(axis=1, keepdims=True), 2, axis=1)
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def is_outside(window: npt.NDArray[np.float64], frame_size: tuple[int, int]) -> bool:
    """Return whether a window has no point in common with a video frame."""
    left, top, right, bottom = window
    width, height = frame_size
    return bool(right <= 0 or bottom <= 0 or left >= width or top >= height)


def centres_fit(windows: Windows, frame_size: tuple[int, int]) -> bool:
    """Return whether the centres of all windows are inside a video frame.

    A box may extend beyond the frame; a centre outside indicates boxes of another rendition.
    """
    centres = (windows[:, :2] + windows[:, 2:]) / 2
    return bool(np.all(centres >= 0) and np.all(centres < np.array(frame_size)))
