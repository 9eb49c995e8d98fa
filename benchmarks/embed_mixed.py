"""Measure embedding of utterances of mixed length against what it was, and against bare products.

Utterances of 1 to 20 s, mostly 3 to 10, in FLAC, float32, on all cores, one process of one thread
each; in turns, 100 at a time. "Former" are networks that are not remade for the processor; "bare
products" are their convolutions and matrix products alone, without decoding, log-mels, activations,
normalization and pooling. Ratios are of the time that passed, or of processor time, which other
programs disturb less. A benchmark is evidence, not a gate: it exits with 0 whether or not the
targets are met.

Example:
    python benchmarks/embed_mixed.py
    python benchmarks/embed_mixed.py --quick
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from embed_arms import Files, Took, Way, embed_files
from figures import Figure, figure, run_benchmark
from utterances import RATE_HZ, mixed_waveforms

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.models import ARCHITECTURES
from voxblink2_lib.workers.pool import KEPT_MEMORY, Call, WorkerPool


class Size(NamedTuple):
    """How much is measured."""

    at_once: int
    rounds: dict[str, int]  # by network


FULL = Size(100, {"ecapa_tdnn": 5, "resnet34": 3})
QUICK = Size(4, {"ecapa_tdnn": 1})
# ECAPA-TDNN is not remade: its floor alone is of interest.
WAYS: dict[str, tuple[Way, ...]] = {
    "ecapa_tdnn": ("ours", "products"),
    "resnet34": ("ours", "former", "products"),
}
TARGETS: dict[Way, float] = {"former": 1.2, "products": 0.0}


def save_model(folder: Path, arch: str) -> str:
    """Save a network with random weights, which do not change the time."""
    torch.manual_seed(1)
    ARCHITECTURES[arch].model().save_pretrained(folder / arch)
    ARCHITECTURES[arch].extractor().save_pretrained(folder / arch)
    return str(folder / arch)


def write_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{row:05}.flac" for row in range(count)]
    for path, waveform in zip(paths, mixed_waveforms(count), strict=True):
        soundfile.write(path, waveform, RATE_HZ)
    return paths


class Rate(NamedTuple):
    """Hours of speech per hour: of the time that passed, and of processor time of all cores."""

    passed: float
    cpu: float


def rate(pool: WorkerPool, way: Way, model: str, paths: Sequence[Path]) -> Rate:
    """Embed files on all processes, each an equal share."""
    cores = usable_cores()
    calls: Iterator[Call] = iter(
        [(embed_files, Files(way, model, 1, tuple(paths[core::cores]))) for core in range(cores)]
    )
    took: list[Took] = [result for _, result in pool.run(calls.__next__)]
    hours = sum(each.hours for each in took)
    cpu_hours = sum(each.cpu_seconds for each in took) / cores / 3600
    return Rate(3600 * hours / max(each.seconds for each in took), hours / cpu_hours)


def compared(folder: Path, arch: str, rounds: int, at_once: int) -> Iterator[Figure]:
    model = save_model(folder, arch)
    paths = write_files(folder / f"{arch}-audio", rounds * at_once)
    ways = WAYS[arch]
    rates: dict[Way, list[Rate]] = {way: [] for way in ways}
    with WorkerPool(usable_cores(), environment=KEPT_MEMORY) as pool:
        for way in ways:
            rate(pool, way, model, paths[: 2 * usable_cores()])  # loads the network
        for first in range(0, len(paths), at_once):
            for way in ways:
                rates[way].append(rate(pool, way, model, paths[first : first + at_once]))
    for other in ways[1:]:
        for kind in Rate._fields:
            ratios = [
                getattr(mine, kind) / getattr(theirs, kind)
                for mine, theirs in zip(rates["ours"], rates[other], strict=True)
            ]
            title = f"{arch}: ours / {other}, {'time' if kind == 'passed' else 'processor time'}"
            yield figure(title, ratios, at_least=TARGETS[other])
    for way in ways:
        passed = [each.passed for each in rates[way]]
        yield figure(f"{arch}, {way}: hours of speech per hour", passed, unit="h")


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    for arch, rounds in size.rounds.items():
        yield from compared(folder, arch, rounds, size.at_once)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
