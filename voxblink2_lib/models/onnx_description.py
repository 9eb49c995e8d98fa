"""What an ONNX file of a speaker model takes: a JSON file beside it, of the same stem.

``model.json`` beside ``model.onnx``. The file itself does not tell its front end, and with another
one embeddings are wrong without any error, so it is never guessed.

{"input": "waveform", "sample_scale": 1}
{"input": "features", "front_end": "kaldi", "window_type": "hamming", "num_mel_bins": 80,
 "sample_scale": 32768, "mean_normalization": true}
{"input": "features", "front_end": "voxblink2", "normalization": "std", "num_mel_bins": 80}
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from voxblink2_lib.errors import ModelError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.models.features import (
    FRONT_ENDS,
    MIN_SAMPLES,
    NORMALIZATIONS,
    FrontEnd,
    Normalization,
)
from voxblink2_lib.models.kaldi_frames import INT16_SCALE, KALDI_MIN_SAMPLES, WINDOWS, Window
from voxblink2_lib.published_results import RELEASE_KEY

Input = Literal["waveform", "features"]
Layout = Literal["batch time mels", "batch mels time"]
INPUTS: tuple[str, ...] = get_args(Input)
LAYOUTS: tuple[str, ...] = get_args(Layout)

# A description is a few lines; a file of gigabytes is none.
_MOST_BYTES = 1 << 20
_MOST_BANDS = 1024

_ALLOWED: dict[str, tuple[object, ...]] = {
    "input": INPUTS,
    "front_end": FRONT_ENDS,
    "normalization": NORMALIZATIONS,
    "window_type": WINDOWS,
    "sample_scale": (1, int(INT16_SCALE)),
    "mean_normalization": (True, False),
    "layout": LAYOUTS,
}
# What decides the numbers is named, never taken by default.
_REQUIRED = {
    "waveform": ("sample_scale",),
    "voxblink2": ("front_end", "normalization", "num_mel_bins"),
    "kaldi": ("front_end", "window_type", "num_mel_bins", "sample_scale", "mean_normalization"),
}
_NAMES = ("input_name", "lengths_name", "output_name")
_ALWAYS_ALLOWED = ("input", "min_samples", *_NAMES, RELEASE_KEY)

# As WeSpeaker and 3D-Speaker train and export: both have 80 bands of Kaldi's, without dither.
WESPEAKER_FEATURES: Mapping[str, object] = {
    "input": "features",
    "front_end": "kaldi",
    "window_type": "hamming",
    "num_mel_bins": 80,
    "sample_scale": int(INT16_SCALE),
    "mean_normalization": True,
}
SPEAKER_3D_FEATURES = {**WESPEAKER_FEATURES, "window_type": "povey", "sample_scale": 1}


@dataclass(frozen=True, slots=True)
class OnnxDescription:
    """The input and the output of an ONNX file.

    Attributes:
        input: ``"waveform"``, shape (batch, samples), 16 kHz; or ``"features"``, log-mel frames.
        front_end: of features: the recipe, ``"voxblink2"`` or ``"kaldi"``.
        normalization: of ``"voxblink2"``: see ``SpeakerFeatureExtractor``.
        window_type: of ``"kaldi"``: ``"hamming"`` or ``"povey"``.
        num_mel_bins: of features: number of bands.
        sample_scale: of a waveform, and of ``"kaldi"``: 1 for samples in [-1, 1], 32768 for those
            of 16 bits.
        mean_normalization: of ``"kaldi"``: whether the mean over time is subtracted.
        layout: of features: order of the dimensions.
        min_samples: number of samples that a waveform must have.
        input_name: of the graph; may be left out if it has one input besides the lengths.
        lengths_name: input for the number of valid samples or frames of each row, if there is one.
        output_name: of the graph; may be left out if it has one output.
        release: which released model it is of, for published results.

    Raises:
        ModelError: a value is not allowed, or they do not go together.
    """

    input: Input
    front_end: FrontEnd | None = None
    normalization: Normalization | None = None
    window_type: Window | None = None
    num_mel_bins: int | None = None
    sample_scale: int | None = None
    mean_normalization: bool | None = None
    layout: Layout | None = None
    min_samples: int | None = None
    input_name: str | None = None
    lengths_name: str | None = None
    output_name: str | None = None
    release: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = self.as_dict()
        kind = _kind(values)
        lacking = [name for name in _REQUIRED[kind] if name not in values]
        if lacking:
            raise ModelError(f"{', '.join(lacking)} must be given for {_of(kind)}.")
        _refuse_others(values, _allowed_keys(kind), f" for {_of(kind)}")
        for name, value in values.items():
            _check_value(name, value)

    @property
    def least_samples(self) -> int:
        """Number of samples that a waveform must have."""
        default = KALDI_MIN_SAMPLES if self.front_end == "kaldi" else MIN_SAMPLES
        return self.min_samples or default

    @property
    def text(self) -> str:
        """The front end for people."""
        if self.input == "waveform":
            return "of the ONNX file, from the waveform on"
        kind = self.normalization or self.window_type
        scale = f" of samples up to {self.sample_scale}" if self.front_end == "kaldi" else ""
        return f"{self.front_end} {kind} {self.num_mel_bins} bands{scale}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is given, as the JSON file has it."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        release = values.pop("release")
        values |= {RELEASE_KEY: dict(release)} if release else {}
        return {name: value for name, value in values.items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """Return what decides the embeddings."""
        return {name: value for name, value in self.as_dict().items() if name != RELEASE_KEY}


def description_path(path: Path) -> Path:
    """Return the description of an ONNX file.

    >>> description_path(Path("models/resnet34.onnx")).name
    'resnet34.json'
    """
    return path.with_suffix(".json")


def write_description(path: Path, description: OnnxDescription) -> Path:
    """Write the description of an ONNX file beside it and return its path."""
    with atomic_write(description_path(path)) as file:
        file.write(json.dumps(description.as_dict(), indent=2).encode() + b"\n")
    return description_path(path)


def read_description(path: Path) -> OnnxDescription:
    """Read the description of an ONNX file.

    Raises:
        ModelError: there is none, or it describes no input that is known. The message shows those
            of common exports.
    """
    place = description_path(path)
    if not place.is_file():
        raise ModelError(
            f"There is no {place}, which describes the input of {path.name}. The front end is not "
            "in an ONNX file, and with another one embeddings are wrong. If WeSpeaker exported it, "
            f"write into {place.name}: {json.dumps(dict(WESPEAKER_FEATURES))}. If 3D-Speaker did: "
            f'{json.dumps(SPEAKER_3D_FEATURES)}. If it takes waveforms in [-1, 1]: {{"input": '
            '"waveform", "sample_scale": 1}. See docs/models.md.'
        )
    with as_own_error(ModelError, f"{place} cannot be read as JSON"), place.open("rb") as file:
        values = json.loads(file.read(_MOST_BYTES))
    with _named(place):
        return _of_json(values)


@contextlib.contextmanager
def _named(place: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong in it."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from error


def _of_json(values: Any) -> OnnxDescription:
    if not isinstance(values, dict):
        raise ModelError(f"expected is an object of names and values, not {shortened(values)}.")
    known = [each.name for each in dataclasses.fields(OnnxDescription) if each.name != "release"]
    _refuse_others(values, [*known, RELEASE_KEY], "")
    _given("input", values)
    given = {name: value for name, value in values.items() if name != RELEASE_KEY}
    release = values.get(RELEASE_KEY, {})
    if not isinstance(release, dict):
        raise ModelError(f"{RELEASE_KEY} must be an object, got {shortened(release)}.")
    return OnnxDescription(**given, release=release)


def _kind(values: Mapping[str, Any]) -> str:
    """Return which keys go together: a key of ``_REQUIRED``."""
    kind = _given("input", values)
    return kind if kind == "waveform" else _given("front_end", values)


def _given(name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        raise ModelError(f"{name} is missing. Allowed: {_choices(_ALLOWED[name])}.")
    _check_value(name, values[name])
    return str(values[name])


def _of(kind: str) -> str:
    return "a waveform" if kind == "waveform" else f"features of the front end {kind!r}"


def _allowed_keys(kind: str) -> list[str]:
    layout = [] if kind == "waveform" else ["layout"]
    return [*_ALWAYS_ALLOWED, *_REQUIRED[kind], *layout]


def _refuse_others(values: Iterable[str], allowed: Iterable[str], where: str) -> None:
    others = [name for name in values if name not in {*allowed}]
    if others:
        named = ", ".join(shortened(name, quoted=False) for name in others[:4])
        raise ModelError(f"{named} is not known{where}. Allowed: {', '.join(allowed)}.")


def _check_value(name: str, value: object) -> None:
    allowed = _ALLOWED.get(name)
    if allowed is not None:
        # In Python, True equals 1.
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise ModelError(f"{name} must be one of {_choices(allowed)}, got {shortened(value)}.")
    elif name in _NAMES:
        if not (isinstance(value, str) and value):
            raise ModelError(f"{name} must be a name in the graph, got {shortened(value)}.")
    elif name in {"num_mel_bins", "min_samples"}:
        most = _MOST_BANDS if name == "num_mel_bins" else None
        if type(value) is not int or value < 1 or (most and value > most):
            upper = f" to {most:,}" if most else " on"
            raise ModelError(f"{name} must be a number from 1{upper}, got {shortened(value)}.")


def _choices(allowed: Iterable[object]) -> str:
    return ", ".join(map(json.dumps, allowed))
