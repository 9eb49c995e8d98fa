"""Seal jobs that repair opened again, and only those.

With the bytes that it had before, a shard has its name again. With others it gets the next number,
and the job before is closed without a shard: whoever has the former one open, or in a cache, would
take the new one for it. As in :mod:`~voxblink2_lib.materialize.gathering`, the file is on disk
before the ledger names it, and the next run after a kill gives it the same number.
"""

from __future__ import annotations

import os
from dataclasses import replace

from voxblink2_lib.files import sync_folder
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.checksums import checksum_file, write_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shard_names import shard_name


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
