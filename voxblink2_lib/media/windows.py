"""The track of a face through an utterance, and which window of each picture it asks for.

Boxes are x, y, width and height in pixels of the rendition that the annotators had. A window is
left, top, right and bottom in pixels of the picture that came, as it is shown:

    0          left          right     width
    |            |=============)         |
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import WindowShape

Windows = npt.NDArray[np.float64]


def crop_windows(
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
    """Say whether nothing of a window lies in a picture."""
    left, top, right, bottom = window
    width, height = frame_size
    return bool(right <= 0 or bottom <= 0 or left >= width or top >= height)


def centres_fit(windows: Windows, frame_size: tuple[int, int]) -> bool:
    """Say whether windows can belong to a picture: all their centres lie in it.

    A box may reach outside; one whose centre does tells of another rendition.
    """
    centres = (windows[:, :2] + windows[:, 2:]) / 2
    return bool(np.all(centres >= 0) and np.all(centres < np.array(frame_size)))
