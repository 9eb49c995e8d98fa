"""A copy of the ledger, at most an hour old, in case the ledger is damaged.

It is made by a worker process: the ledger of two million videos takes seconds, and the run goes on.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from voxblink2_lib.files import named_system_errors, sync_folder
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger_damage import damaged_ledger
from voxblink2_lib.store.ledger_database import as_store_error

BACKUP_SECONDS = 3600.0


def is_backup_due(store: Store, *, now: float) -> bool:
    """Return whether the copy of a ledger is missing or old.

    Args:
        store: the store.
        now: Unix time. A copy that is of a later time was made by a clock that was wrong.
    """
    try:
        age_seconds = now - store.backup.stat().st_mtime
    except OSError:
        return True
    return not 0 <= age_seconds < BACKUP_SECONDS


def back_up_ledger(store: Store) -> None:
    """Copy the ledger, as it is now, in place of the copy before; a run may write to it meanwhile.

    Raises:
        StoreDamagedError: what was copied is damaged; the copy before is kept.
        StoreFullError: the disk is full.
        StoreError, OSError: the copy cannot be written.
    """
    draft = store.tmp / store.backup.name
    with named_system_errors(store.backup):
        store.tmp.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        try:
            copy_ledger(store.ledger, draft)
            _check(draft, store.ledger)
            _flush(draft)
            os.replace(draft, store.backup)
            sync_folder(store.root)
        finally:
            draft.unlink(missing_ok=True)


def copy_ledger(ledger: Path, draft: Path) -> None:
    """Copy a ledger to a file that is not there, as it is now; a run may write to it meanwhile.

    Raises:
        StoreDamagedError, StoreFullError, StoreError: it cannot be copied.
    """
    uri = f"{ledger.resolve().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=60)) as source,
            closing(sqlite3.connect(draft)) as target,
        ):
            # Of a draft nothing is to be kept, so nothing is flushed before the end.
            target.execute("pragma synchronous = off")
            # All pages in one step: what the run writes meanwhile does not make it begin again.
            source.backup(target)
    except sqlite3.Error as error:
        raise as_store_error(error, ledger) from error


def _check(draft: Path, ledger: Path) -> None:
    try:
        uri = f"{draft.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (answer,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise as_store_error(error, ledger) from error
    if answer != "ok":
        raise damaged_ledger(ledger, f"its copy does not pass quick_check: {answer}")


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
