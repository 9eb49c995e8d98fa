"""Memory that this process and its workers share, for data that are too large for a pipe.

It has no name in any file system, so nothing of it is left after a kill. Only Linux has such
memory; elsewhere data go through the pipe.
"""

from __future__ import annotations

import functools
import mmap
import os
from typing import NamedTuple


class SharedRange(NamedTuple):
    """A range of bytes of shared memory, which any process of the same user can open.

    Attributes:
        path: by which it is opened, while the process that made it lives.
        start, stop: in bytes, half-open.
    """

    path: str
    start: int
    stop: int

    def view(self) -> memoryview:
        """Return the bytes, which may be written to."""
        return memoryview(_mapped(self.path))[self.start : self.stop]


@functools.lru_cache(maxsize=4)  # those of one run, and of a run before in the same worker
def _mapped(path: str) -> mmap.mmap:
    handle = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(handle, 0)
    finally:
        os.close(handle)


class SharedSlots:
    """Equal pieces of shared memory, of which each is used by one call at a time.

    A context manager, which gives the memory back. Pages that were never written take no memory.

    Args:
        count: how many.
        size_bytes: of each.
    """

    def __init__(self, count: int, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free = list(range(count))
        self._handle = os.memfd_create("voxblink2", os.MFD_CLOEXEC)
        os.ftruncate(self._handle, count * size_bytes)
        self._path = f"/proc/{os.getpid()}/fd/{self._handle}"

    def __enter__(self) -> SharedSlots:
        return self

    def __exit__(self, *_: object) -> None:
        _mapped.cache_clear()  # its pages would stay as long as they are mapped
        os.close(self._handle)

    def take(self) -> SharedRange | None:
        """Return a slot that nobody uses; ``None`` if there is none."""
        if not self._free:
            return None
        start = self._free.pop() * self._size_bytes
        return SharedRange(self._path, start, start + self._size_bytes)

    def give_back(self, slot: SharedRange) -> None:
        """Let a slot be used again."""
        self._free.append(slot.start // self._size_bytes)


def has_shared_memory() -> bool:
    """Return whether this system has such memory."""
    return hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")
