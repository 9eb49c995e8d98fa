"""The rows of a view, divided by their speakers into training and validation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import SelectionError, StoreError, next_command
from voxblink2_lib.records import SealedShard
from voxblink2_lib.release.speaker_index import SpeakerIndex
from voxblink2_lib.release.speaker_split import SpeakerSplit, SplitFact
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.view import ShardRows, View, catalogued


def speakers_with_clips(store: Store, config: str, shards: Sequence[SealedShard]) -> list[str]:
    """Return the ids of all speakers that have a row in some shards, sorted."""
    rows = catalogued(store, config, shards)
    return sorted(pc.unique(rows["speaker_id"].cast(pa.string())).to_pylist())


def facts_of(store: Store, speakers: Sequence[str], fact: SplitFact) -> list[str | None]:
    """Return a fact about each of some speakers, ``None`` where it is not known.

    Raises:
        StoreError: the store knows nothing of speakers.
    """
    try:
        known = SpeakerIndex(store.index).facts
    except FileNotFoundError as error:
        again = next_command("index", data_dir="RELEASE", store=store.root)
        raise StoreError(
            f"The store {store.root} does not know the {fact} of speakers, by which they are "
            f"split. A release that has it beside the annotations is indexed by {again}."
        ) from error
    places = pc.index_in(pa.array(speakers, pa.string()), known["speaker_id"].combine_chunks())
    return list(known[fact].combine_chunks().take(places).to_pylist())


def split_views(store: Store, config: str, view: View, validation: SpeakerSplit) -> dict[str, View]:
    """Return the rows of a view that are for ``train``, and those for ``validation``.

    Raises:
        SelectionError: one of them has no rows.
        StoreError: what the split is within is not known of the speakers.
    """
    shards = [part.shard for part in view.shards]
    is_validation = _is_validation(store, config, shards, validation)
    is_selected = np.zeros(len(is_validation), np.bool_)
    is_selected[view.indices()] = True
    sides = {"train": is_selected & ~is_validation, "validation": is_selected & is_validation}
    for name, rows in sides.items():
        if not rows.any():
            raise SelectionError(
                f"validation: of the {int(is_selected.sum()):,} selected rows of the store "
                f"{store.root}, the split leaves none for {name}. Select more "
                "speakers, or make a split of another size."
            )
    return {name: View(tuple(_parts(shards, rows))) for name, rows in sides.items()}


def _is_validation(
    store: Store, config: str, shards: Sequence[SealedShard], split: SpeakerSplit
) -> npt.NDArray[np.bool_]:
    """Return which rows of some shards are for validation, shape (n,)."""
    rows = catalogued(store, config, shards)
    speakers = rows["speaker_id"].unify_dictionaries().combine_chunks()
    names = speakers.dictionary.to_pylist()
    facts = facts_of(store, names, split.within) if split.within else None
    sides: npt.NDArray[np.bool_] = split.is_validation(names, facts)[speakers.indices.to_numpy()]
    return sides


def _parts(shards: Sequence[SealedShard], rows: npt.NDArray[np.bool_]) -> list[ShardRows]:
    """Return the rows of each shard that has any, as ranges."""
    ends = np.cumsum([shard.rows for shard in shards])
    parts = []
    for shard, (start, end) in zip(shards, itertools.pairwise([0, *ends.tolist()]), strict=True):
        edges = np.diff(rows[start:end].astype(np.int8), prepend=0, append=0)
        if edges.any():
            parts.append(ShardRows(shard, np.flatnonzero(edges).reshape(-1, 2)))
    return parts
