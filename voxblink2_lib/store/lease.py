"""A lease: the right to write to a store on a file system that has no locks.

    holder   create  beat    beat    beat    (dies)
    file     |1      |2      |3      |4 ...........................| replaced
    other        look: 1, 2: "busy"      look: 4, 4, 4 ... 60 s ---+

The holder writes a number that grows to the file, every few seconds. Whoever finds the file looks
at it for a while: if it changes, its holder lives; if not, the holder is dead, and the file is
replaced. No clocks of two machines are compared, since each measures by its own how long nothing
changed.

A holder that was stopped for long (a suspended machine) may find the file replaced. It notices at
its next beat at the latest, and writes nothing to the ledger from then on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from voxblink2_lib.errors import StoreBusyError

BEAT_SECONDS = 5.0
# Long enough for a server that is slow, or started again.
STALE_SECONDS = 60.0
# Of two that replace the file of a dead holder at once, the later one wins: wait for it.
SETTLE_SECONDS = 2.0

# Leases of this process, by the folder of the store.
_held: dict[Path, Lease] = {}


class Lease:
    """The right to write to a store, as a file that its holder renews.

    Args:
        path: the file, in the folder of the store.
        clock: seconds that never run backwards.
        sleep: waits for some seconds.
    """

    beat_seconds = BEAT_SECONDS

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._place = str(path.parent)
        self._clock = clock
        self._sleep = sleep
        self._token = secrets.token_hex(8)
        self._beats = 0
        self._renewed_at = 0.0
        self._is_lost = False
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def acquire(self) -> bool:
        """Take the lease, unless another process renews it.

        Finding out takes seconds; :data:`STALE_SECONDS` if the holder died on another machine.

        Raises:
            OSError: the file cannot be written.
        """
        looked_at, seen = self._clock(), None
        while not self._create():
            content = self._read()
            if content is None:  # released just now
                continue
            if seen not in {None, content}:
                return False
            seen = content
            if _is_of_the_dead(content) or self._clock() - looked_at >= STALE_SECONDS:
                return self._replace()
            self._sleep(1.0)
        return self._take()

    def keep(self) -> None:
        """Renew the lease from now on, in a thread, until it is released."""
        _held[self._path.parent] = self
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def renew(self) -> None:
        """Write that the holder lives, unless the lease is lost."""
        with self._writing, contextlib.suppress(OSError):  # the disk may come back before long
            try:
                with open(self._path, "r+b") as file:
                    # Through the file that was read: if it is replaced now, this changes nothing.
                    self._is_lost |= _token(file.read()) != self._token
                    if not self._is_lost and not self._ended.is_set():
                        file.seek(0)
                        file.write(self._record())
                        self._renewed_at = self._clock()
            except FileNotFoundError:
                self._is_lost = True

    def check(self) -> None:
        """Make sure that this process may write.

        Raises:
            StoreBusyError: another process has taken the lease.
        """
        if self._clock() - self._renewed_at > 2 * self.beat_seconds:
            self.renew()
        is_silent = self._clock() - self._renewed_at > STALE_SECONDS
        if self._is_lost or is_silent:
            raise StoreBusyError(
                f"This process lost its lease of the store {self._place}: it could not renew "
                f"{self._path.name} in time, and another process may work on the store. Everything "
                "finished is kept; run the same command again when no other process does."
            )

    def release(self) -> None:
        """Give the lease back; nothing is done if it was lost."""
        self._ended.set()
        _held.pop(self._path.parent, None)
        # Whatever a disk or a server answers: it is given up at the latest when nobody renews it.
        with self._writing, contextlib.suppress(Exception):
            if self._is_ours():
                self._remove()

    def _remove(self) -> None:
        self._path.unlink()

    def _beat(self) -> None:
        while not (self._ended.wait(self.beat_seconds) or self._is_lost):
            self.renew()

    def _create(self) -> bool:
        try:
            # Whole or not there, on every file system, network ones included.
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(self._record())
        return True

    def _replace(self) -> bool:
        self._overwrite()
        self._sleep(SETTLE_SECONDS)
        return self._is_ours() and self._take()

    def _overwrite(self) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{self._token}.tmp")
        fresh.write_bytes(self._record())
        os.replace(fresh, self._path)

    def _is_ours(self) -> bool:
        return _token(self._read() or b"") == self._token

    def _take(self) -> bool:
        self._renewed_at = self._clock()
        return True

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _record(self) -> bytes:
        self._beats += 1
        record = {
            "token": self._token,
            "beat": f"{self._beats:012}",  # of one length, since the file is overwritten in place
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "system": _system(),
        }
        return json.dumps(record).encode()


def check_lease(root: Path) -> None:
    """Make sure that this process may still write to a store.

    Args:
        root: the folder of the store. Nothing is checked if this process has no lease of it.

    Raises:
        StoreBusyError: another process has taken the lease.
    """
    if lease := _held.get(root):
        lease.check()


def _token(content: bytes) -> str:
    return str(_parsed(content).get("token", ""))


def _parsed(content: bytes) -> dict[str, object]:
    try:
        record = json.loads(content)
    except ValueError:  # its holder is writing it
        return {}
    return record if isinstance(record, dict) else {}


def _is_of_the_dead(content: bytes) -> bool:
    """Return whether the holder was a process of this system that has ended."""
    record = _parsed(content)
    if not _system() or record.get("system") != _system():
        return False
    return not os.path.exists(f"/proc/{record.get('pid')}")


def _system() -> str:
    """Return what is the same for processes that see each other's numbers; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
