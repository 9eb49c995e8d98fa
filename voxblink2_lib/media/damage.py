"""What damaged media make the libraries raise, in one place."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.errors import MediaError, VoxBlink2Error, first_line

# What NumPy, Pillow, soxr, libsndfile and PyAV itself raise at values that no encoder writes. Not
# what only wrong code raises, as TypeError and AttributeError: such a fault would spoil every
# video, and must not become the verdict of each.
_DAMAGE = (
    ValueError,
    ArithmeticError,
    IndexError,
    EOFError,
    BufferError,
    RuntimeError,
    struct.error,
)
_FAULTS = (MemoryError, RecursionError, NotImplementedError)

# Of FFmpeg's errors, those of the machine.
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE),
    *(errno.ESTALE, errno.ENOTCONN),
}

# More than FFmpeg needs at once for any file that is not damaged.
_PLENTY_BYTES = 256 << 20

_IS_MEMORY_DOUBTED = ContextVar("_IS_MEMORY_DOUBTED", default=False)


@contextlib.contextmanager
def named_if_damaged(path: Path) -> Iterator[None]:
    """Turn whatever damaged media make a library raise into an error that names the file.

    Errors of this library, of the machine (memory, disk, permissions, a codec that FFmpeg was built
    without) and of the program are left as they are.

    Args:
        path: the media file that is read meanwhile.

    Raises:
        MediaError: the file cannot be decoded.
    """
    try:
        yield
    except VoxBlink2Error:
        raise
    except Exception as error:
        if not _is_damage(error):
            raise
        kind = type(error).__name__
        message = first_line(error)
        raise MediaError(
            f"{path.name} cannot be decoded: {kind}" + f": {message}" * (message != kind)
        ) from error


@contextlib.contextmanager
def memory_doubted() -> Iterator[None]:
    """Take a lack of memory for the machine's fault, whatever memory there is a moment later.

    Another process may have taken it meanwhile. Only a file that is tried again while nothing else
    runs is judged without this.
    """
    token = _IS_MEMORY_DOUBTED.set(True)
    try:
        yield
    finally:
        _IS_MEMORY_DOUBTED.reset(token)


def _is_damage(error: Exception) -> bool:
    import av
    from av.codec.codec import UnknownCodecError

    if isinstance(error, UnknownCodecError | av.error.EncoderNotFoundError):
        return False  # FFmpeg was built without an encoder of the clips
    if isinstance(error, av.error.FFmpegError):
        return not is_of_the_machine(error)
    return isinstance(error, _DAMAGE) and not isinstance(error, _FAULTS)


def is_of_the_machine(error: Any) -> bool:
    """Return whether an error of FFmpeg's is not the media file's fault.

    FFmpeg has no memory for what some damaged files claim to contain, on any machine; see
    :func:`memory_doubted`.

    Args:
        error: an ``av.error.FFmpegError``; others are none of the machine's.
    """
    number = getattr(error, "errno", None)
    if number == errno.ENOMEM:
        return _IS_MEMORY_DOUBTED.get() or not _has_memory()
    return number in _OF_THE_MACHINE


def _has_memory() -> bool:
    try:
        np.empty(_PLENTY_BYTES, np.uint8)  # asked for, and not touched
    except MemoryError:
        return False
    return True
