"""Where the packets of an MP4 file lie, told by its index before the packets are here.

    index first    ftyp  moov  mdat................
    index last     ftyp  mdat................  moov
    as rewritten   ftyp  moov' mdat......              offsets in moov' are moved by its length

Boxes are those of ISO/IEC 14496-12. Whatever is unusual is left to who reads the whole file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.timeline import open_media, picture_streams

# An hour of sound and pictures has an index of 2 MB.
MAX_INDEX_BYTES = 64 << 20

# The reader of pictures looks so far beyond the last one that is needed.
_PICTURE_MARGIN_SECONDS = 1.0
_FIRST = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_DATA = {b"mdat", b"moof", b"imda"}
_CONTAINERS = {b"trak", b"mdia", b"minf", b"stbl"}

# An index that is packed, or that more parts of the file go on with.
_UNUSUAL = {b"cmov", b"mvex"}
_OFFSETS: dict[bytes, np.dtype[Any]] = {b"stco": np.dtype(">u4"), b"co64": np.dtype(">u8")}


class Box(NamedTuple):
    """One box of a file: its content lies from `content` to `end`."""

    kind: bytes
    start: int
    content: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What comes first in a file.

    Attributes:
        index: the index, if it comes before the data; it need not be all here.
        data: the data, if they come before the index.
    """

    index: Box | None
    data: Box | None


class Needed(NamedTuple):
    """How much of a file is needed: up to `end_bytes`; `is_all`, if nothing more would come."""

    end_bytes: int
    is_all: bool


def read_layout(file: BinaryIO, here_bytes: int) -> Layout | None:
    """Look at the boxes a file begins with.

    Args:
        file: holds the beginning of a file.
        here_bytes: so much of it.

    Returns:
        ``None`` for what is no MP4 file, or an unusual one.
    """
    start = 0
    while box := _read_box(file, start, here_bytes):
        if start == 0 and box.kind not in _FIRST:
            return None
        if box.kind == b"moov":
            return Layout(box, None) if box.end - box.start <= MAX_INDEX_BYTES else None
        if box.kind in _DATA:
            return Layout(None, box) if box.kind == b"mdat" else None
        start = box.end
    return None


def _read_box(file: BinaryIO, start: int, here_bytes: int) -> Box | None:
    """Read the head of a box; ``None`` if it is not here or runs to the end of the file."""
    file.seek(start)
    head = file.read(min(16, max(0, here_bytes - start)))
    if len(head) < 8:
        return None
    size, kind = struct.unpack_from(">I4s", head)
    content = start + 8
    if size == 1:
        if len(head) < 16:
            return None
        size, content = struct.unpack_from(">Q", head, 8)[0], start + 16
    return Box(kind, start, content, start + size) if start + size >= content else None


def _boxes(data: memoryview, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes in a stretch of bytes.

    Raises:
        ValueError: they do not fill it.
    """
    while start < end:
        if end - start < 8:
            raise ValueError("a box is cut off")
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and end - start >= 16:
            size, content = struct.unpack_from(">Q", data, start + 8)[0], start + 16
        if not content <= start + size <= end:
            raise ValueError("a box does not fit into the one around it")
        yield Box(kind, start, content, start + size)
        start += size


def is_plain_index(index: bytes) -> bool:
    """Say whether an index (a whole ``moov`` box) lists every packet of its file."""
    try:
        (moov,) = _boxes(memoryview(index), 0, len(index))
        kinds = {box.kind for box in _boxes(memoryview(index), moov.content, moov.end)}
    except ValueError:
        return False
    return not kinds & _UNUSUAL


def moved_index(tail: bytes, data: Box) -> bytes | None:
    """Take the index out of what follows the data, and make it one that stands before them.

    Args:
        tail: all bytes of the file from the end of the data on.
        data: the data, where they lie in the file.

    Returns:
        The ``moov`` box to be put before the data; ``None`` if something is unusual.
    """
    try:
        boxes = list(_boxes(memoryview(tail), 0, len(tail)))
        (index,) = (box for box in boxes if box.kind == b"moov")
        if any(box.kind in _DATA for box in boxes):
            return None
        moved = bytearray(tail[index.start : index.end])
        if not is_plain_index(bytes(moved)):
            return None
        _move(moved, index.content - index.start, len(moved), data)
    except ValueError:
        return None
    return bytes(moved)


def _move(index: bytearray, start: int, end: int, data: Box) -> None:
    """Move the offsets of all chunks by the length of the index."""
    for box in list(_boxes(memoryview(index), start, end)):
        if box.kind in _CONTAINERS:
            _move(index, box.content, box.end, data)
        elif box.kind in _OFFSETS:
            kind = _OFFSETS[box.kind]
            # Four bytes of version and flags, four of the count, then the offsets.
            if box.end - box.content < 8:
                raise ValueError("a table of chunks without count")
            count = struct.unpack_from(">I", index, box.content + 4)[0]
            if box.content + 8 + count * kind.itemsize != box.end:
                raise ValueError("a table of chunks of another length than it says")
            offsets = np.frombuffer(index, kind, count, box.content + 8)
            index[box.content + 8 : box.end] = _moved(offsets, len(index), data).tobytes()


def _moved(offsets: npt.NDArray[Any], by: int, data: Box) -> npt.NDArray[Any]:
    if len(offsets) and not (data.content <= offsets.min() and offsets.max() < data.end):
        raise ValueError("a chunk outside the data")
    # What no longer fits into 32 bits lies beyond any prefix that is fetched.
    most = np.iinfo(offsets.dtype).max
    room = np.minimum(offsets.astype(np.uint64), np.uint64(most - by))
    return (room + np.uint64(by)).astype(offsets.dtype)


def needed_bytes(path: Path, *, seconds: float, sound: bool, pictures: bool) -> Needed | None:
    """Work out which prefix of a file holds its first seconds.

    Args:
        path: a file whose index is here and comes first; the data need not be here.
        seconds: from the start of the video.
        sound: packets of sound are needed.
        pictures: packets of pictures are needed.

    Returns:
        ``None`` if the index does not tell.
    """
    try:
        with open_media(path) as container:
            return _needed_bytes(container, seconds, sound=sound, pictures=pictures)
    except MediaError:
        return None


def _needed_bytes(container: Any, seconds: float, *, sound: bool, pictures: bool) -> Needed | None:
    # FFmpeg finds something in nearly any bytes, such as subtitles, with an index of its own.
    if "mp4" not in container.format.name.split(","):
        return None
    shown, heard = picture_streams(container)[:1], list(container.streams.audio)[:1]
    # As late on the container's clock as the video may start.
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (*shown, *heard)
        if stream.start_time is not None
    ]
    until = max(0.0, *starts) + seconds if starts else seconds
    ends: list[Needed] = []
    for needed, streams, margin in (
        (sound, heard, 0.0),
        (pictures, shown, _PICTURE_MARGIN_SECONDS),
    ):
        if needed and not streams:
            # The whole file would not have it either.
            return Needed(0, is_all=True)
        if needed:
            end = _stream_end(streams[0], until + margin)
            if end is None:
                return None
            ends.append(end)
    return Needed(max(one.end_bytes for one in ends), any(one.is_all for one in ends))


def _stream_end(stream: Any, until_seconds: float) -> Needed | None:
    """Return where a stream's packets end of which decoding starts before a time, and one more.

    A picture is never shown before it is decoded, so none that is shown by then is left out.
    """
    entries = getattr(stream, "index_entries", None)
    if not entries or not stream.time_base:
        return None
    tick = float(stream.time_base)
    end = 0
    for entry in entries:
        end = max(end, entry.pos + entry.size)
        if entry.timestamp * tick >= until_seconds:
            return Needed(end, is_all=False)
    return Needed(end, is_all=True)
