"""The order of an epoch is made by one process of a machine; the others map its file."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.store.lock import lock_if_possible

FOLDER = "epochs"
# Of several runs, each with a present epoch and one that a slow rank has not ended.
_KEPT = 8


class Epoch(NamedTuple):
    """The batches of an epoch.

    Attributes:
        rows: of all batches, one after the other, shape (n,).
        bounds: batch i has rows[bounds[i]:bounds[i + 1]], shape (batches + 1,).
    """

    rows: npt.NDArray[np.integer]
    bounds: npt.NDArray[np.int64]


def shared_epoch(name: str, make: Callable[[], Epoch]) -> Epoch:
    """Return an epoch from a file below ``VOXBLINK2_HOME``, which is made if there is none.

    Where no file can be written, each process makes the epoch for itself.

    Args:
        name: all that the epoch depends on.
        make: makes it.
    """
    folder = home_folder() / FOLDER
    path = folder / f"{short_digest(name.encode())}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_if_possible(folder / ".lock"):
            return _read(path) or _written(path, make())
    except (OSError, StoreError):
        return make()


def _read(path: Path) -> Epoch | None:
    """Return the epoch of a file; ``None`` if there is none, or it is damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
        rows = np.load(path, mmap_mode="r")
        with open(path, "rb") as file:
            file.seek(rows.offset + rows.nbytes)
            bounds = np.load(file)
            checksum = np.load(file)
        if checksum == _checksum(rows, bounds):
            return Epoch(rows, bounds)
    return None


def _written(path: Path, epoch: Epoch) -> Epoch:
    """Write an epoch, and remove the oldest ones; return it as a map."""
    with atomic_write(path) as file:
        for values in (epoch.rows, epoch.bounds, _checksum(*epoch)):
            np.save(file, values)
    epochs = sorted(path.parent.glob("*.npy"), key=lambda epoch: epoch.stat().st_mtime_ns)
    for old in epochs[:-_KEPT]:
        old.unlink(missing_ok=True)  # a process that maps it keeps it
    return _read(path) or epoch


def _checksum(rows: npt.NDArray[Any], bounds: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.array(zlib.crc32(bounds.data, zlib.crc32(rows.data)))
