"""A digest of each row of a shard, which shows whether the row of a damaged one still holds.

It is over all values of the row, whatever batch the row is in: audio, video, times, boxes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from voxblink2_lib.records import UtteranceKey

DIGEST_BYTES = 16
_LENGTH_BYTES = 8
_NULL = b"\xff" * _LENGTH_BYTES


def row_digests(batch: pa.RecordBatch) -> list[bytes]:
    """Return the digest of each row, :data:`DIGEST_BYTES` long.

    Args:
        batch: valid rows of a shard of any configuration.
    """
    columns = [[*_column_parts(column)] for column in batch.columns]
    return [_digest(itertools.chain(*parts)) for parts in zip(*columns, strict=True)]


def row_names(batch: pa.RecordBatch) -> list[str]:
    """Return the name of each row's utterance, see :attr:`UtteranceKey.name`."""
    ids = (batch[name].to_pylist() for name in UtteranceKey._fields)
    return [UtteranceKey(*key).name for key in zip(*ids, strict=True)]


def _digest(parts: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        # With its length, so that no two rows have the same bytes.
        digest.update(_NULL if part is None else len(part).to_bytes(_LENGTH_BYTES, "little"))
        digest.update(part or b"")
    return digest.digest()[:DIGEST_BYTES]


def _column_parts(column: pa.Array) -> Iterator[list[Any]]:
    """Yield the bytes that each value of a column consists of; ``None`` for one that is null."""
    if pa.types.is_string(column.type):
        for text in column.to_pylist():
            yield [None if text is None else text.encode()]
    else:
        for value in column:
            yield [*_parts(value)]


def _parts(value: pa.Scalar) -> Iterator[Any]:
    if not value.is_valid:
        yield None
    elif isinstance(value, pa.StructScalar):
        for part in value.values():
            yield from _parts(part)
    elif isinstance(value, (pa.BinaryScalar, pa.StringScalar)):
        yield value.as_buffer()
    elif isinstance(value, pa.ListScalar):
        boxes = value.values
        yield repr(len(boxes)).encode()
        yield boxes.flatten().to_numpy(zero_copy_only=False).astype("<i8").tobytes()
    else:
        yield repr(value.as_py()).encode()
