"""Faults of the disk and of power, injected into this process at any operation on a file.

    operation   0      1      2      3      4      5
                mkdir  open   write  fsync  rename fsync
                                     ^ killed here, none of those from here on has any effect

An operation is whatever changes what is stored below a folder: files and folders that are made,
renamed, linked and removed, writes and flushes, and what is committed to an SQLite database.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

Fault = Literal["killed", "full", "broken"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Names of functions of `os`, and how many of their first arguments are paths.
_ON_PATHS = {
    **dict.fromkeys(("mkdir", "rmdir", "unlink", "remove", "chmod", "truncate"), 1),
    **dict.fromkeys(("rename", "replace", "link", "symlink"), 2),
}
# What gives space back works on a full disk too.
_FREES = {"rmdir", "unlink", "remove", "chmod"}


_WRITES_OF_A_FILE = 2


class KilledError(BaseException):
    """Stands for the end of the process: no ``except`` of the library may catch it."""


class FaultyDisk:
    """Counts operations below a folder, and fails at one of them.

    Args:
        root: the folder.
        fault: what happens there. After ``"killed"`` nothing has any effect any more; a disk that
            is ``"full"`` or ``"broken"`` refuses that one operation, and all is well again.
        at: number of the operation; ``None`` for none.

    Attributes:
        operations: what was done, as far as it had an effect, in order.
        is_reached: whether the fault has happened.
    """

    def __init__(self, root: Path, fault: Fault = "killed", at: int | None = None) -> None:
        self.operations: list[str] = []
        self.is_reached = False
        self._root = f"{root}/"
        self._fault = fault
        self._at = at

    @property
    def is_dead(self) -> bool:
        """Whether the process counts as killed."""
        return self.is_reached and self._fault == "killed"

    def operate(self, name: str, *paths: object) -> None:
        """Take note of an operation before it is done.

        Raises:
            KilledError: it and all later ones must have no effect.
                OSError, sqlite3.OperationalError: the disk is full, or broken.
        """
        if not any(self._is_below(path) for path in paths):
            return
        if not self.is_dead and len(self.operations) == self._at and not self.is_reached:
            self.is_reached = True
            if self._fault == "broken" or (self._fault == "full" and name not in _FREES):
                raise _refusal(self._fault, name, paths[0])
        if self.is_dead:
            raise KilledError(name)
        self.operations.append(f"{name} {Path(str(paths[-1])).name}")

    def _is_below(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return f"{os.fspath(path)}/".startswith(self._root)  # type: ignore[call-overload]

    @contextmanager
    def installed(self) -> Iterator[FaultyDisk]:
        """Let all file operations of this process pass here inside a ``with`` block."""
        with pytest.MonkeyPatch.context() as patched:
            for name, count in _ON_PATHS.items():
                patched.setattr(os, name, self._checked(name, getattr(os, name), count))
            patched.setattr(os, "fsync", self._checked("fsync", os.fsync, 1))
            patched.setattr(os, "open", self._os_open(os.open))
            patched.setattr(os, "fdopen", self._fdopen(os.fdopen))
            opened = self._open(builtins.open)
            patched.setattr(builtins, "open", opened)
            patched.setattr(io, "open", opened)
            patched.setattr(sqlite3, "connect", self._connect(sqlite3.connect))
            yield self

    def _checked(self, name: str, function: Callable[..., Any], count: int) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            directory = options.get("dir_fd")
            paths = arguments[:count]
            if directory is not None:  # as shutil.rmtree removes
                paths = (f"{os.readlink(f'/proc/self/fd/{directory}')}/{paths[0]}",)
            self.operate(name, *paths)
            return function(*arguments, **options)

        return checked

    def _os_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def checked(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if flags & _WRITES and "dir_fd" not in options:
                self.operate("open", path)
            return function(path, flags, *more, **options)

        return checked

    def _fdopen(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(descriptor: int, mode: str = "r", *more: Any, **options: Any) -> Any:
            if mode == "wb" and self._is_below(descriptor):
                return self._file(io.FileIO(descriptor, "w"), descriptor)
            return function(descriptor, mode, *more, **options)

        return checked

    def _open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+") or isinstance(path, int) or not self._is_below(path):
                return function(path, mode, *more, **options)
            self.operate("open", path)
            if "b" in mode:
                return self._file(io.FileIO(path, mode.replace("b", "")), path)
            self.operate("write", path)
            return function(path, mode, *more, **options)

        return checked

    def _file(self, raw: io.FileIO, where: object) -> io.BufferedIOBase:
        file = _ReaderAndWriter(raw) if raw.readable() else _Writer(raw)
        file.disk, file.where = self, where
        return file

    def _connect(self, function: Callable[..., Any]) -> Callable[..., Any]:
        disk = self

        class Connection(sqlite3.Connection):
            path: object

            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql == "commit":
                    disk.operate("commit", self.path)
                return super().execute(sql, *values)

        def checked(database: Any, **options: Any) -> Any:
            connection = function(database, **options, factory=Connection)
            connection.path = str(database).removeprefix("file://").partition("?")[0]
            return connection

        return checked


def _refusal(fault: Fault, name: str, path: object) -> Exception:
    number, code, text = {
        "full": (errno.ENOSPC, "SQLITE_FULL", "database or disk is full"),
        "broken": (errno.EIO, "SQLITE_IOERR_WRITE", "disk I/O error"),
    }[fault]
    if name == "commit":
        error = sqlite3.OperationalError(text)
        error.sqlite_errorname, error.sqlite_errorcode = code, getattr(sqlite3, code)
        return error
    return OSError(number, os.strerror(number), str(path))


class _CheckedWrites:
    """A file whose first writes are operations: nothing is written, and something but not all.

    Later ones leave nothing that is different to whoever finds it.
    """

    disk: FaultyDisk
    where: object
    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes <= _WRITES_OF_A_FILE or self.disk.is_dead:
            self.disk.operate("write", self.where)
        return int(super().write(data))  # type: ignore[misc]  # that of the other base


class _Writer(_CheckedWrites, io.BufferedWriter):
    pass


class _ReaderAndWriter(_CheckedWrites, io.BufferedRandom):
    pass
