"""What of a store is exported: its rows, what is joined to them, and their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Features

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.catalogue import catalogue_of, local_catalogue
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.schema import row_features
from voxblink2_lib.store.shard_check import open_shard
from voxblink2_lib.store.status import empty_store_message, open_ledger
from voxblink2_lib.store.view import ShardRows, View, empty_view_message, view_of

_COLUMNS = ["speaker_id", "video_id", "utterance_id", "samples", "size"]


class ListedRows(NamedTuple):
    """The rows of a shard that are exported, with what the catalogue has of them.

    Attributes:
        part: the rows.
        table: their ids, length in samples and size of the audio in bytes, in order.
    """

    part: ShardRows
    table: pa.Table


def selected_view(
    store: Store, config: str, selection: Selection, *, progress: Progress = no_progress
) -> View:
    """Return the rows of a store that are selected.

    Args:
        store: the store.
        config: the configuration.
        selection: which part of it.
        progress: counts shards whose rows are not known yet.

    Raises:
        StoreError: there is no store, or no clip in it; or something is still to be purged.
        SelectionError: nothing is selected, or there is no clip of it.
    """
    store.check_purged()  # whoever is to be taken out must not be copied now
    with open_ledger(store, config) as ledger:
        shards = ledger.shards()
    if not shards:
        raise StoreError(empty_store_message(store, config))
    local_catalogue(store.root, config, progress=progress)  # kept for the next time
    view = view_of(store, config, shards, selection)
    if not view.shards:
        raise SelectionError(empty_view_message(store, config, shards, view))
    return view


def listed_rows(store: Store, config: str, view: View) -> Iterator[ListedRows]:
    """Yield the rows of a view, shard by shard."""
    sizes = {part.shard.name: part.shard.size_bytes for part in view.shards}
    catalogue = catalogue_of(store.root, config, sizes)
    for part, (_, rows) in zip(view.shards, catalogue.tables(), strict=True):
        indices = np.concatenate([np.arange(*bounds) for bounds in part.ranges.tolist()])
        yield ListedRows(part, rows.select(_COLUMNS).take(indices))


def joined_columns(store: Store, rows: RowOptions) -> JoinedColumns:
    """Return the columns to join to the rows of a store."""
    return JoinedColumns.of(store.index if store.index.exists() else None, rows)


def features_of(store: Store, config: str, view: View, columns: JoinedColumns) -> Features:
    """Return the types of the rows that ``load_dataset`` gives of a view."""
    shard = open_shard(store.shards(config) / view.shards[0].shard.name).schema
    return Features({**row_features(config, shard), **columns.features})
