"""Which store and shards something was made from: what files say, and what is known of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.provenance import (
    EXPORT_MANIFEST,
    Provenance,
    copies_from,
    note_copy,
    provenance_of,
)
from voxblink2_lib.store.rebuild import rebuild_ledger

ID = "0123456789abcdef" * 2
FIRST, SECOND = "a" * 64, "b" * 64
MADE = Provenance.of(ID, [FIRST, SECOND])


def write_parquet(path: Path, metadata: dict[str, str]) -> Path:
    pq.write_table(pa.table({"name": ["a"]}).replace_schema_metadata(metadata), path)
    return path


def write_export(folder: Path, shards: dict[str, str]) -> Path:
    folder.mkdir()
    record = {"store_id": ID, "shards": shards, "outdated": []}
    (folder / EXPORT_MANIFEST).write_text(json.dumps(record))
    return folder


def test_files_say_what_they_were_made_from(tmp_path: Path) -> None:
    parquet = write_parquet(tmp_path / "a.parquet", MADE.as_metadata())
    assert provenance_of(parquet) == MADE
    tensors = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"embeddings": np.zeros((1, 2))}, tensors, MADE.as_metadata())
    assert provenance_of(tensors) == MADE
    export = write_export(tmp_path / "export", {"one": FIRST, "two": SECOND})
    assert provenance_of(export / EXPORT_MANIFEST) == MADE


@pytest.mark.parametrize("name", ["a.parquet", "a.safetensors", EXPORT_MANIFEST, "a.txt"])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"shards": []}', b"\xff" * 50])
def test_other_files_say_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert provenance_of(tmp_path / name) is None


def test_files_of_earlier_versions_say_nothing(tmp_path: Path) -> None:
    assert provenance_of(write_parquet(tmp_path / "a.parquet", {"voxblink2_content": "x"})) is None
    record = {"shards": {"one": FIRST}, "outdated": [SECOND]}
    (tmp_path / EXPORT_MANIFEST).write_text(json.dumps(record))
    assert provenance_of(tmp_path / EXPORT_MANIFEST) == Provenance.of("", [FIRST, SECOND])


def test_copies_are_known_as_long_as_they_are_there(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", MADE.as_metadata())
    export = write_export(tmp_path / "export", {"one": FIRST})
    for place in (file, export):
        note_copy(str(place), MADE)
    note_copy("s3://bucket/export", Provenance.of(ID, [FIRST]))
    note_copy(str(tmp_path / "of no store"), Provenance.of("", [FIRST]))
    assert copies_from(ID, frozenset([FIRST])) == [str(file), str(export), "s3://bucket/export"]
    assert copies_from(ID, frozenset([SECOND])) == [str(file)]  # the export is of one shard now
    assert copies_from("another", frozenset([FIRST])) == []
    note_copy("s3://bucket/export", Provenance.of(ID, [SECOND]))  # it was made again
    write_parquet(file, {})
    shutil.rmtree(export)
    assert copies_from(ID, frozenset([FIRST])) == []


def test_a_home_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "file"))
    note_copy("s3://bucket/export", MADE)
    assert copies_from(ID, MADE.shards) == []


# -- The id of a store -----------------------------------------------------------------------------


def store_id(path: Path) -> str:
    with Ledger(path, "audio", readonly=True) as ledger:
        return ledger.store_id


def test_a_ledger_has_one_id_for_good_with_its_first_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path, "audio").close()
    assert store_id(path) == ""
    ids = set()
    for value in ("1", "2"):
        with Ledger(path, "audio") as ledger:
            ledger.set_setting("note", value)
        ids.add(store_id(path))
    (first,) = ids
    assert len(first) == 32
    with Ledger(tmp_path / "other.sqlite", "audio") as ledger:
        ledger.set_setting("note", "1")
    assert store_id(tmp_path / "other.sqlite") != first


def test_a_ledger_from_before_gets_one_with_its_next_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path, "audio").close()
    database = sqlite3.connect(path)
    database.execute("delete from facts where name = 'store_id'")
    database.commit()
    database.close()
    Ledger(path, "audio").close()
    assert store_id(path) == ""
    with Ledger(path, "audio") as ledger:
        ledger.set_setting("note", "1")
    assert len(store_id(path)) == 32


def test_a_ledger_that_is_rebuilt_keeps_it(undisturbed: Path, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(undisturbed, tmp_path / "store")))
    before = store_id(store.ledger)
    assert before
    rebuild_ledger(store)
    assert store_id(store.ledger) == before
