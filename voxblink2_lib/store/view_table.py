"""The rows of a view as ``datasets`` reads them from whole shards that are linked into its cache.

Rows of few ranges are slices of the mapped files, as fast as whole files. Each slice maps its file
again in every process that gets the dataset, so the rows of many ranges are named by a table of
indices instead, as ``Dataset.select`` makes one; it lies beside the links, and is mapped too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import DatasetInfo, Features, ReadInstruction
from datasets.arrow_reader import ArrowReader
from datasets.table import MemoryMappedTable, concat_tables

from voxblink2_lib.files import atomic_write
from voxblink2_lib.store.view import View

_INDICES = "view.indices"
_SLICES_PER_SHARD = 4
_INDEX_COLUMN = pa.schema([("indices", pa.uint64())])


def config_id(name: str, view: View, custom_features: Features | None) -> str:
    """Return the name of the cache folder: other shards, rows or features, another folder."""
    digest = hashlib.sha256(repr(custom_features).encode())
    for part in view.shards:
        digest.update(part.signature)
    return f"{name}-{digest.hexdigest()[:16]}"


def write_indices(view: View, folder: Path) -> None:
    """Write the table of indices that a view needs to be read, if it needs one."""
    if _is_sliced(view):
        return
    column = pa.array(view.indices()).cast(pa.uint64())
    with (
        atomic_write(folder / _INDICES) as file,
        pa.ipc.new_stream(file, _INDEX_COLUMN) as writer,
    ):
        writer.write_batch(pa.record_batch([column], schema=_INDEX_COLUMN))


def _is_sliced(view: View) -> bool:
    ranges = sum(len(part.ranges) for part in view.shards)
    return ranges <= _SLICES_PER_SHARD * len(view.shards)


def read_view(
    view: View, files: Sequence[Path], split: Any, info: DatasetInfo, *, in_memory: bool
) -> dict[str, Any]:
    """Return the arguments of ``Dataset`` for a split of a view.

    Args:
        view: the view.
        files: the linked shards, in order.
        split: ``"train"``, a slice such as ``"train[:10%]"``, or a ``ReadInstruction``.
        info: what ``datasets`` knows of the dataset.
        in_memory: read the rows into memory.

    Raises:
        ValueError: the split has no rows.
    """
    spans = [*_spans(split, sum(part.rows for part in view.shards))]
    if not spans:
        raise ValueError(f'Instruction "{split}" corresponds to no data!')
    reader = ArrowReader(str(files[0].parent), info)
    if not _is_sliced(view):
        whole = [{"filename": file.name} for file in files]
        indices = MemoryMappedTable.from_file(str(files[0].parent / _INDICES))
        parts = [indices.slice(first, stop - first) for first, stop in spans]
        return {
            **reader.read_files(whole, split, in_memory=in_memory),
            "indices_table": concat_tables(parts),
        }
    slices = [
        {"filename": files[shard].name, "skip": start, "take": stop - start}
        for first, stop in spans
        for shard, start, stop in view.slices(first, stop)
    ]
    return dict(reader.read_files(slices, split, in_memory=in_memory))


def _spans(split: Any, rows: int) -> Iterable[tuple[int, int]]:
    """Yield the ranges of rows of a view that a split has, half-open."""
    if not isinstance(split, ReadInstruction):
        split = ReadInstruction.from_spec(str(split))
    for span in split.to_absolute({"train": rows}):
        first = span.from_ or 0
        stop = rows if span.to is None else span.to
        if first < stop:
            yield first, stop
