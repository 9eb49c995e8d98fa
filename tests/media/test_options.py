"""Options of clips: the defaults, and which values are allowed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.media.options import ClipOptions

VIDEO_OPTIONS = ("video_size", "video_margin", "video_shape", "video_crf")
# What a message says is allowed, and values that are not.
WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "audio_format": ("flac, wav or opus", ("mp3", "FLAC", "", 1, ("flac",), None)),
    "audio_track": ("a whole number from 0 to 255", (-1, 256, 1.0, "1", True, float("nan"), [0])),
    "video_size": (
        "an even number of pixels from 32 to 1024",
        (
            31,
            30,
            0,
            -112,
            111,
            113,
            1025,
            1026,
            112.0,
            "112",
            True,
            False,
            float("nan"),
            (112,),
            None,
        ),
    ),
    "video_margin": (
        "a number from 0 to 2, a fraction of the box's size",
        (
            -0.1,
            -1,
            2.001,
            3,
            10**400,
            float("nan"),
            float("inf"),
            -float("inf"),
            "0.1",
            True,
            False,
            None,
        ),
    ),
    "video_shape": (
        "square or stretched",
        ("", "Square", "round", "square ", 1, ("square",), None),
    ),
    "video_crf": (
        "a whole number from 0 (lossless) to 51",
        (-1, 52, 1000, 20.0, 20.5, float("nan"), "20", True, False, np.float64(20), None),
    ),
}
RIGHT: dict[str, tuple[Any, ...]] = {
    "audio_format": ("flac", "wav", "opus"),
    "audio_track": (0, 7, None),
    "video_size": (32, 34, 112, 1022, 1024),
    "video_margin": (0, 0.0, 1e-9, 0.3, 1, 2, 2.0),
    "video_shape": ("square", "stretched"),
    "video_crf": (0, 1, 20, 51),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str) -> None:
    allowed, values = WRONG[name]
    for value in values:
        message = re.escape(f"{name} must be {allowed}, got {value!r}.")
        with pytest.raises(SelectionError, match=f"^{message}$"):
            ClipOptions(**{name: value})


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_value_is_kept(name: str) -> None:
    for value in RIGHT[name]:
        assert getattr(ClipOptions(**{name: value}), name) == value


def test_defaults_of_the_design() -> None:
    new = ClipOptions()
    assert (new.audio_format, new.video_size) == ("flac", 112)
    assert (new.video_margin, new.video_shape) == (0.0, "square")
    assert (new.video_crf, new.audio_track) == (20, None)


def test_names_of_the_options_of_a_configuration() -> None:
    assert ClipOptions.names("audio") == ("audio_format", "audio_track")
    assert ClipOptions.names("audio-visual") == ("audio_format", "audio_track", *VIDEO_OPTIONS)
