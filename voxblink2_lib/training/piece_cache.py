"""A folder of pieces of files, within a bound that all processes with this folder keep.

A piece is whole if it has its size: it is written from its first byte to its last, and what a
killed process leaves is shorter. Where the folder cannot be written to, pieces stay in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from voxblink2_lib.progress import size_text
from voxblink2_lib.training.locked_files import locked
from voxblink2_lib.training.piece_queue import PieceQueue

LOCK = ".lock"
# Of one process: a batch of 64 utterances, each in a piece of its own, and some more.
_MEMORY_BYTES = 128 << 20
_log = logging.getLogger(__name__)


class PieceCache:
    """Pieces by their names.

    Args:
        folder: of the pieces. It is made when the first one is stored.
        most_bytes: the most that all pieces in it take.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._is_told = False

    def __reduce__(self) -> tuple[type[PieceCache], tuple[Path, int]]:
        return PieceCache, (self.folder, self.most_bytes)

    def has(self, name: str, size: int) -> bool:
        """Return whether a piece is there, and whole."""
        if name in self._memory:
            return True
        try:
            return (self.folder / name).stat().st_size == size
        except OSError:
            return False

    def read(self, name: str, size: int, start: int, stop: int) -> bytes | None:
        """Return bytes of a piece; ``None`` if it is not there, or not whole.

        Args:
            name: of the piece.
            size: of all of it.
            start: the first byte.
            stop: the byte after the last one.
        """
        held = self._memory.get(name)
        if held is not None:
            return held[start:stop]
        try:
            file = os.open(self.folder / name, os.O_RDONLY)
        except OSError:
            return None
        try:
            if os.fstat(file).st_size != size:
                return None
            data = os.pread(file, stop - start, start)
            _mark_used(file, time.time_ns())
        except OSError:  # of a disk that fails
            return None
        finally:
            os.close(file)
        return data if len(data) == stop - start else None

    def keep(self, name: str, data: bytes) -> None:
        """Store a piece; in memory, with a warning once, where the folder takes none."""
        try:
            self._store(name, data)
        except OSError as error:
            self._tell(error)
            self._remember(name, data)

    def _store(self, name: str, data: bytes) -> None:
        path, now_ns = self.folder / name, time.time_ns()
        with self._locked():
            if self.has(name, len(data)):  # another process was faster
                return
            with PieceQueue(self.folder) as queue:
                queue.make_room(len(data), self.most_bytes)
                place = queue.add(name, len(data), now_ns)
                queue.commit()
            # Under the lock, as it might be removed before it is made. A new file: another process
            # may be writing to the one with this name.
            path.unlink(missing_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                _write(file, data)
                _mark_used(file, now_ns)
            finally:
                os.close(file)
        except OSError:
            with contextlib.suppress(OSError), self._locked(), PieceQueue(self.folder) as queue:
                os.unlink(path)
                queue.take_back(place, name, len(data), now_ns)
                queue.commit()
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            yield

    def _remember(self, name: str, data: bytes) -> None:
        with self._lock:
            self._memory[name] = data
            taken = sum(map(len, self._memory.values()))
            while taken > min(_MEMORY_BYTES, self.most_bytes) and len(self._memory) > 1:
                taken -= len(self._memory.popitem(last=False)[1])

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            _log.warning(
                "Pieces of remote shards cannot be stored in %s: %s. They are held in memory, at "
                "most %s for each process, and downloaded again when they are needed later: free "
                "some space, or name another folder as cache_dir.",
                self.folder,
                error.strerror or error,
                size_text(min(_MEMORY_BYTES, self.most_bytes)),
            )


def _mark_used(file: int, now_ns: int) -> None:
    with contextlib.suppress(OSError):  # a folder of somebody else, or one that is only read
        os.utime(file, ns=(now_ns, now_ns))


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
