"""What damaged media make the libraries raise, in one place."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from voxblink2_lib.errors import MediaError, VoxBlink2Error, first_line

# What FFmpeg, PyAV, NumPy, Pillow, soxr and libsndfile raise at values that no encoder writes.
# Not what only wrong code raises, as TypeError and AttributeError: such a fault would spoil every
# video, and must not become the verdict of each.
_DAMAGE = (ValueError, ArithmeticError, IndexError, EOFError, BufferError, RuntimeError)
_FAULTS = (RecursionError, NotImplementedError)


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

    # FFmpeg's errors are of Python's classes as well. Its MemoryError means that the machine has
    # none left, or that a damaged file asked for more than FFmpeg ever gives; see below.
    if isinstance(error, MemoryError | UnknownCodecError | _FAULTS):
        return False
    return isinstance(error, (av.error.FFmpegError, struct.error, *_DAMAGE))
