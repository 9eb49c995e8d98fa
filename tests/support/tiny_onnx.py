"""ONNX files of a few operators, written by hand: milliseconds, where an export takes seconds.

Their embedding is the mean and the maximum over time, of each band or of the samples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = Sequence[str | int]

WAVEFORM = {"input": "waveform", "sample_scale": 1}
WESPEAKER: dict[str, Any] = {
    "input": "features",
    "front_end": "kaldi",
    "window_type": "hamming",
    "num_mel_bins": 80,
    "sample_scale": 32768,
    "mean_normalization": True,
}
_EMBEDDINGS = helper.make_tensor_value_info("embs", TensorProto.FLOAT, None)
SPEAKER_3D: dict[str, Any] = {**WESPEAKER, "window_type": "povey", "sample_scale": 1}


def write_onnx(
    path: Path,
    shape: Shape,
    *,
    description: Mapping[str, Any] | None,
    time_axis: int = 1,
    dtype: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("feats", "embs"),
    opset: int = 11,
    keepdims: bool = False,
    extra_inputs: Mapping[str, tuple[int, Shape]] | None = None,
    output_type: int = TensorProto.FLOAT,
) -> Path:
    """Write a file that takes one input of a shape, and its description.

    Args:
        path: the file.
        shape: of the input, names for free dimensions.
        description: what to write beside it, if anything.
        time_axis: over which mean and maximum are taken.
        dtype: of the input.
        names: of input and output.
        opset: that it declares.
        keepdims: leave time in the output, with one element.
        extra_inputs: that the graph declares and does not use.
        output_type: of the output.
    """
    options: dict[str, Any] = {"axes": [time_axis], "keepdims": int(keepdims or len(shape) == 2)}
    nodes = [
        helper.make_node("Cast", [names[0]], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], **options),
        helper.make_node("ReduceMax", ["x"], ["max"], **options),
        helper.make_node("Concat", ["mean", "max"], ["both"], axis=-1),
        helper.make_node("Cast", ["both"], [names[1]], to=output_type),
    ]
    inputs = [helper.make_tensor_value_info(names[0], dtype, shape)]
    inputs += [
        helper.make_tensor_value_info(name, kind, size)
        for name, (kind, size) in (extra_inputs or {}).items()
    ]
    output = helper.make_tensor_value_info(names[1], output_type, None)
    graph = helper.make_graph(nodes, "g", inputs, [output])
    return _write(path, graph, description, opset=opset)


def write_means_of_lengths(path: Path, description: Mapping[str, Any]) -> Path:
    """Write a file that divides the sum of the samples by `lengths`: padding is not heard."""
    nodes = [
        helper.make_node("ReduceSum", ["waves"], ["sum"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["lengths"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["count"], ["column"], axes=[1]),
        helper.make_node("Div", ["sum", "column"], ["mean"]),
        helper.make_node("Concat", ["mean", "column"], ["embs"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("waves", TensorProto.FLOAT, ["B", "S"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
    ]
    return _write(path, helper.make_graph(nodes, "g", inputs, [_EMBEDDINGS]), description)


def write_with_weights_beside(path: Path, weights: Array, *, place: str = "model.data") -> Path:
    """Write a file that adds weights to the means of 80 bands; they lie in another file."""
    tensor = numpy_helper.from_array(weights.astype(np.float32), "weights")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    tensor.external_data.add(key="length", value=str(len(data)))
    (path.parent / "model.data").write_bytes(data)
    nodes = [
        helper.make_node("ReduceMean", ["feats"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "weights"], ["embs"]),
    ]
    inputs = [helper.make_tensor_value_info("feats", TensorProto.FLOAT, ["B", "T", 80])]
    graph = helper.make_graph(nodes, "g", inputs, [_EMBEDDINGS], initializer=[tensor])
    return _write(path, graph, WESPEAKER)


def describe(path: Path, description: Mapping[str, Any]) -> Path:
    """Write the description of a file and return the path of the file."""
    path.with_suffix(".json").write_text(json.dumps(description))
    return path


def _write(
    path: Path, graph: Any, description: Mapping[str, Any] | None, *, opset: int = 11
) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path if description is None else describe(path, description)
