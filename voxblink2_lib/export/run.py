"""Export a store: one shard after another on several processes, then the lists over all of them.

TARGET/
  voxblink2-export.json     what it was made of, from the beginning; see manifest.py
  .voxblink2-export/        what is finished of it, see units.py
  ...                       the files of the format
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.errors import ExportError, StoppedError, StoreBusyError
from voxblink2_lib.export.hub_target import prepared
from voxblink2_lib.export.lists import write_lists
from voxblink2_lib.export.manifest import Manifest
from voxblink2_lib.export.plan import ExportPlan
from voxblink2_lib.export.target import Target
from voxblink2_lib.export.units import (
    FOLDER,
    Receipt,
    UnitTask,
    remove_begun,
    remove_unit,
    write_unit,
)
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress, size_text
from voxblink2_lib.store.lock import lock_problem
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool

_MAX_DEFAULT_WORKERS = 8
# One process writes this in about the time that another takes to start.
_BYTES_PER_WORKER = 512 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export.

    Attributes:
        manifest: what is in the target now.
        written: number of shards that were written by this run.
        removed: number of shards whose files were removed, as the store has others by now.
    """

    manifest: Manifest
    written: int
    removed: int


def export(
    plan: ExportPlan, *, workers: int | None = None, progress: Progress = no_progress
) -> Exported:
    """Write what a plan has left.

    Args:
        plan: what is to be done.
        workers: processes; by default one for each usable core, at most 8, and fewer where there
            is little to write. One works in this process.
        progress: counts utterances, and then lines of lists.

    Raises:
        ExportError: the target cannot be written to, or there is no worker.
        StoreBusyError: another process exports to it.
        StoreDamagedError: a shard is damaged or gone.
        StoreError: the disk is full or fails.
        StoppedError: a server of the target or a worker process failed.
    """
    if workers is not None and workers < 1:
        raise ExportError(f"There must be at least 1 worker, got {workers}.")
    target, chosen = plan.request.target, plan.request.chosen
    if plan.current is not None:
        return Exported(plan.current, 0, 0)
    count = 1 if target.is_of_one_process else (workers or _default_workers(plan))
    with prepared(target), _locked(target):
        target.clear_leftovers("", FOLDER)
        outdated = [receipt.sha256 for receipt in plan.outdated]
        replace(plan.manifest, outdated=outdated).write(target)
        signatures = {task.unit: task.signature for task in plan.units}
        remove_begun(target, chosen, signatures, plan.done)
        for receipt in plan.outdated:
            remove_unit(target, receipt)
        receipts = plan.done | _write_units(plan, count, progress)
        in_order = [receipts[task.unit] for task in plan.units]
        write_lists(target, chosen, in_order, progress=progress)
        manifest = replace(
            plan.manifest,
            is_complete=True,
            files=sum(receipt.files for receipt in in_order),
            size_bytes=sum(receipt.size_bytes for receipt in in_order),
        )
        manifest.write(target)
    return Exported(manifest, len(plan.left), len(plan.outdated))


def _default_workers(plan: ExportPlan) -> int:
    return min(_MAX_DEFAULT_WORKERS, usable_cores(), 1 + plan.needed_bytes // _BYTES_PER_WORKER)


@contextlib.contextmanager
def _locked(target: Target) -> Iterator[None]:
    """Keep two exports to the same folder apart, where its disk has locks."""
    if not target.is_local:
        yield
        return
    folder = Path(target.url, FOLDER)
    lock = FileLock(folder / ".lock", timeout=0)
    with contextlib.ExitStack() as stack:
        with target.named():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                if not lock_problem(folder):
                    stack.enter_context(lock)
            except Timeout as error:
                raise StoreBusyError(
                    f"Another process exports to {target.shown}. Wait for it, or name another "
                    "folder."
                ) from error
        yield


def _write_units(plan: ExportPlan, workers: int, progress: Progress) -> dict[str, Receipt]:
    left = plan.left
    total = plan.manifest.utterances
    done = total - sum(task.utterances for task in left)
    receipts = {}
    with progress("Exporting", unit="utterance", total=total, done=done) as advance:
        size_bytes = 0
        for receipt in _results(left, min(workers, len(left))):
            receipts[receipt.unit] = receipt
            size_bytes += receipt.size_bytes
            _advance(advance, receipt, size_bytes)
    return receipts


def _advance(advance: AdvanceWithNote, receipt: Receipt, size_bytes: int) -> None:
    advance(receipt.utterances, note=size_text(size_bytes))


def _results(tasks: Sequence[UnitTask], workers: int) -> Iterator[Receipt]:
    """Write units, and yield their receipts as they come."""
    if workers <= 1:
        yield from map(write_unit, tasks)
        return
    calls: Iterator[Call] = iter([(write_unit, task) for task in tasks])
    with WorkerPool(workers) as pool:
        for _, result in pool.run(calls.__next__):
            if isinstance(result, WorkerDiedError):
                raise StoppedError(
                    f"{result}. Nothing finished is lost; run the same command again. If it "
                    "happens again, the machine may be short of memory: use fewer --workers."
                )
            yield result
