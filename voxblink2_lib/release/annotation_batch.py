"""Read many annotation files at once: the numbers of well-formed ones by arithmetic on arrays.

Nearly all files have a header of ASCII lines, and then five plain integers a line. Those are read
here, many files in one array of bytes. Whatever differs is read by :func:`read_annotation`, which
also says what is wrong with a file, so that the result is that of reading each file by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from voxblink2_lib.release.annotation import (
    Header,
    digest_of,
    ids_of_path,
    read_annotation,
    read_header,
)
from voxblink2_lib.release.annotation_files import FileBatch
from voxblink2_lib.release.index import BOX_COLUMNS, UTTERANCE_COLUMNS

# So many bytes of numbers are one array: what is made of it stays in the processor's cache.
_PIECE_BYTES = 128 << 10
_MAX_DIGITS = 5
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"
_TITLES = b"\nFRAME"
_IN_HEADER = bytes([_TAB, _NEWLINE, *range(ord(" "), 127)])
_INT16 = np.iinfo(np.int16)
_DUPLICATE = "the release has this utterance twice; the first is kept"

ROW_COLUMNS = pa.schema(
    [("file", pa.int32()), *UTTERANCE_COLUMNS, ("digest", pa.int64()), *BOX_COLUMNS]
)


class Reject(NamedTuple):
    """A file that is left out: its number in the batch, its path, and the reason."""

    file: int
    path: str
    reason: str


class AnnotatedBatch(NamedTuple):
    """What the files of a batch say.

    Attributes:
        rows: one of each annotation, columns as in ``ROW_COLUMNS``.
        rejects: the other files.
    """

    rows: pa.RecordBatch
    rejects: list[Reject]


class _Row(NamedTuple):
    """An annotation: the columns before the boxes, and frames (n,) with boxes (n, 4)."""

    values: tuple[Any, ...]
    frames: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int16]


def read_batch(batch: FileBatch) -> AnnotatedBatch:
    """Read the annotations of a batch, in the order of its files.

    An utterance that a run of files of one video has twice is read once.
    """
    rows: list[_Row] = []
    rejects: list[Reject] = []
    video: tuple[str, ...] | None = None
    names: set[str] = set()
    for number, answer in enumerate(_answers(batch)):
        if isinstance(answer, str):
            rejects.append(Reject(number, batch.paths[number], answer))
            continue
        key, name = answer.values[:2], answer.values[2]
        if key != video:
            video, names = key, set()
        if name in names:
            rejects.append(duplicate(batch, number))
            continue
        names.add(name)
        rows.append(answer._replace(values=(number, *answer.values)))
    return AnnotatedBatch(_record_batch(rows), rejects)


def duplicate(batch: FileBatch, number: int) -> Reject:
    """Return the reject of a file whose utterance the index has already."""
    return Reject(number, batch.paths[number], _DUPLICATE)


def _record_batch(rows: list[_Row]) -> pa.RecordBatch:
    columns: list[Any] = [
        list(column) for column in zip(*(row.values for row in rows), strict=True)
    ]
    plain = ROW_COLUMNS.names[: -len(BOX_COLUMNS)]
    arrays = [
        pa.array(values, ROW_COLUMNS.field(name).type)
        for name, values in zip(plain, columns or [[]] * len(plain), strict=True)
    ]
    empty = _Row((), np.empty(0, np.int32), np.empty((0, 4), np.int16))
    frames = np.concatenate([row.frames for row in rows or [empty]])
    boxes = np.concatenate([row.boxes for row in rows or [empty]])
    ends = accumulate((len(row.frames) for row in rows), initial=0)
    offsets = pa.array(np.fromiter(ends, np.int32, len(rows) + 1))
    for values in (frames, *np.ascontiguousarray(boxes.T)):
        arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values)))
    return pa.RecordBatch.from_arrays(arrays, schema=ROW_COLUMNS)


# -- One file after the other ----------------------------------------------------------------------


class _Parts(NamedTuple):
    """A well-formed file: its ids, its header, and the bytes of its numbers."""

    ids: tuple[str, str, str]
    header: Header
    body: bytes


def _answers(batch: FileBatch) -> Iterator[_Row | str]:
    """Yield of each file what it says, or why it is rejected."""
    piece: list[tuple[int, _Parts]] = []
    size_bytes = first = 0
    for number in range(len(batch.paths) + 1):
        parts = None
        if number < len(batch.paths) and not batch.problems[number]:
            parts = _split(batch.paths[number], batch.contents[number])
        if parts is not None:
            piece.append((number, parts))
            size_bytes += len(parts.body)
        if size_bytes > _PIECE_BYTES or number == len(batch.paths):
            rows = _rows_of_piece(piece)
            last = min(number, len(batch.paths) - 1)
            for file in range(first, last + 1):
                yield rows.get(file) or _read_alone(batch, file)
            piece, size_bytes, first = [], 0, last + 1


def _read_alone(batch: FileBatch, number: int) -> _Row | str:
    """Read a file as :func:`read_annotation` does."""
    try:
        if problem := batch.problems[number]:
            raise ValueError(problem)
        annotation = read_annotation(batch.paths[number], batch.contents[number])
    except ValueError as error:
        return str(error)
    header = Header(annotation.start_seconds, annotation.duration_seconds, annotation.frame_size)
    utterance = annotation.utterance
    ids = (utterance.speaker_id, utterance.video_id, utterance.utterance_id)
    return _row(ids, header, annotation.frames, annotation.boxes)


def _row(
    ids: tuple[str, str, str],
    header: Header,
    frames: npt.NDArray[np.int32],
    boxes: npt.NDArray[np.int16],
) -> _Row:
    first, last = int(frames[0]), int(frames[-1])
    # The text of the record Utterance, which is not made, as its ids are checked already.
    utterance = (
        f"Utterance(speaker_id={ids[0]!r}, video_id={ids[1]!r}, utterance_id={ids[2]!r}, "
        f"first_frame={first}, last_frame={last})"
    )
    digest = digest_of(utterance, header, frames.data, boxes.data)
    start, duration, frame_size = header
    size = frame_size or (None, None)
    return _Row((*ids, first, last, start, duration, *size, digest), frames, boxes)


def _split(path: str, data: bytes) -> _Parts | None:
    """Split a file of the usual form into header and numbers; ``None`` for any other."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    end = data.find(_TITLES) + 1
    begin = data.find(b"\n", end) + 1
    titles = data[end : begin - 1]
    body = data[begin:]
    is_usual = 0 < end < begin < len(data) and len(body) < 2 * _PIECE_BYTES
    if not is_usual or b":" in titles or titles.split()[0] != b"FRAME":
        return None
    head = data[:begin]
    if head.translate(None, _IN_HEADER):
        return None
    try:
        ids = ids_of_path(path)
        values = _header_values(head[:end].decode("ascii"))
        return None if values is None else _Parts(ids, read_header(values, ids), _packed(body))
    except ValueError:  # which read_annotation raises again
        return None


def _header_values(text: str) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            values[name.strip().lower()] = value.strip()
        elif line.strip():
            return None
    return values


def _packed(body: bytes) -> bytes:
    """Return the lines of numbers with one tab between two, and an end of the last line."""
    if b" " in body:
        body = body.replace(b" ", b"\t")
        while b"\t\t" in body:
            body = body.replace(b"\t\t", b"\t")
        body = body.replace(b"\t\n", b"\n").replace(b"\n\t", b"\n").strip(b"\t")
    return body if body.endswith(b"\n") else body + b"\n"


# -- Numbers ---------------------------------------------------------------------------------------


def _rows_of_piece(piece: Sequence[tuple[int, _Parts]]) -> dict[int, _Row]:
    """Return the rows of files by their numbers, without those that are not well-formed."""
    if not piece:
        return {}
    numbers = _numbers([parts.body for _, parts in piece])
    if numbers is None:
        if len(piece) == 1:
            return {}
        middle = len(piece) // 2
        return _rows_of_piece(piece[:middle]) | _rows_of_piece(piece[middle:])
    frames, boxes, ends = numbers
    rows: dict[int, _Row] = {}
    first = 0
    for (number, parts), last in zip(piece, ends, strict=True):
        rows[number] = _row(parts.ids, parts.header, frames[first:last], boxes[first:last])
        first = last
    return rows


def _numbers(
    bodies: Sequence[bytes],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int16], list[int]] | None:
    """Return frames (n,) and boxes (n, 4) of several files, and where the lines of each end.

    ``None`` if not all of them have five integers a line, in range, with frames that increase.
    """
    text = np.frombuffer(b"".join(bodies), np.uint8)
    digits = text - np.uint8(_ZERO)  # what is no digit becomes 10 or more
    is_separator = digits > 9
    minus = np.flatnonzero(text == _MINUS)
    is_separator[minus] = False
    ends = np.flatnonzero(is_separator)
    separators = text[ends]
    lengths = np.diff(ends, prepend=-1) - 1
    file_ends = np.searchsorted(ends, np.cumsum([len(body) for body in bodies]))
    if np.any(file_ends % 5) or not _are_lines_of_five(separators):
        return None
    is_negative = np.zeros(len(ends), np.bool_)
    if len(minus):
        tokens = np.searchsorted(ends, minus)
        if np.any(ends[tokens] - lengths[tokens] != minus):
            return None
        lengths[tokens] -= 1
        is_negative[tokens] = True
    if lengths.min() < 1 or lengths.max() > _MAX_DIGITS:
        return None
    values = _values(digits, ends, lengths)
    np.negative(values, out=values, where=is_negative)
    table = values.reshape(-1, 5)
    frames, boxes = table[:, 0].copy(), table[:, 1:]
    lines = (file_ends // 5).tolist()
    if not _are_in_order(frames, lines) or boxes.min() < _INT16.min or boxes.max() > _INT16.max:
        return None
    return frames, boxes.astype(np.int16), lines


def _are_lines_of_five(separators: npt.NDArray[np.uint8]) -> bool:
    lines = separators.reshape(-1, 5)
    return bool(np.all(lines[:, :4] == _TAB) and np.all(lines[:, 4] == _NEWLINE))


def _are_in_order(frames: npt.NDArray[np.int32], ends: list[int]) -> bool:
    """Return whether the frames of each file increase, and none is negative."""
    increase = np.diff(frames) > 0
    increase[np.array(ends[:-1], np.int64) - 1] = True
    return bool(increase.all()) and int(frames.min()) >= 0


def _values(
    digits: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Return the numbers whose digits end before the given places."""
    values = digits[ends - 1].astype(np.int32)
    for place in range(2, int(lengths.max()) + 1):
        # Of a shorter number this is another one's digit, or a separator: times 0.
        digit = digits.take(ends - place, mode="wrap") * (lengths >= place)
        values += digit * np.int32(10 ** (place - 1))
    return values
