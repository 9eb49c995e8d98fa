"""Crops of WAV: a slice of its samples."""

from __future__ import annotations

import mmap
import struct

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import SAMPLE_RATE_HZ

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def slice_samples(
    source: bytes | mmap.mmap,
    span: range,
    *,
    length: int,
    start: int,
    into: npt.NDArray[np.float32],
) -> bool:
    """Write some samples of a WAV file, the same to the bit as libsndfile's, into an array.

    Args:
        source: bytes among which the file is.
        span: of the bytes of the file in the source.
        length: of the file in samples.
        start: first sample.
        into: receives the samples in [-1, 1), shape (samples,).

    Returns:
        Whether they are there. If not, the file is not one of 16 bits at 16 kHz in one channel with
        nothing but these samples, as this package writes it.
    """
    header = source[span.start : span.start + _HEADER.size]
    if len(span) != _HEADER.size + 2 * length or header != _header(length):
        return False
    offset = span.start + _HEADER.size + 2 * start
    values = np.frombuffer(source, "<i2", len(into), offset)
    np.multiply(values, np.float32(1 / 32768), out=into)
    return True


def _header(samples: int) -> bytes:
    """Return the 44 bytes before the samples: RIFF, the chunk of the format, that of the data."""
    size, rate = 2 * samples, SAMPLE_RATE_HZ
    form = (b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return _HEADER.pack(b"RIFF", 36 + size, b"WAVE", *form, b"data", size)
