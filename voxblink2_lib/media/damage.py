"""What damaged media make the libraries raise, in one place."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
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
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}

# More than FFmpeg needs at once for any file that is not damaged.
_PLENTY_BYTES = 256 << 20


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

    FFmpeg has no memory for what some damaged files claim to contain, on any machine.

    Args:
        error: an ``av.error.FFmpegError``.
    """
    if error.errno == errno.ENOMEM:
        return not _has_memory()
    return error.errno in _OF_THE_MACHINE


def _has_memory() -> bool:
    try:
        np.empty(_PLENTY_BYTES, np.uint8)  # asked for, and not touched
    except MemoryError:
        return False
    return True
