"""Atomic writes, checksums, and the error of a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from voxblink2_lib.errors import StoreFullError

HOME_VARIABLE = "VOXBLINK2_HOME"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}

# What atomic_write leaves behind when its process is killed.
TEMP_GLOB = ".*.tmp"
_COPY_BYTES = 1 << 20


def home_folder() -> Path:
    """Return the folder of default stores and state: ``VOXBLINK2_HOME``, else in the cache."""
    home = os.environ.get(HOME_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(home).expanduser() if home else Path(cache) / "voxblink2").absolute()


@contextlib.contextmanager
def named_if_disk_full(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into a :class:`StoreFullError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise StoreFullError(
            f"No space is left for {path}. Everything finished is kept: "
            "free some space and run the same command again."
        ) from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    A temporary file beside it is written, flushed to disk and renamed; then the folder is
    flushed. If the body raises, nothing is left behind.

    Args:
        path: the final name. Its folder is created if missing.

    Yields:
        A binary file.

    Raises:
        OSError: the name is that of a device or a pipe, which a rename would replace.
        StoreFullError: the disk is full.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "a device or a pipe is there, name a file", str(path))
    with named_if_disk_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only the owner can read; a store is shared.
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def short_digest(data: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of some bytes, for names in a cache.

    >>> short_digest(b"abc")
    'ba7816bf8f01cfea'
    """
    return hashlib.sha256(data).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, reading a mebibyte at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_COPY_BYTES):
            digest.update(block)
    return digest.hexdigest()


class HashingWriter(io.RawIOBase):
    """A binary file that hashes what is written through it. Closing it leaves the file open.

    Example:
        >>> writer = HashingWriter(io.BytesIO())
        >>> writer.write(b"abc")
        3
        >>> writer.sha256[:8]
        'ba7816bf'
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, data: Any) -> int:
        """Write and hash."""
        self._digest.update(data)
        written = self._file.write(data)
        self.size_bytes += written
        return written

    @property
    def sha256(self) -> str:
        """Digest of everything written so far."""
        return self._digest.hexdigest()


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link, else (another file system) a symbolic link.

    Neither makes a second copy of the data.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
            raise
        os.symlink(source.resolve(), target)
