"""Load an ONNX file into onnxruntime, and feed it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from voxblink2_lib.embedding.model_protocol import LoadOptions, Vector, Waveform
from voxblink2_lib.embedding.onnx_graph import Signature, check_graph
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
# What onnxruntime says, and what to do then.
_REMEDIES = {
    "opset": "Update onnxruntime (pip install -U onnxruntime), or export with a lower opset.",
    "external data": "Its weights lie in another file: copy both into one folder.",
    "is not a registered function": "It needs operators that onnxruntime does not have.",
}
# It begins each message with numbers and the path.
_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")
_DAMAGED = "Is it a whole ONNX file? Copy or export it again."
_NO_MEMORY = "Failed to allocate memory"


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
                raise torch.OutOfMemoryError(_problem(error)) from error
            raise RuntimeError(_problem(error)) from error
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
        remedies = (remedy for said, remedy in _REMEDIES.items() if said in str(error).lower())
        raise ModelError(
            f"{path} cannot be loaded by onnxruntime {onnxruntime.__version__}: {_problem(error)}. "
            f"{next(remedies, _DAMAGED)}"
        ) from error
    if session.get_providers()[0] != provider[0]:  # it goes on on the CPU without a word
        raise ModelError(
            f"onnxruntime found no usable CUDA on the device {options.device}. Use --device cpu, "
            "or install the CUDA libraries that onnxruntime-gpu needs."
        )
    return session


def _problem(error: Exception) -> str:
    """Return what onnxruntime says, as it may stand in a message."""
    return shortened(_PREAMBLE.sub("", first_line(error)), quoted=False).rstrip(".")


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
