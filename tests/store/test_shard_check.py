"""A shard is checked before it is used, whoever wrote it, and every reader says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features
from support import shard_builder

from voxblink2_lib.errors import StoreError, TrainingError
from voxblink2_lib.store import shard_check
from voxblink2_lib.store.schema import FEATURES, arrow_schema
from voxblink2_lib.store.shard_check import CheckedShards, check_features, open_shard, shard_batches
from voxblink2_lib.training import Corpus

SHARD = "audio-00000.arrow"
TESTS = Path(__file__).parents[1]
Change = Callable[[pa.Table], pa.Table]


def make_shard(folder: Path) -> Path:
    clips = [shard_builder.clip(number, data=b"x" * number) for number in range(20, 30)]
    return shard_builder.seal(folder / SHARD, clips)


def rows_of(path: Path) -> pa.Table:
    return pa.ipc.open_stream(path.read_bytes()).read_all()


def write(path: Path, rows: pa.Table, **options: Any) -> None:
    with pa.ipc.new_stream(str(path), rows.schema, **options) as writer:
        writer.write_table(rows)


def read(path: Path) -> int:
    return sum(batch.num_rows for batch in shard_batches(open_shard(path)))


def replaced(column: str, row: int, value: Any) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        values = rows[column].to_pylist()
        values[row] = value
        field = rows.schema.field(column)
        return rows.set_column(
            rows.schema.get_field_index(column), field, pa.array(values, field.type)
        )

    return change


def cast(column: str, kind: pa.DataType) -> Change:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(column)
        return rows.set_column(place, column, rows[column].cast(kind))

    return change


def more_columns(rows: pa.Table) -> pa.Table:
    for number in range(2_000):
        rows = rows.append_column(f"{number}" * 99, pa.nulls(len(rows), pa.int8()))
    return rows


# -- What a shard is -------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_package() -> None:
    known = {field.name: field.type for name in FEATURES for field in arrow_schema(name)}
    assert known == shard_check.COLUMNS


def test_a_good_shard_passes(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    assert read(path) == 10
    check_features(path)


ROWS = {
    "a path": (replaced("audio", 3, {"bytes": None, "path": "/etc/passwd"}),
               "row 3: the column audio has no bytes; a path in it is never opened"),
    "no audio": (replaced("audio", 4, None), "row 4: the column audio is null"),
    "no id": (replaced("speaker_id", 5, None), "row 5: the column speaker_id is null"),
    "a long id": (replaced("video_id", 6, "x" * 1_000_000), "row 6: .* video_id is no id: it is"),
    "no time": (replaced("end_seconds", 7, float("nan")), "row 7: .* end_seconds is no time after"),
    "no start": (replaced("start_seconds", 8, -float("inf")), "row 8: .* is no time after"),
    "an end before": (replaced("end_seconds", 9, -1.0), "row 9: .* is no time after the start"),
    "a day": (replaced("end_seconds", 0, 1e300), "row 0: .* is no time after the start"),
}  # fmt: skip
COLUMNS = {
    "no column": (lambda rows: rows.drop_columns(["audio"]), "it has no column audio; it has spea"),
    "more columns": (more_columns, r"has a column that no shard has: .* \(2,000\); it has audio"),
    "another type": (cast("start_seconds", pa.float32()), "column of another type: start_seconds"),
    "a dictionary": (cast("source", pa.dictionary(pa.int32(), pa.string())),
                     "the column 'source' is in a dictionary; write it plain"),
    "twice": (lambda rows: rows.append_column("source", rows["source"]), "it has a column twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*ROWS, *COLUMNS])
def test_what_is_no_shard_is_refused_by_every_reader(kind: str, tmp_path: Path) -> None:
    change, match = (ROWS | COLUMNS)[kind]
    path = make_shard(tmp_path)
    write(path, change(rows_of(path)))
    with pytest.raises(StoreError, match=rf"{SHARD}.*{match}") as caught:
        read(path)
    assert len(str(caught.value)) < 3_000
    with pytest.raises((StoreError, TrainingError), match=match):
        Corpus.open(tmp_path)
    with pytest.raises(StoreError, match=match):
        CheckedShards(tmp_path / "memory").check([path])


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_compressed_shard_is_refused(codec: str, tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    write(path, rows_of(path), options=pa.ipc.IpcWriteOptions(compression=codec))
    with pytest.raises(StoreError, match="it has a compressed batch; shards are not compressed"):
        read(path)


@pytest.mark.parametrize("change", [lambda data: data[:-8], lambda data: data + b"more"])
def test_a_shard_that_ends_elsewhere_is_refused(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = make_shard(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StoreError, match="it is truncated, or has bytes after its end"):
        read(path)


def test_a_wrong_offset_is_an_error(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    data = path.read_bytes()
    offsets = pa.array([20, 41]).cast(pa.int32()).buffers()[1].to_pybytes()  # of the clips
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:4] + b"\xff\xff\xff\x7f"))
    with pytest.raises(StoreError, match=rf"{SHARD} is damaged \(batch 0: "):
        read(path)


def test_other_features_are_refused(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    rows = rows_of(path)
    features = Features.from_arrow_schema(rows.schema)
    features["audio"].sampling_rate = 8_000
    write(path, rows.replace_schema_metadata(features.arrow_schema.metadata))
    assert read(path) == 10
    with pytest.raises(StoreError, match="no shard of this package: datasets would read its"):
        check_features(path)
    write(path, rows.replace_schema_metadata({"huggingface": "{"}))
    with pytest.raises(StoreError, match="its columns cannot be read by datasets: "):
        check_features(path)


# -- Once ------------------------------------------------------------------------------------------


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to check them."""
    return shard_builder.note_checks(monkeypatch)


def test_a_shard_is_checked_once_under_all_its_names(tmp_path: Path, checked: list[str]) -> None:
    path, memory = make_shard(tmp_path), tmp_path / "memory"
    CheckedShards(memory).check([path])
    os.link(path, tmp_path / "other name")
    shards = CheckedShards(memory)
    shards.check([path, tmp_path / "other name"])
    assert checked == [SHARD]
    os.utime(path, ns=(0, 1))
    shards.check([path])
    assert checked == [SHARD] * 2
    memory.write_bytes(b"[[1]]")
    CheckedShards(memory).check([path])
    assert checked == [SHARD] * 3


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    path = make_shard(tmp_path)
    CheckedShards(path / "memory").check([path])


def test_a_bad_shard_is_not_remembered(tmp_path: Path) -> None:
    path, memory = make_shard(tmp_path), tmp_path / "memory"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with pytest.raises(StoreError, match="is damaged"):
            CheckedShards(memory).check([path])
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        CheckedShards(memory).check([path])


# -- Flipped bits ----------------------------------------------------------------------------------


def flips(folder: Path, first: int, last: int) -> tuple[int, int]:
    """Return how many flips of a bit are reported, and how many show in the rows."""
    path = make_shard(folder)
    command = [sys.executable, "-W", "error", "-m", "support.flipped_bits", str(path)]
    command += [str(first), str(last)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reported, different = map(int, done.stdout.split())
    return reported, different


def test_a_flipped_bit_ends_no_process(tmp_path: Path) -> None:
    reported, different = flips(tmp_path, 0, 60)
    assert reported > 10
    assert different > 5  # a letter of an id, for example: only the checksum shows it


@pytest.mark.slow
def test_no_flipped_bit_ends_a_process(tmp_path: Path) -> None:
    flips(tmp_path, 60, 3_000)
