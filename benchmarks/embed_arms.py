"""Ways to embed files, each a call for a worker: ours, the former way, and bare products."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from voxblink2_lib.embedding import embedder
from voxblink2_lib.embedding.block_worker import read_waveform
from voxblink2_lib.models import ARCHITECTURES, inference
from voxblink2_lib.records import SAMPLE_RATE_HZ

Way = Literal["ours", "former", "products"]
_PRODUCTS = {
    *(torch.ops.aten.convolution.default, torch.ops.aten.addmm.default),
    *(torch.ops.aten.mm.default, torch.ops.aten.bmm.default),
}


@dataclass(frozen=True, slots=True)
class Files:
    """What a call embeds, and how."""

    way: Way
    model: str
    threads: int
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Took:
    """Time of a call, and the length of its audio."""

    seconds: float
    cpu_seconds: float
    hours: float


def embed_files(files: Files) -> Took:
    """Decode and embed files, as a call for a worker."""
    if files.way == "products":
        return _products(files)
    chosen = _embedder(files.way, files.model, files.threads)
    started, cpu_started = time.perf_counter(), time.process_time()
    windows = [(row, read_waveform(path, path.stem)) for row, path in enumerate(files.paths)]
    vectors = dict(chosen.embed(windows))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert all(not isinstance(vector, str) for vector in vectors.values())
    return Took(seconds, cpu_seconds, _hours([waveform for _, waveform in windows]))


@functools.cache
def _embedder(way: Way, model: str, threads: int) -> embedder.Embedder:
    def unchanged(network: Any) -> Any:
        return network

    remake = unchanged if way == "former" else inference.for_processor
    with patch.object(inference, "for_processor", remake):
        return embedder.Embedder(model, dtype="float32", device="cpu", threads=threads)


def _hours(waveforms: list[Any]) -> float:
    return sum(map(len, waveforms)) / SAMPLE_RATE_HZ / 3600


class _Record(TorchDispatchMode):  # type: ignore[no-untyped-call]  # has no type hints
    """Records the convolutions and matrix products of a network, with their arguments."""

    def __init__(self) -> None:
        start: Any = super().__init__  # without type hints
        start()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _PRODUCTS:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def _products(files: Files) -> Took:
    """Time the convolutions and matrix products of the network alone, of each file."""
    torch.set_num_threads(files.threads)
    arch = Path(files.model).name
    network: Any = _network(arch)
    extractor = ARCHITECTURES[arch].extractor()
    waveforms = [read_waveform(path, path.stem) for path in files.paths]
    seconds = cpu_seconds = 0.0
    for waveform in waveforms:
        features = extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)["input_features"]
        with torch.no_grad(), _Record() as record:  # inference_mode would hide some of them
            network(features)
        started, cpu_started = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for function, arguments in record.calls:
                function(*arguments)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
    return Took(seconds, cpu_seconds, _hours(waveforms))


@functools.cache
def _network(arch: str) -> Any:
    network: Any = ARCHITECTURES[arch].model()
    return network.eval().to(memory_format=torch.channels_last)
