"""Crops of FLAC, of which only the frames that hold them are decoded.

A frame begins with a header that says which samples it has (RFC 9639, section 9.1). So the frames
of a crop are found in the bytes of a stream without a seek, for which libsndfile decodes more. They
are decoded by dr_flac, which the package miniaudio contains.

dr_flac leaves out a frame whose checksum (CRC-16) is wrong, and samples may spell a frame of their
own. The headers say how many samples there have to be, so that both show: as fewer, or more. What
is unusual or damaged is left to libsndfile, which has the last word.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.records import SAMPLE_RATE_HZ

try:
    # Its module of bindings: the rest of miniaudio, for sound cards, takes a tenth of a second.
    from _miniaudio import ffi, lib
except ImportError:
    lib = None

Source = bytes | mmap.mmap

_STREAMINFO_BYTES = 42  # with the marker and the header of its block
_HEADER_BYTES = 16  # the most that a frame header may have, by RFC 9639
_BLOCK_SAMPLES = (0, 192, *(144 << code for code in range(2, 6)), 0, 0)
_BLOCK_SAMPLES += tuple(256 << code for code in range(8))
_MONO_16_BIT = (0x00, 0x08)  # the latter says 16 bits itself, the former leaves it to STREAMINFO
_OUR_RATE = (0x0, 0x5)  # the same of 16 kHz


def _crc8_of_byte(value: int) -> int:
    for _ in range(8):
        value = (value << 1) ^ (0x107 if value & 0x80 else 0)
    return value


_CRC8 = bytes(map(_crc8_of_byte, range(256)))


def decode_crop(
    source: Source, span: range, *, length: int, start: int, into: npt.NDArray[np.float32]
) -> bool:
    """Write some samples of a FLAC stream, the same to the bit as libsndfile's, into an array.

    Args:
        source: bytes among which the stream is.
        span: of the bytes of the stream in the source.
        length: of the stream in samples.
        start: first sample.
        into: receives the samples in [-1, 1), shape (samples,).

    Returns:
        Whether they are there. If not, the stream is left to libsndfile: it is damaged, not of 16
        bits at 16 kHz in one channel, in Ogg, or miniaudio is not installed.
    """
    stream = _open(source, span, length) if lib is not None and len(into) else None
    first = stream.frame_with(start) if stream else None
    if stream is None or first is None or not stream.is_in_sequence(first):
        return False
    last = stream.boundary(start + len(into), first)
    if last is None:
        return False
    # The end of STREAMINFO is made the end of the metadata.
    head = b"fLaC\x80" + source[span.start + 5 : span.start + _STREAMINFO_BYTES]
    data = head + memoryview(source)[first.offset : last.offset]
    before, after = start - first.position, last.position - start - len(into)
    return _decode(data, before, into, after)


def _decode(data: bytes, before: int, into: npt.NDArray[np.float32], after: int) -> bool:
    """Decode a stream; return whether it has so many samples before, in, and after an array."""
    decoder = lib.ma_dr_flac_open_memory(data, len(data), ffi.NULL)
    if not decoder:
        return False
    read, buffer = lib.ma_dr_flac_read_pcm_frames_f32, ffi.from_buffer("float[]", into)
    try:
        return bool(
            read(decoder, before, ffi.NULL) == before
            and read(decoder, len(into), buffer) == len(into)
            and read(decoder, after + 1, ffi.NULL) == after
        )
    finally:
        lib.ma_dr_flac_close(decoder)


class _Frame(NamedTuple):
    """A frame; or, without samples, the end of a stream.

    Attributes:
        offset: of its first byte.
        position: of its first sample in the stream.
        samples: their number.
    """

    offset: int
    position: int
    samples: int

    @property
    def end(self) -> int:
        """The position after its last sample."""
        return self.position + self.samples


class _Stream(NamedTuple):
    """The frames of a stream.

    Attributes:
        source: bytes among which they are.
        sync: the first two bytes of each of them.
        block: samples of each frame but the last; of variable sizes, the most.
        first: of the frames.
        end: of the stream.
    """

    source: Source
    sync: bytes
    block: int
    first: _Frame
    end: _Frame

    @property
    def is_fixed(self) -> bool:
        """Whether all blocks but the last are equally long, and headers count frames."""
        return self.sync == b"\xff\xf8"

    def frame_with(self, sample: int, low: _Frame | None = None) -> _Frame | None:
        """Find the frame that holds a sample.

        The search interpolates between a frame before (``low``) and one after, and if that does
        not end it soon, halves the bytes between.
        """
        low, high, probes = low or self.first, self.end, 0
        while sample >= low.end:
            guess = (
                self._guess(sample, low, high) if probes < 8 else (low.offset + high.offset) // 2
            )
            guess, probes = max(guess, low.offset + 1), probes + 1
            frame = self._next(guess, low, high)
            if frame is None and guess == low.offset + 1:
                return None  # no header between neighbours that are no neighbours
            if frame is None:
                high = high._replace(offset=guess)
            elif frame.position > sample:
                high = frame
            else:
                low = frame
        return low

    def is_in_sequence(self, frame: _Frame) -> bool:
        """Return whether the next header before a frame is of the frame before it."""
        offset, before = frame.offset, None
        while before is None and offset > self.first.offset:
            offset = self.source.rfind(self.sync, self.first.offset, offset)
            before = self.frame_at(offset)
        return frame == self.first if before is None else before.end == frame.position

    def boundary(self, sample: int, low: _Frame) -> _Frame | None:
        """Find the first frame that begins at a sample or after it, or the end of the stream."""
        if self.is_fixed:  # known without the frame before
            sample += -sample % self.block
        if sample >= self.end.position:
            return self.end
        frame = self.frame_with(sample, low)
        if frame is None or frame.position >= sample:
            return frame
        following = self._next(frame.offset + 1, frame, self.end)
        if following is None:
            return self.end if frame.end == self.end.position else None
        return following if following.position == frame.end else None

    def _guess(self, sample: int, low: _Frame, high: _Frame) -> int:
        """Return an offset in the middle of the frame before the one that holds a sample."""
        if self.is_fixed:
            sample -= sample % self.block
        wanted = sample - self.block // 2 - low.position
        share = wanted / (high.position - low.position)
        return low.offset + int(share * (high.offset - low.offset))

    def _next(self, offset: int, low: _Frame, high: _Frame) -> _Frame | None:
        """Return the first frame from an offset on that may lie between two others."""
        end = high.offset + len(self.sync) - 1  # it begins before the other one, at most
        while (offset := self.source.find(self.sync, offset, end)) >= 0:
            frame = self.frame_at(offset)
            if frame and low.end <= frame.position and frame.end <= high.position:
                return frame
            offset += 1
        return None

    def frame_at(self, offset: int) -> _Frame | None:
        """Read the header at an offset; ``None`` if there is none that belongs to this stream."""
        stop = min(offset + _HEADER_BYTES, self.end.offset)
        header = self.source[offset:stop].ljust(_HEADER_BYTES, b"\0")
        if header[2] & 15 not in _OUR_RATE or header[3] not in _MONO_16_BIT:
            return None
        number, after = _coded_number(header)
        samples, after = _block_samples(header, after)
        if _crc8(header[:after]) != header[after]:
            return None
        frame = _Frame(offset, number * self.block if self.is_fixed else number, samples)
        is_whole = samples == self.block or frame.end == self.end.position
        return frame if 0 < samples <= self.block and (is_whole or not self.is_fixed) else None


def _open(source: Source, span: range, length: int) -> _Stream | None:
    """Return a stream, if it is of the usual form and has so many samples."""
    head = source[span.start : span.start + _STREAMINFO_BYTES]
    if len(head) < _STREAMINFO_BYTES or head[:4] + head[5:8] != b"fLaC\0\0\x22" or head[4] & 0x7F:
        return None
    block, form = struct.unpack(">H6xQ", head[10:26])
    # Rate, channels less one, bits less one, and samples share 64 bits (RFC 9639, section 8.2).
    if form != SAMPLE_RATE_HZ << 44 | 15 << 36 | length:
        return None
    offset = _first_frame_offset(source, span)
    end = _Frame(span.stop, length, 0)
    stream = _Stream(source, source[offset : offset + 2], block, end, end)
    first = stream.frame_at(offset) if stream.sync in {b"\xff\xf8", b"\xff\xf9"} else None
    return stream._replace(first=first) if first and not first.position else None


def _first_frame_offset(source: Source, span: range) -> int:
    """Return where the metadata ends; the end of the span if that is not inside."""
    offset, is_last = span.start + 4, False
    while not is_last and offset + 4 <= span.stop:
        is_last = bool(source[offset] & 0x80)
        offset += 4 + int.from_bytes(source[offset + 1 : offset + 4], "big")
    return min(offset, span.stop)


def _coded_number(header: bytes) -> tuple[int, int]:
    """Return the number of the frame or sample, coded as UTF-8 is, and the index after it."""
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    if not ones:
        return header[4], 5
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 4 + ones]:
        number = number << 6 | byte & 0x3F
    return number, 4 + ones


def _block_samples(header: bytes, after: int) -> tuple[int, int]:
    """Return the number of samples, and the index after what the header says about it."""
    code = header[2] >> 4
    if code in {6, 7}:
        end = after + code - 5
        return int.from_bytes(header[after:end], "big") + 1, end
    return _BLOCK_SAMPLES[code], after


def _crc8(data: bytes) -> int:
    """Return the checksum of RFC 9639, section 9.1.8: polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
