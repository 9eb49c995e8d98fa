"""Shards that a check has found right, remembered until the check of the whole store is complete.

The memory is in the user's folder: a check changes nothing in a store, which may be read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import StoreFullError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.store.shard_verification import ShardTask

# About a minute of hashing.
_BYTES_PER_SAVE = 16 << 30


class _Stamp(NamedTuple):
    """What a shard was when it was found right, and how many of its clips were decoded."""

    path: str
    size_bytes: int
    modified_ns: int
    sha256: str
    sample: int


class VerifiedShards:
    """The shards of a store that an interrupted check has found right.

    Args:
        store: folder of the store.
        resume: go on with what is remembered; otherwise it is forgotten.
    """

    def __init__(self, store: Path, *, resume: bool) -> None:
        tag = short_digest(os.fsencode(store.resolve()))
        self._memory = home_folder() / "verify" / f"{tag}.json"
        self._known = _read(self._memory) if resume else set()
        self._unsaved_bytes = 0

    def has(self, task: ShardTask) -> bool:
        """Return whether a shard was found right, with as large a sample, and is the same."""
        return _stamp(task) in self._known

    def add(self, task: ShardTask) -> None:
        """Take note of a shard that is right."""
        if (stamp := _stamp(task)) is not None:
            self._known.add(stamp)
            self._unsaved_bytes += stamp.size_bytes
            if self._unsaved_bytes > _BYTES_PER_SAVE:
                self.save()

    def save(self) -> None:
        """Remember all of them, if the disk lets it."""
        with contextlib.suppress(OSError, StoreFullError), atomic_write(self._memory) as file:
            file.write(json.dumps(sorted(self._known)).encode())
        self._unsaved_bytes = 0

    def forget(self) -> None:
        """Forget all of them, after a complete check."""
        with contextlib.suppress(OSError):
            self._memory.unlink(missing_ok=True)


def _stamp(task: ShardTask) -> _Stamp | None:
    try:
        status = os.stat(task.path)
    except OSError:
        return None
    size_bytes, modified_ns = status.st_size, status.st_mtime_ns
    return _Stamp(str(task.path), size_bytes, modified_ns, task.sha256, task.sample)


def _read(memory: Path) -> set[_Stamp]:
    try:
        return {_Stamp(*values) for values in json.loads(memory.read_bytes())}
    except (OSError, ValueError, TypeError):  # none, or one that is damaged
        return set()
