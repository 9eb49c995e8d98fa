"""From an index and a selection to jobs: which videos make up which shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.config import Selection
from voxblink2_lib.errors import SelectionError
from voxblink2_lib.index import Index
from voxblink2_lib.records import VideoKey

# A full corpus gives about 2,000 shards of 0.5 GB; a small one is split in about 32, so that
# several workers have something to do and a DataLoader has shards to share out.
MAX_VIDEOS_PER_JOB = 1024
_SHARDS_WANTED = 32
_KEYS = ["speaker_id", "video_id"]


def select(index: Index, selection: Selection) -> tuple[pa.Table, pa.Table]:
    """Apply a selection: first the named speakers and videos, then exclusions, then limits.

    Args:
        index: the index.
        selection: what to keep.

    Returns:
        The videos that are wanted, and those that ``exclude`` leaves out, both sorted: columns
        ``speaker_id``, ``video_id`` and ``digest``.

    Raises:
        SelectionError: a named speaker or video is not in the release, or nothing is left.
    """
    table = index.videos()
    for column, wanted in (("speaker_id", selection.speakers), ("video_id", selection.videos)):
        if wanted:
            _require(table, column, wanted)
            table = table.filter(pc.is_in(table[column], pa.array(sorted(wanted))))
    left_out = table.slice(0, 0)
    if selection.exclude:
        names = pa.array(sorted(selection.exclude))
        is_named = pc.or_(*(pc.is_in(table[column], names) for column in _KEYS))
        table, left_out = table.filter(pc.invert(is_named)), table.filter(is_named)
    table = _limit(table, selection)
    if not len(table):
        raise SelectionError(
            f"The selection leaves nothing of the release's {index.info.videos} videos. "
            "Widen it: speakers, videos and exclude decide what is left."
        )
    return table, left_out


def _require(table: pa.Table, column: str, wanted: frozenset[str]) -> None:
    known = set(pc.unique(table[column]).to_pylist())
    unknown = sorted(wanted - known)
    if unknown:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        kind = column.removesuffix("_id")
        raise SelectionError(
            f"{len(unknown)} of the {len(wanted)} {kind}s asked for are not in the release "
            f"(or not among the other things asked for): {some}. The release has "
            f"{len(known)} {kind}s; check the ids."
        )


def _limit(table: pa.Table, selection: Selection) -> pa.Table:
    if selection.max_speakers is not None:
        speakers = pc.unique(table["speaker_id"]).slice(0, selection.max_speakers)
        table = table.filter(pc.is_in(table["speaker_id"], speakers))
    if selection.max_videos_per_speaker is not None:
        keep: list[bool] = []
        previous, count = None, 0
        for speaker in table["speaker_id"].to_pylist():
            count = count + 1 if speaker == previous else 1
            previous = speaker
            keep.append(count <= selection.max_videos_per_speaker)
        table = table.filter(pa.array(keep, pa.bool_()))
    return table


@dataclass(frozen=True, slots=True)
class Changes:
    """What a selection asks of a store. Each table has ``speaker_id`` and ``video_id``, sorted.

    Attributes:
        new: videos to be given to new jobs.
        unwanted: videos that are planned or failed, and no longer selected.
        outside: videos that are in the store for good, and not selected.
        changed: videos that are in the store for good, cut by other annotations.
    """

    new: pa.Table
    unwanted: pa.Table
    outside: pa.Table
    changed: pa.Table


def compare(selected: pa.Table, known: pa.Table) -> Changes:
    """Compare a selection with what a ledger knows.

    Args:
        selected: what :func:`select` returned.
        known: columns ``speaker_id``, ``video_id``, ``status`` and ``digest`` (of the
            annotations it was cut by).
    """
    if not len(known):
        nothing = selected.slice(0, 0)
        return Changes(new=selected, unwanted=nothing, outside=nothing, changed=nothing)
    done = pc.equal(known["status"], "done")
    others = _without(known, selected)
    finished = pc.equal(others["status"], "done")
    return Changes(
        new=_without(selected, known),
        unwanted=others.filter(pc.invert(finished)),
        outside=others.filter(finished),
        changed=_changed(known.filter(done), selected),
    )


def _changed(done: pa.Table, selected: pa.Table) -> pa.Table:
    now = selected.rename_columns([*_KEYS, "digest_now"])
    both = done.join(now, keys=_KEYS, join_type="inner")
    return _sorted(both.filter(pc.not_equal(both["digest"], both["digest_now"])))


def _without(table: pa.Table, others: pa.Table) -> pa.Table:
    return _sorted(table.join(others.select(_KEYS), keys=_KEYS, join_type="left anti"))


def _sorted(videos: pa.Table) -> pa.Table:
    # A join keeps no order.
    return videos.sort_by([(key, "ascending") for key in _KEYS])


def make_jobs(videos: Sequence[VideoKey]) -> Iterator[Sequence[VideoKey]]:
    """Split videos into jobs of equal size, each the content of one shard.

    The split depends on the videos alone, never on the number of workers.

    Args:
        videos: sorted.

    >>> [len(job) for job in make_jobs([VideoKey("id000001", "abcdefghijk")] * 70)][:3]
    [3, 3, 3]
    """
    size = max(1, min(MAX_VIDEOS_PER_JOB, -(-len(videos) // _SHARDS_WANTED)))
    for start in range(0, len(videos), size):
        yield videos[start : start + size]


class Keys(Sequence[VideoKey]):
    """The keys of a table of videos, made when they are looked at: there may be millions.

    Args:
        videos: columns ``speaker_id`` and ``video_id``.
    """

    def __init__(self, videos: pa.Table) -> None:
        self._videos = videos

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, place: int) -> VideoKey: ...
    @overload
    def __getitem__(self, place: slice) -> list[VideoKey]: ...
    def __getitem__(self, place: int | slice) -> VideoKey | list[VideoKey]:
        if isinstance(place, int):
            # Of a range, so that a place beyond the end is an IndexError, which ends a loop.
            return next(keys_of(self._videos.slice(range(len(self))[place], 1)))
        start, stop, _ = place.indices(len(self))
        return list(keys_of(self._videos.slice(start, stop - start)))


def keys_of(videos: pa.Table) -> Iterator[VideoKey]:
    """Yield the keys of a table of videos."""
    for batch in videos.select(_KEYS).to_batches():
        columns = (column.to_pylist() for column in batch.columns)
        yield from map(VideoKey._make, zip(*columns, strict=True))
