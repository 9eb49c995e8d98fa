"""Seal jobs, and those again that repair opened.

With the bytes that it had before, a shard has its name again. With others it gets the next number,
and the job before is closed without a shard: whoever has the former one open, or in a cache, would
take the new one for it. As in :mod:`~voxblink2_lib.materialize.gathering`, the file is on disk
before the ledger names it, and the next run after a kill gives it the same number.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

import pyarrow as pa

from voxblink2_lib.errors import StoppedError
from voxblink2_lib.files import sync_folder
from voxblink2_lib.materialize.pipeline import seal_job
from voxblink2_lib.materialize.tasks import SealTask
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.checksums import checksum_file, write_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import write_outcomes
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.workers.pool import Call, WorkerDiedError


def seal_in_ledger(store: Store, ledger: Ledger, shard: SealedShard) -> SealedShard:
    """Write that a job is sealed, and return its shard, which may have another number now.

    Args:
        store: the store, locked by this process.
        ledger: its ledger.
        shard: what is on disk.
    """
    former = ledger.reopened.former(shard.job)
    if former is None or not shard.name or shard.sha256 == former.sha256:
        ledger.seal(shard)
        return shard
    number = ledger.recovered.next_number()
    moved = replace(shard, job=number, name=shard_name(ledger.config, number))
    before, path = (store.shards(ledger.config) / entry.name for entry in (shard, moved))
    write_checksum(path, moved.sha256)
    os.replace(before, path)
    sync_folder(path.parent)
    ledger.reopened.move(shard.job, moved)
    checksum_file(before).unlink(missing_ok=True)
    return moved


def done_videos(ledger: Ledger, job: int) -> list[VideoKey]:
    """Return the videos of a job that are done, in the order that their rows have in its shard."""
    done = [key for key, status in ledger.job_videos(job) if status == "done"]
    former = ledger.reopened.former(job)
    places = {key: place for place, key in enumerate(former.order)} if former else {}
    return sorted(done, key=lambda key: (places.get(key, len(places)), key))


def seal_call(store: Store, ledger: Ledger, job: int, schema: pa.Schema) -> Call:
    """Return the call that seals a job whose videos are all finished."""
    parts = tuple(store.part(ledger.config, job, key) for key in done_videos(ledger, job))
    target = store.shards(ledger.config) / shard_name(ledger.config, job)
    return seal_job, SealTask(job, parts, target, schema)


def take_sealed(store: Store, ledger: Ledger, task: SealTask, result: Any) -> None:
    """Write that a job is sealed, and remove its parts.

    Args:
        store: the store, locked by this process.
        ledger: its ledger.
        task: the job.
        result: what its call returned, or of what its process died.

    Raises:
        StoppedError: its process died.
    """
    if isinstance(result, WorkerDiedError):
        raise StoppedError(
            f"Sealing {task.target} failed: {result}. Nothing is lost; run the same command "
            "again. If it happens again, the machine may be short of memory."
        )
    sealed = seal_in_ledger(store, ledger, result)
    # Before the parts go: without the ledger, either of them has the clips.
    write_outcomes(store, ledger, sealed.job, result.digests)
    if sealed.job != task.job:
        write_outcomes(store, ledger, task.job)
    shutil.rmtree(store.job_parts(ledger.config, task.job), ignore_errors=True)
