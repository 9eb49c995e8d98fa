"""One process works on a store: a lock of the file system or, where there is none, a lease."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from voxblink2_lib.errors import StoreBusyError, first_line
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.store.lease import Lease

LOCK, HOLDER, _LEASE = ".lock", ".lock-holder", ".lease"
_SHORT_WAIT_SECONDS = 2.0
_LONG_WAIT_SECONDS = 10.0
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_lock(root: Path, *, wait: bool) -> Iterator[None]:
    """Keep other processes from writing to a store.

    Args:
        root: the folder of the store.
        wait: wait for another holder, with a message; otherwise raise.

    Raises:
        StoreBusyError: another process holds it.
        OSError: the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        problem = lock_problem(root)
        if problem:
            (root / LOCK).touch()
        else:
            stack.enter_context(_file_lock(root, wait=wait))
        # Where locks fail at times, another process may have found that they do.
        if problem or (root / _LEASE).exists():
            stack.enter_context(_lease(root, problem, wait=wait))
        with named_system_errors(root):
            (root / HOLDER).write_text(this_process())
        yield


def this_process() -> str:
    """Return the number of this process, and the machine, as a text."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _file_lock(root: Path, *, wait: bool) -> Iterator[None]:
    lock = FileLock(root / LOCK)
    try:
        # Another load that has nothing to download holds the lock for a moment only.
        lock.acquire(timeout=_SHORT_WAIT_SECONDS if wait else 0)
    except Timeout:
        _report_busy(root, wait=wait)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _lease(root: Path, problem: str, *, wait: bool) -> Iterator[None]:
    _log.info("No lock is used for %s (%s), but the file %s.", root, problem, root / _LEASE)
    lease = Lease(root / _LEASE)
    if not lease.acquire():
        _report_busy(root, wait=wait)
        while not lease.acquire():
            time.sleep(_LONG_WAIT_SECONDS)
    try:
        lease.keep()
        yield
    finally:
        lease.release()


def _report_busy(root: Path, *, wait: bool) -> None:
    try:
        holder = (root / HOLDER).read_text()
    except OSError:
        holder = "another process"
    if not wait:
        raise StoreBusyError(
            f"{holder} is working on the store {root}. Nothing was changed. "
            "Run this again when it is done, or name another store."
        )
    _log.warning("%s is working on the store %s; waiting for it to finish.", holder, root)


def lock_problem(folder: Path) -> str:
    """Return why a lock on a file excludes nobody in a folder; empty if it does.

    Both kinds are tried: that of a store, and that of SQLite.

    Raises:
        OSError: no file can be made there.
    """
    first, name = tempfile.mkstemp(prefix=".lock-", suffix=".tmp", dir=folder)
    try:
        return _problem_of(first, Path(name))
    finally:
        os.close(first)
        Path(name).unlink(missing_ok=True)  # whoever tidies a store may have removed it


def _problem_of(first: int, path: Path) -> str:
    try:
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return first_line(error)
    second = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return ""
    finally:
        os.close(second)
    return "two processes can hold the same lock"


def lock_if_possible(path: Path) -> contextlib.AbstractContextManager[object]:
    """Return a lock for work that may be done twice, but need not be; none where locks fail."""
    return contextlib.nullcontext() if lock_problem(path.parent) else FileLock(path)


def has_no_locks(root: Path) -> bool:
    """Return whether SQLite's locks fail in a store; false too if it was never written to."""
    try:
        # Not on SQLite's own file: closing it would give up the locks that SQLite holds.
        with open(root / LOCK, "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, PermissionError, BlockingIOError):
        return False
    except OSError:
        return True
    return False
