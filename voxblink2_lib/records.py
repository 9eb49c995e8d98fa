"""Records that several stages share: frozen, validated on construction.

Time is counted in frames, 25 a second from the start of the video, whatever the video's own
rate. An utterance from frame 3 to frame 5 covers a half-open interval of three frames:

    frame      0     1     2     3     4     5     6
    seconds    0   0.04  0.08  0.12  0.16  0.20  0.24
                                 [first      last]
                                 |=================)
    sample     0   640  1280   1920        ...    3840      at 16 kHz, 640 samples a frame

:func:`frame_start_sample` is the only place where frames become samples or seconds.

A field that users may set is declared with :func:`option`, which says all there is to say of it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FRAMES_PER_SECOND = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAMES_PER_SECOND
SPEAKER_ID = re.compile(r"id[0-9]{5,6}", re.ASCII)
VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}", re.ASCII)
UTTERANCE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
AudioFormat = Literal["flac", "wav", "opus"]
AUDIO_FORMATS: tuple[str, ...] = get_args(AudioFormat)

# Value of the column ``source`` of what somebody else cut: of an archive, or a folder of files.
CUT_AUDIO = "cut-audio"

# Crop window of a face: its box widened to a square, or the box, distorted to one.
WindowShape = Literal["square", "stretched"]
WINDOW_SHAPES: tuple[str, ...] = get_args(WindowShape)
ConfigName = Literal["audio", "audio-visual"]
CONFIG_NAMES: tuple[str, ...] = get_args(ConfigName)

# Where the size of the frame that boxes are pixels of is from: the annotation's header; the
# renditions that the source offers; or nowhere, so that it is assumed.
BoxesEvidence = Literal["header", "offered", "assumed"]

# Longer without a box, the face may have been elsewhere, or not in the video at all.
MAX_GAP_FRAMES = FRAMES_PER_SECOND

# Boxes belong to a rendition of at most this many lines, a fact of the release.
MAX_ANNOTATED_LINES = 720


def frame_start_sample(frame: int) -> int:
    """Return the 16 kHz sample at which a frame (25 a second) begins. Exact: 640 a frame.

    >>> frame_start_sample(3)
    1920
    """
    return frame * SAMPLES_PER_FRAME


def is_speaker_id(text: str) -> bool:
    """Return whether a text is a speaker id: ``id`` and 6 digits, or 5 in VoxBlink1.

    >>> is_speaker_id("id000002"), is_speaker_id("../x")
    (True, False)
    """
    return SPEAKER_ID.fullmatch(text) is not None


def is_video_id(text: str) -> bool:
    """Return whether a text is a video id: 11 characters of ``A-Za-z0-9_-``.

    >>> is_video_id("-JUT3czS6OI"), is_video_id("YJUT3czS/OI")
    (True, False)
    """
    return VIDEO_ID.fullmatch(text) is not None


class VideoKey(NamedTuple):
    """Ids of one video of one speaker."""

    speaker_id: str
    video_id: str


class UtteranceKey(NamedTuple):
    """Ids of one utterance.

    >>> UtteranceKey("id000002", "-JUT3czS6OI", "00001").name
    'id000002/-JUT3czS6OI/00001'
    """

    speaker_id: str
    video_id: str
    utterance_id: str

    @property
    def name(self) -> str:
        """``speaker/video/utterance``, the name that Kaldi-style lists use."""
        return "/".join(self)


@dataclass(frozen=True, slots=True, order=True)
class Utterance:
    """One annotated part of one video.

    Attributes:
        speaker_id: ``id`` and digits.
        video_id: 11 characters.
        utterance_id: the name of its annotation file, without the file extension.
        first_frame: first frame, 25 a second.
        last_frame: last frame, included.

    Raises:
        ValueError: an id is malformed, or the last frame is before the first.
    """

    speaker_id: str
    video_id: str
    utterance_id: str
    first_frame: int
    last_frame: int

    def __post_init__(self) -> None:
        check_ids(self.speaker_id, self.video_id, self.utterance_id)
        if not 0 <= self.first_frame <= self.last_frame:
            raise ValueError(
                f"frames of utterance {self.name} run from {self.first_frame} to "
                f"{self.last_frame}; the first must be 0 or more and not after the last"
            )

    @property
    def name(self) -> str:
        """``speaker/video/utterance``, see :attr:`UtteranceKey.name`."""
        return UtteranceKey(self.speaker_id, self.video_id, self.utterance_id).name

    @property
    def samples(self) -> tuple[int, int]:
        """Half-open range of samples at 16 kHz."""
        return frame_start_sample(self.first_frame), frame_start_sample(self.last_frame + 1)

    @property
    def seconds(self) -> tuple[float, float]:
        """Half-open range of seconds."""
        start, stop = self.samples
        return start / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ


class UntimedUtterance(UtteranceKey):
    """An utterance that somebody else cut, from an unknown place of its video."""

    __slots__ = ()
    seconds = (None, None)


def check_ids(speaker_id: str, video_id: str, utterance_id: str) -> None:
    """Refuse malformed ids, which could reach outside a folder or a URL path.

    Raises:
        ValueError: an id is malformed.
    """
    if not is_speaker_id(speaker_id):
        raise ValueError(f"{speaker_id!r} is not a speaker id ('id' and 5 or 6 digits)")
    if not is_video_id(video_id):
        raise ValueError(f"{video_id!r} is not a video id (11 characters of A-Z a-z 0-9 _ -)")
    if UTTERANCE_ID.fullmatch(utterance_id) is None:
        raise ValueError(f"{utterance_id!r} is not an utterance id (letters, digits, _ and -)")


class Clip(NamedTuple):
    """The audio of one cropped utterance, encoded."""

    utterance: Utterance
    data: bytes


class UntimedClip(NamedTuple):
    """The audio of one utterance that somebody else cut, encoded."""

    utterance: UntimedUtterance
    data: bytes


class FaceClip(NamedTuple):
    """The face of one cropped utterance.

    Attributes:
        utterance: the utterance.
        data: the encoded video.
        boxes: x, y, width, height of each frame, in the release's pixels, shape (n, 4).
        boxes_fit: no box of the video has its centre outside the video frame.
        boxes_evidence: what is known of the frame size that the boxes are pixels of.
    """

    utterance: Utterance
    data: bytes
    boxes: npt.NDArray[np.int16]
    boxes_fit: bool
    boxes_evidence: BoxesEvidence


@dataclass(frozen=True, slots=True)
class SealedShard:
    """A finished shard. One without rows has no file and no name.

    Attributes:
        job: number of the job that was sealed.
        name: of its file.
        sha256: of its file.
        rows: number of its rows.
        size_bytes: size of its file.
        digests: of each row (:mod:`voxblink2_lib.store.row_digests`) by its utterance's name;
            ``None`` where they are not known, as in the ledger.
    """

    job: int
    name: str
    sha256: str
    rows: int
    size_bytes: int
    digests: Mapping[str, bytes] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """The face boxes of one utterance; :mod:`voxblink2_lib.media.windows` has their geometry.

    Attributes:
        utterance: the utterance.
        frames: frames that have a box, 25 a second, shape (n,), strictly rising.
        boxes: x, y, width, height of each, shape (n, 4).
        frame_size: width and height of the rendition that the boxes belong to; ``None`` if the
            release does not state it.
    """

    utterance: Utterance
    frames: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int16]
    frame_size: tuple[int, int] | None = None


# -- Options of users -----------------------------------------------------------------------------


class Rule(NamedTuple):
    """What the value of an option must be: in words, for messages, and as a test."""

    text: str
    allows: Callable[[Any], bool]


def whole_number(least: int, most: float = math.inf, *, text: str = "") -> Rule:
    """Return the rule of whole numbers from ``least`` to ``most``, both included."""
    text = text or (f"of {least} or more" if math.isinf(most) else f"from {least} to {most}")
    return Rule(
        f"a whole number {text}", lambda value: type(value) is int and least <= value <= most
    )


def real_number(least: float, most: float = math.inf, *, text: str = "") -> Rule:
    """Return the rule of finite numbers from ``least`` to ``most``, both included."""
    text = text or (f"of {least:g} or more" if math.isinf(most) else f"from {least:g} to {most:g}")
    return Rule(
        f"a number {text}",
        lambda value: (
            # A whole number may be too large for a float.
            type(value) in {int, float} and least <= value <= most and abs(value) < math.inf
        ),
    )


@dataclass(frozen=True, slots=True)
class Option:
    """How users write a field of a record: in ``load_dataset`` and on the command line.

    The field is the only declaration: the builder's keyword, the argument of the command line, the
    row of the table in the docs and the check of the value are made from it.

    Attributes:
        help: what it does.
        default: what it means to leave it out; empty if nothing more needs to be said.
        parse: makes a value from a text of the command line.
        metavar: what stands for a value in the help.
        choices: the values that are allowed, where they are few.
        rule: what a value must be. Default: one of the choices, if there are any.
        values: ``"one"`` value; ``"none"``, so that the option itself means true; ``"repeat"`` the
            option for each value; ``"list"`` several values after it. The last two take one value
            or a list in Python.
        may_be_secret: a value may hold a secret. A store keeps it without, and it may also come
            from an environment variable, see :func:`option_variable`.
    """

    help: str
    default: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    rule: Rule | None = None
    values: Literal["none", "one", "repeat", "list"] = "one"
    may_be_secret: bool = False

    def __post_init__(self) -> None:
        if self.choices and self.rule is None:
            text = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
            rule = Rule(text, lambda value: value in self.choices)
            object.__setattr__(self, "rule", rule)

    @property
    def summary(self) -> str:
        """What it does, and what it means to leave it out."""
        return f"{self.help}; default: {self.default}" if self.default else self.help


def option(value: Any, help: str, *, default: str = "", **details: Any) -> Any:
    """Declare a field that is an option of users.

    Args:
        value: its default.
        help: what it does.
        default: what it means to leave it out, where ``value`` does not say it.
        details: further fields of :class:`Option`.
    """
    if not default and isinstance(value, str | int | float):
        default = f"{value:g}" if isinstance(value, float) else str(value)
    return field(default=value, metadata={"option": Option(help, default, **details)})


def switch(help: str) -> Any:
    """Declare a field that is false, and true if the user gives the option."""
    rule = Rule("True or False", lambda value: type(value) is bool)
    return option(False, help, default="off", values="none", rule=rule)


def options_of(record: type) -> dict[str, Option]:
    """Return the options that a record declares, by their names."""
    return {
        entry.name: entry.metadata["option"]
        for entry in fields(record)
        if "option" in entry.metadata
    }


def option_string(name: str) -> str:
    """Return an option as it is written on the command line.

    >>> option_string("max_speakers")
    '--max-speakers'
    """
    return f"--{name.replace('_', '-')}"


def option_variable(name: str) -> str:
    """Return the environment variable that may hold the value of an option with a secret.

    >>> option_variable("yt_dlp")
    'VOXBLINK2_YT_DLP'
    """
    return f"VOXBLINK2_{name.upper()}"


def has_control_character(text: str) -> bool:
    r"""Return whether a text has a character such as NUL, a line break or Escape.

    >>> has_control_character("a b"), has_control_character("a\nb")
    (False, True)
    """
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


def check_options(record: Any, error: type[ValueError]) -> None:
    """Check the value of each option of a record against its rule; ``None`` if that is the default.

    Raises:
        ValueError: an ``error`` that names the option, what is allowed, and what was given.
    """
    defaults = {entry.name: entry.default for entry in fields(record)}
    for name, declared in options_of(type(record)).items():
        value = getattr(record, name)
        is_left_out = value is None and defaults[name] is None
        if declared.rule and not is_left_out and not declared.rule.allows(value):
            raise error(f"{name} must be {declared.rule.text}, got {value!r}.")
