"""A FLAC encoder of few words, written from RFC 9639: any sizes of blocks, in any order.

It compresses nothing but silence, so that the bytes of a frame can be chosen: samples are stored as
they are, and may spell what looks like another frame.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
RATE = 16_000
# Sizes of blocks that have a code of their own; section 9.1.1.
CODES = {192: 1, 576: 2, 1152: 3, 2304: 4, 4608: 5} | {
    256 << power: 8 + power for power in range(8)
}


class Encoded(NamedTuple):
    """A stream.

    Attributes:
        data: its bytes.
        offsets: of its frames, and its end.
        positions: of the first sample of each frame, and the number of all.
    """

    data: bytes
    offsets: list[int]
    positions: list[int]


def crc(data: bytes, polynomial: int, bits: int) -> bytes:
    """Return a checksum: the remainder of the data, shifted by its bits, by a polynomial."""
    value, remainders, mask = 0, _remainders(polynomial, bits), (1 << bits) - 1
    for byte in data:
        value = (value << 8) & mask ^ remainders[value >> (bits - 8) ^ byte]
    return value.to_bytes(bits // 8, "big")


@functools.cache
def _remainders(polynomial: int, bits: int) -> list[int]:
    """Return the checksum of each single byte, by long division."""
    return [_remainder(byte << bits, polynomial | 1 << bits, bits) for byte in range(256)]


def _remainder(value: int, divisor: int, bits: int) -> int:
    for shift in range(7, -1, -1):
        if value >> (bits + shift) & 1:
            value ^= divisor << shift
    return value


def coded(number: int) -> bytes:
    """Return a number in UTF-8's code, as far as that goes on: 36 bits."""
    if number < 0x80:
        return bytes([number])
    tail: list[int] = []
    while number >= 1 << (6 - len(tail)):
        tail.insert(0, 0x80 | number & 0x3F)
        number >>= 6
    return bytes([0xFF << (7 - len(tail)) & 0xFF | number, *tail])


def header(samples: int, number: int, *, is_variable: bool, says_form: bool = True) -> bytes:
    """Return the header of a frame.

    Args:
        samples: size of the block.
        number: of the frame; of its first sample, if sizes vary.
        is_variable: whether they do.
        says_form: whether it repeats rate and bits; otherwise STREAMINFO has them alone.
    """
    code, size = CODES.get(samples, 6 if samples <= 256 else 7), b""
    if code in {6, 7}:
        size = (samples - 1).to_bytes(code - 5, "big")
    rate, bits = (0x05, 0x08) if says_form else (0, 0)
    data = bytes([0xFF, 0xF9 if is_variable else 0xF8, code << 4 | rate, bits])
    data += coded(number) + size
    return data + crc(data, 0x07, 8)


def frame(pcm: Pcm, number: int, *, is_variable: bool, says_form: bool = True) -> bytes:
    """Return a frame: silence and the like as one sample, all else as it is."""
    data = header(len(pcm), number, is_variable=is_variable, says_form=says_form)
    if (pcm == pcm[0]).all():
        data += b"\x00" + pcm[:1].astype(">i2").tobytes()
    else:
        data += b"\x02" + pcm.astype(">i2").tobytes()
    return data + crc(data, 0x8005, 16)


# Four bytes for whoever wants them, which look like the beginning of a frame.
PADDING = b"\x81\x00\x00\x04\xff\xf8\xc5\x08"


def stream(
    pcm: Pcm,
    blocks: Sequence[int],
    *,
    is_variable: bool,
    says_form: bool = True,
    metadata: bytes = PADDING,
) -> Encoded:
    """Return a stream of frames of these sizes, after metadata that STREAMINFO precedes."""
    assert sum(blocks) == len(pcm)
    positions = [0, *np.cumsum(blocks).tolist()]
    frames = [
        frame(
            pcm[first:last],
            first if is_variable else index,
            is_variable=is_variable,
            says_form=says_form,
        )
        for index, (first, last) in enumerate(itertools.pairwise(positions))
    ]
    data = streaminfo(len(pcm), max(blocks)) + metadata
    ends = np.cumsum([len(data), *map(len, frames)]).tolist()
    return Encoded(data + b"".join(frames), ends, positions)


def streaminfo(samples: int, block: int) -> bytes:
    """Return the marker and the first block of metadata, not the last one; section 8.2."""
    form = RATE << 44 | 15 << 36 | samples
    sizes = 2 * max(16, block).to_bytes(2, "big") + bytes(6)
    return b"fLaC\x00\x00\x00\x22" + sizes + form.to_bytes(8, "big") + bytes(16)


def equal_blocks(samples: int, block: int) -> list[int]:
    """Return sizes of blocks that all but the last are equal."""
    rest = samples % block
    return [block] * (samples // block) + [rest] * bool(rest)
