"""Inflate with the system's zlib, which can tell where a stream may be entered again.

Python's own ``zlib`` has no way to stop at the end of a deflate block and none to begin in the
middle of a byte. The functions used here are in zlib since 1.2.8: ``inflate`` with ``Z_BLOCK``,
``inflateGetDictionary``, ``inflateSetDictionary`` and ``inflatePrime`` (https://zlib.net/manual.html).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any, NamedTuple

from voxblink2_lib.errors import DependencyError

WINDOW_BYTES = 32 << 10
_RAW_DEFLATE = -15  # bits of the window; negative: without a header of zlib or gzip
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_NO_FLUSH, _BLOCK = 0, 5
# In ``data_type`` after ``inflate``.
_UNUSED_BITS, _IN_LAST_BLOCK, _AT_BLOCK_END = 7, 64, 128


class DeflateError(ValueError):
    """The data are no deflate stream; the message is zlib's."""


class _Stream(ctypes.Structure):
    """``z_stream`` of ``zlib.h``."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@functools.cache
def _zlib() -> Any:
    """Load the library.

    Raises:
        DependencyError: the machine has none.
    """
    name = ctypes.util.find_library("z") or "libz.so.1"
    try:
        library = ctypes.CDLL(name)
        library.zlibVersion.restype = ctypes.c_char_p
        library.inflateGetDictionary  # noqa: B018  # raises where zlib is older than 1.2.8
    except (OSError, AttributeError) as error:
        raise DependencyError(
            f"The system's zlib is missing or too old ({error}); archives are read with it. "
            "Install it, for example with 'apt install zlib1g'."
        ) from error
    return library


class Entrance(NamedTuple):
    """Where a deflate stream can be entered.

    Attributes:
        bits: how many bits of the byte before belong to what follows.
        byte_before: that byte.
        window: the last 32 KiB of output before.
    """

    bits: int
    byte_before: int
    window: bytes


START = Entrance(0, 0, b"")


class RawInflater:
    """Inflates one deflate stream. Close it, as its memory is zlib's.

    Args:
        entrance: where the first input begins.

    Attributes:
        is_at_end: the stream has ended.
    """

    def __init__(self, entrance: Entrance = START) -> None:
        self._zlib = _zlib()
        self._stream = _Stream()
        self.is_at_end = False
        self._check(
            self._zlib.inflateInit2_(
                ctypes.byref(self._stream),
                _RAW_DEFLATE,
                self._zlib.zlibVersion(),
                ctypes.sizeof(_Stream),
            )
        )
        if entrance.bits:
            value = entrance.byte_before >> (8 - entrance.bits)
            self._check(self._zlib.inflatePrime(ctypes.byref(self._stream), entrance.bits, value))
        if entrance.window:
            self._check(
                self._zlib.inflateSetDictionary(
                    ctypes.byref(self._stream), entrance.window, len(entrance.window)
                )
            )

    def close(self) -> None:
        """Free zlib's memory."""
        self._zlib.inflateEnd(ctypes.byref(self._stream))

    def inflate(
        self, data: memoryview, target: memoryview, *, stop_at_block: bool
    ) -> tuple[int, int]:
        """Inflate some input.

        Args:
            data: what follows in the stream; its buffer is writable.
            target: where the output is written.
            stop_at_block: stop at the next end of a block.

        Returns:
            How many bytes of output there are, and how many bytes of the input are used up.

        Raises:
            DeflateError: the data are damaged.
        """
        stream = self._stream
        # They hold the buffers where they are, until this returns.
        source, output = _first_byte(data), _first_byte(target)
        stream.next_in, stream.avail_in = ctypes.addressof(source), len(data)
        stream.next_out, stream.avail_out = ctypes.addressof(output), len(target)
        flush = _BLOCK if stop_at_block else _NO_FLUSH
        code = self._zlib.inflate(ctypes.byref(stream), flush)
        if code != _BUFFER_ERROR:  # it has no input left, or wants none
            self._check(code)
        self.is_at_end = code == _STREAM_END
        return len(target) - stream.avail_out, len(data) - stream.avail_in

    def entrance(self, byte_before: int) -> Entrance | None:
        """Return where the stream can be entered now, or ``None`` within a block.

        Args:
            byte_before: the last byte of input that is used up.
        """
        state = self._stream.data_type
        if not state & _AT_BLOCK_END or state & _IN_LAST_BLOCK:
            return None
        window, size = ctypes.create_string_buffer(WINDOW_BYTES), ctypes.c_uint()
        self._check(
            self._zlib.inflateGetDictionary(ctypes.byref(self._stream), window, ctypes.byref(size))
        )
        return Entrance(state & _UNUSED_BITS, byte_before, window.raw[: size.value])

    def _check(self, code: int) -> None:
        if code not in {_OK, _STREAM_END}:
            message = self._stream.msg or b"code %d" % code
            raise DeflateError(message.decode("ascii", "replace"))


def _first_byte(buffer: memoryview) -> ctypes.c_char:
    return ctypes.c_char.from_buffer(buffer)
