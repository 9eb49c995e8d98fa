"""Options of cropping and encoding, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass, fields

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import (
    AUDIO_FORMATS,
    WINDOW_SHAPES,
    AudioFormat,
    ConfigName,
    WindowShape,
)

_VIDEO_SIZES = range(32, 1025, 2)
_MAX_MARGIN = 2.0
_CRFS = range(52)


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """How clips are cut and encoded. A store keeps what it began with.

    Attributes:
        audio_format: ``"flac"``, ``"wav"`` or ``"opus"``.
        video_size: width and height of the faces in pixels, even, from 32 to 1024.
        video_margin: what to add around a box, as a part of its width and height on each side,
            0 to 2.
        video_shape: ``"square"`` widens the shorter side of a box, ``"stretched"`` cuts the box
            and distorts it.
        video_crf: x264's quality, 0 (lossless) to 51 (worst).

    Raises:
        SelectionError: one of them is not allowed.
    """

    audio_format: AudioFormat = "flac"
    video_size: int = 112
    video_margin: float = 0.0
    video_shape: WindowShape = "square"
    video_crf: int = 20

    def __post_init__(self) -> None:
        if self.audio_format not in AUDIO_FORMATS:
            raise SelectionError(
                f"audio_format {self.audio_format!r} is not supported. "
                f"Supported formats are {', '.join(AUDIO_FORMATS)}."
            )
        if type(self.video_size) is not int or self.video_size not in _VIDEO_SIZES:
            raise SelectionError(
                f"video_size must be an even number of pixels from {_VIDEO_SIZES[0]} to "
                f"{_VIDEO_SIZES[-1]}, got {self.video_size!r}."
            )
        if type(self.video_margin) not in {int, float} or not 0 <= self.video_margin <= _MAX_MARGIN:
            raise SelectionError(
                f"video_margin must be a number from 0 to {_MAX_MARGIN:g}, a part of the box's "
                f"size, got {self.video_margin!r}."
            )
        if self.video_shape not in WINDOW_SHAPES:
            raise SelectionError(
                f"video_shape {self.video_shape!r} is not supported. "
                f"Supported shapes are {', '.join(WINDOW_SHAPES)}."
            )
        if type(self.video_crf) is not int or self.video_crf not in _CRFS:
            raise SelectionError(
                f"video_crf must be a whole number from {_CRFS[0]} (lossless) to {_CRFS[-1]}, "
                f"got {self.video_crf!r}."
            )

    @classmethod
    def names(cls, config: ConfigName) -> tuple[str, ...]:
        """Return the names of the options that a configuration has."""
        every = tuple(one.name for one in fields(cls))
        return every if config == "audio-visual" else every[:1]
