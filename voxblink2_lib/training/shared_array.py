"""Arrays that processes of one machine share, however they are started."""

from __future__ import annotations

import os
import tempfile
import weakref
from multiprocessing import context, reduction
from typing import IO, Any

import numpy as np
import numpy.typing as npt


class SharedArray:
    """An array of which workers that are spawned get no copy: they map the same file.

    A worker that is forked shares the memory anyway. Elsewhere, as when it is saved, it is pickled
    with its values.

    Args:
        values: the array; nobody changes it.
    """

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values
        self._file: IO[bytes] | None = None

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if context.get_spawning_popen() is None or not self.values.size:
            return SharedArray, (self.values,)
        try:
            file = self._written()
        except OSError:  # no space: it is sent
            return SharedArray, (self.values,)
        # The new process is given the open file, which has no name and so is never left behind.
        handle = reduction.DupFd(file.fileno())
        return _map, (handle, self.values.dtype.str, self.values.shape)

    def _written(self) -> IO[bytes]:
        if self._file is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the array is there
            weakref.finalize(self, file.close)
            file.write(np.ascontiguousarray(self.values).data)
            file.flush()
            self._file = file
        return self._file


def _map(handle: Any, dtype: str, shape: tuple[int, ...]) -> SharedArray:
    """Return the array of another process, in a new one."""
    with os.fdopen(handle.detach(), "rb") as file:
        return SharedArray(np.memmap(file, dtype, "r", shape=shape))
