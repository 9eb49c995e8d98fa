"""Batches of a shard, of rows that come a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa

# Readers work a batch at a time: large enough that millions of rows make few batches, small
# enough that one batch is tens of megabytes.
_ROWS_PER_BATCH = 256
_BYTES_PER_BATCH = 32 << 20


class RowBatches:
    """Gathers rows into batches. How they are divided depends on the rows and on nothing else.

    Args:
        schema: columns of the rows.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._waiting: deque[pa.RecordBatch] = deque()
        self._rows = self._bytes = 0

    def add(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Add the rows of one video; yield the batches that are full."""
        self._push(rows.replace_schema_metadata(self._schema.metadata))
        while self._rows >= _ROWS_PER_BATCH or self._bytes >= _BYTES_PER_BATCH:
            yield self._pop(_ROWS_PER_BATCH)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Yield the rest."""
        if self._rows:
            yield self._pop(self._rows)

    def waiting(self) -> list[pa.RecordBatch]:
        """Return the rows that are in no batch yet."""
        return list(self._waiting)

    def _push(self, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            self._waiting.append(rows)
            self._rows += rows.num_rows
            self._bytes += rows.nbytes

    def _pop(self, most: int) -> pa.RecordBatch:
        """Return the first rows as one batch."""
        taken, count = [], 0
        while self._waiting and count < most:
            taken.append(self._waiting.popleft())
            count += taken[-1].num_rows
        rest = [taken[-1].slice(taken[-1].num_rows - (count - most))] if count > most else []
        self._rows = sum(rows.num_rows for rows in self._waiting)
        self._bytes = sum(rows.nbytes for rows in self._waiting)
        if rest:
            self._waiting.appendleft(rest[0])
            self._rows += rest[0].num_rows
            self._bytes += rest[0].nbytes
            taken[-1] = taken[-1].slice(0, taken[-1].num_rows - rest[0].num_rows)
        return pa.Table.from_batches(taken, self._schema).combine_chunks().to_batches()[0]
