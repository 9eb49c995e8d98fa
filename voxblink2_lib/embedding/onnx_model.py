"""Back end of ONNX files, which onnxruntime runs: waveforms or features in, embeddings out.

What the input is stands in a JSON file beside it, see ``models.onnx_description``.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from voxblink2_lib.embedding.model_protocol import LoadOptions, Network
from voxblink2_lib.errors import DependencyError, ModelError
from voxblink2_lib.foreign_files import as_own_error, shortened

if TYPE_CHECKING:
    from voxblink2_lib.models.onnx_description import OnnxDescription

ONNX = ".onnx"
_DAMAGED = "Is it a whole ONNX file? Copy or export it again."
# Graphs lie in each other, as in loops; those of speaker models hardly do.
_MOST_NESTED = 32


class OnnxModel:
    """A file ``model.onnx``, with ``model.json`` beside it.

    Args:
        path: the file.
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self) -> dict[str, Path]:
        """Return the file, its description, and files of weights that are not in it."""
        from voxblink2_lib.models.onnx_description import description_path

        check_packages()
        self._description()
        inside = [self._path, description_path(self._path)]
        return {path.name: path for path in inside} | self._weights_beside()

    def configuration(self) -> dict[str, Any]:
        """Return its description with the released model."""
        return self._description().as_dict()

    def settings(self) -> list[dict[str, Any]]:
        """Return its description."""
        return [self._description().settings()]

    def front_end(self) -> str:
        """Return the recipe of its features."""
        return self._description().text

    def load(self, options: LoadOptions) -> Network:
        """Load it into onnxruntime."""
        from voxblink2_lib.embedding.onnx_network import open_network

        check_packages()
        return open_network(self._path, self._description(), options)

    def _description(self) -> OnnxDescription:
        from voxblink2_lib.models.onnx_description import read_description

        return read_description(self._path)

    def _weights_beside(self) -> dict[str, Path]:
        """Return the files of its external data, by their places from its folder."""
        import onnx

        with as_own_error(ModelError, f"{self._path} cannot be read as ONNX", _DAMAGED):
            model = onnx.load(self._path, load_external_data=False)
            places = sorted({*_external_places(model)})
        return {place: self._beside(place) for place in places}

    def _beside(self, place: str) -> Path:
        pure = PurePosixPath(place)
        if not place or pure.is_absolute() or ".." in pure.parts:
            raise ModelError(
                f"{self._path} names weights at {shortened(place)}, outside of its folder. Export "
                "it with its weights beside it or in it."
            )
        path = self._path.parent / pure
        if not path.is_file():
            raise ModelError(
                f"{self._path} has weights in {shortened(place, quoted=False)}, which is not "
                "beside it. Copy both into one folder."
            )
        return path


def has_cuda() -> bool:
    """Return whether onnxruntime here was built for CUDA."""
    if not importlib.util.find_spec("onnxruntime"):
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def check_packages() -> None:
    """Check that ONNX files can be read and run.

    Raises:
        DependencyError: a package is missing.
    """
    packages = ("onnx", "onnxruntime")
    missing = [package for package in packages if not importlib.util.find_spec(package)]
    if missing:
        raise DependencyError(
            f"An .onnx file needs the packages {' and '.join(missing)}: "
            "pip install 'voxblink2[onnx]'"
        )


def _external_places(model: Any) -> Iterator[str]:
    of_functions = (_tensors_of_nodes(function.node, 0) for function in model.functions)
    for tensor in itertools.chain(_tensors(model.graph), *of_functions):
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")


def _tensors(graph: Any, depth: int = 0) -> Iterator[Any]:
    """Yield all tensors of a graph, those of graphs in it too."""
    if depth > _MOST_NESTED:
        raise ValueError(f"its graphs lie more than {_MOST_NESTED} deep in each other")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node, depth)


def _tensors_of_nodes(nodes: Any, depth: int) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph, depth + 1)
