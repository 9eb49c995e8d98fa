"""Whether a shard has rows of what was purged."""

from __future__ import annotations

from pathlib import Path

from voxblink2_lib.records import UtteranceKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.shards import read_batches


def has_purged_rows(path: Path, tombstones: Tombstones) -> bool:
    """Return whether a shard, or a link to one, has a row of what was purged.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    for batch in read_batches(path):
        if not set(UtteranceKey._fields) <= set(batch.schema.names):
            return False
        if tombstones.purged(batch).any():
            return True
    return False
