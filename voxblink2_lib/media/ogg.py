"""Pages of an Ogg stream (RFC 3533): checksums and the serial number."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_HEADER_BYTES = 27
_SERIAL = slice(14, 18)
_CHECKSUM = slice(22, 26)
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_ogg_serial(data: bytes, *, serial: int) -> bytes:
    """Return an Ogg stream with another serial number; libsndfile derives its own from the clock.

    Args:
        data: whole pages.
        serial: the new number, below 2 ** 32.
    """
    pages: list[bytes] = []
    for page in _pages(data):
        page[_SERIAL] = serial.to_bytes(4, "little")
        page[_CHECKSUM] = _checksum(page)
        pages.append(bytes(page))
    return b"".join(pages)


def has_whole_pages(data: bytes) -> bool:
    """Return whether all pages of an Ogg stream are complete and match their checksums.

    libsndfile skips a damaged page, which shifts the audio after it to an earlier time.
    """
    return all(
        len(page) >= _HEADER_BYTES and page[_CHECKSUM] == _checksum(page) for page in _pages(data)
    )


def _pages(data: bytes) -> Iterator[bytearray]:
    """Yield the pages of a stream; the last one is shorter if the stream is cut off."""
    start = 0
    while start < len(data):
        body = start + _HEADER_BYTES
        segments = data[body - 1] if body <= len(data) else 0
        end = body + segments + sum(data[body : body + segments])
        yield bytearray(data[start:end])
        start = end


def _checksum(page: bytearray) -> bytes:
    """Return the checksum of a page: zlib's polynomial without bit reversals and inversions."""
    blank = page.copy()
    blank[_CHECKSUM] = bytes(4)
    plain = zlib.crc32(blank.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{plain:032b}"[::-1], 2).to_bytes(4, "little")
