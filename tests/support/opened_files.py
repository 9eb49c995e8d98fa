"""Which files of a folder are opened meanwhile, by whatever library (Linux's inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from types import TracebackType

import pytest

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class OpenedFiles:
    """Notes the names of files that are opened in folders, while the context lasts.

    Args:
        folders: to watch; not those inside of them.

    Attributes:
        names: of the files, each once.
    """

    def __init__(self, *folders: Path) -> None:
        if not sys.platform.startswith("linux"):
            pytest.skip("only Linux tells which files are opened")
        self._folders = folders
        self.names: set[str] = set()

    def __enter__(self) -> OpenedFiles:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._handle >= 0, os.strerror(ctypes.get_errno())
        for folder in self._folders:
            watch = libc.inotify_add_watch(self._handle, os.fsencode(folder), _IN_OPEN)
            assert watch >= 0, os.strerror(ctypes.get_errno())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.collect()
        os.close(self._handle)

    def collect(self) -> set[str]:
        """Return the names so far."""
        while True:
            try:
                data = os.read(self._handle, 1 << 16)
            except BlockingIOError:
                return self.names
            while data:
                *_, size = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + size].rstrip(b"\0")
                if name:  # not the folder itself
                    self.names.add(os.fsdecode(name))
                data = data[_EVENT.size + size :]
