"""Read what is whole of an Arrow stream that is damaged or truncated.

Each message of a stream begins with four bytes of ones. Where one cannot be read, reading goes on
at the next such place; a clip may have such bytes too, but no message follows them there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from voxblink2_lib.store.arrow_stream import is_compressed

_CONTINUATION = 0xFFFFFFFF
# Messages and what they consist of begin at multiples of it.
_ALIGNMENT = 8
# Of the description of a batch: it has two numbers for each column, and its form.
_LONGEST_METADATA_BYTES = 1 << 20


def salvaged_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a shard that are valid, in place, in order.

    That a batch is valid says that its values can be read, not that they are right.

    Args:
        path: the file; nothing in it needs to be as it was written.
        schema: the columns that it should have.

    Raises:
        OSError: the file cannot be read at all.
    """
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    position = 0
    while position < whole.size:
        if (rows := _batch_at(whole, position, schema)) is not None:
            yield rows
        # Not after the end that it claims: one that is too late would hide the next batch.
        position = _next_beginning(whole, position + _ALIGNMENT)


def _batch_at(whole: pa.Buffer, position: int, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return the batch that begins at a position, if a valid one does."""
    if not _may_begin(whole, position):
        return None
    file = pa.BufferReader(whole.slice(position))
    try:
        message = pa.ipc.read_message(file)
        if message.type != "record batch" or is_compressed(message.metadata):
            return None
        rows = pa.ipc.read_record_batch(message, schema)
        rows.validate(full=True)
    except Exception:  # a broken message makes nearly any of Arrow's and Python's errors
        return None
    return rows


def _may_begin(whole: pa.Buffer, position: int) -> bool:
    """Return whether a message may begin there, before Arrow follows what it claims."""
    if whole.size - position < _ALIGNMENT:
        return False
    mark, length = struct.unpack_from("<II", whole, position)
    longest = min(_LONGEST_METADATA_BYTES, whole.size - position - _ALIGNMENT)
    return bool(mark == _CONTINUATION and 0 < length <= longest)


def _next_beginning(whole: pa.Buffer, start: int) -> int:
    """Return the next place from ``start`` on at which a message may begin, or the end."""
    step = 1 << 20
    for first in range(start, whole.size, step):
        size = min(step, whole.size - first) // _ALIGNMENT * _ALIGNMENT
        words = np.frombuffer(whole, "<u4", size // 4, first)
        for place in np.flatnonzero(words[::2] == _CONTINUATION).tolist():
            position = first + place * _ALIGNMENT
            if _may_begin(whole, position):
                return position
    return int(whole.size)
