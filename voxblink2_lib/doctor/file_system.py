"""Whether a folder can do what a store asks of it, found out by doing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from voxblink2_lib.errors import first_line
from voxblink2_lib.files import atomic_write


class Capability(NamedTuple):
    """One thing that a file system must do.

    Attributes:
        name: what.
        problem: why it does not; empty if it does.
        is_needed: whether a run fails without it.
    """

    name: str
    problem: str
    is_needed: bool


def existing_folder(folder: Path) -> Path:
    """Return a folder, or the nearest thing above it that is there."""
    return next(one for one in (folder, *folder.parents) if os.path.exists(one))


def probe_capabilities(place: Path) -> list[Capability]:
    """Do in a folder of its own, removed afterwards, what a run does in a store.

    Args:
        place: an existing folder.

    Raises:
        OSError: nothing can be written there at all.
        StoreFullError: no space is left.
    """
    with tempfile.TemporaryDirectory(prefix=".voxblink2-doctor-", dir=place) as name:
        folder = Path(name)
        # A temporary file, flushed and renamed, and then the folder flushed.
        with atomic_write(folder / "file") as stream:
            stream.write(b"voxblink2")
        tests: tuple[tuple[str, Callable[[Path], str], bool], ...] = (
            ("locking", _lock, True),
            ("SQLite in WAL mode", _use_sqlite, True),
            ("hard links", _link, False),
        )
        return [
            Capability("writing, flushing and renaming", "", True),
            *(Capability(what, test(folder), needed) for what, test, needed in tests),
        ]


def _lock(folder: Path) -> str:
    path = folder / "lock"
    try:
        with FileLock(path).acquire(timeout=0):
            try:
                with FileLock(path).acquire(timeout=0):
                    return "two at a time hold the same lock"
            except Timeout:
                return ""
    except (OSError, NotImplementedError) as error:
        return first_line(error)


def _link(folder: Path) -> str:
    try:
        os.link(folder / "file", folder / "link")
    except OSError as error:
        return first_line(error)
    return ""


def _use_sqlite(folder: Path) -> str:
    try:
        with contextlib.closing(sqlite3.connect(folder / "probe.sqlite")) as database:
            (mode,) = database.execute("pragma journal_mode = wal").fetchone()
            database.execute("create table probe (number integer)")
            database.commit()
    except sqlite3.Error as error:
        return first_line(error)
    return "" if mode == "wal" else f"it stays in mode {mode}"
