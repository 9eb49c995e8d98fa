"""A ledger that is damaged or gone: how it is noticed, and the ways out."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError, next_command
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.store.layout import Store

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
# How SQLite begins, without a code of its own, where a table is not what it was written as.
_MESSAGES = ("no such table", "no such column", "malformed JSON", "Could not decode to UTF-8")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error of SQLite means that the file is not what was written."""
    code = getattr(error, "sqlite_errorcode", None)
    # The lower byte is the class; a file that is too short has a code of reading.
    is_class = code is not None and (code & 0xFF) in _DAMAGED
    return is_class or code == sqlite3.SQLITE_IOERR_SHORT_READ or str(error).startswith(_MESSAGES)


def damaged_ledger(path: Path, problem: object) -> StoreDamagedError:
    """Return the error of a ledger that is not what was written.

    Args:
        path: the ledger.
        problem: what was seen, such as the words of SQLite.
    """
    shown = shortened(str(problem), quoted=False).rstrip(".")
    return StoreDamagedError(f"The ledger {path} is damaged ({shown}). {ways_out(path)}")


def lost_ledger(path: Path, shards: int) -> StoreDamagedError:
    """Return the error of a store that has shards, and no ledger that lists them."""
    return StoreDamagedError(
        f"The store {path.parent} has {shards:,} shards and a ledger that lists none, so their "
        f"content is unknown. {ways_out(path)}"
    )


def ways_out(path: Path) -> str:
    """Return what to do about a ledger, as commands."""
    store = Store(path.absolute().parent)
    text = (
        "Rebuild it from the outcomes beside the shards and from what can still be read of it: "
        f"{next_command('repair', store=store.root)}"
    )
    try:
        copied_at = datetime.fromtimestamp(store.backup.stat().st_mtime, UTC)
    except OSError:
        return text
    return (
        f"{text}. Or do not read it, and take its copy of {copied_at:%Y-%m-%d %H:%M} UTC with the "
        f"outcomes: {next_command('repair', store=store.root, from_backup=True)}"
    )


def refuse_if_lost(path: Path) -> None:
    """Refuse to make an empty ledger where shards are that a lost one listed.

    Raises:
        StoreDamagedError: there are shards.
    """
    if shards := sum(1 for _ in path.parent.glob("shards/*/*.arrow")):
        raise lost_ledger(path, shards)
