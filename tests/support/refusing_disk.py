"""A disk that lacks operations, or fails: for the libraries of a process, SQLite included."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("refusing_disk.c")

# What file systems that are not those of a Linux disk answer, by the operation.
FAT = {"link": errno.EPERM, "symlink": errno.EPERM, "chmod": errno.EPERM}
NFS_WITHOUT_LOCKS = {"flock": errno.ENOLCK, "fcntl": errno.ENOLCK}
CIFS = {"link": errno.EOPNOTSUPP, "symlink": errno.EOPNOTSUPP, "fsync-folder": errno.EINVAL}
FUSE = {
    **{"flock": errno.ENOSYS, "fcntl": errno.ENOSYS, "mmap": errno.ENODEV},
    **{"link": errno.ENOSYS, "chmod": errno.ENOSYS, "fsync-folder": errno.ENOSYS},
}
WSL = {"flock": errno.EOPNOTSUPP, "chmod": errno.ENOTSUP, "fsync-folder": errno.EBADF}
KINDS = {"FAT": FAT, "NFS": NFS_WITHOUT_LOCKS, "CIFS": CIFS, "FUSE": FUSE, "WSL": WSL}


def refusing(folder: Path, operations: dict[str, int]) -> dict[str, str]:
    """Return the environment of a process for which a folder lies on such a disk.

    Args:
        folder: the folder; what is below it lies on the disk.
        operations: names of operations, as in ``refusing_disk.c``, with their error numbers.
    """
    return {
        "LD_PRELOAD": _library(),
        "REFUSED_BELOW": str(folder),
        "REFUSED": " ".join(f"{name}={number}" for name, number in operations.items()),
    }


@functools.cache
def _library() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler, to refuse what SQLite asks the C library for")
    library = Path(tempfile.gettempdir(), f"refusing-disk-{os.getpid()}.so")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(words, check=True)
    return str(library)
