"""The rows of a store that a selection has: ranges of its shards' rows, never a copy of them.

A view over three shards, of which the second has nothing that is selected and is left out:

    rows of shards    |aaabbb|cccc|ddeeff|
    selected              bbb        ee
    ranges             3 to 6     2 to 4      of the shard's own rows, half-open
    rows of the view   0 to 3     3 to 5
"""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.records import SealedShard
from voxblink2_lib.release.index import KEY_COLUMNS, Index
from voxblink2_lib.release.selection import Selection, left_of, select, select_of
from voxblink2_lib.store.annotations import has_no_annotations
from voxblink2_lib.store.catalogue import FOLDER as CATALOGUE
from voxblink2_lib.store.catalogue import catalogue_of
from voxblink2_lib.store.layout import Store

_LISTED = 5
_NO_VIDEOS = pa.schema([(name, pa.string()) for name in KEY_COLUMNS]).empty_table()

# First row and the row after the last of each range, rising, shape (n, 2).
Ranges = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows:
    """Some rows of a shard.

    Attributes:
        shard: the shard.
        ranges: the rows, at least one; no two ranges touch. Shape (n, 2).
    """

    shard: SealedShard
    ranges: Ranges

    @classmethod
    def all_of(cls, shard: SealedShard) -> ShardRows:
        """Return all rows of a shard."""
        return cls(shard, np.array([[0, shard.rows]], np.int64))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(np.diff(self.ranges).sum())

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows of the shard."""
        return self.rows == self.shard.rows

    @property
    def signature(self) -> bytes:
        """Bytes that are the same for the same rows of the same shard, and for nothing else."""
        rows = b"" if self.is_whole else self.ranges.astype("<i8").tobytes()
        return f"{self.shard.name} {self.shard.sha256}\n".encode() + rows


class Slice(NamedTuple):
    """A range of rows of one of the shards of a view, half-open."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The rows of some shards that are selected, in the order of the shards.

    Attributes:
        shards: those that have any such rows.
        videos: number of videos that are selected and have rows; ``None`` of a whole store.
        selected: number of videos that are selected, ``None`` of a whole store.
    """

    shards: tuple[ShardRows, ...]
    videos: int | None = None
    selected: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has all rows of its shards."""
        return all(part.is_whole for part in self.shards)

    def slices(self, first: int, stop: int) -> Iterator[Slice]:
        """Yield where the rows from ``first`` to ``stop`` of the view are, half-open."""
        passed = 0
        for number, part in enumerate(self.shards):
            for start, end in part.ranges.tolist():
                begin = max(start, start + first - passed)
                until = min(end, start + stop - passed)
                if begin < until:
                    yield Slice(number, begin, until)
                passed += end - start

    def indices(self) -> npt.NDArray[np.int64]:
        """Return the place of each row of the view among all rows of its shards, shape (n,)."""
        sizes = [part.shard.rows for part in self.shards]
        before = itertools.accumulate(sizes, initial=0)
        parts = [
            np.arange(start + base, stop + base)
            for base, part in zip(before, self.shards, strict=False)
            for start, stop in part.ranges.tolist()
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def whole_view(shards: Iterable[SealedShard]) -> View:
    """Return the view of all rows of some shards."""
    return View(tuple(map(ShardRows.all_of, shards)))


def view_of(store: Store, config: str, shards: Sequence[SealedShard], selection: Selection) -> View:
    """Return the rows of a store that a selection has, by the store's own index. Writes nothing.

    Args:
        store: the store.
        config: the configuration.
        shards: its sealed shards.
        selection: what is selected. The default selects all rows, and nothing is looked up.

    Raises:
        SelectionError: a speaker or video is unknown, or nothing is selected.
        StoreError: the index cannot be used.
        StoreDamagedError: a shard that is not in the catalogue cannot be read.
    """
    if selection == Selection():
        return whole_view(shards)
    index = _open_index(store)
    return _view(store, config, tuple(shards), selection, index.info.fingerprint if index else "")


def _open_index(store: Store) -> Index | None:
    """Return the index of a store; ``None`` of one that was begun from cut audio without any."""
    has_none = not store.index.exists() and has_no_annotations(store)
    return None if has_none else Index(store.index)


@functools.lru_cache(maxsize=4)  # a load asks more than once; 10 million rows take seconds
def _view(
    store: Store, config: str, shards: tuple[SealedShard, ...], selection: Selection, index: str
) -> View:
    del index  # another index, another view
    if not shards:
        return View((), 0, len(_selected(store, selection, names_of(_NO_VIDEOS))))
    rows = catalogued(store, config, shards)
    ends = np.cumsum([shard.rows for shard in shards])
    first_rows = _first_rows(rows, ends)
    names = names_of(rows.select(KEY_COLUMNS).take(first_rows))
    selected = _selected(store, selection, names)
    is_selected = np.asarray(pc.is_in(names, selected).to_numpy(zero_copy_only=False))
    # A shard ends with a video, so that no range goes over its end.
    ranges = _ranges(first_rows, np.isin(first_rows, ends), is_selected, len(rows))
    bounds = np.searchsorted(ranges[:, 0], [0, *ends])
    parts = [
        ShardRows(shard, ranges[begin:end] - (stop - shard.rows))
        for shard, stop, (begin, end) in zip(
            shards, ends.tolist(), itertools.pairwise(bounds.tolist()), strict=True
        )
        if begin < end
    ]
    # Of cut audio, a video may be in more than one shard.
    return View(tuple(parts), len(pc.unique(names.filter(is_selected))), len(selected))


def _selected(store: Store, selection: Selection, names: pa.Array) -> pa.Array:
    """Return ``speaker/video`` of what is selected.

    That is of the release and, where no limit refers to its order, of what else is in the store:
    cut audio may have videos that are not annotated.

    Args:
        store: the store.
        selection: what is selected.
        names: of the videos in the store.
    """
    index = _open_index(store)
    limits = (selection.max_speakers, selection.max_videos_per_speaker)
    if index is not None and limits != (None, None):
        return names_of(select(index, selection)[0])
    videos = _NO_VIDEOS if index is None else index.videos().select(KEY_COLUMNS)
    others = pc.unique(names.filter(pc.invert(pc.is_in(names, names_of(videos)))))
    if len(others):
        pairs = pc.split_pattern(others.sort(), "/").flatten()
        columns = [pairs[place::2] for place in range(2)]
        videos = pa.concat_tables(
            [videos.cast(_NO_VIDEOS.schema), pa.table(columns, _NO_VIDEOS.schema)]
        )
    where = "the store" if index is None else "the release"
    return names_of(select_of(videos, left_of(selection, store.root), where=where)[0])


def catalogued(store: Store, config: str, shards: Sequence[SealedShard]) -> pa.Table:
    """Return the catalogue's rows of some shards, as many as the ledger says."""
    catalogue = catalogue_of(store.root, config, {part.name: part.size_bytes for part in shards})
    for listed, shard in zip(catalogue.shards, shards, strict=True):
        if listed.rows != shard.rows:
            raise StoreDamagedError(
                f"The shard {shard.name} of the store {store.place} has {shard.rows} rows in the "
                f"ledger and {listed.rows} in the catalogue. Delete {store.root / CATALOGUE} and "
                "load again: it is made anew."
            )
    return catalogue.table


def _first_rows(rows: pa.Table, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows at which another video begins than in the row before, or another shard."""
    if not len(rows):
        return np.zeros(0, np.int64)
    is_first = np.zeros(len(rows), bool)
    is_first[[0, *ends[:-1]]] = True
    speakers = rows["speaker_id"].unify_dictionaries().combine_chunks()
    codes = speakers.indices.to_numpy()
    is_first[1:] |= codes[1:] != codes[:-1]
    videos = rows["video_id"].combine_chunks()
    is_first[1:] |= pc.not_equal(videos[1:], videos[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_first)


def names_of(videos: pa.Table) -> pa.Array:
    """Return ``speaker/video`` of each row."""
    speakers, ids = (videos[name].cast(pa.string()).combine_chunks() for name in KEY_COLUMNS)
    return pc.binary_join_element_wise(speakers, ids, "/")


def _ranges(
    first_rows: npt.NDArray[np.int64],
    begins_shard: npt.NDArray[np.bool_],
    is_selected: npt.NDArray[np.bool_],
    rows: int,
) -> Ranges:
    """Return the ranges of rows of selected videos; those of one shard that touch are one."""
    before = np.concatenate([[False], is_selected[:-1]])
    starts = is_selected & (~before | begins_shard)
    stops_before = before & (~is_selected | begins_shard)
    last = [rows] if len(is_selected) and is_selected[-1] else []
    stops = np.concatenate([first_rows[stops_before], np.array(last, np.int64)])
    return np.stack([first_rows[starts], stops], axis=1)


def rows_in(batches: Iterable[pa.RecordBatch], ranges: Ranges) -> Iterator[pa.Table]:
    """Yield the rows of a shard's batches that are in some ranges, one table for each batch.

    No batch after the last range is read. Nothing is copied.
    """
    first = 0
    for batch in batches:
        if first >= ranges[-1, 1]:
            return
        stop = first + batch.num_rows
        bounds: Any = np.clip(ranges, first, stop) - first
        parts = [batch.slice(start, end - start) for start, end in bounds.tolist() if start < end]
        if parts:
            yield pa.Table.from_batches(parts)
        first = stop


def empty_view_message(store: Store, config: str, shards: Sequence[SealedShard], view: View) -> str:
    """Return the message for a selection without a single clip: what the store holds instead."""
    rows = catalogued(store, config, shards)
    speakers = sorted(pc.unique(rows["speaker_id"].cast(pa.string())).to_pylist())
    listed = ", ".join(speakers[:_LISTED]) + (", ..." if len(speakers) > _LISTED else "")
    return (
        f"The store {store.place} has no clips of the {view.selected:,} selected videos. It has "
        f"{len(rows):,} clips of {len(speakers):,} speakers: {listed}. Select some of these, or "
        f"see why others are missing: voxblink2 status --store {shlex.quote(store.place)} "
        f"--config {config} --missing"
    )
