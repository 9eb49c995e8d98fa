"""Batches of a shard, of rows that come a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# Readers work a batch at a time: large enough that millions of rows make few batches, small
# enough that one batch is tens of megabytes.
_ROWS_PER_BATCH = 256
_BYTES_PER_BATCH = 32 << 20


class RowBatches:
    """Gathers rows into batches. How they are divided depends on the rows and on nothing else.

    Rows are copied when they are added, their media side by side, so that those of a batch are in
    place. A batch is valid until the next one is wanted: the memory is used again, since new memory
    of this size costs more than the copying.

    Args:
        schema: columns of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._media = {field.name: _Media() for field in schema if pa.types.is_struct(field.type)}
        self._waiting: deque[pa.RecordBatch] = deque()
        self._rows = self._bytes = 0

    def add(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Add the rows of one video; yield the batches that are full."""
        if rows.num_rows:
            self._push(rows)
        while self._rows >= _ROWS_PER_BATCH or self._bytes >= _BYTES_PER_BATCH:
            yield from self._pop(_ROWS_PER_BATCH)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Yield the rest."""
        if self._rows:
            yield from self._pop(self._rows)

    def waiting(self) -> list[pa.RecordBatch]:
        """Return the rows that are in no batch yet."""
        return list(self._waiting)

    def _push(self, rows: pa.RecordBatch) -> None:
        columns = [self._copy(name, rows.column(name)) for name in self._schema.names]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._rows += rows.num_rows
        self._bytes += rows.nbytes

    def _copy(self, name: str, column: pa.Array) -> pa.Array:
        media = self._media.get(name)
        return media.copied(column) if media else pa.concat_arrays([column])

    def _pop(self, most: int) -> Iterator[pa.RecordBatch]:
        """Yield the first rows as one batch."""
        taken, count = [], 0
        while self._waiting and count < most:
            taken.append(self._waiting.popleft())
            count += taken[-1].num_rows
        rest = taken[-1].slice(taken[-1].num_rows - (count - most)) if count > most else None
        if rest is not None:
            taken[-1] = taken[-1].slice(0, taken[-1].num_rows - rest.num_rows)
        yield self._joined(taken)
        left = [*([] if rest is None else [rest]), *self._waiting]
        self._waiting.clear()
        self._rows = self._bytes = 0
        for media in self._media.values():
            media.used_bytes = 0
        for rows in left:
            self._push(rows)

    def _joined(self, rows: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        columns = []
        for name in self._schema.names:
            parts = [each.column(name) for each in rows]
            media = self._media.get(name)
            columns.append(media.joined(parts) if media else pa.concat_arrays(parts))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


class _Media:
    """Memory for a column of media, none of which is null.

    Attributes:
        used_bytes: how much of it is in use.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self.used_bytes = 0

    def copied(self, column: pa.StructArray) -> pa.StructArray:
        """Return a copy of a column, whose media are behind those that were copied before."""
        content, ends = _content(column.field("bytes"))
        start, stop = self.used_bytes, self.used_bytes + len(content)
        if stop > len(self._memory):
            # What was copied before stays valid where it is. What is never used takes no memory.
            memory = np.empty(max(2 * stop, 2 * _BYTES_PER_BATCH), np.uint8)
            memory[:start] = self._memory[:start]
            self._memory = memory
        self._memory[start:stop] = content
        self.used_bytes = stop
        paths = pa.concat_arrays([column.field("path")])
        return _media_column(self._memory[start:stop], ends - ends[0], paths)

    def joined(self, parts: Sequence[pa.StructArray]) -> pa.StructArray:
        """Return the first columns that were copied as one."""
        lengths = [np.diff(_content(part.field("bytes"))[1]) for part in parts]
        ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
        paths = pa.concat_arrays([part.field("path") for part in parts])
        return _media_column(self._memory[: ends[-1]], ends, paths)


def _media_column(
    content: npt.NDArray[np.uint8], ends: npt.NDArray[np.int32], paths: pa.Array
) -> pa.StructArray:
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
    media = pa.Array.from_buffers(pa.binary(), len(ends) - 1, buffers)
    return pa.StructArray.from_arrays([media, paths], ["bytes", "path"])


def _content(media: pa.BinaryArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return the bytes of all values, and where each of them begins, and the end."""
    _, offsets, data = media.buffers()
    ends = np.frombuffer(offsets, np.int32)[media.offset : media.offset + len(media) + 1]
    content = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return content[ends[0] : ends[-1]], ends
