"""The track of a face through an utterance, and which window of each picture it asks for.

Boxes are x, y, width and height in pixels of the rendition that the annotators had. A window is
left, top, right and bottom in pixels of the picture that came, as it is shown:

    0          left          right     width
    |            |=============)         |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import FRAMES_PER_SECOND, Utterance, WindowShape

# Longer without a box, the face may have been somewhere else, or not in the picture at all.
MAX_GAP_FRAMES = FRAMES_PER_SECOND
# Boxes belong to a rendition of at most so many lines (facts of the release).
MAX_ANNOTATED_LINES = 720

Windows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """Where the face of an utterance is.

    Attributes:
        utterance: the utterance.
        frames: frames that have a box, 25 a second, shape (n,), strictly rising.
        boxes: x, y, width, height of each, shape (n, 4).
        picture_size: width and height of the rendition that the boxes belong to, where the
            release says so.
    """

    utterance: Utterance
    frames: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int16]
    picture_size: tuple[int, int] | None = None

    def boxes_of_all_frames(self) -> npt.NDArray[np.int16]:
        """Return one box a frame of the utterance; between rows that are there, on a line.

        Raises:
            ValueError: more than 25 frames in a row have no box, or a box has no area.
        """
        bad = np.flatnonzero(np.any(self.boxes[:, 2:] <= 0, axis=1))
        if len(bad):
            width, height = self.boxes[bad[0], 2:]
            raise ValueError(
                f"has a box without area at frame {self.frames[bad[0]]} ({width} x {height} pixels)"
            )
        gaps = np.diff(self.frames) - 1
        if len(gaps) and gaps.max() > MAX_GAP_FRAMES:
            before = self.frames[np.argmax(gaps)]
            raise ValueError(
                f"has no box for {gaps.max()} frames after frame {before}; at most "
                f"{MAX_GAP_FRAMES} are filled in"
            )
        if not len(gaps) or not gaps.any():
            return self.boxes
        wanted = np.arange(self.utterance.first_frame, self.utterance.last_frame + 1)
        columns = [np.interp(wanted, self.frames, column) for column in self.boxes.T]
        return np.asarray(np.rint(np.stack(columns, axis=1)), np.int16)

    def scale_to(self, picture_size: tuple[int, int]) -> tuple[float, float]:
        """Return by what to multiply boxes, across and down, to have pixels of a picture.

        Without a size in the release, a picture of more than 720 lines is taken to be a larger
        rendition of one with 720, and any other to be the annotators' own.

        Args:
            picture_size: width and height of the picture, as it is shown.
        """
        width, height = picture_size
        if self.picture_size is not None:
            return width / self.picture_size[0], height / self.picture_size[1]
        factor = max(1.0, height / MAX_ANNOTATED_LINES)
        return factor, factor


def windows_of(
    boxes: npt.NDArray[np.int16],
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    margin: float = 0.0,
    shape: WindowShape = "stretched",
) -> Windows:
    """Return the windows that boxes ask for. They may reach outside the picture.

    Args:
        boxes: x, y, width, height, shape (n, 4).
        scale: pixels of the picture for one of the boxes, across and down.
        margin: what to add on each side, as a part of the box's width or height.
        shape: ``"square"`` widens the shorter side about the box's centre, ``"stretched"``
            keeps the box as it is.

    Returns:
        Left, top, right and bottom, shape (n, 4).

    >>> windows_of(np.array([[10, 20, 40, 60]], np.int16), shape="square").tolist()
    [[0.0, 20.0, 60.0, 80.0]]
    """
    corners = boxes[:, :2] * np.array(scale)
    sizes = boxes[:, 2:] * np.array(scale)
    centres = corners + sizes / 2
    sizes = sizes * (1 + 2 * margin)
    if shape == "square":
        sizes = np.repeat(sizes.max(axis=1, keepdims=True), 2, axis=1)
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def is_outside(window: npt.NDArray[np.float64], picture_size: tuple[int, int]) -> bool:
    """Say whether nothing of a window lies in a picture."""
    left, top, right, bottom = window
    width, height = picture_size
    return bool(right <= 0 or bottom <= 0 or left >= width or top >= height)


def fit_in(windows: Windows, picture_size: tuple[int, int]) -> bool:
    """Say whether windows can belong to a picture: all their centres lie in it.

    A box may reach outside; one whose centre does tells of another rendition.
    """
    centres = (windows[:, :2] + windows[:, 2:]) / 2
    return bool(np.all(centres >= 0) and np.all(centres < np.array(picture_size)))
