"""Rows that come a few at a time become batches, in memory that is used again."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.store import row_batches
from voxblink2_lib.store.row_batches import RowBatches
from voxblink2_lib.store.schema import arrow_schema

SCHEMA = arrow_schema("audio-visual")


def rows_of(sizes: list[int], *, first: int) -> pa.RecordBatch:
    """Return rows with media of these sizes, each of another byte."""
    numbers = range(first, first + len(sizes))
    media = [
        {"bytes": bytes([number % 256]) * size, "path": f"{number}"}
        for number, size in zip(numbers, sizes, strict=True)
    ]
    rows = [
        {
            "audio": each,
            "video": {"bytes": each["bytes"][::2], "path": "v"},
            "speaker_id": f"id{number}",
            "start_seconds": None if number % 3 else number / 25,
            "boxes": [[number, 1, 2, 3]] * (number % 4),
        }
        for number, each in zip(numbers, media, strict=True)
    ]
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def message(batch: pa.RecordBatch) -> bytes:
    return bytes(batch.serialize())


def batches_of(adds: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], list[bytes]]:
    """Return the batches of rows, as they were when they were yielded, and their messages."""
    batches = RowBatches(SCHEMA)
    messages: list[bytes] = []
    for rows in adds:
        # In memory that is written over as soon as they were added.
        slot = bytearray(message(rows))
        lent = pa.ipc.read_record_batch(pa.py_buffer(memoryview(slot)), SCHEMA)
        messages += map(message, batches.add(lent))
        del lent
        slot[:] = bytes(len(slot))
    messages += map(message, batches.finish())
    return [pa.ipc.read_record_batch(pa.py_buffer(each), SCHEMA) for each in messages], messages


VIDEOS = st.lists(st.lists(st.integers(0, 400), max_size=9), max_size=12)


@given(videos=VIDEOS, limit=st.integers(1, 8), most_bytes=st.sampled_from([900, 5_000, 1 << 20]))
def test_batches_are_the_rows_whatever_memory_they_were_in(
    videos: list[list[int]], limit: int, most_bytes: int
) -> None:
    added = [rows_of(video, first=place * 10) for place, video in enumerate(videos)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_batches, "_ROWS_PER_BATCH", limit)
        patched.setattr(row_batches, "_BYTES_PER_BATCH", most_bytes)
        batches, _ = batches_of(added)
    assert all(batch.num_rows <= limit for batch in batches)
    assert pa.Table.from_batches(batches, SCHEMA) == pa.Table.from_batches(added, SCHEMA)


@given(videos=VIDEOS, limit=st.integers(1, 8))
def test_the_bytes_do_not_depend_on_how_many_rows_come_at_a_time(
    videos: list[list[int]], limit: int
) -> None:
    added = [rows_of(video, first=place * 10) for place, video in enumerate(videos)]
    alone = [rows.slice(at, 1) for rows in added for at in range(rows.num_rows)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_batches, "_ROWS_PER_BATCH", limit)
        assert batches_of(added)[1] == batches_of(alone)[1]
