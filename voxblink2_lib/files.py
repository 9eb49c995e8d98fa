"""Atomic writes, checksums, links, and the errors of the system in words."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from voxblink2_lib.errors import StoreDiskError, StoreError, StoreFullError, StoreReadOnlyError
from voxblink2_lib.progress import Advance

HOME_VARIABLE = "VOXBLINK2_HOME"

# What atomic_write leaves behind when its process is killed.
TEMP_GLOB = ".*.tmp"
_COPY_BYTES = 1 << 20
_BEHIND_BYTES = 16 << 20

# What file systems answer that do not have an operation: FAT, CIFS, FUSE.
_NOT_SUPPORTED = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY}
_NO_FOLDER_FLUSH = {errno.EINVAL, errno.EBADF, errno.EISDIR, errno.EACCES}
# Links between file systems, and of a file with as many as can be, are not possible either.
_NO_LINK = _NOT_SUPPORTED | {errno.EXDEV, errno.EMLINK}


def home_folder() -> Path:
    """Return the folder of default stores and state: ``VOXBLINK2_HOME``, else in the cache."""
    home = os.environ.get(HOME_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(home).expanduser() if home else Path(cache) / "voxblink2").absolute()


class _Answer(NamedTuple):
    """What an answer of the system means for a run, and what its user can do."""

    kind: type[StoreError]
    problem: str
    remedy: str


# What Python and Arrow say, neither with a class of its own.
_NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
_NO_SPACE = "free some space"
_OPEN_FILES = "raise the limit, as with 'ulimit -n 65536', or use fewer workers"
_BROKEN_DISK = "check the disk and the messages of the system, as with 'dmesg'"
_NETWORK_DISK = "the file system was unmounted, or its server is gone: mount it again"
# Answers that any operation on a file may get, whatever file it is.
_ANSWERS = {
    errno.ENOSPC: _Answer(StoreFullError, "No space is left for {path}", _NO_SPACE),
    errno.EDQUOT: _Answer(StoreFullError, "No space is left for {path} in your quota", _NO_SPACE),
    errno.EFBIG: _Answer(
        StoreError,
        "{path} would be larger than is allowed here",
        "lift the limit, as with 'ulimit -f unlimited', or put the store on a file system that "
        "takes files of any size (FAT ends at 4 GiB)",
    ),
    errno.EAGAIN: _Answer(  # of files only those that are no files; else of starting a process
        StoreError,
        "No other process or thread can be started for {path}",
        "raise the limit ('ulimit -u', or that of the container), or use fewer workers",
    ),
    errno.EIO: _Answer(StoreDiskError, "{path} cannot be read or written", _BROKEN_DISK),
    errno.EMFILE: _Answer(StoreError, "{path} cannot be opened", _OPEN_FILES),
    errno.ENFILE: _Answer(StoreDiskError, "{path} cannot be opened", "end other programs"),
    errno.ESTALE: _Answer(StoreDiskError, "{path} is not reachable any more", _NETWORK_DISK),
    errno.ENOTCONN: _Answer(StoreDiskError, "{path} is not reachable any more", _NETWORK_DISK),
    errno.ENOLCK: _Answer(
        StoreDiskError,
        "{path} cannot be locked",
        "wait until the lock service of its file system answers",
    ),
    errno.EROFS: _Answer(
        StoreReadOnlyError,
        "{path} cannot be written to any more",
        "a system makes a disk read-only when it fails: check it, mount it for writing",
    ),
    errno.ENAMETOOLONG: _Answer(
        StoreError,
        "{path} has a name that is too long for its file system",
        "name a store with a shorter path, or on another file system",
    ),
}


def system_error(error: BaseException, path: Path) -> StoreError | None:
    """Return what the system answered to an operation on a file as an error of ours.

    Args:
        error: what was raised; it names the file itself, or not.
        path: the file or folder that was used, if the error names none.

    Returns:
        The error, or ``None`` if it is not one that any file may get.
    """
    number = error.errno or 0 if isinstance(error, OSError) else 0
    if any(words in str(error) for words in _NO_THREAD):
        number = errno.EAGAIN
    answer = _ANSWERS.get(number)
    if answer is None:
        return None
    problem = answer.problem.format(path=_named_by(error) or path)
    if answer.kind is not StoreFullError:
        problem += f" ({os.strerror(number)})"
    remedy = answer.remedy + "," * ("," in answer.remedy)
    return answer.kind(
        f"{problem}. Everything finished is kept: {remedy} and run the same command again."
    )


def _named_by(error: BaseException) -> str:
    """Return the file that an error names; empty if it names none, or one of atomic_write's own."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or getattr(error, "errno", 0) == errno.EAGAIN:
        return ""
    return "" if fnmatch.fnmatch(os.path.basename(name), TEMP_GLOB) else name


@contextlib.contextmanager
def named_system_errors(path: Path) -> Iterator[None]:
    """Turn what the system answers to any file (a full disk, a broken one) into a sentence.

    Args:
        path: what is named where the error names no file.

    Raises:
        StoreFullError: no space is left.
        StoreDiskError: the disk failed; running again helps once it works.
        StoreReadOnlyError: the disk has become read-only.
        StoreError: a limit of the system or the file system is too low.
    """
    try:
        yield
    except Exception as error:
        named = system_error(error, path)
        if named is None:
            raise
        raise named from error


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
        StoreError: the disk is full, fails, or allows no such file; see
            :func:`named_system_errors`.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "a device or a pipe is there, name a file", str(path))
    with named_system_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only the owner can read; a store is shared.
            with _ignored(_NOT_SUPPORTED):
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
    """Flush a folder, so that a rename in it survives a power cut, where its disk can do that."""
    with _ignored(_NOT_SUPPORTED | _NO_FOLDER_FLUSH):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _ignored(numbers: set[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def short_digest(data: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of some bytes, for names in a cache.

    >>> short_digest(b"abc")
    'ba7816bf8f01cfea'
    """
    return hashlib.sha256(data).hexdigest()[:16]


def sha256_of(path: Path, *, advance: Advance | None = None) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, reading a mebibyte at a time.

    Args:
        path: the file.
        advance: called with the number of bytes read since the last call.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_COPY_BYTES):
            digest.update(block)
            if advance is not None:
                advance(len(block))
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

    def take_note(self, data: Any) -> None:
        """Hash what is in the file already."""
        self._digest.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        """Digest of everything written so far."""
        return self._digest.hexdigest()


class WriteBehind:
    """Brings a file to disk while more is written to it, so that little is left for the end.

    What is on disk leaves the memory of the system, which is used for what is written next: files
    larger than it would push out all else, and memory that is new costs more than the writing.

    Args:
        file: the file, open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._begun_bytes = 0

    def begin(self) -> None:
        """Begin to bring to disk what was written so far, if that is worth it.

        Raises:
            OSError: something could not be brought to disk.
        """
        size_bytes = self._file.tell()
        if size_bytes - self._begun_bytes >= _BEHIND_BYTES:
            self._wait()
            self._file.flush()
            self._begun_bytes = size_bytes
            self._pending = self._thread.submit(self._bring, size_bytes)

    def finish(self) -> None:
        """Bring all to disk, and wait for it.

        Raises:
            OSError: something could not be brought to disk.
        """
        self._wait()
        self._file.flush()
        self._bring(self._file.tell())

    def close(self) -> None:
        """End the thread. The file stays open."""
        self._thread.shutdown()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _bring(self, size_bytes: int) -> None:
        os.fsync(self._file.fileno())
        if size_bytes >= _BEHIND_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, size_bytes, os.POSIX_FADV_DONTNEED)


def link_file(source: Path, target: Path) -> bool:
    """Give a file a second name: a hard link, else (another file system) a symbolic link.

    Neither makes a second copy of the data.

    Returns:
        Whether the file has the name; not where the file system of the target takes no links.
    """
    for link, name in ((os.link, source), (os.symlink, source.resolve())):
        with _ignored(_NO_LINK):
            link(name, target)
            return True
    return False
