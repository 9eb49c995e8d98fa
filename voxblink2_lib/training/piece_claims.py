"""Of several processes that need the same piece, one downloads it and the others wait."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from pathlib import Path

CLAIMS = ".claims"
_POLL_SECONDS = 0.01
_TAKEN = {errno.EACCES, errno.EAGAIN}


class PieceClaims:
    """Claims of the processes that share a folder: locks of bytes of one empty file.

    The byte is given by a hash of the piece's name. The system releases the locks of a process that
    ends, however it does. A forked process has none of its parent's. Where files cannot be locked,
    every process gets every claim.

    Args:
        folder: of the pieces.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Open for good: closing any file of it would release all locks of the process.
        self._file: int | None = None

    def __reduce__(self) -> tuple[type[PieceClaims], tuple[Path]]:
        return PieceClaims, (self._folder,)

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def take(self, name: str) -> bool:
        """Return whether a piece is this process's to download; then :meth:`release` it."""
        try:
            fcntl.lockf(self._opened(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte_of(name))
        except OSError as error:
            return error.errno not in _TAKEN
        return True

    def release(self, name: str) -> None:
        """Let others have it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte_of(name))

    def wait(self, name: str, seconds: float) -> bool:
        """Wait until nobody else has a piece, and take it; return false if that takes too long."""
        end = time.monotonic() + seconds
        while not self.take(name):
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _opened(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._folder / CLAIMS, os.O_RDWR | os.O_CREAT, 0o666)
        return self._file


def _byte_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
