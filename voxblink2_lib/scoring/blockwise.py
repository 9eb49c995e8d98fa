"""Cosines of many embeddings with many others, block by block, so that memory stays bounded.

Blocks are float32 matrix products: NumPy on the CPU, PyTorch on a CUDA device or wherever a device
is named. The last bits of such a product depend on where a row stands in its block. So products
only select, who is nearest or which cohort is nearest; scores that meet a threshold come from
:func:`cosines`, which looks at nothing but the two vectors.
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

# What a function may hold beside its arguments and results, by default.
MEMORY_BYTES = 256 << 20

# A block of this shape keeps a matrix product busy and stays near the cache.
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192

# Multiplications that are worth the seconds it takes to load PyTorch and to start CUDA.
_LARGE_PRODUCT = 1e12

# Pairs gathered at once.
_PAIRS = 1024


def unit(vectors: Floats, name: str, rows: Rows | None = None) -> Floats:
    """Return a float32 copy [rows, dimensions] with rows of length 1.

    Args:
        vectors: float32 [rows, dimensions].
        name: the argument's name, for messages.
        rows: which rows of that argument these are; by default all.

    Raises:
        ScoringError: a row is zero; names it.
    """
    return np.divide(vectors, norms_of(vectors, name, rows)[:, None], dtype=np.float32)


def cosines(
    a: Floats, b: Floats, a_rows: Rows, b_rows: Rows, norms: tuple[Floats, Floats]
) -> Floats:
    """Return the cosine of each pair of rows, float32 [pairs].

    The same two vectors give the same bits wherever they stand, so equal trials tie exactly.

    Args:
        a: float32 [rows, dimensions].
        b: float32 [rows, dimensions].
        a_rows: [pairs].
        b_rows: [pairs].
        norms: the rows' lengths, of ``a`` and of ``b``.
    """
    found = np.empty(len(a_rows), np.float32)
    left, right = np.empty((2, min(_PAIRS, len(a_rows)), a.shape[1]), np.float32)
    for start in range(0, len(a_rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        count = len(a_rows[part])
        # "clip" only says not to check the rows again; with it nothing is buffered.
        np.take(a, a_rows[part], axis=0, out=left[:count], mode="clip")
        np.take(b, b_rows[part], axis=0, out=right[:count], mode="clip")
        np.einsum("ij,ij->i", left[:count], right[:count], out=found[part])
        found[part] /= norms[0][a_rows[part]] * norms[1][b_rows[part]]
    return found


def nearest(
    probes: Floats,
    models: Floats,
    *,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> Rows:
    """Return for each probe the row of the model with the largest cosine, [probes].

    Args:
        probes: float32 [probes, dimensions]; their lengths make no difference.
        models: float32 [models, dimensions], rows of length 1.
        memory_bytes: bound of what is held beside the arguments, at least a mebibyte.
        device: a PyTorch device such as ``"cuda"``. By default CUDA for large products where it is
            there, else NumPy.
        progress: called with how many probes were done more.

    Raises:
        ScoringError: a bound or a device that is not possible.
    """
    best = np.empty(len(probes), np.int64)
    engine = _engine(device, probes, models)

    def find(rows: slice, blocks: _Blocks) -> None:
        highest = np.full(rows.stop - rows.start, -np.inf, np.float32)
        for first, scores in blocks:
            columns, values = engine.best(scores)
            better = values > highest
            best[rows][better] = columns[better] + first
            highest[better] = values[better]

    _for_blocks(find, engine, probes, models, memory_bytes, progress)
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
        embeddings: float32 [rows, dimensions], rows of length 1.
        cohort: float32 [cohort, dimensions], rows of length 1.
        top_n: how many of the largest cosines count; all by default.
        memory_bytes: bound of what is held beside the arguments, at least a mebibyte.
        device: as in :func:`nearest`.
        progress: called with how many embeddings were done more.

    Returns:
        Two float64 arrays [rows]; the deviation is that of the population (divided by n).
    """
    mean, deviation = np.empty((2, len(embeddings)))
    engine = _engine(device, embeddings, cohort)
    count = len(cohort) if top_n is None else top_n

    def summarise(rows: slice, blocks: _Blocks) -> None:
        kept = np.empty((rows.stop - rows.start, 0), np.float32)
        for _, scores in blocks:
            found = engine.top(scores, min(count, scores.shape[1]))
            kept = _largest(np.concatenate([kept, found], axis=1), count)
        # Summed in one order, so that the order of the cohort does not show in the last bits.
        kept = np.sort(kept, axis=1)
        mean[rows] = kept.mean(axis=1, dtype=np.float64)
        deviation[rows] = kept.std(axis=1, dtype=np.float64)

    _for_blocks(summarise, engine, embeddings, cohort, memory_bytes, progress, kept=count)
    return mean, deviation


# The first column of each block of models, and the products with it.
_Blocks = Iterator[tuple[int, Any]]


class _Engine(Protocol):
    """What multiplies. Blocks of scores stay where they are made; results are NumPy arrays."""

    workers: int

    def run(self, work: Callable[[slice], None], parts: list[slice]) -> None: ...

    def load(self, block: Floats) -> Any: ...

    def product(self, a: Any, b: Any) -> Any: ...

    def best(self, scores: Any) -> tuple[Rows, Floats]: ...

    def top(self, scores: Any, count: int) -> Floats: ...


class _NumPy:
    """As many threads as the matrix library would take, each with blocks of its own.

    That is faster than one block after the other with all threads on each: nothing waits, and
    choosing among the scores is shared, too.
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
            except BaseException:  # Ctrl-C must not wait for blocks that have not begun
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


@functools.cache
def _blas() -> tuple[ThreadpoolController, int]:
    """Return what limits NumPy's matrix library, and how many threads that takes by itself."""
    controller = ThreadpoolController()
    threads = [one["num_threads"] for one in controller.info() if one["user_api"] == "blas"]
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
        # A copy: PyTorch warns of arrays that cannot be written to, as memory maps are.
        return self._torch.tensor(block, device=self._device)

    def product(self, a: Any, b: Any) -> Any:
        return a @ b.T

    def best(self, scores: Any) -> tuple[Rows, Floats]:
        values, columns = scores.max(dim=1)
        return columns.cpu().numpy(), values.cpu().numpy()

    def top(self, scores: Any, count: int) -> Floats:
        return np.asarray(scores.topk(count, dim=1, sorted=False).values.cpu().numpy())


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
    work: Callable[[slice, _Blocks], None],
    engine: _Engine,
    a: Floats,
    b: Floats,
    memory_bytes: int,
    progress: Advance | None,
    *,
    kept: int = 0,
) -> None:
    """Call ``work`` with rows of ``a`` and their products with all of ``b``, block by block."""
    if memory_bytes < 1 << 20:
        raise ScoringError(f"memory_bytes must be at least {1 << 20:,}, got {memory_bytes:,}.")
    columns = min(len(b), _BLOCK_COLUMNS)
    # A row costs itself, its products, and those that are kept eight times over: while they are
    # chosen, sorted, and summed in float64.
    row_bytes = 4 * (a.shape[1] + columns + 8 * min(kept, len(b)))
    size = max(1, min(_BLOCK_ROWS, memory_bytes // (row_bytes * engine.workers)))
    held = [(start, engine.load(b[start : start + columns])) for start in range(0, len(b), columns)]

    lock = threading.Lock()

    def one(rows: slice) -> None:
        block = engine.load(a[rows])
        work(rows, ((first, engine.product(block, part)) for first, part in held))
        if progress is not None:
            with lock:
                progress(rows.stop - rows.start)

    starts = range(0, len(a), size)
    engine.run(one, [slice(start, min(start + size, len(a))) for start in starts])


def _largest(scores: Floats, count: int) -> Floats:
    """Return the ``count`` largest values of each row, in any order; reorders ``scores``."""
    if count < scores.shape[1]:
        scores.partition(scores.shape[1] - count, axis=1)
    return scores[:, -count:]
