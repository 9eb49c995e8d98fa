"""Options of cropping and encoding, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import (
    AUDIO_FORMATS,
    WINDOW_SHAPES,
    AudioFormat,
    ConfigName,
    Rule,
    WindowShape,
    check_options,
    option,
    options_of,
    real_number,
    whole_number,
)

_SIZES = range(32, 1025, 2)


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """How clips are cropped and encoded. A store keeps the values that it was created with.

    Raises:
        SelectionError: a value is not allowed.
    """

    audio_format: AudioFormat = option("flac", "how audio is encoded", choices=AUDIO_FORMATS)
    audio_track: int | None = option(
        None,
        "audio track to crop in every file, counted from 0",
        default="the original; where none is flagged, the default one that is no dub",
        parse=int,
        metavar="N",
        rule=whole_number(0, 255),
    )
    video_size: int = option(
        112,
        "width and height of face clips in pixels, even, from 32 to 1024",
        parse=int,
        metavar="PIXELS",
        rule=Rule(
            f"an even number of pixels from {_SIZES[0]} to {_SIZES[-1]}",
            lambda value: type(value) is int and value in _SIZES,
        ),
    )
    video_margin: float = option(
        0.0,
        "margin added to a box on each side, as a fraction of its size, from 0 to 2",
        parse=float,
        metavar="FRACTION",
        rule=real_number(0, 2, text="from 0 to 2, a fraction of the box's size"),
    )
    video_shape: WindowShape = option(
        "square",
        "square: widen the shorter side of the box; stretched: distort the box to a square",
        choices=WINDOW_SHAPES,
    )
    video_crf: int = option(
        20,
        "quality of x264, from 0 (lossless) to 51 (worst)",
        parse=int,
        metavar="N",
        rule=whole_number(0, 51, text="from 0 (lossless) to 51"),
    )

    def __post_init__(self) -> None:
        check_options(self, SelectionError)

    @classmethod
    def names(cls, config: ConfigName) -> tuple[str, ...]:
        """Return the names of the options that apply to a configuration."""
        names = tuple(options_of(cls))
        return names if config == "audio-visual" else names[:2]
