"""Batches that processes read come in order, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.release_builder import jittering_release, write_archive

from voxblink2_lib.release import annotation_workers
from voxblink2_lib.release.annotation_batch import AnnotatedBatch, read_batch
from voxblink2_lib.release.annotation_files import PlacedBatch, read_batches
from voxblink2_lib.release.annotation_workers import read_in_order
from voxblink2_lib.workers.pool import WorkerPool

READ = annotation_workers.read_numbered


@pytest.fixture
def batches(tmp_path: Path) -> list[PlacedBatch]:
    path = write_archive(tmp_path / "a.tar", jittering_release(12))
    return list(read_batches(path, batch_bytes=3000))


def alone(batches: list[PlacedBatch]) -> list[tuple[PlacedBatch, AnnotatedBatch]]:
    return [
        (placed._replace(batch=placed.batch._replace(contents=[])), read_batch(placed.batch))
        for placed in batches
    ]


def test_few_batches_start_no_process(
    batches: list[PlacedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerPool, "submit", None)
    assert len(batches) > 8
    assert list(read_in_order(batches[:8], processes=4)) == alone(batches[:8])
    assert list(read_in_order(batches, processes=1)) == alone(batches)
    assert list(read_in_order([], processes=4)) == []


@pytest.mark.parametrize("processes", [2, 3])
def test_batches_come_in_order(batches: list[PlacedBatch], processes: int) -> None:
    assert list(read_in_order(iter(batches), processes=processes)) == alone(batches)


def test_few_batches_are_in_memory(batches: list[PlacedBatch]) -> None:
    most, done, taken = 0, 0, 0

    def watched() -> Iterator[PlacedBatch]:
        nonlocal taken, most
        for placed in batches * 10:
            taken += 1
            most = max(most, taken - done)
            yield placed

    for _ in read_in_order(watched(), processes=2):
        done += 1
    assert done == 10 * len(batches)
    assert most <= 2 * 7 * 2 + 2


def die(numbered: tuple[int, Any]) -> AnnotatedBatch:
    """Read a batch, as a call for a worker, which dies of some."""
    if numbered[0] % 5 == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return READ(numbered)


@pytest.mark.parametrize("slot_bytes", [1 << 20, 16])
def test_what_a_worker_dies_of_is_read_here(
    slot_bytes: int, batches: list[PlacedBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches that are too large for shared memory go as they are.
    monkeypatch.setattr(annotation_workers, "_SLOT_BYTES", slot_bytes)
    monkeypatch.setattr(annotation_workers, "read_numbered", die)
    assert list(read_in_order(iter(batches), processes=2)) == alone(batches)


def test_by_default_there_are_as_many_processes_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Pool(WorkerPool):
        def __init__(self, size: int, **options: Any) -> None:
            sizes.append(size)
            super().__init__(size, **options)

    monkeypatch.setattr(annotation_workers, "WorkerPool", Pool)
    for cores in (1, 2, 64):
        monkeypatch.setattr(annotation_workers, "usable_cores", lambda cores=cores: cores)
        assert list(read_in_order([])) == []
    assert sizes == [1, 3]
