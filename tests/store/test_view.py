"""Which rows of shards a selection has, against rows that are gone through one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import shard_builder
from support.release_builder import voxblink2, write_release

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.records import SealedShard
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.view import ShardRows, View, rows_in, view_of, whole_view

SPEAKERS = [f"id00000{number}" for number in range(3)]
VIDEOS = [f"video00000{letter}" for letter in "abc"]
# Videos of each shard. One that came back is in a later shard, out of order; a name is used twice.
SHARDS = [
    [(0, 0), (0, 1), (1, 1)],
    [(1, 2), (2, 0)],
    [(2, 2), (0, 2), (1, 0)],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of three shards, with two utterances of each of eight videos."""
    root = tmp_path_factory.mktemp("view")
    files = {
        f"meta/{speaker}/{video}/00000.txt": voxblink2(
            [(frame, 1, 1, 9, 9) for frame in range(30)], speaker=speaker, video=video
        )
        for speaker in SPEAKERS
        for video in VIDEOS
    }
    open_index(open_release(str(write_release(root / "release", files))), root / "store" / "index")
    (root / "store" / "shards" / "audio").mkdir(parents=True)
    for number, videos in enumerate(SHARDS):
        clips = [
            shard_builder.clip(row, speaker=SPEAKERS[speaker], video=VIDEOS[video], data=b"sound")
            for speaker, video in videos
            for row in range(2)
        ]
        shard_builder.seal(root / "store" / "shards" / "audio" / f"{number}.arrow", clips)
    return Store(root / "store")


def sealed(store: Store) -> list[SealedShard]:
    paths = sorted(store.shards("audio").glob("*.arrow"))
    return [
        SealedShard(number, path.name, f"{number}" * 64, len(rows_at(path)), path.stat().st_size)
        for number, path in enumerate(paths)
    ]


def rows_at(path: Path) -> list[tuple[str, str]]:
    return [(row["speaker_id"], row["video_id"]) for row in shard_builder.rows_of(path)]


def rows_of(view: View) -> list[tuple[int, int]]:
    """Return shard and row of each row of a view."""
    return [
        (part.shard.job, row)
        for part in view.shards
        for start, stop in part.ranges.tolist()
        for row in range(start, stop)
    ]


@given(
    speakers=st.sets(st.sampled_from(SPEAKERS)),
    videos=st.sets(st.sampled_from(VIDEOS)),
    exclude=st.sets(st.sampled_from([SPEAKERS[0], VIDEOS[0]])),
)
def test_a_view_has_the_rows_of_selected_videos(
    store: Store, speakers: set[str], videos: set[str], exclude: set[str]
) -> None:
    selection = Selection(frozenset(speakers), frozenset(videos), frozenset(exclude))
    expected = [
        (number, row)
        for number, shard in enumerate(sealed(store))
        for row, (speaker, video) in enumerate(rows_at(store.shards("audio") / shard.name))
        if speaker in (speakers or SPEAKERS)
        and video in (videos or VIDEOS)
        and not {speaker, video} & exclude
    ]
    if not expected:
        return
    view = view_of(store, "audio", sealed(store), selection)
    assert rows_of(view) == expected
    assert all(part.rows for part in view.shards)
    for part in view.shards:  # as few ranges as there can be
        assert (part.ranges[1:, 0] > part.ranges[:-1, 1]).all()
    if selection != Selection():
        assert view.videos == len(expected) // 2
    check_places(view)


def check_places(view: View) -> None:
    rows = rows_of(view)
    bases = np.cumsum([0, *(part.shard.rows for part in view.shards)])
    base = {part.shard.job: bases[number] for number, part in enumerate(view.shards)}
    assert view.indices().tolist() == [base[shard] + row for shard, row in rows]
    for first in range(len(rows)):
        for stop in range(first, len(rows) + 1):
            sliced = [
                (view.shards[shard].shard.job, row)
                for shard, start, end in view.slices(first, stop)
                for row in range(start, end)
            ]
            assert sliced == rows[first:stop]


def test_the_default_selects_all_without_looking(tmp_path: Path) -> None:
    shards = [SealedShard(0, "a", "0" * 64, 3, 9)]
    view = view_of(Store(tmp_path / "nowhere"), "audio", shards, Selection())
    assert view.is_whole
    assert rows_of(view) == [(0, 0), (0, 1), (0, 2)]


def test_a_catalogue_of_other_rows_is_an_error(store: Store) -> None:
    first, *others = sealed(store)
    wrong = SealedShard(first.job, first.name, first.sha256, first.rows + 1, first.size_bytes)
    with pytest.raises(StoreDamagedError, match="has 7 rows in the ledger and 6 in the catalogue"):
        view_of(store, "audio", [wrong, *others], Selection(max_speakers=1))


def test_a_store_without_shards_has_an_empty_view(store: Store) -> None:
    view = view_of(store, "audio", [], Selection(max_speakers=1))
    assert (view.shards, view.videos, view.selected) == ((), 0, 3)


def test_signatures_are_of_shard_and_rows() -> None:
    shard, other = (SealedShard(0, "a", digit * 64, 4, 9) for digit in "01")
    ranges = [[[0, 4]], [[0, 2]], [[0, 1]], [[0, 1], [2, 4]]]
    parts = [
        ShardRows(file, np.array(rows, np.int64)) for file in (shard, other) for rows in ranges
    ]
    signatures = [part.signature for part in parts]
    assert len(set(signatures)) == len(parts)
    assert signatures[0] == whole_view([shard]).shards[0].signature


@given(
    sizes=st.lists(st.integers(1, 4), max_size=5),
    bounds=st.sets(st.integers(0, 20), min_size=2).map(sorted),
)
def test_rows_in_ranges_are_sliced_from_batches(sizes: list[int], bounds: list[int]) -> None:
    ranges = np.array(bounds[: len(bounds) // 2 * 2], np.int64).reshape(-1, 2)
    numbers = np.arange(sum(sizes))
    schema = pa.schema([("number", pa.int64())])
    read: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for size in sizes:
            read.append(first)
            column = pa.array(numbers[first : first + size])
            yield pa.record_batch([column], schema=schema)
            first += size

    tables = list(rows_in(batches(), ranges))
    found = [number for table in tables for number in table["number"].to_pylist()]
    assert found == [n for n in numbers if any(a <= n < b for a, b in ranges.tolist())]
    assert all(len(table) for table in tables)
    assert sum(first >= ranges[-1, 1] for first in read) <= 1
