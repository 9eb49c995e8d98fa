"""The clip of a face with its box drawn on every frame."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxblink2_lib.browse.clips import StoredClip
from voxblink2_lib.errors import ClipDamagedError, first_line
from voxblink2_lib.media.face_encoder import FaceVideo
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.windows import crop_windows

if TYPE_CHECKING:
    from PIL.Image import Image

# Face clips are small; lines are drawn on larger frames, so that they are no wider than a pixel.
_SHOWN_PIXELS = 336
_LINE_PIXELS = 2
_COLOUR = (255, 213, 0)
_CRF = 20

Rectangles = npt.NDArray[np.float64]


def boxes_in_clip(boxes: npt.NDArray[np.int16], options: ClipOptions) -> Rectangles:
    """Return where the boxes are in the frames of a face clip.

    The release's pixels are taken to be square, as those of its renditions are.

    Args:
        boxes: x, y, width and height of each frame, shape (n, 4).
        options: how the store's clips are cropped.

    Returns:
        Left, top, right and bottom of each frame, as fractions of its width and height, shape
        (n, 4).

    >>> boxes_in_clip(np.array([[10, 20, 40, 60]], np.int16), ClipOptions()).round(3).tolist()
    [[0.167, 0.0, 0.833, 1.0]]
    """
    windows = crop_windows(boxes, margin=options.video_margin, shape=options.video_shape)
    plain = crop_windows(boxes)
    origins = np.tile(windows[:, :2], 2)
    sizes = np.tile(windows[:, 2:] - windows[:, :2], 2)
    return np.asarray((plain - origins) / sizes)


def boxed_video(clip: StoredClip, options: ClipOptions) -> bytes:
    """Return a face clip as MP4, with its box on every frame.

    Args:
        clip: a clip with a face.
        options: how the store's clips are cropped.

    Raises:
        ClipDamagedError: the video cannot be decoded, or has other frames than boxes.
    """
    import av

    rectangles = boxes_in_clip(_boxes(clip), options)
    encoder: FaceVideo | None = None
    try:
        with av.open(io.BytesIO(clip.video or b""), "r") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number >= len(rectangles):
                    raise ClipDamagedError("The face clip has more frames than boxes.")
                image = _with_box(frame.to_image(), rectangles[number])
                shown = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
                shown = shown.reformat(format="yuv420p")
                encoder = encoder or FaceVideo(shown, size=_SHOWN_PIXELS, crf=_CRF)
                encoder.add(shown.to_ndarray().astype(np.uint8, copy=False))
    except (OSError, ValueError) as error:  # FFmpeg's errors are both
        raise ClipDamagedError(f"The face clip cannot be decoded: {first_line(error)}") from error
    if encoder is None or encoder.frames != len(rectangles):
        frames = encoder.frames if encoder else 0
        raise ClipDamagedError(f"The face clip has {frames} frames, and {len(rectangles)} boxes.")
    return encoder.finish()


def _boxes(clip: StoredClip) -> npt.NDArray[np.int16]:
    boxes = clip.boxes
    if boxes is None or not len(boxes) or boxes[:, 2:].min() <= 0:
        raise ClipDamagedError("The face clip has no box, or one with no area.")
    return boxes


def _with_box(image: Image, rectangle: npt.NDArray[np.float64]) -> Image:
    from PIL import ImageDraw
    from PIL.Image import Resampling

    shown = image.resize((_SHOWN_PIXELS, _SHOWN_PIXELS), Resampling.BILINEAR)
    # Lines lie inside the frame, where the box ends at its edge.
    corners = np.clip(rectangle * _SHOWN_PIXELS, 0, _SHOWN_PIXELS - 1).tolist()
    ImageDraw.Draw(shown).rectangle(corners, outline=_COLOUR, width=_LINE_PIXELS)
    return shown
