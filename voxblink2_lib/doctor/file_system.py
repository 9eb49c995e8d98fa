"""Whether a folder supports what a store requires, established by trying it."""

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
    """One operation that a store requires of its file system.

    Attributes:
        name: the operation.
        problem: why it fails; empty if it works.
        is_needed: whether a run fails without it.
    """

    name: str
    problem: str
    is_needed: bool


def existing_folder(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def probe_capabilities(parent: Path) -> list[Capability]:
    """Try what a run does in a store, in a temporary folder.

    Args:
        parent: an existing folder.

    Raises:
        OSError: the folder is not writable.
        StoreFullError: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix=".voxblink2-doctor-", dir=parent) as temporary:
        folder = Path(temporary)
        # A temporary file, flushed and renamed, and then the folder flushed.
        with atomic_write(folder / "file") as stream:
            stream.write(b"voxblink2")
        probes: tuple[tuple[str, Callable[[Path], str], bool], ...] = (
            ("locking", _lock, True),
            ("SQLite in WAL mode", _use_sqlite, True),
            ("hard links", _link, False),
        )
        return [
            Capability("writing, flushing and renaming", "", True),
            *(Capability(name, probe(folder), is_needed) for name, probe, is_needed in probes),
        ]


def _lock(folder: Path) -> str:
    path = folder / "lock"
    try:
        with FileLock(path).acquire(timeout=0):
            try:
                with FileLock(path).acquire(timeout=0):
                    return "two processes can hold the same lock"
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
    return "" if mode == "wal" else f"SQLite stays in mode {mode}"
