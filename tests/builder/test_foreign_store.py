"""A store of somebody else is checked before ``datasets`` reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import load_dataset
from support import shard_builder

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.cli import main
from voxblink2_lib.errors import StoreError
from voxblink2_lib.release import builtin
from voxblink2_lib.training import Corpus


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "store"))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are read to check them."""
    return shard_builder.note_checks(monkeypatch)


def load(store: Path, **options: Any) -> Any:
    cache = str(store.parent / "cache")
    return load_dataset("voxblink2", store=str(store), split="train", cache_dir=cache, **options)


def first_shard(store: Path) -> Path:
    return min(store.glob("shards/audio/*.arrow"))


def put_a_path(shard: Path) -> None:
    """Let the audio of a row be a file of the machine, as ``datasets`` understands it."""
    rows = pa.ipc.open_stream(shard.read_bytes()).read_all()
    audio = rows["audio"].to_pylist()
    audio[1] = {"bytes": None, "path": "/etc/passwd"}
    rows = rows.set_column(0, rows.schema.field(0), pa.array(audio, rows.schema.field(0).type))
    shard.unlink()
    with pa.ipc.new_stream(str(shard), rows.schema) as writer:
        writer.write_table(rows)


def test_each_shard_is_checked_once(store: Path, checked: list[str]) -> None:
    load(store)
    names = sorted(path.name for path in store.glob("shards/audio/*.arrow"))
    assert sorted(checked) == names
    load(store)
    assert sorted(checked) == names


@pytest.mark.parametrize("loaded_before", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_path_in_a_shard_is_never_opened(
    loaded_before: bool, streaming: bool, store: Path
) -> None:
    if loaded_before:
        load(store)
    shard = first_shard(store)
    put_a_path(shard)
    match = (
        rf"{shard.name} is damaged \(row 1: the column audio has no bytes; a path in it is never"
    )
    with pytest.raises((StoreError, datasets.exceptions.DatasetGenerationError), match=match):
        list(load(store, streaming=streaming))


def test_a_flipped_offset_is_an_error_that_names_the_shard(store: Path) -> None:
    load(store)
    shard = first_shard(store)
    rows = pa.ipc.open_stream(shard.read_bytes()).read_all()
    ends = rows["speaker_id"].chunk(0).buffers()[1].to_pybytes()[:12]
    data = shard.read_bytes()
    assert ends in data
    # In place: the cache has the same file.
    shard.write_bytes(data.replace(ends, ends[:4] + b"\xff\xff\xff\x7f" + ends[8:], 1))
    with pytest.raises(StoreError, match=rf"{shard.name} is damaged \(batch 0: "):
        load(store)


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_every_door_names_the_shard_and_the_way_out(
    damage: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = first_shard(store)
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        shard.unlink()
    words = f"{shard} is (damaged|missing).* 'voxblink2 repair --store {store}'"
    with pytest.raises((StoreError, datasets.exceptions.DatasetGenerationError), match=words):
        load(store)
    with pytest.raises((StoreError, datasets.exceptions.DatasetGenerationError), match=words):
        list(load(store, streaming=True))
    if damage == "truncated":
        with pytest.raises(StoreError, match=words):
            Corpus.open(store)
    # Not the site of before: a video that is due there would be asked for, and the site is gone.
    place = ("--data-dir", "demo", "--source", str(builtin.MEDIA), "--store", str(store))
    assert main(["materialize", *place]) == 1
    assert f"'voxblink2 repair --store {store}'" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["a path", "columns", "compressed"])
def test_verify_names_what_the_readers_refuse(
    change: str, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = first_shard(store)
    rows = pa.ipc.open_stream(shard.read_bytes()).read_all()
    if change == "a path":
        put_a_path(shard)
    else:
        compression = "lz4" if change == "compressed" else None
        if change == "columns":
            more = pa.nulls(len(rows), pa.int8())
            columns = dict(zip(rows.column_names, rows.columns, strict=True))
            rows = pa.table(columns | {f"more{number}": more for number in range(20_000)})
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_stream(str(shard), rows.schema, options=options) as writer:
            writer.write_table(rows)
    # Whoever writes a shard can write its checksums too.
    monkeypatch.setattr("voxblink2_lib.store.shard_verification.shard_problem", lambda *_: "")
    assert main(["verify", "--store", str(store), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    expected = {
        "a path": "has no bytes; a path in it is never opened",
        "columns": "it has a column that no shard has: more0, more1,",
        "compressed": "it has a compressed batch; shards are not compressed",
    }
    assert [
        problem for problem in problems if expected[change] in problem and shard.name in problem
    ]
    assert all(len(problem) < 1_000 for problem in problems)
