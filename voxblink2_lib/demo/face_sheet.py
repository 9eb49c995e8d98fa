"""One picture of the demo: faces as they were cut, beside the pictures that they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOX_COLOUR, TEXT_COLOUR = "#e53e3e", "#1a202c"
ROW_INCHES, INCHES_WIDE = 1.25, 13.0
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """One frame of an utterance.

    Attributes:
        seconds: when it is shown.
        picture: the source's picture, RGB. Shape: `(height, width, 3)`.
        box: x, y, width and height of the face in it, in pixels.
        cut: the same moment of the clip, RGB. Shape: `(size, size, 3)`.
    """

    seconds: float
    picture: Picture
    box: tuple[float, float, float, float]
    cut: Picture


def draw_faces(target: Path, rows: Sequence[tuple[str, Sequence[Face]]]) -> None:
    """Draw one row per utterance: source pictures with their boxes, each with its cut.

    Args:
        target: PNG file to write.
        rows: title and faces of each row, from top to bottom; as many faces in every row.

    Raises:
        ValueError: there is no row.
    """
    # Imported here: the command line starts without it, and only this picture needs it.
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("rows must hold at least one utterance, got none")
    faces = len(rows[0][1])
    first = rows[0][1][0].picture
    figure = Figure(
        figsize=(INCHES_WIDE, ROW_INCHES * len(rows) + 0.3), dpi=150, layout="constrained"
    )
    ratios = [first.shape[1] / first.shape[0], 1.0] * faces
    axes = figure.subplots(
        len(rows), 2 * faces, squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for line, (title, row) in zip(axes, rows, strict=True):
        line[0].set_title(title, loc="left", fontsize=9, color=TEXT_COLOUR)
        for whole, cut, face in zip(line[::2], line[1::2], row, strict=True):
            _draw_whole(whole, face)
            cut.imshow(face.cut, interpolation="nearest")
            cut.set_axis_off()
    # No version in the file: the same pictures give the same bytes on the next release too.
    figure.savefig(target, format="png", metadata={"Software": None})


def _draw_whole(axes: Axes, face: Face) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(face.picture)
    x, y, width, height = face.box
    # Pixel (0, 0) of an image is drawn around (0, 0), not right and below of it.
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=BOX_COLOUR, linewidth=1)
    )
    axes.text(
        0.02, 0.04, f"{face.seconds:.2f} s", transform=axes.transAxes,
        color="white", fontsize=6, bbox={"color": "#00000080", "pad": 1},
    )  # fmt: skip
    axes.set_axis_off()
