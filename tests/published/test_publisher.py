"""A scratch store is published, read back and taken up, at every kind of URL."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from datasets import load_dataset

import voxblink2
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.published.manifest import ALL_BUT_SHARDS, read_manifest
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import cache_of, fetch_shards, open_published
from voxblink2_lib.published.session import publishing
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.status import summary_of
from voxblink2_lib.store.verify import verify_store

assert voxblink2  # registers the builder


def publish(url: str, root: Path) -> int:
    with publishing(url, Store(root, url)) as publisher:
        pass
    return publisher.generation


def contents(root: Path) -> dict[str, bytes]:
    """The shards of a store by their paths."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.glob("shards/*/*.arrow")
    }


def test_a_store_is_published_and_read_back(url: str, local: Path) -> None:
    assert publish(url, local) == 1
    copy = open_published(url, ALL_BUT_SHARDS)
    assert copy.place == url
    assert not [*copy.root.glob("shards/*/*.arrow")]
    with Ledger(copy.ledger, "audio", readonly=True) as ledger:
        names = [shard.name for shard in ledger.shards()]
    assert len(names) == 6
    fetch_shards(url, copy, "audio", names)
    assert contents(copy.root) == contents(local)
    assert not verify_store(copy, sample=1).problems


def test_what_is_published_is_not_published_again(url: str, local: Path) -> None:
    publish(url, local)
    before = Place(url).sizes()
    assert publish(url, local) == 1
    assert Place(url).sizes() == before


def test_the_manifest_has_the_id_of_the_store(url: str, local: Path, tmp_path: Path) -> None:
    publish(url, local)
    with Ledger(local / "ledger.sqlite", "audio", readonly=True) as ledger:
        store_id = ledger.store_id
    manifest = Place(url).read().manifest
    assert manifest is not None
    assert manifest.store_id == store_id != ""
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        assert ledger.store_id == store_id
    # Another scratch store goes on with it.
    publish(url, tmp_path / "another")
    with Ledger(tmp_path / "another" / "ledger.sqlite", "audio", readonly=True) as ledger:
        assert ledger.store_id == store_id


def test_the_id_in_a_manifest_may_be_missing_and_is_checked(url: str, local: Path) -> None:
    publish(url, local)
    manifest = Place(url).read().manifest
    assert manifest is not None
    record = json.loads(manifest.as_json())
    for wrong in ("x", 7, "../" * 10, None):
        with pytest.raises(StoreDamagedError, match="here cannot be used"):
            read_manifest(json.dumps({**record, "store_id": wrong}).encode(), "here")
    del record["store_id"]  # as of one that was published before
    assert read_manifest(json.dumps(record).encode(), "here").store_id == ""


def test_the_manifest_sums_up_the_ledger_for_loads(url: str, local: Path) -> None:
    publish(url, local)
    manifest = Place(url).read().manifest
    assert manifest is not None
    store = Store(local, url)
    for config in CONFIG_NAMES:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            assert manifest.summaries[config] == summary_of(store, ledger)
    record = json.loads(manifest.as_json())
    assert read_manifest(json.dumps(record).encode(), "here") == manifest
    for name in ("../audio-00000.arrow", "audio-00009.arrow", "", 7, None):
        record["summaries"]["audio"]["shards"][0][1] = name
        with pytest.raises(StoreDamagedError, match="is no shard of it"):
            read_manifest(json.dumps(record).encode(), "here")
    del record["summaries"]  # as of one that was published before
    assert read_manifest(json.dumps(record).encode(), "here").summaries == {}


def test_a_load_of_a_manifest_without_summaries_reads_the_ledger(
    memory: str, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    publish(memory, local)
    system, path = fsspec.core.url_to_fs(f"{memory}/manifest.json")
    record = json.loads(system.cat_file(path))
    del record["summaries"]
    system.pipe_file(path, json.dumps(record).encode())
    rows = load_dataset("voxblink2", "audio", store=memory, split="train")
    assert len(rows) == 6
    assert [*cache_of(memory).glob("1-*/ledger.sqlite")]
