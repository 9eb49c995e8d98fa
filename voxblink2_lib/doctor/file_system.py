"""Whether a folder supports what a store requires, established by trying it."""

from __future__ import annotations

import contextlib
import mmap
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import first_line
from voxblink2_lib.files import atomic_write
from voxblink2_lib.store.lock import lock_problem


class Capability(NamedTuple):
    """One operation that a store uses of its file system.

    Attributes:
        name: the operation.
        problem: why it fails; empty if it works.
        consequence: what is done without it; empty if a run fails.
    """

    name: str
    problem: str
    consequence: str


def existing_folder(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def probe_capabilities(parent: Path) -> list[Capability]:
    """Try what a run does in a store, in a temporary folder.

    Args:
        parent: an existing folder.

    Raises:
        OSError: the folder is not writable.
        StoreError: the disk is full or fails.
    """
    with tempfile.TemporaryDirectory(prefix=".voxblink2-doctor-", dir=parent) as temporary:
        folder = Path(temporary)
        for _ in range(2):  # the second is renamed over the first
            with atomic_write(folder / "file") as stream:
                stream.write(b"voxblink2")
        return [
            Capability("writing, flushing and renaming", "", ""),
            *(Capability(name, _tried(probe, folder), rest) for name, probe, rest in _PROBES),
        ]


def _tried(probe: Callable[[Path], str | None], folder: Path) -> str:
    try:
        return probe(folder) or ""
    except (OSError, ValueError, NotImplementedError, sqlite3.Error) as error:
        return first_line(error)


def _map(folder: Path) -> None:
    with (
        open(folder / "file", "rb") as file,
        contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)),
    ):
        pass


def _use_sqlite(folder: Path) -> str:
    with contextlib.closing(sqlite3.connect(folder / "probe.sqlite")) as database:
        (mode,) = database.execute("pragma journal_mode = wal").fetchone()
        database.execute("create table probe (number integer)")
        database.commit()
    return "" if mode == "wal" else f"SQLite stays in mode {mode}"


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _differ_in_case(folder: Path) -> str:
    return "'file' and 'FILE' are one file" if (folder / "FILE").exists() else ""


# In the order of the report. Each returns the problem, or raises it.
_PROBES: tuple[tuple[str, Callable[[Path], str | None], str], ...] = (
    (
        "locking",
        lock_problem,
        "A file .lease that is renewed every few seconds keeps other runs away instead. After a "
        "crash on another machine the next run waits a minute.",
    ),
    (
        "SQLite in WAL mode",
        _use_sqlite,
        "The ledger is kept without WAL: 'status' may have to wait while a run writes.",
    ),
    ("mapping files into memory", _map, ""),
    (
        "hard links",
        lambda folder: os.link(folder / "file", folder / "hard"),
        "Symbolic links are used instead; do not move the store afterwards.",
    ),
    (
        "symbolic links",
        lambda folder: os.symlink(folder / "file", folder / "symbolic"),
        "Where there are no hard links either, load_dataset reads shards where they lie; do not "
        "move the store afterwards.",
    ),
    (
        "flushing folders",
        _flush_folder,
        "A power cut may cost the files of the last seconds; the next run makes them again.",
    ),
    (
        "permissions",
        lambda folder: os.chmod(folder / "file", 0o644),
        "Files have the permissions that the file system was mounted with.",
    ),
    (
        "names that differ only in case",
        _differ_in_case,
        "Files of unfinished videos get names of their own. Of a folder of media, check that no "
        "two videos differ only in case.",
    ),
)
