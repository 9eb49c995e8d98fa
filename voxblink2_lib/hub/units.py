"""The Parquet files of a data set for others: one for each shard and split, more for large shards.

::

    audio/train/audio-00012-0-9c3e5a1f0b42.parquet      shard, part of it, digest of what is in it

The name says what the file has. So a file that is in the data set under its name is never made
again, a shard that has changed gives files of other names, and those of its former rows go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.export.contents import ListedRows, listed_rows
from voxblink2_lib.export.formats import find_format
from voxblink2_lib.export.rows import UnitRows
from voxblink2_lib.export.units import signature_of
from voxblink2_lib.hub.description import PublishedRows
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.view import ShardRows

# The Hub advises files of some hundred megabytes: fewer of them than that, and a reader of one
# split has little to share out among its workers; larger ones, and an upload that fails costs more.
MAX_FILE_BYTES = 400 << 20
# Changes with what is written for the same rows.
_FILE_FORMAT = b"data set 1"
_DIGEST_CHARACTERS = 12


class DataUnit(NamedTuple):
    """A file of a data set.

    Attributes:
        split: of the data set.
        path: in the repository.
        rows: what is written.
        utterances: their number.
        size_bytes: about how large it is.
    """

    split: str
    path: str
    rows: UnitRows
    utterances: int
    size_bytes: int


def data_units(store: Store, config: str, chosen: PublishedRows) -> Iterator[DataUnit]:
    """Yield the files of a data set.

    Args:
        store: the store.
        config: the configuration.
        chosen: its rows and columns.
    """
    columns, features = chosen.columns, chosen.features
    metadata, faces = features.arrow_schema.metadata, find_format("parquet").faces
    joiner = columns.open()
    for split, view in chosen.views.items():
        for listed in listed_rows(store, config, view):
            joined = joiner.columns_of(_with_plain_ids(listed.table))
            sizes = _row_sizes(listed, has_video="video" in features)
            shard, passed = store.shards(config) / listed.part.shard.name, 0
            for number, (part, size_bytes) in enumerate(pieces(listed.part, sizes)):
                digest = _digest(part, joined.slice(passed, part.rows), metadata)
                passed += part.rows
                path = f"{config}/{split}/{shard.stem}-{number}-{digest}.parquet"
                rows = UnitRows(shard, part.ranges, faces, columns=columns, metadata=metadata)
                yield DataUnit(split, path, rows, part.rows, size_bytes)


def _digest(part: ShardRows, joined: pa.Table, metadata: Mapping[bytes, bytes]) -> str:
    """Return a digest of all that is in a file: the rows, what is joined to them, and the types.

    What is joined to other rows may change without it.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, joined.schema) as writer:
        writer.write_table(joined.combine_chunks())
    parts = (_FILE_FORMAT, part.signature, sink.getvalue().to_pybytes(), *metadata.values())
    return signature_of(*parts)[:_DIGEST_CHARACTERS]


def _with_plain_ids(rows: pa.Table) -> pa.Table:
    """Return rows of a catalogue with their ids as they are in shards."""
    speakers = rows["speaker_id"].cast(pa.string())
    return rows.set_column(rows.schema.get_field_index("speaker_id"), "speaker_id", speakers)


class Piece(NamedTuple):
    """Some rows of a shard, and about how large they are."""

    rows: ShardRows
    size_bytes: int


def pieces(
    part: ShardRows, sizes: npt.NDArray[np.int64], max_bytes: int = MAX_FILE_BYTES
) -> Iterator[Piece]:
    """Yield the rows of a shard in pieces that are no larger than a file should be.

    Args:
        part: the rows.
        sizes: of each of them in bytes, shape (n,).
        max_bytes: of a piece; a row that is larger has one of its own.
    """
    rows = np.concatenate([np.arange(*bounds) for bounds in part.ranges.tolist()])
    first = 0
    while first < len(rows):
        taken = int(np.searchsorted(np.cumsum(sizes[first:]), max_bytes, "right"))
        stop = first + max(1, taken)
        yield Piece(ShardRows(part.shard, _ranges(rows[first:stop])), int(sizes[first:stop].sum()))
        first = stop


def _ranges(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return rising rows as ranges, shape (n, 2)."""
    is_first = np.diff(rows, prepend=rows[0] - 2) != 1
    is_last = np.append(is_first[1:], True)
    return np.stack([rows[is_first], rows[is_last] + 1], axis=1)


def _row_sizes(listed: ListedRows, *, has_video: bool) -> npt.NDArray[np.int64]:
    """Return about how large each row is."""
    if has_video:  # nearly all that is in a shard is media
        shard = listed.part.shard
        return np.full(listed.part.rows, shard.size_bytes // shard.rows, np.int64)
    sizes: npt.NDArray[np.int64] = pc.cast(listed.table["size"], "int64").to_numpy()
    return sizes
