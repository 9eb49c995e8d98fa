"""Read batches of annotations in several processes, and hand them out in order."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.release.annotation_batch import AnnotatedBatch, read_batch
from voxblink2_lib.release.annotation_files import FileBatch, PlacedBatch
from voxblink2_lib.workers.pool import WorkerDiedError, WorkerPool, collect
from voxblink2_lib.workers.shared_memory import SharedRange, SharedSlots, has_shared_memory

# What one process unpacks and writes keeps three others busy; each takes some 100 MB of memory.
MAX_PROCESSES = 4
# A worker takes half a second to start: a release of a few thousand files is read before.
_BATCHES_ALONE = 8
# Enough for the time in which this process reads a batch, or writes rows.
_BATCHES_A_WORKER = 7
_SLOT_BYTES = 8 << 20
_SWITCH_SECONDS = 1e-3
_READING = threading.Lock()


def read_in_order(
    batches: Iterable[PlacedBatch], *, processes: int | None = None
) -> Generator[tuple[PlacedBatch, AnnotatedBatch]]:
    """Yield batches, without the contents of their files, with what the files say.

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
        for placed in batches:
            yield _without_contents(placed), read_batch(placed.batch)
        return
    with ExitStack() as stack:
        pool = stack.enter_context(WorkerPool(processes - 1, threads=_BATCHES_A_WORKER))
        slots = None
        if has_shared_memory():
            count = _BATCHES_A_WORKER * (processes - 1)
            slots = stack.enter_context(SharedSlots(count, _SLOT_BYTES))
        reader = _Reader(pool, slots, most_waiting=2 * _BATCHES_A_WORKER * processes)
        yield from reader.read(batches)


def _without_contents(placed: PlacedBatch) -> PlacedBatch:
    """Return a batch without what takes much memory."""
    return placed._replace(batch=placed.batch._replace(contents=[]))


class _SharedBatch(NamedTuple):
    """A batch whose contents are side by side in shared memory."""

    batch: FileBatch
    sizes: list[int]
    place: SharedRange

    def read(self) -> AnnotatedBatch:
        ends = [0, *itertools.accumulate(self.sizes)]
        with self.place.view() as view:
            contents = [bytes(view[start:stop]) for start, stop in itertools.pairwise(ends)]
        return read_batch(self.batch._replace(contents=contents))


class _Reader:
    """Reads batches here and in workers."""

    def __init__(self, pool: WorkerPool, slots: SharedSlots | None, *, most_waiting: int) -> None:
        self._pool = pool
        self._slots = slots
        self._most_waiting = most_waiting
        self._waiting: dict[int, PlacedBatch] = {}
        self._answers: dict[int, AnnotatedBatch] = {}

    def read(self, batches: Iterable[PlacedBatch]) -> Generator[tuple[PlacedBatch, AnnotatedBatch]]:
        waiting, answers = self._waiting, self._answers
        first = 0
        for number, placed in enumerate(batches):
            waiting[number] = _without_contents(placed)
            if number >= _BATCHES_ALONE and self._pool.free:
                self._submit(number, placed.batch)
            else:
                answers[number] = read_batch(placed.batch)
            self._take(self._pool.results())
            while len(waiting) > self._most_waiting and first not in answers:
                self._take(collect([self._pool]))
            while first in answers:
                yield waiting.pop(first), answers.pop(first)
                first += 1
        while waiting:
            while first not in answers:
                self._take(collect([self._pool]))
            yield waiting.pop(first), answers.pop(first)
            first += 1

    def _submit(self, number: int, batch: FileBatch) -> None:
        slot = self._slots.take() if self._slots else None
        sizes = list(map(len, batch.contents))
        if slot is None or sum(sizes) > slot.stop - slot.start:
            self._give_back(slot)
            self._pool.submit((read_numbered, (number, batch)))
            return
        with slot.view() as view:
            view[: sum(sizes)] = b"".join(batch.contents)
        shared = _SharedBatch(batch._replace(contents=[]), sizes, slot)
        self._pool.submit((read_numbered, (number, shared)))

    def _take(self, results: Iterable[tuple[Any, Any]]) -> None:
        for (_, (number, batch)), value in results:
            # Of a worker that has died it is read here.
            self._answers[number] = _read(batch) if isinstance(value, WorkerDiedError) else value
            self._give_back(batch.place if isinstance(batch, _SharedBatch) else None)

    def _give_back(self, slot: SharedRange | None) -> None:
        if slot is not None and self._slots is not None:
            self._slots.give_back(slot)


def read_numbered(numbered: tuple[int, FileBatch | _SharedBatch]) -> AnnotatedBatch:
    """Read a batch, as a call for a worker: the others that it has wait."""
    # The thread that receives the next batch in many pieces must not wait 5 ms for each.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _READING:
        return _read(numbered[1])


def _read(batch: FileBatch | _SharedBatch) -> AnnotatedBatch:
    return batch.read() if isinstance(batch, _SharedBatch) else read_batch(batch)
