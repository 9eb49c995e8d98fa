"""Compare the inputs and the output of an ONNX graph with its description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.errors import ModelError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.models.onnx_description import OnnxDescription, description_path

Types = Mapping[str, type[np.generic]]

_FLOATS: Types = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
_SAMPLES: Types = {**_FLOATS, "tensor(int16)": np.int16}
_COUNTS: Types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Signature:
    """Names and types of a graph's inputs and output.

    Attributes:
        input_name: of samples or features.
        input_type: their type.
        lengths_name: of the numbers of valid samples or frames, if there is such an input.
        lengths_type: their type.
        output_name: of the embeddings.
        is_single: a batch is one utterance.
    """

    input_name: str
    input_type: type[np.generic]
    lengths_name: str | None
    lengths_type: type[np.generic]
    output_name: str
    is_single: bool


def check_graph(session: Any, description: OnnxDescription, path: Path) -> Signature:
    """Compare a graph with its description; return names and types.

    Args:
        session: of onnxruntime.
        description: what is described.
        path: the file, for messages.

    Raises:
        ModelError: an input or output is not there, or of another type or shape.
    """
    taken, lengths = _inputs(session, description, path)
    outputs = {value.name: value for value in session.get_outputs()}
    output = outputs[_known(description.output_name, outputs, "output", path)]
    _checked_type(output, _FLOATS, path)
    if len(output.shape) not in {0, 2}:  # of some graphs no shape is known
        raise ModelError(
            f"{_called(output, path)} has the shape {_shape_text(output)}; expected is (batch, "
            "dimensions): one embedding for each utterance."
        )
    return Signature(
        input_name=taken.name,
        input_type=_input_type(taken, description, path),
        lengths_name=None if lengths is None else lengths.name,
        lengths_type=np.int64 if lengths is None else _checked_type(lengths, _COUNTS, path),
        output_name=output.name,
        is_single=_is_single(taken, description, path),
    )


# -- Names and types -------------------------------------------------------------------------------


def _inputs(session: Any, description: OnnxDescription, path: Path) -> tuple[Any, Any]:
    """Return the input for samples or features, and that for lengths or ``None``."""
    inputs, lengths = {value.name: value for value in session.get_inputs()}, None
    if description.lengths_name is not None:
        lengths = inputs.pop(_known(description.lengths_name, inputs, "input", path))
    taken = inputs.pop(_known(description.input_name, inputs, "input", path))
    if inputs:
        raise ModelError(
            f"{path} has other inputs, too: {_listed(inputs.values())}. Only one for the "
            f"{description.input} and one for the lengths (lengths_name) can be filled."
        )
    return taken, lengths


def _known(name: str | None, values: Mapping[str, Any], what: str, path: Path) -> str:
    """Return the name of an input or output, that of the only one if none is given."""
    if name is None and len(values) == 1:
        return next(iter(values))
    if name is not None and name in values:
        return name
    problem = f"several {what}s" if name is None else f"no {what} {shortened(name)}"
    raise ModelError(
        f"{path} has {problem}: it has {_listed(values.values()) or 'none'}. Name the right one, "
        f"{what}_name, in {description_path(path).name}."
    )


def _input_type(taken: Any, description: OnnxDescription, path: Path) -> type[np.generic]:
    types = _SAMPLES if description.input == "waveform" else _FLOATS
    checked = _checked_type(taken, types, path)
    if checked is np.int16 and description.sample_scale == 1:
        raise ModelError(
            f"{path} takes samples of 16 bits: in {description_path(path).name}, their "
            "sample_scale must be 32768."
        )
    return checked


def _checked_type(value: Any, types: Types, path: Path) -> type[np.generic]:
    if value.type not in types:
        raise ModelError(f"{_called(value, path)} is {value.type}; allowed: {', '.join(types)}.")
    return types[value.type]


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(
        f"{shortened(value.name, quoted=False)} {_shape_text(value)} of {value.type}"
        for value in list(values)[:_SHOWN]
    )


def _called(value: Any, path: Path) -> str:
    return f"{shortened(value.name, quoted=False)} of {path}"


# -- Shapes ----------------------------------------------------------------------------------------


def _shape_text(value: Any) -> str:
    return f"({', '.join(shortened(str(size), quoted=False) for size in value.shape)})"


def _is_single(taken: Any, description: OnnxDescription, path: Path) -> bool:
    """Check the shape of the input; return whether a batch is one utterance."""
    expected = ["batch", "samples"]
    if description.input == "features":
        expected = (description.layout or "batch time mels").split()
    sizes = dict(zip(expected, taken.shape, strict=False))
    if len(taken.shape) != len(expected) or not _has_bands(sizes, description):
        described = ", ".join(expected).replace("mels", str(description.num_mel_bins))
        raise ModelError(
            f"{_called(taken, path)} has the shape {_shape_text(taken)}; described is "
            f"({described})."
        )
    _check_free(sizes, path)
    return bool(sizes["batch"] == 1)


def _has_bands(sizes: Mapping[str, Any], description: OnnxDescription) -> bool:
    """Return whether the bands, if they are fixed, are where and as many as described."""
    if "mels" not in sizes:
        return True
    bands, free = description.num_mel_bins, not isinstance(sizes["mels"], int)
    return sizes["time"] != bands if free else bool(sizes["mels"] == bands)


def _check_free(sizes: Mapping[str, Any], path: Path) -> None:
    """Check that time is free, and the batch free or 1."""
    for name, unit in (("time", "frames"), ("samples", "samples")):
        if isinstance(sizes.get(name), int):
            raise ModelError(
                f"{path} takes {sizes[name]:,} {unit} and no others, but utterances have all "
                "lengths. Export it with this dimension free (dynamic_axes or dynamic_shapes of "
                "torch.onnx.export)."
            )
    if isinstance(sizes["batch"], int) and sizes["batch"] != 1:
        raise ModelError(
            f"{path} takes batches of {sizes['batch']} and no others. Export it with this "
            "dimension free, or 1."
        )
