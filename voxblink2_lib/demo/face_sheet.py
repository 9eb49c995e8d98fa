"""Contact sheet of the demo: cropped faces beside the video frames that they are cropped from."""

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
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """One frame of an utterance.

    Attributes:
        seconds: its time in the video.
        video_frame: frame of the source, RGB. Shape: [height, width, 3].
        box: x, y, width and height of the face in it, in pixels.
        crop: the same frame of the clip, RGB. Shape: [size, size, 3].
    """

    seconds: float
    video_frame: Image
    box: tuple[float, float, float, float]
    crop: Image


def draw_faces(target: Path, rows: Sequence[tuple[str, Sequence[Face]]]) -> None:
    """Draw one row per utterance: video frames with their boxes, each with its crop.

    Args:
        target: PNG file to write.
        rows: title and faces of each row, from top to bottom; as many faces in every row.

    Raises:
        ValueError: there is no row.
    """
    # Imported here: the command line starts without it, and only this plot needs it.
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("rows must hold at least one utterance, got none")
    faces = len(rows[0][1])
    first = rows[0][1][0].video_frame
    figure = Figure(
        figsize=(INCHES_WIDE, ROW_INCHES * len(rows) + 0.3), dpi=150, layout="constrained"
    )
    ratios = [first.shape[1] / first.shape[0], 1.0] * faces
    axes = figure.subplots(
        len(rows), 2 * faces, squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for line, (title, row) in zip(axes, rows, strict=True):
        line[0].set_title(title, loc="left", fontsize=9, color=TEXT_COLOUR)
        for frame_axes, crop_axes, face in zip(line[::2], line[1::2], row, strict=True):
            _draw_video_frame(frame_axes, face)
            crop_axes.imshow(face.crop, interpolation="nearest")
            crop_axes.set_axis_off()
    # No version in the file: the same faces give the same bytes in the next release, too.
    figure.savefig(target, format="png", metadata={"Software": None})


def _draw_video_frame(axes: Axes, face: Face) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(face.video_frame)
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
