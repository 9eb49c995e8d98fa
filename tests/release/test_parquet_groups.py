"""A Parquet file written a row group at a time: the bytes of one writer, wherever it is stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxblink2_lib.release.index import BOX_COLUMNS, UTTERANCE_COLUMNS
from voxblink2_lib.release.index_writer import BOX_OPTIONS
from voxblink2_lib.release.parquet_groups import ParquetGroups

ZSTD = {"compression": "zstd"}


def boxes(count: int, *, seed: int) -> pa.RecordBatch:
    chance = np.random.default_rng(seed)
    offsets = np.append(0, np.cumsum(chance.integers(1, 200, count)))
    columns = [
        pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()),
            pa.array(chance.integers(0, 999, offsets[-1]), column.type.value_type),
        )
        for column in BOX_COLUMNS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=BOX_COLUMNS)


def at_once(path: Path, groups: list[pa.RecordBatch]) -> bytes:
    with pq.ParquetWriter(path, groups[0].schema, **BOX_OPTIONS) as writer:
        for group in groups:
            writer.write_batch(group)
    return path.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_bytes_are_those_of_one_writer(tmp_path: Path, count: int) -> None:
    groups = [boxes(50, seed=seed) for seed in range(count - 1)] + [boxes(3, seed=99)]
    written = ParquetGroups(tmp_path / "a", tmp_path / "entries", BOX_COLUMNS, options=BOX_OPTIONS)
    for group in groups:
        written.write(group)
    written.finish()
    assert (tmp_path / "a").read_bytes() == at_once(tmp_path / "b", groups)


def test_it_goes_on_behind_the_last_flush_whatever_was_written_then(tmp_path: Path) -> None:
    groups = [boxes(40, seed=seed) for seed in range(5)]
    names = (tmp_path / "a", tmp_path / "entries", BOX_COLUMNS)
    written = ParquetGroups(*names, options=BOX_OPTIONS)
    written.write(groups[0])
    state = written.flush()
    for number, group in enumerate(groups[1:], start=1):
        lost = ParquetGroups(*names, options=BOX_OPTIONS, state=state)
        for _ in range(number):
            lost.write(boxes(11, seed=number))
        with open(tmp_path / "a", "r+b") as file:  # as a writer leaves it in the middle of a group
            file.truncate(state["size_bytes"] - 4)
            file.seek(0, 2)
            file.write(b"PAR1 and half a group")
        with open(tmp_path / "entries", "ab") as file:
            file.write(b"\xff" * number)
        written = ParquetGroups(*names, options=BOX_OPTIONS, state=state)
        written.write(group)
        state = written.flush()
    written.finish()
    assert (tmp_path / "a").read_bytes() == at_once(tmp_path / "b", groups)


def test_a_dictionary_and_nulls(tmp_path: Path) -> None:
    rows = pa.RecordBatch.from_pylist(
        [
            {"speaker_id": f"id{n % 3:06}", "first_frame": n, "header_width": n % 2 or None}
            for n in range(100)
        ],
        schema=UTTERANCE_COLUMNS,
    )
    written = ParquetGroups(tmp_path / "a", tmp_path / "e", UTTERANCE_COLUMNS, options=ZSTD)
    written.write(rows)
    written.write(rows)
    written.finish()
    with pq.ParquetWriter(tmp_path / "b", UTTERANCE_COLUMNS, **ZSTD) as writer:
        writer.write_batch(rows)
        writer.write_batch(rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pq.read_table(tmp_path / "a").equals(pa.Table.from_batches([rows, rows]))
