"""Read batches of annotations in several processes, and hand them out in order."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.release.annotation_batch import AnnotatedBatch, read_batch
from voxblink2_lib.release.annotation_files import FileBatch, PlacedBatch
from voxblink2_lib.workers.pool import WorkerDiedError, WorkerPool, collect

# What one process unpacks and writes keeps three others busy; each takes some 100 MB of memory.
MAX_PROCESSES = 4
# A worker takes half a second to start: a release of a few thousand files is read before.
_BATCHES_ALONE = 8
# Enough for the time in which this process reads a batch, or writes rows.
_BATCHES_A_WORKER = 4
_SWITCH_SECONDS = 1e-3
_READING = threading.Lock()


def read_in_order(
    batches: Iterable[PlacedBatch], *, processes: int | None = None
) -> Generator[tuple[PlacedBatch, AnnotatedBatch]]:
    """Yield batches with what their files say.

    This process takes the batches, and reads one itself whenever the workers have enough.

    Args:
        batches: any number; only a few at a time are in memory.
        processes: how many read, this one included; by default as many as there are cores, at
            most ``MAX_PROCESSES``.

    Raises:
        StoppedError: a worker process cannot run at all.
    """
    if processes is None:
        processes = min(usable_cores(), MAX_PROCESSES)
    if processes == 1:
        yield from ((placed, read_batch(placed.batch)) for placed in batches)
        return
    with WorkerPool(processes - 1, threads=_BATCHES_A_WORKER) as pool:
        yield from _in_order(batches, pool, most_waiting=2 * _BATCHES_A_WORKER * processes)


def _in_order(
    batches: Iterable[PlacedBatch], pool: WorkerPool, *, most_waiting: int
) -> Iterator[tuple[PlacedBatch, AnnotatedBatch]]:
    waiting: dict[int, PlacedBatch] = {}
    answers: dict[int, AnnotatedBatch] = {}
    first = 0
    for number, placed in enumerate(batches):
        waiting[number] = placed
        if number >= _BATCHES_ALONE and pool.free:
            pool.submit((read_numbered, (number, placed.batch)))
        else:
            answers[number] = read_batch(placed.batch)
        answers.update(map(_answer, pool.results()))
        while len(waiting) > most_waiting and first not in answers:
            answers.update(map(_answer, collect([pool])))
        while first in answers:
            yield waiting.pop(first), answers.pop(first)
            first += 1
    while waiting:
        while first not in answers:
            answers.update(map(_answer, collect([pool])))
        yield waiting.pop(first), answers.pop(first)
        first += 1


def read_numbered(numbered: tuple[int, FileBatch]) -> AnnotatedBatch:
    """Read a batch, as a call for a worker: the others that it has wait."""
    # The thread that receives the next batch in many pieces must not wait 5 ms for each.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _READING:
        return read_batch(numbered[1])


def _answer(result: tuple[Any, Any]) -> tuple[int, AnnotatedBatch]:
    """Return the number of a batch and what its files say, read here if the worker has died."""
    (_, (number, batch)), value = result
    return number, read_batch(batch) if isinstance(value, WorkerDiedError) else value
