"""Shards that other machines have uploaded, and what has left nodes of open jobs."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import fsspec
import pytest

from voxblink2_lib.published import publisher
from voxblink2_lib.published.manifest import PublishedFile, new_attempt
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.publisher import Publisher
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.published.session import begin, publishing
from voxblink2_lib.published.uploads import (
    finished_jobs_of,
    note_upload,
    read_uploads,
    shards_at_url,
)
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.catalogue import update_catalogue
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

URL = "memory://corpora/store"


@pytest.fixture
def place() -> Place:
    fsspec.filesystem("memory").store.clear()
    return Place(URL)


def move_to_url(store: Store, place: Place, name: str) -> PublishedFile:
    """Upload a sealed shard as a node does, and leave nothing of it in the scratch store."""
    path = store.shards("audio") / name
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    file = PublishedFile(f"shards/audio/{name}", new_attempt(), path.stat().st_size, sha256)
    with open(path, "rb") as source:
        place.upload(source, file.name, file.size_bytes)
    catalogue = store.root / "one.arrow"
    update_catalogue(catalogue, store.shards("audio"), {name: file.size_bytes})
    note_upload(store, file, catalogue.read_bytes())
    path.unlink()
    return file


def test_a_shard_that_was_uploaded_elsewhere_is_published(local: Path, place: Place) -> None:
    store = Store(local)
    content = (store.shards("audio") / "audio-00003.arrow").read_bytes()
    file = move_to_url(store, place, "audio-00003.arrow")
    assert shards_at_url(store, "audio") == {"audio-00003.arrow"}
    place.upload(io.BytesIO(b"part"), "jobs/audio/00003/0123456789ab/id_video.arrow", 4)
    with publishing(URL, store):
        assert file.name in place.sizes()  # is no stranger to the sweep
    manifest = place.read().manifest
    assert manifest is not None
    assert manifest.files[file.path] == file
    assert not read_uploads(store)
    assert not place.sizes("jobs")
    copy = open_published(URL)
    fetch_shards(URL, copy, "audio", ["audio-00003.arrow"])
    assert (copy.shards("audio") / "audio-00003.arrow").read_bytes() == content


def test_a_shard_that_is_committed_while_its_store_is_listed_is_no_loss(
    local: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(local)
    begin(place, store)

    def noted_late(path: Path, copy: Path) -> None:
        if not read_uploads(store):
            move_to_url(store, place, "audio-00003.arrow")
        copy_ledger(path, copy)

    copy_ledger = publisher._copy_ledger
    monkeypatch.setattr(publisher, "_copy_ledger", noted_late)
    lease = place.lease()
    assert lease.acquire()
    assert Publisher(store, place, lease, place.read()).publish()
    lease.release()
    manifest = place.read().manifest
    assert manifest is not None
    assert "shards/audio/audio-00003.arrow" in manifest.files


def test_an_upload_that_no_ledger_names_is_replaced_by_the_next(local: Path, place: Place) -> None:
    store = Store(local)
    loser = PublishedFile("shards/audio/audio-00009.arrow", new_attempt(), 4, "0" * 64)
    note_upload(store, loser, b"")
    winner = PublishedFile("shards/audio/audio-00009.arrow", new_attempt(), 4, "1" * 64)
    note_upload(store, winner, b"")
    assert [*read_uploads(store).values()] == [winner]


def test_only_open_jobs_keep_what_has_left_their_nodes(local: Path) -> None:
    store = Store(local)
    with Ledger(store.ledger, "audio") as ledger:
        (job,) = ledger.add_jobs([[VideoKey("id000009", "abcdefghijk")]])
    kept = f"jobs/audio/{job:05}/0123456789ab/id000009_abcdefghijk.arrow"
    finished = "jobs/audio/00000/0123456789ab/000001/audio-00000.outcomes.parquet"
    strangers = ["jobs/other/00000/x", "jobs/audio/x", "jobs/notes.txt", "index/index.json"]
    assert finished_jobs_of(store, [kept, finished, *strangers]) == [finished]
    assert finished_jobs_of(Store(local / "new"), [kept, finished]) == []
