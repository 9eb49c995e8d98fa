"""Measure embedding on a CUDA device against a loop over single utterances on the same device.

Utterances of 1 to 20 s are in memory; networks have random weights. The loop computes the log-mels
of one utterance, runs the network on it and fetches the embedding, in the same number format. In
turns; ratios are the median of the rounds. Without a CUDA device it measures the processor, which
only shows that it runs. It needs few packages: torch, transformers, numpy and pyarrow; neither
datasets nor yt-dlp. A benchmark is evidence, not a gate: it exits with 0 whether or not targets are
met.

Example:
    PYTHONPATH=. python benchmarks/embed_cuda.py
    PYTHONPATH=. python benchmarks/embed_cuda.py --quick
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from figures import Figure, figure, run_benchmark, seconds_of
from utterances import RATE_HZ, Waveform, hours_of, mixed_waveforms

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.embedding.embedder import Embedder
from voxblink2_lib.models import ARCHITECTURES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = ("float32", "bfloat16")


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    architectures: tuple[str, ...]
    utterances: int
    in_loop: int  # of them: the loop is slow


FULL = Size(3, ("ecapa_tdnn", "resnet34", "resnet293"), 500, 100)
QUICK = Size(1, ("ecapa_tdnn",), 6, 3)


class Loop:
    """One utterance after the other."""

    def __init__(self, arch: str, dtype: str) -> None:
        self._extractor = ARCHITECTURES[arch].extractor()
        self._dtype = getattr(torch, dtype)
        self._network: Any = _network(arch).to(DEVICE, self._dtype)

    def embed(self, waveforms: list[Waveform]) -> list[Any]:
        """Return a vector for each."""
        with torch.inference_mode():
            return [self._vector(waveform) for waveform in waveforms]

    def _vector(self, waveform: Waveform) -> Any:
        features = self._extractor(waveform, sampling_rate=RATE_HZ)["input_features"]
        embeddings = self._network(features.to(DEVICE, self._dtype)).embeddings
        return embeddings[0].float().cpu().numpy()


def _network(arch: str) -> Any:
    torch.manual_seed(1)
    network: Any = ARCHITECTURES[arch].model()
    return network.eval()


def save_model(folder: Path, arch: str) -> str:
    """Save an architecture with random weights, which do not change the time."""
    _network(arch).save_pretrained(folder / arch)
    ARCHITECTURES[arch].extractor().save_pretrained(folder / arch)
    return str(folder / arch)


def compared(model: str, dtype: str, size: Size) -> Iterator[Figure]:
    """Compare the rates of one network in one format."""
    arch = Path(model).name
    many = mixed_waveforms(size.utterances)
    few = many[: size.in_loop]
    embedder = Embedder(model, dtype=dtype, device=DEVICE, threads=usable_cores())
    loop = Loop(arch, dtype)
    vectors = dict(embedder.embed(list(enumerate(many))))  # also a warm-up
    cosines = [_cosine(vectors[row], vector) for row, vector in enumerate(loop.embed(few))]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(size.rounds):
        ours.append(hours_of(many) / seconds_of(lambda: list(embedder.embed([*enumerate(many)]))))
        theirs.append(hours_of(few) / seconds_of(lambda: loop.embed(few)))
    title = f"{arch}, {dtype}, {_device_name()}"
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    yield figure(f"{title}: rate / single utterances", ratios, at_least=1.0)
    yield figure(f"{title}: hours of speech per hour", [3600 * rate for rate in ours], unit="h")
    yield figure(f"{title}: the loop's", [3600 * rate for rate in theirs], unit="h")
    yield figure(f"{title}: minimum cosine to the loop", [min(cosines)], at_least=0.9995)


def _cosine(vector: Any, other: Any) -> float:
    return float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))


def _device_name() -> str:
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "processor"


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    for arch in size.architectures:
        model = save_model(folder, arch)
        for dtype in DTYPES:
            yield from compared(model, dtype, size)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
