"""``load_dataset``, streaming, ``Corpus.open`` and the commands read a store at a URL."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from datasets import Audio, load_dataset
from support.cli_process import run_any, run_inline, run_inline_json
from support.faulty_bucket import faulty_bucket

import voxblink2
from voxblink2_lib.errors import StoreDamagedError, StoreError, StoreFullError, TrainingError
from voxblink2_lib.published import reading
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.session import publishing
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.training import Corpus, Reader

assert voxblink2  # registers the builder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def publish(url: str, root: Path) -> None:
    with publishing(url, Store(root, url)):
        pass


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in dataset.cast_column("audio", Audio(decode=False))]


@pytest.fixture
def published(url: str, local: Path) -> str:
    publish(url, local)
    return url


def test_a_load_gives_the_rows_of_the_local_store(
    published: str, local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        there = load_dataset("voxblink2", "audio", store=published, split="train")
    here = load_dataset("voxblink2", "audio", store=str(local), split="train")
    assert there.features == here.features
    assert rows_of(there) == rows_of(here)
    assert "Downloading 6 files" in caplog.text
    assert "are free" in caplog.text
    caplog.clear()
    again = load_dataset("voxblink2", "audio", store=published, split="train")
    assert rows_of(again) == rows_of(here)
    assert "Downloading" not in caplog.text


def test_a_stream_gives_the_same_rows_and_downloads_no_shard(
    published: str, local: Path, home: Path
) -> None:
    here = load_dataset("voxblink2", "audio", store=str(local), split="train")
    stream = load_dataset("voxblink2", "audio", store=published, split="train", streaming=True)
    assert rows_of(stream) == rows_of(here)
    assert stream.num_shards == 6
    assert not [*home.rglob("audio-0*.arrow")]


def test_a_view_needs_only_its_shards(published: str, local: Path, home: Path) -> None:
    chosen: dict[str, Any] = {"speakers": ["id000001"], "split": "train"}
    there = load_dataset("voxblink2", "audio", store=published, **chosen)
    here = load_dataset("voxblink2", "audio", store=str(local), **chosen)
    assert rows_of(there) == rows_of(here)
    assert len([*home.rglob("audio-0*.arrow")]) == 2


def test_a_load_sees_one_manifest_and_the_next_load_the_next(
    url: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(url, local)
    builder = voxblink2.VoxBlink2(config_name="audio", store=url)
    before = builder.config.find_store()
    monkeypatch.setattr("time.time", lambda: 4e9)
    with Ledger(local / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("note", "x")
    publish(url, local)
    assert builder.config.find_store() == before
    assert voxblink2.VoxBlink2(config_name="audio", store=url).config.find_store() != before


def test_no_room_is_said_before(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(reading.shutil, "disk_usage", lambda _: Usage)  # type: ignore[attr-defined]  # a module that it imports
    with pytest.raises(
        StoreFullError, match=r"no room to download 6 files of .*use streaming=True"
    ):
        load_dataset("voxblink2", "audio", store=published, split="train")


def test_nothing_is_at_the_url(url: str) -> None:
    with pytest.raises(StoreError, match=r"There is no store at .*manifest\.json"):
        load_dataset("voxblink2", "audio", store=url, split="train")


def test_commands_read_a_url(published: str, local: Path, tmp_path: Path) -> None:
    there = run_inline_json("status", "--store", published, "--config", "audio", "--missing")
    here = run_inline_json("status", "--store", local, "--config", "audio", "--missing")
    assert there == {**here, "store": published}
    page = tmp_path / "report.html"
    assert run_inline_json("report", "--store", published, "--out", page)["store"] == published
    assert published in page.read_text(encoding="utf-8")
    there = run_inline_json("verify", "--store", published, "--config", "audio")
    here = run_inline_json("verify", "--store", local, "--config", "audio")
    assert there == {**here, "store": published}
    assert there["shards"] == 6


def test_it_is_split_compared_and_exported_as_the_local_store(
    published: str, local: Path, tmp_path: Path
) -> None:
    words = ("--validation-speakers", 1, "--seed", 3, "--out", tmp_path / "validation.txt")
    there = run_inline_json("split", "--store", published, *words)
    assert there == {**run_inline_json("split", "--store", local, *words), "store": published}
    chosen: dict[str, Any] = {"validation": str(tmp_path / "validation.txt")}
    here = load_dataset("voxblink2", "audio", store=str(local), **chosen)
    loaded = load_dataset("voxblink2", "audio", store=published, **chosen)
    assert {name: rows_of(rows) for name, rows in loaded.items()} == {
        name: rows_of(rows) for name, rows in here.items()
    }
    difference = run_inline_json("diff", published, local)
    assert (difference["before"], difference["after"]) == (published, str(local))
    assert [each["reasons"] for each in difference["configs"].values()] == [[]]
    for name, store in (("a", published), ("b", local)):
        run_inline("export", "folder", "--store", store, "--to", tmp_path / name)
    clips = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted(found)}
        for name in ("a", "b")
        if (found := [*(tmp_path / name).rglob("*.flac")])
    ]
    assert clips[0] == clips[1]


def test_what_was_purged_from_a_scratch_store_does_not_come_back(
    url: str, local: Path, corpus: Path, tmp_path: Path
) -> None:
    publish(url, local)
    run_inline("purge", "id000001", "--store", local)
    publish(url, local)
    place = Place(url)
    manifest = place.read().manifest
    assert manifest is not None
    for file in manifest.files.values():
        assert b"id000001" not in place._system.cat_file(f"{place._path}/{file.name}"), file.name
    status = run_inline_json("status", "--store", url, "--config", "audio")
    assert status == {
        **run_inline_json("status", "--store", local, "--config", "audio"),
        "store": url,
    }
    result = run_any("verify", "--store", url)
    assert result.returncode == 0, result.stdout
    # Nor where another scratch store takes it up.
    words = ("--data-dir", corpus, "--source", corpus / "media", "--workers", 1)
    run_inline("materialize", *words, "--store", url, "--scratch", tmp_path / "other")
    rows = load_dataset("voxblink2", "audio", store=url, split="train")
    assert set(rows["speaker_id"]) == {"id000000", "id000002"}


def test_verify_finds_a_damaged_file_at_a_url(published: str) -> None:
    place = Place(published)
    manifest = place.read().manifest
    assert manifest is not None
    shard = manifest.shards("audio")["audio-00002.arrow"]
    system, path = place._system, f"{place._path}/{shard.name}"
    data = bytearray(system.cat_file(path))
    data[-900] ^= 4
    system.pipe_file(path, bytes(data))
    outcomes = next(file for file in manifest.below("shards/") if "00001" in file.path)
    system.rm_file(f"{place._path}/{outcomes.name}")
    result = run_any("verify", "--store", published)
    assert result.returncode == 1
    assert f"{shard.name} of the published store {published} is damaged" in result.stdout
    assert f"{outcomes.name} of the published store {published} is missing" in result.stdout
    assert f"'voxblink2 materialize --store {published}'" in result.stdout


def test_what_was_removed_at_the_url_is_published_again(published: str, local: Path) -> None:
    place = Place(published)
    manifest = place.read().manifest
    assert manifest is not None
    shard, *_ = manifest.shards("audio").values()
    place.remove([shard.name])
    assert run_any("verify", "--store", published).returncode == 1
    publish(published, local)
    assert run_any("verify", "--store", published).returncode == 0


def test_a_corpus_is_opened_at_a_url(
    published: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Corpus.open(local), Corpus.open(published, cache_dir=tmp_path / "pieces")
    assert there.names() == here.names()
    ours, theirs = Reader(here), Reader(pickle.loads(pickle.dumps(there)))
    for row in range(len(here)):
        assert theirs.encoded(row) == ours.encoded(row)
    with pytest.raises(TrainingError, match="no shard of the configuration 'audio-visual' yet"):
        Corpus.open(published, "audio-visual")


def test_opening_a_corpus_takes_few_requests(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_bucket(monkeypatch) as faults:
        publish("s3://bucket/store", local)
        faults.seen.clear()
        corpus = Corpus.open("s3://bucket/store", cache_dir=tmp_path / "pieces")
        Reader(corpus).encoded(0)
        assert len(faults.seen) <= 6


def test_a_stream_of_a_shard_that_is_damaged_ends_with_an_error(published: str) -> None:
    place = Place(published)
    manifest = place.read().manifest
    assert manifest is not None
    shard = manifest.shards("audio")["audio-00003.arrow"]
    system, path = place._system, f"{place._path}/{shard.name}"
    whole = system.cat_file(path)
    stream = load_dataset("voxblink2", "audio", store=published, split="train", streaming=True)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-8], whole[: len(whole) // 2]):
        system.pipe_file(path, content)
        with pytest.raises(StoreError, match=r"audio-00003\."):
            rows_of(stream)
    system.rm_file(path)
    with pytest.raises(StoreDamagedError, match="is missing"):
        rows_of(stream)


def test_a_stream_goes_on_while_another_generation_is_published(
    published: str, local: Path
) -> None:
    here = rows_of(load_dataset("voxblink2", "audio", store=str(local), split="train"))
    stream = load_dataset("voxblink2", "audio", store=published, split="train", streaming=True)
    rows = iter(stream.cast_column("audio", Audio(decode=False)))
    first = next(rows)
    with Ledger(local / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("note", "x")
    publish(published, local)
    assert [dict(first), *map(dict, rows)] == here


def test_copies_of_former_generations_are_removed(
    url: str, local: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for note in ("a", "b", "c"):
        with Ledger(local / "ledger.sqlite", "audio") as ledger:
            ledger.set_setting("note", note)
        publish(url, local)
        reading.open_published(url)
    (cache,) = (home / "published").iterdir()
    assert len([*cache.glob("*-*")]) == 3
    before = len([*(cache / "files").iterdir()])
    monkeypatch.setattr(reading, "_KEPT_SECONDS", -1.0)
    store = reading.open_published(url)
    assert [*cache.glob("*-*")] == [store.root]
    assert len([*(cache / "files").iterdir()]) == before - 2
