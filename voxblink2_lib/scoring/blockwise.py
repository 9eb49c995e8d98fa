"""Cosines of many embeddings with many others, block by block, in bounded memory.

Blocks are float32 matrix products: NumPy on the CPU, PyTorch on a CUDA device or on a device that
the caller names. The last bits of such a product depend on the position of a row in its block. So
products only select, such as the nearest model; scores that are compared with a threshold are
computed by :func:`cosines`, from the two vectors alone.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from voxblink2_lib.errors import DependencyError, ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.validation import Floats, Rows, norms_of

# Default bound of a function's memory in addition to its arguments and results.
MEMORY_BYTES = 256 << 20

# A block of this shape is large enough for a fast matrix product and small enough for the cache.
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192

# Multiplications that justify the seconds of loading PyTorch and starting CUDA.
_LARGE_PRODUCT = 1e12

# A product's last bits depend on its block: pairs are selected with so much room.
_ROUNDING = 1e-5

# Pairs processed at once.
_PAIRS = 1024


def unit(vectors: Floats, name: str, rows: Rows | None = None) -> Floats:
    """Return a float32 copy with rows of length 1. Shape: [rows, dimensions].

    Args:
        vectors: float32. Shape: [rows, dimensions].
        name: the argument's name, for messages.
        rows: which rows of that argument these are; by default all.

    Raises:
        ScoringError: a row is zero; names it.
    """
    return np.divide(vectors, norms_of(vectors, name, rows)[:, None], dtype=np.float32)


def cosines(
    a: Floats, b: Floats, a_rows: Rows, b_rows: Rows, norms: tuple[Floats, Floats]
) -> Floats:
    """Return the cosine of each pair of rows, float32. Shape: [pairs].

    The same two vectors give the same bits in whatever rows they are, so equal trials tie exactly.

    Args:
        a: float32. Shape: [a_rows, dimensions].
        b: float32. Shape: [b_rows, dimensions].
        a_rows: rows of ``a``. Shape: [pairs].
        b_rows: rows of ``b``. Shape: [pairs].
        norms: lengths of the rows of ``a`` and of ``b``.
    """
    values = np.empty(len(a_rows), np.float32)
    left, right = np.empty((2, min(_PAIRS, len(a_rows)), a.shape[1]), np.float32)
    for start in range(0, len(a_rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        count = len(a_rows[part])
        # With "clip" rows are not checked again and nothing is buffered.
        np.take(a, a_rows[part], axis=0, out=left[:count], mode="clip")
        np.take(b, b_rows[part], axis=0, out=right[:count], mode="clip")
        np.einsum("ij,ij->i", left[:count], right[:count], out=values[part])
        values[part] /= norms[0][a_rows[part]] * norms[1][b_rows[part]]
        # Rounding: the cosine of a vector with itself may be above 1 by a bit.
        np.minimum(values[part], 1, out=values[part])
        np.maximum(values[part], -1, out=values[part])
    return values


def nearest(
    probes: Floats,
    models: Floats,
    *,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> Rows:
    """Return for each probe the row of the model with the largest cosine. Shape: [probes].

    Args:
        probes: float32; their lengths make no difference. Shape: [probes, dimensions].
        models: float32, rows of length 1. Shape: [models, dimensions].
        memory_bytes: bound of the memory in addition to the arguments, at least a mebibyte.
        device: a PyTorch device such as ``"cuda"``. By default CUDA for large products where it is
            available, else NumPy.
        progress: called with the number of probes done since the last call.

    Raises:
        ScoringError: the bound is too low, or PyTorch cannot use the device.
    """
    best = np.empty(len(probes), np.int64)
    engine = _engine(device, probes, models)

    def find_best(rows: slice, blocks: _ScoreBlocks) -> None:
        highest = np.full(rows.stop - rows.start, -np.inf, np.float32)
        for first, scores in blocks:
            columns, values = engine.best(scores)
            better = values > highest
            best[rows][better] = columns[better] + first
            highest[better] = values[better]

    _for_blocks(find_best, engine, probes, models, memory_bytes, progress)
    return best


def top_statistics(
    embeddings: Floats,
    cohort: Floats,
    *,
    top_n: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each embedding's cosines with its nearest cohort.

    Args:
        embeddings: float32, rows of length 1. Shape: [rows, dimensions].
        cohort: float32, rows of length 1. Shape: [cohort, dimensions].
        top_n: how many of the largest cosines count; all by default.
        memory_bytes: bound of the memory in addition to the arguments, at least a mebibyte.
        device: as in :func:`nearest`.
        progress: called with the number of embeddings done since the last call.

    Returns:
        Mean and deviation, float64; the deviation is that of the population (divided by n).
        Shape of both: [rows].
    """
    mean, deviation = np.empty((2, len(embeddings)))
    engine = _engine(device, embeddings, cohort)
    count = len(cohort) if top_n is None else top_n

    def summarize(rows: slice, blocks: _ScoreBlocks) -> None:
        kept = np.empty((rows.stop - rows.start, 0), np.float32)
        for _, scores in blocks:
            largest = engine.top(scores, min(count, scores.shape[1]))
            kept = _largest(np.concatenate([kept, largest], axis=1), count)
        # Summed in ascending order, so that the last bits do not depend on the cohort's order.
        kept = np.sort(kept, axis=1)
        mean[rows] = kept.mean(axis=1, dtype=np.float64)
        deviation[rows] = kept.std(axis=1, dtype=np.float64)

    _for_blocks(summarize, engine, embeddings, cohort, memory_bytes, progress, kept=count)
    return mean, deviation


def pairs_above(
    vectors: Floats,
    least: float,
    *,
    most: int,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> tuple[Rows, Rows, Floats]:
    """Return all pairs of rows whose cosine is high, sorted by it, the highest first.

    Args:
        vectors: float32, rows of length 1. Shape: [rows, dimensions].
        least: the lowest cosine.
        most: more pairs than this are refused.
        memory_bytes: as in :func:`nearest`.
        device: as in :func:`nearest`.
        progress: called with the number of rows done since the last call.

    Returns:
        The first row of each pair, the second, which is larger, and the cosine. Shape: [pairs].

    Raises:
        ScoringError: there are too many, or see :func:`nearest`.
    """
    engine = _engine(device, vectors, vectors)
    found: list[tuple[Rows, Rows]] = []
    counts = [0]

    def collect(rows: slice, blocks: _ScoreBlocks) -> None:
        for first, scores in blocks:
            a, b = engine.above(scores, least - _ROUNDING)
            a, b = a + rows.start, b + first
            found.append((a[a < b], b[a < b]))
            counts[0] += len(found[-1][0])
            if counts[0] > most:
                raise ScoringError(
                    f"More than {most:,} of {len(vectors):,} rows are pairs with a cosine of at "
                    f"least {least:.3f}. Choose a higher one."
                )

    _for_blocks(collect, engine, vectors, vectors, memory_bytes, progress)
    a, b = (np.concatenate(side) for side in zip(*found, strict=True))
    norms = np.ones(len(vectors), np.float32)
    values = cosines(vectors, vectors, a, b, (norms, norms))
    order = np.lexsort((b, a, -values))
    order = order[values[order] >= least]
    return a[order], b[order], values[order]


# The first column of each block of models, and the products with it.
_ScoreBlocks = Iterator[tuple[int, Any]]


class _Engine(Protocol):
    """Computes products. Scores stay on the device; results are NumPy arrays."""

    workers: int

    def run(self, work: Callable[[slice], None], parts: list[slice]) -> None: ...

    def load(self, block: Floats) -> Any: ...

    def product(self, a: Any, b: Any) -> Any: ...

    def best(self, scores: Any) -> tuple[Rows, Floats]: ...

    def top(self, scores: Any, count: int) -> Floats: ...

    def above(self, scores: Any, least: float) -> tuple[Rows, Rows]: ...


class _NumPy:
    """Uses as many threads as the matrix library would, each with blocks of its own.

    This is faster than all threads on one block after the other: no thread waits, and choosing
    among the scores is parallel, too.
    """

    def __init__(self) -> None:
        self.workers = _blas()[1]
        self._mine = threading.local()

    def run(self, work: Callable[[slice], None], parts: list[slice]) -> None:
        if len(parts) == 1:
            work(parts[0])
            return
        waiting = iter(parts)  # shared: each thread takes the next one

        def take() -> None:
            for part in waiting:
                work(part)

        with (
            _blas()[0].limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(self.workers) as threads,
        ):
            try:
                for taken in [threads.submit(take) for _ in range(self.workers)]:
                    taken.result()
            except BaseException:  # Ctrl-C must not wait for blocks that have not started
                deque(waiting, maxlen=0)
                raise

    def load(self, block: Floats) -> Floats:
        return block

    def product(self, a: Floats, b: Floats) -> Floats:
        size, room = len(a) * len(b), getattr(self._mine, "room", None)
        if room is None or room.size < size:
            room = self._mine.room = np.empty(size, np.float32)
        return np.matmul(a, b.T, out=room[:size].reshape(len(a), len(b)))

    def best(self, scores: Floats) -> tuple[Rows, Floats]:
        columns = scores.argmax(axis=1)
        return columns, scores[np.arange(len(scores)), columns]

    def top(self, scores: Floats, count: int) -> Floats:
        return _largest(scores, count)

    def above(self, scores: Floats, least: float) -> tuple[Rows, Rows]:
        rows, columns = np.nonzero(scores >= np.float32(least))
        return rows, columns


@functools.cache
def _blas() -> tuple[ThreadpoolController, int]:
    """Return a controller of NumPy's matrix library, and how many threads it uses by default."""
    controller = ThreadpoolController()
    threads = [pool["num_threads"] for pool in controller.info() if pool["user_api"] == "blas"]
    return controller, max(threads, default=1)


class _Torch:
    workers = 1

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        try:
            self._device = torch.device(device)
            torch.zeros(1, device=self._device).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ScoringError(
                f"device is {device!r}, and PyTorch cannot use it: {str(error).splitlines()[0]}"
            ) from error

    def run(self, work: Callable[[slice], None], parts: list[slice]) -> None:
        for part in parts:
            work(part)

    def load(self, block: Floats) -> Any:
        # A copy: PyTorch warns about arrays that are not writable, such as memory maps.
        return self._torch.tensor(block, device=self._device)

    def product(self, a: Any, b: Any) -> Any:
        return a @ b.T

    def best(self, scores: Any) -> tuple[Rows, Floats]:
        values, columns = scores.max(dim=1)
        return columns.cpu().numpy(), values.cpu().numpy()

    def top(self, scores: Any, count: int) -> Floats:
        return np.asarray(scores.topk(count, dim=1, sorted=False).values.cpu().numpy())

    def above(self, scores: Any, least: float) -> tuple[Rows, Rows]:
        rows, columns = (scores >= least).nonzero(as_tuple=True)
        return rows.cpu().numpy(), columns.cpu().numpy()


def _engine(device: str | None, a: Floats, b: Floats) -> _Engine:
    if device is None:
        large = float(len(a)) * len(b) * a.shape[1] >= _LARGE_PRODUCT
        if not large or importlib.util.find_spec("torch") is None:
            return _NumPy()
        import torch

        return _Torch("cuda") if torch.cuda.is_available() else _NumPy()
    if importlib.util.find_spec("torch") is None:
        raise DependencyError(f"device={device!r} needs PyTorch: pip install torch")
    return _Torch(device)


def _for_blocks(  # noqa: PLR0917 - one call for each function above
    work: Callable[[slice, _ScoreBlocks], None],
    engine: _Engine,
    a: Floats,
    b: Floats,
    memory_bytes: int,
    progress: Advance | None,
    *,
    kept: int = 0,
) -> None:
    """Call ``work`` with rows of ``a`` and their products with all blocks of ``b``."""
    if memory_bytes < 1 << 20:
        raise ScoringError(f"memory_bytes must be at least {1 << 20:,}, got {memory_bytes:,}.")
    columns = min(len(b), _BLOCK_COLUMNS)
    # A row needs memory for itself, its products, and eight times those that are kept: they are
    # chosen, sorted, and summed in float64.
    row_bytes = 4 * (a.shape[1] + columns + 8 * min(kept, len(b)))
    size = max(1, min(_BLOCK_ROWS, memory_bytes // (row_bytes * engine.workers)))
    firsts = range(0, len(b), columns)
    loaded = [(first, engine.load(b[first : first + columns])) for first in firsts]
    lock = threading.Lock()

    def process(rows: slice) -> None:
        block = engine.load(a[rows])
        work(rows, ((first, engine.product(block, part)) for first, part in loaded))
        if progress is not None:
            with lock:
                progress(rows.stop - rows.start)

    starts = range(0, len(a), size)
    engine.run(process, [slice(start, min(start + size, len(a))) for start in starts])


def _largest(scores: Floats, count: int) -> Floats:
    """Return the ``count`` largest values of each row, in any order; reorders ``scores``."""
    if count < scores.shape[1]:
        scores.partition(scores.shape[1] - count, axis=1)
    return scores[:, -count:]
