"""The rows of a view as ``datasets`` reads them from whole shards that are linked into its cache.

Rows of few ranges are slices of the mapped files, as fast as whole files. Each slice maps its file
again in every process that gets the dataset, so the rows of many ranges are named by a table of
indices instead, as ``Dataset.select`` makes one; it lies beside the links, and is mapped too.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import DatasetInfo, Features, ReadInstruction
from datasets.arrow_reader import ArrowReader
from datasets.table import MemoryMappedTable, Table, concat_tables

from voxblink2_lib.files import atomic_write, link_file
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.store.joined_columns import JoinedColumns, joined_file
from voxblink2_lib.store.view import Slice, View

# Rows of a view from the first to that after the last.
Span = tuple[int, int]

_INDICES = "view.indices"
_SLICES_PER_SHARD = 4
_INDEX_COLUMN = pa.schema([("indices", pa.uint64())])


def config_id(
    name: str,
    views: Mapping[str, View],
    custom_features: Features | None,
    columns: JoinedColumns,
) -> str:
    """Return the name of the cache folder: other rows, columns or features, another folder."""
    digest = hashlib.sha256(repr(custom_features).encode())
    digest.update(columns.signature)
    for split, view in views.items():
        if split != "train":
            digest.update(split.encode())
        for part in view.shards:
            digest.update(part.signature)
    return f"{name}-{digest.hexdigest()[:16]}"


def fill_cache(
    view: View,
    shards: Sequence[Path],
    links: Sequence[Path],
    columns: JoinedColumns,
    *,
    progress: Progress = no_progress,
) -> None:
    """Write what a view needs to be read: links to its shards, the columns joined to them.

    Args:
        view: the view.
        shards: its shards in the store.
        links: their names in the cache.
        columns: what is joined.
        progress: counts shards.

    Raises:
        StoreError: a run has changed the store's index meanwhile.
    """
    for shard, link in zip(shards, links, strict=True):
        link.unlink(missing_ok=True)  # a killed load may have left its links
        link_file(shard, link)  # a disk may take no links: then the shards are read where they are
    columns.write(shards, links, progress=progress)
    if links and not _is_sliced(view):
        _write_indices(view, _indices_file(links))


def _indices_file(links: Sequence[Path]) -> Path:
    """Return the file of the rows of a split, whose name the links have in theirs."""
    is_validation = "-validation-" in links[0].name
    return links[0].with_name(f"validation.{_INDICES}" if is_validation else _INDICES)


def _write_indices(view: View, path: Path) -> None:
    column = pa.array(view.indices()).cast(pa.uint64())
    with (
        atomic_write(path) as file,
        pa.ipc.new_stream(file, _INDEX_COLUMN) as writer,
    ):
        writer.write_batch(pa.record_batch([column], schema=_INDEX_COLUMN))


def _is_sliced(view: View) -> bool:
    ranges = sum(len(part.ranges) for part in view.shards)
    return ranges <= _SLICES_PER_SHARD * len(view.shards)


def read_view(
    view: View,
    shards: Sequence[Path],
    links: Sequence[Path],
    spans: Sequence[Span],
    info: DatasetInfo,
    *,
    split: Any,
    in_memory: bool,
) -> dict[str, Any]:
    """Return the arguments of ``Dataset`` for some rows of a view.

    Args:
        view: the view.
        shards: its shards in the store, which are read if the disk of the cache takes no links.
        links: their names in the cache, as in :func:`fill_cache`.
        spans: the rows.
        info: what ``datasets`` knows of the dataset.
        split: what was asked for, which the dataset names.
        in_memory: read the rows into memory.
    """
    folder, is_sliced = links[0].parent, _is_sliced(view)
    sizes = [part.shard.rows for part in view.shards]
    places = (
        [place for first, stop in spans for place in view.slices(first, stop)]
        if is_sliced
        else [Slice(number, 0, rows) for number, rows in enumerate(sizes)]
    )
    files = [link if link.exists() else shard for shard, link in zip(shards, links, strict=True)]
    slices = [
        {"filename": str(files[shard]), "skip": start, "take": stop - start}
        for shard, start, stop in places
    ]
    arguments = ArrowReader(str(folder), info).read_files(slices, split, in_memory=in_memory)
    further = [
        _rows(ArrowReader.read_table(str(joined_file(links[shard])), in_memory), start, stop)
        for shard, start, stop in places
    ]
    joined = concat_tables([arguments["arrow_table"], concat_tables(further)], axis=1)
    if is_sliced:
        return {**arguments, "arrow_table": joined}
    indices = MemoryMappedTable.from_file(str(_indices_file(links)))
    parts = [indices.slice(first, stop - first) for first, stop in spans]
    return {**arguments, "arrow_table": joined, "indices_table": concat_tables(parts)}


def _rows(table: Table, start: int, stop: int) -> Table:
    return table if (start, stop) == (0, len(table)) else table.slice(start, stop - start)


def spans_of(split: Any, views: Mapping[str, View]) -> list[tuple[str, list[Span]]]:
    """Return the rows of a split, by the views that have them, in the order in which it has them.

    Args:
        split: ``"train"``, a slice such as ``"train[:10%]"``, a sum, or a ``ReadInstruction``.
        views: of each split by its name.

    Raises:
        ValueError: it has no rows, or names no split.
    """
    if not isinstance(split, ReadInstruction):
        split = ReadInstruction.from_spec(str(split))
    rows = {name: sum(part.rows for part in view.shards) for name, view in views.items()}
    spans = (
        (part.splitname, (part.from_ or 0, rows[part.splitname] if part.to is None else part.to))
        for part in split.to_absolute(rows)
    )
    filled = [(name, span) for name, span in spans if span[0] < span[1]]
    if not filled:
        raise ValueError(f'Instruction "{split}" corresponds to no data!')
    return [
        (name, [span for _, span in group])
        for name, group in itertools.groupby(filled, key=itemgetter(0))
    ]
