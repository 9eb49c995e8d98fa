"""Ogg pages (RFC 3533): checksum, serial number, and whether a stream is whole."""

from __future__ import annotations

import zlib

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    # Ogg's checksum (RFC 3533) is zlib's polynomial without the bit reversals and inversions.
    plain = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{plain:032b}"[::-1], 2)


def with_ogg_serial(data: bytes, *, serial: int) -> bytes:
    """Return an Ogg stream with another serial number, which libsndfile draws from the clock."""
    pages: list[bytes] = []
    offset = 0
    while offset < len(data):
        lacing = data[offset + 27 : offset + 27 + data[offset + 26]]
        end = offset + 27 + len(lacing) + sum(lacing)
        page = bytearray(data[offset:end])
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = _ogg_crc(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
        offset = end
    return b"".join(pages)


def has_whole_pages(data: bytes) -> bool:
    """Compare the pages of an Ogg stream with their checksums (RFC 3533).

    libsndfile leaves a damaged page out, and what follows it comes too early.
    """
    start = 0
    while start < len(data):
        head = data[start : start + 27]
        if len(head) < 27:
            return False
        end = start + 27 + head[26] + sum(data[start + 27 : start + 27 + head[26]])
        page = head[:22] + bytes(4) + data[start + 26 : end]
        if _ogg_crc(page) != int.from_bytes(head[22:26], "little"):
            return False
        start = end
    return True
