"""Byte positions of MP4 packets, from the ``moov`` box, before the data is downloaded.

    index first    ftyp  moov  mdat................
    index last     ftyp  mdat................  moov
    as rewritten   ftyp  moov' mdat......              offsets in moov' are moved by its length

Boxes are those of ISO/IEC 14496-12. Unusual files are left to a reader of the whole file.
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
from voxblink2_lib.media.container import open_media
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.media.tracks import audio_streams, has_audio, has_video, video_stream

# The index of an hour of audio and video has 2 MB.
MAX_INDEX_BYTES = 64 << 20

# The decoder of video reads this far beyond the last frame that is needed.
_VIDEO_MARGIN_SECONDS = 1.0

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_DATA_BOXES = {b"mdat", b"moof", b"imda"}
_CONTAINER_BOXES = {b"trak", b"mdia", b"minf", b"stbl"}

# A compressed index, or one that later parts of the file continue.
_UNUSUAL_BOXES = {b"cmov", b"mvex"}
_OFFSET_TYPES: dict[bytes, np.dtype[Any]] = {b"stco": np.dtype(">u4"), b"co64": np.dtype(">u8")}


class Box(NamedTuple):
    """One box of a file.

    Attributes:
        kind: its four-character code.
        start: position of its first byte.
        content: position after its header.
        end: position after its last byte.
    """

    kind: bytes
    start: int
    content: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What is stored first in a file.

    Attributes:
        index: the index, if it is stored before the data; it may extend beyond the local part.
        data: the data, if they are stored before the index.
    """

    index: Box | None
    data: Box | None


class NeededPrefix(NamedTuple):
    """How much of a file is needed.

    Attributes:
        end_bytes: position after the last byte needed.
        is_all: whether the rest of the file contains none of the streams needed.
    """

    end_bytes: int
    is_all: bool


def read_layout(file: BinaryIO, size_bytes: int) -> Layout | None:
    """Read which boxes an MP4 file begins with.

    Args:
        file: the local part of a file.
        size_bytes: size of this part.

    Returns:
        ``None`` if it is not an MP4 file, or an unusual one.
    """
    start = 0
    while box := _read_box(file, start, size_bytes):
        if start == 0 and box.kind not in _FIRST_BOXES:
            return None
        if box.kind == b"moov":
            return Layout(box, None) if box.end - box.start <= MAX_INDEX_BYTES else None
        if box.kind in _DATA_BOXES:
            return Layout(None, box) if box.kind == b"mdat" else None
        start = box.end
    return None


def _read_box(file: BinaryIO, start: int, size_bytes: int) -> Box | None:
    """Read a box's header; ``None`` if it is not local or the box extends to the file's end."""
    if size_bytes - start < 8:
        return None  # a size may be more than a file can be positioned at
    file.seek(start)
    head = file.read(min(16, size_bytes - start))
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
    """Yield the boxes in a range of bytes.

    Raises:
        ValueError: they do not fill it.
    """
    while start < end:
        if end - start < 8:
            raise ValueError("a box is truncated")
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and end - start >= 16:
            size, content = struct.unpack_from(">Q", data, start + 8)[0], start + 16
        if not content <= start + size <= end:
            raise ValueError("a box does not fit into the one around it")
        yield Box(kind, start, content, start + size)
        start += size


def is_plain_index(index: bytes) -> bool:
    """Return whether an index (a whole ``moov`` box) lists every packet of its file."""
    try:
        (moov,) = _boxes(memoryview(index), 0, len(index))
        kinds = {box.kind for box in _boxes(memoryview(index), moov.content, moov.end)}
    except ValueError:
        return False
    return not kinds & _UNUSUAL_BOXES


def moved_index(tail: bytes, data: Box) -> bytes | None:
    """Return the index that follows the data, rewritten to be stored before the data.

    Args:
        tail: all bytes of the file after the data.
        data: the box of the data.

    Returns:
        The ``moov`` box to insert before the data; ``None`` if something is unusual.
    """
    try:
        boxes = list(_boxes(memoryview(tail), 0, len(tail)))
        (index,) = (box for box in boxes if box.kind == b"moov")
        if any(box.kind in _DATA_BOXES for box in boxes):
            return None
        moved = bytearray(tail[index.start : index.end])
        if not is_plain_index(bytes(moved)):
            return None
        _move_offsets(moved, index.content - index.start, len(moved), data)
    except ValueError:
        return None
    return bytes(moved)


def _move_offsets(index: bytearray, start: int, end: int, data: Box) -> None:
    """Increase the offsets of all chunks by the length of the index."""
    ranges = [(start, end)]  # of boxes; not by recursion, as foreign boxes may be nested deeply
    while ranges:
        for box in list(_boxes(memoryview(index), *ranges.pop())):
            if box.kind in _CONTAINER_BOXES:
                ranges.append((box.content, box.end))
            elif box.kind in _OFFSET_TYPES:
                _move_table(index, box, data)


def _move_table(index: bytearray, box: Box, data: Box) -> None:
    dtype = _OFFSET_TYPES[box.kind]
    # Four bytes of version and flags, four of the count, then the offsets.
    if box.end - box.content < 8:
        raise ValueError("a table of chunks has no count")
    count = struct.unpack_from(">I", index, box.content + 4)[0]
    if box.content + 8 + count * dtype.itemsize != box.end:
        raise ValueError("a table of chunks does not have the length that it states")
    offsets = np.frombuffer(index, dtype, count, box.content + 8)
    index[box.content + 8 : box.end] = _moved_offsets(offsets, len(index), data).tobytes()


def _moved_offsets(offsets: npt.NDArray[Any], by: int, data: Box) -> npt.NDArray[Any]:
    if len(offsets) and not (data.content <= offsets.min() and offsets.max() < data.end):
        raise ValueError("a chunk is outside the data")
    # Offsets that no longer fit into 32 bits are beyond any prefix that is downloaded.
    most = np.iinfo(offsets.dtype).max
    limited = np.minimum(offsets.astype(np.uint64), np.uint64(most - by))
    return (limited + np.uint64(by)).astype(offsets.dtype)


def needed_bytes(path: Path, *, seconds: float, audio: bool, video: bool) -> NeededPrefix | None:
    """Compute which prefix of a file contains its first seconds.

    Args:
        path: a file that begins with its whole index; the data may be missing.
        seconds: from the start of the video.
        audio: whether packets of audio are needed.
        video: whether packets of video are needed.

    Returns:
        ``None`` if the index does not determine it.
    """
    try:
        with named_if_damaged(path), open_media(path) as container:
            return _needed_bytes(container, seconds, audio=audio, video=video)
    except MediaError:
        return None


def _needed_bytes(
    container: Any, seconds: float, *, audio: bool, video: bool
) -> NeededPrefix | None:
    # FFmpeg recognizes nearly any bytes as some format, such as subtitles, with its own index.
    if "mp4" not in container.format.name.split(","):
        return None
    films = [video_stream(container)] if has_video(container) else []
    # Of several tracks any may be cropped: the user's choice, or one that is not silent.
    sounds = audio_streams(container) if has_audio(container) else []
    # The latest time on the container's clock at which the video may start.
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (*films, *sounds)
        if stream.start_time is not None
    ]
    until = max(0.0, *starts) + seconds if starts else seconds
    ends: list[NeededPrefix] = []
    for is_needed, streams, margin in (
        (audio, sounds, 0.0),
        (video, films, _VIDEO_MARGIN_SECONDS),
    ):
        if is_needed and not streams:
            # The whole file does not contain it either.
            return NeededPrefix(0, is_all=True)
        for stream in streams if is_needed else ():
            end = _stream_end(stream, until + margin)
            if end is None:
                return None
            ends.append(end)
    return NeededPrefix(max(end.end_bytes for end in ends), any(end.is_all for end in ends))


def _stream_end(stream: Any, until_seconds: float) -> NeededPrefix | None:
    """Return the end of the packets that are decoded before a time, and of one more.

    A frame is never displayed before it is decoded, so the prefix includes every frame that is
    displayed by then.
    """
    entries = getattr(stream, "index_entries", None)
    if not entries or not stream.time_base:
        return None
    tick = float(stream.time_base)
    end = 0
    for entry in entries:
        end = max(end, entry.pos + entry.size)
        if entry.timestamp * tick >= until_seconds:
            return NeededPrefix(end, is_all=False)
    return NeededPrefix(end, is_all=True)
