"""Measure judging the labels of as many embeddings as the corpus has speakers, or a tenth of them.

Synthetic voices of 256 dimensions, 20 utterances in five videos of each speaker, in a mapped file.
The cost of the pairs grows with the square of the speakers, the rest with the utterances. Memory is
the peak over that before, without pages of the mapped file, which the system gives back when it
needs them; compared with the size of that file. A loop over the same utterances in NumPy, one
product with the mean of the speaker, is measured beside it.

Example:
    python benchmarks/purity.py
    python benchmarks/purity.py --quick
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import Figure, cpu_seconds_of, figure, run_benchmark

from voxblink2_lib.scoring.purity import measure_purity

SPEAKERS, QUICK_SPEAKERS = 111_284, 2_000
UTTERANCES, VIDEOS, DIMENSIONS = 20, 5, 256

Array = npt.NDArray[np.float32]


def make_vectors(path: Path, speakers: int) -> Array:
    """Write a voice with noise for each utterance."""
    random = np.random.default_rng(1)
    shape = (speakers * UTTERANCES, DIMENSIONS)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for first in range(0, speakers, 1000):
        count = min(1000, speakers - first)
        voices = random.standard_normal((count, 1, DIMENSIONS), np.float32)
        noise = random.standard_normal((count, UTTERANCES, DIMENSIONS), np.float32)
        rows = slice(first * UTTERANCES, (first + count) * UTTERANCES)
        vectors[rows] = (voices + 0.8 * noise).reshape(-1, DIMENSIONS)
    vectors.flush()
    del vectors
    mapped: Array = np.load(path, mmap_mode="r")
    return mapped


def own_memory_bytes() -> int:
    """Return how much memory of this process is of no file."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class PeakMemory:
    """Looks every few milliseconds how much memory this process has of its own."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = own_memory_bytes()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.peak = max(self.peak, own_memory_bytes())

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def plain_loop(vectors: Array) -> None:
    for first in range(0, len(vectors), UTTERANCES):
        mine = np.array(vectors[first : first + UTTERANCES])
        mine /= np.linalg.norm(mine, axis=1, keepdims=True)
        mean = mine.mean(axis=0)
        mine @ mean  # the result of interest


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    speakers = QUICK_SPEAKERS if quick else SPEAKERS
    vectors = make_vectors(folder / "vectors.npy", speakers)
    speaker = np.repeat(np.arange(speakers), UTTERANCES)
    video = np.arange(len(speaker)) // (UTTERANCES // VIDEOS)
    loop = cpu_seconds_of(lambda: plain_loop(vectors))
    start, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        measure_purity(vectors, speaker, video)
    cpu = time.process_time() - cpu
    yield figure(f"{len(speaker):,} utterances", [time.perf_counter() - start], unit="s")
    yield figure("CPU time / a loop with the speakers' means", [cpu / loop])
    extra = memory.peak - memory.before
    yield figure("memory beyond the mapped file", [extra / 1e6], unit="MB")
    yield figure("the same / the file", [extra / vectors.nbytes])


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
