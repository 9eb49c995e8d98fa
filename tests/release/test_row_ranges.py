"""Row ranges of videos: those of a loop over all rows, however they are handed in."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.release import row_ranges
from voxblink2_lib.release.row_ranges import RowRanges

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("speaker_id", "video_id", "utterance_id")),
        ("digest", pa.int64()),
    ]
)
DIGEST = st.integers(-(2**63), 2**63 - 1)
ROW = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["v", "w"]), DIGEST)


def table_of(rows: list[tuple[str, str, int]], first: int = 0) -> pa.RecordBatch:
    records = [
        {"speaker_id": speaker, "video_id": video, "utterance_id": f"{n}", "digest": digest}
        for n, (speaker, video, digest) in enumerate(rows, start=first)
    ]
    return pa.RecordBatch.from_pylist(records, schema=SCHEMA)


def expected(rows: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    videos: dict[tuple[str, str], dict[str, Any]] = {}
    number = 0
    for key, group in groupby(rows, key=lambda row: row[:2]):
        run = list(group)
        video = videos.setdefault(
            key,
            {"speaker_id": key[0], "video_id": key[1], "first_rows": [], "row_counts": []}
            | {"digest": 0},
        )
        video["first_rows"].append(number)
        video["row_counts"].append(len(run))
        total = video["digest"] + sum(digest for *_, digest in run)
        video["digest"] = int.from_bytes((total % 2**64).to_bytes(8, "big"), "big", signed=True)
        number += len(run)
    return [videos[key] for key in sorted(videos)]


@given(
    batches=st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=6),
    stops=st.sets(st.integers(0, 5)),
    flushed=st.sampled_from([1, 2, 1000]),
)
def test_ranges_are_those_of_a_loop(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[str, str, int]]],
    stops: set[int],
    flushed: int,
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "ranges"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_ranges, "_FLUSHED_RANGES", flushed)
        ranges = RowRanges(path)
        for number, rows in enumerate(batches):
            if number in stops:  # stopped, after it has written some more
                state = ranges.flush()
                ranges.add(table_of(rows))
                ranges.flush()
                ranges = RowRanges(path, state)
            ranges.add(table_of(rows))
        videos = ranges.by_video()
    rows = [row for batch in batches for row in batch]
    assert videos.to_pylist() == expected(rows)
    assert {field.name: field.type for field in videos.schema} == {
        "speaker_id": pa.string(),
        "video_id": pa.string(),
        "first_rows": pa.list_(pa.int64()),
        "row_counts": pa.list_(pa.int32()),
        "digest": pa.int64(),
    }


def test_what_the_last_range_has_is_known(tmp_path: Path) -> None:
    ranges = RowRanges(tmp_path / "ranges")
    assert ranges.known(table_of([("a", "v", 1)])) == []
    ranges.add(table_of([("a", "v", 1)] * 3))
    again = table_of([("a", "v", 1)] * 4, first=2)  # utterances 2 to 5
    assert ranges.known(again) == [0]
    ranges = RowRanges(tmp_path / "ranges", ranges.flush())
    assert ranges.known(again) == [0]
    assert ranges.known(again.slice(0, 0)) == []
    ranges.add(again.slice(1))
    assert ranges.known(again) == [0, 1, 2, 3]
    assert ranges.known(table_of([("a", "w", 1), ("a", "v", 1)])) == []


def test_sums_of_digests_wrap(tmp_path: Path) -> None:
    ranges = RowRanges(tmp_path / "ranges")
    for _ in range(3):
        ranges.add(table_of([("a", "v", 2**63 - 1)] * 2))
        ranges = RowRanges(tmp_path / "ranges", ranges.flush())
    assert ranges.by_video()["digest"].to_pylist() == [-6]
