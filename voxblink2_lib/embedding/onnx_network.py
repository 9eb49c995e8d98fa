"""Run an ONNX file: check its graph against its description, and feed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.errors import ModelError, first_line
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.models.features import log_mel
from voxblink2_lib.models.kaldi_frames import kaldi_log_mel
from voxblink2_lib.models.onnx_description import OnnxDescription, description_path
from voxblink2_lib.records import SAMPLE_RATE_HZ

Array = npt.NDArray[Any]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_INT16 = np.iinfo(np.int16)
_ERRORS_ONLY = 3  # of onnxruntime's levels
# Of these, samples and features may be.
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
_SAMPLE_TYPES = _TYPES | {"tensor(int16)": np.int16}
_COUNT_TYPES: dict[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}

# What onnxruntime says, and what to do then.
_REMEDIES = {
    "opset": "Update onnxruntime (pip install -U onnxruntime), or export with a lower opset.",
    "external data": "Its weights lie in another file: copy both into one folder.",
    "is not a registered function": "It needs operators that onnxruntime does not have.",
}
_DAMAGED = "Is it a whole ONNX file? Copy or export it again."
_NO_MEMORY = "Failed to allocate memory"


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


class OnnxNetwork:
    """An ONNX file in memory.

    Attributes:
        min_samples: number of samples that a waveform must have.
        pads: whether padding changes nothing: the graph takes lengths.
    """

    def __init__(self, session: Any, description: OnnxDescription, signature: Signature) -> None:
        self._session, self._description, self._signature = session, description, signature
        self.min_samples = description.least_samples
        self.pads = signature.lengths_name is not None

    def embed(self, waveforms: Sequence[Waveform]) -> Vector:
        """Return embeddings, shape (n, dimensions)."""
        if self._signature.is_single and len(waveforms) > 1:
            return np.concatenate([self.embed([waveform]) for waveform in waveforms])
        rows = [self._row(waveform) for waveform in waveforms]
        lengths = np.array([len(row) for row in rows])
        batch = np.zeros((len(rows), lengths.max(), *rows[0].shape[1:]), rows[0].dtype)
        for place, row in enumerate(rows):
            batch[place, : len(row)] = row
        return self._run(batch, lengths)

    def _row(self, waveform: Waveform) -> Array:
        """Return what the graph takes of a waveform, shape (samples,) or (frames, bands)."""
        if self._description.input == "features":
            return features_of(waveform, self._description).astype(self._signature.input_type)
        samples = np.float32(self._description.sample_scale or 1) * waveform
        if self._signature.input_type is np.int16:
            samples = np.clip(np.round(samples), _INT16.min, _INT16.max)
        return samples.astype(self._signature.input_type)

    def _run(self, batch: Array, lengths: Array) -> Vector:
        signature = self._signature
        if self._description.layout == "batch mels time":
            batch = np.ascontiguousarray(batch.transpose(0, 2, 1))
        inputs = {signature.input_name: batch}
        if signature.lengths_name is not None:
            inputs[signature.lengths_name] = lengths.astype(signature.lengths_type)
        try:
            (vectors,) = self._session.run([signature.output_name], inputs)
        except Exception as error:  # those of onnxruntime have no class of their own
            if _NO_MEMORY in str(error):
                raise torch.OutOfMemoryError(first_line(error)) from error
            raise RuntimeError(shortened(first_line(error), quoted=False)) from error
        if vectors.ndim != 2 or len(vectors) != len(batch):
            raise RuntimeError(
                f"its output {signature.output_name} has the shape {vectors.shape}; expected is "
                f"({len(batch)}, dimensions)"
            )
        return np.asarray(vectors, np.float32)


def features_of(waveform: Waveform, description: OnnxDescription) -> npt.NDArray[np.float32]:
    """Return log-mel frames as a description says, shape (frames, bands)."""
    samples, bands = torch.from_numpy(waveform), description.num_mel_bins or 0
    if description.front_end == "voxblink2":
        frames = log_mel(samples, normalization=str(description.normalization), bands=bands)
    else:
        window, scale = str(description.window_type), float(description.sample_scale or 1)
        frames = kaldi_log_mel(samples, window=window, bands=bands, scale=scale)
        if description.mean_normalization:
            frames = frames - frames.mean(dim=0)
    array: npt.NDArray[np.float32] = frames.numpy()
    return array


# -- Loading ---------------------------------------------------------------------------------------


def open_network(path: Path, description: OnnxDescription, options: LoadOptions) -> OnnxNetwork:
    """Load an ONNX file and try it on a second of noise.

    Raises:
        ModelError: it cannot be loaded, or its graph is not as described.
    """
    if options.dtype != "float32":
        raise ModelError(
            f"An ONNX file computes in the types that it was exported with, not in "
            f"{options.dtype}. Leave out --dtype."
        )
    session = _session(path, options)
    network = OnnxNetwork(session, description, check_graph(session, description, path))
    samples = max(SAMPLE_RATE_HZ, description.least_samples)
    noise = np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)
    try:
        network.embed([noise])
    except RuntimeError as error:
        raise ModelError(
            f"{path} fails on a second of noise: {first_line(error).rstrip('.')}. Does "
            f"{description_path(path).name} describe it?"
        ) from error
    return network


def _session(path: Path, options: LoadOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    settings.log_severity_level = _ERRORS_ONLY
    provider = _provider(options.device)
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=[provider], enable_fallback=0
        )
    except Exception as error:  # those of onnxruntime have no class of their own
        problem = shortened(first_line(error), quoted=False).rstrip(".")
        remedies = (remedy for said, remedy in _REMEDIES.items() if said in str(error).lower())
        raise ModelError(
            f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__}: {problem}. "
            f"{next(remedies, _DAMAGED)}"
        ) from error
    if session.get_providers()[0] != provider[0]:  # it goes on on the CPU without a word
        raise ModelError(
            f"onnxruntime found no usable CUDA on the device {options.device}. Use --device cpu, "
            "or install the CUDA libraries that onnxruntime-gpu needs."
        )
    return session


def _provider(device: str) -> tuple[str, dict[str, str]]:
    """Return the part of onnxruntime that runs on a device, and its options."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _CPU, {}
    if kind != "cuda" or (index and not index.isdecimal()):
        raise ModelError(f"The device {device!r} cannot run ONNX files. Use cpu or cuda.")
    available = onnxruntime.get_available_providers()
    if _CUDA not in available:
        raise ModelError(
            f"onnxruntime here has no CUDA, only {', '.join(available)}. Use --device cpu, or "
            "install onnxruntime-gpu in place of onnxruntime."
        )
    return _CUDA, {"device_id": index or "0"}


# -- The graph -------------------------------------------------------------------------------------


def check_graph(session: Any, description: OnnxDescription, path: Path) -> Signature:
    """Compare a graph with its description; return names and types.

    Args:
        session: of onnxruntime.
        description: what is described.
        path: the file, for messages.

    Raises:
        ModelError: an input or output is not there, or of another type or shape.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    lengths = None
    if description.lengths_name is not None:
        lengths = inputs.pop(_known(description.lengths_name, inputs, "input", path))
    taken = inputs.pop(_known(description.input_name, inputs, "input", path))
    if inputs:
        raise ModelError(
            f"{path} has other inputs, too: {_listed(inputs.values())}. Only one for the "
            f"{description.input} and one for the lengths (lengths_name) can be filled."
        )
    output = outputs[_known(description.output_name, outputs, "output", path)]
    types = _SAMPLE_TYPES if description.input == "waveform" else _TYPES
    checked_type = _checked_type(taken, types, path)
    if checked_type is np.int16 and description.sample_scale == 1:
        raise ModelError(
            f"{path} takes samples of 16 bits: in {description_path(path).name}, their "
            "sample_scale must be 32768."
        )
    _checked_type(output, _TYPES, path)
    return Signature(
        input_name=taken.name,
        input_type=checked_type,
        lengths_name=None if lengths is None else lengths.name,
        lengths_type=np.int64 if lengths is None else _checked_type(lengths, _COUNT_TYPES, path),
        output_name=output.name,
        is_single=_is_single(taken, output, description, path),
    )


def _known(name: str | None, values: dict[str, Any], what: str, path: Path) -> str:
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


def _listed(values: Any) -> str:
    return ", ".join(
        f"{shortened(value.name, quoted=False)} {_shape_text(value)} of {value.type}"
        for value in list(values)[:4]
    )


def _shape_text(value: Any) -> str:
    return f"({', '.join(shortened(str(size), quoted=False) for size in value.shape)})"


def _checked_type(
    value: Any, types: dict[str, type[np.generic]], path: Path
) -> type[np.generic]:
    if value.type not in types:
        raise ModelError(
            f"{shortened(value.name, quoted=False)} of {path} is {value.type}; allowed: "
            f"{', '.join(types)}."
        )
    return types[value.type]


def _is_single(taken: Any, output: Any, description: OnnxDescription, path: Path) -> bool:
    """Check shapes; return whether a batch is one utterance."""
    expected = ["batch", "samples"]
    if description.input == "features":
        expected = (description.layout or "batch time mels").split()
    shape, fits = taken.shape, len(taken.shape) == len(expected)
    sizes = dict(zip(expected, shape, strict=False))
    bands = sizes.get("mels")
    if not fits or (isinstance(bands, int) and bands != description.num_mel_bins):
        described = ", ".join(expected).replace("mels", str(description.num_mel_bins))
        raise ModelError(
            f"{taken.name} of {path} has the shape {_shape_text(taken)}; described is "
            f"({described})."
        )
    _check_free(sizes, path)
    if len(output.shape) not in {0, 2}:  # of some graphs no shape is known
        raise ModelError(
            f"{output.name} of {path} has the shape {_shape_text(output)}; expected is (batch, "
            "dimensions): one embedding for each utterance."
        )
    return sizes["batch"] == 1


def _check_free(sizes: dict[str, Any], path: Path) -> None:
    """Check that time is free, and the batch free or 1."""
    for name in ("time", "samples"):
        if isinstance(sizes.get(name), int):
            raise ModelError(
                f"{path} takes {sizes[name]:,} {'frames' if name == 'time' else name} and no "
                "others, but utterances have all lengths. Export it with this dimension free "
                "(dynamic_axes or dynamic_shapes of torch.onnx.export)."
            )
    if isinstance(sizes["batch"], int) and sizes["batch"] != 1:
        raise ModelError(
            f"{path} takes batches of {sizes['batch']} and no others. Export it with this "
            "dimension free, or 1."
        )
