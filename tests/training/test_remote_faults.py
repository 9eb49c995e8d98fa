"""What happens to a store in a bucket while it is read: changes, errors, no server, no room."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support.error_clock import ErrorClock
from support.faulty_bucket import Faults, faulty_bucket, first, never
from support.loopback_server import LoopbackHandler, LoopbackServer
from support.remote_store import ROWS, files_of, make_store

from voxblink2_lib.errors import StoreDamagedError, StoreDiskError, StoreError, TrainingError
from voxblink2_lib.training import (
    Corpus,
    Reader,
    UtteranceDataset,
    patient_downloads,
    remote_shards,
)
from voxblink2_lib.training.byte_ranges import OtherVersionError, connect, read_range
from voxblink2_lib.training.dataset import Example
from voxblink2_lib.training.piece_cache import PieceCache
from voxblink2_lib.training.piece_claims import PieceClaims
from voxblink2_lib.training.remote_shards import RemoteShards, ShardRange, _Piece

FORK = multiprocessing.get_context("fork")
PIECE = 64 << 10
URL = "s3://bucket/store"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def expected(local: Path) -> list[bytes]:
    reader = Reader(Corpus.open(local))
    return [reader.encoded(row) for row in range(ROWS)]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_shards, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(patient_downloads, "PAUSES_SECONDS", (0.001,))


@pytest.fixture
def faults(local: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The store in a bucket whose server fails when a test says so."""
    with faulty_bucket(monkeypatch, read_timeout_seconds=30.0) as faults:
        upload(local)
        yield faults


def upload(store: Path) -> None:
    system = fsspec.filesystem("s3")
    for name, content in files_of(store).items():
        system.pipe_file(f"bucket/store/{name}", content)


def shards_of(corpus: Corpus) -> RemoteShards:
    assert isinstance(corpus.shards, RemoteShards)
    return corpus.shards


def shard_requests(faults: Faults) -> list[str]:
    return [name for name in faults.seen if name.startswith("GET /bucket/store/shards")]


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("voxblink2_lib")]


def read_all(corpus: Corpus) -> list[bytes]:
    reader = Reader(corpus)
    return [reader.encoded(row) for row in range(ROWS)]


# -- Changed shards --------------------------------------------------------------------------------


def changed(content: bytes) -> bytes:
    """Other content of the same size."""
    return bytes(byte ^ 1 for byte in content)


def test_a_shard_that_was_changed_since_is_told_and_read_anew_when_opened_again(
    faults: Faults, expected: list[bytes]
) -> None:
    corpus, system = Corpus.open(URL), fsspec.filesystem("s3")
    other_worker = Reader(corpus)
    shard = corpus.place(0).shard
    rows = [row for row in range(ROWS) if corpus.place(row).shard == shard]
    assert Reader(corpus).encoded(0) == expected[0]
    path = f"bucket/store/shards/audio/{shard}"
    system.pipe_file(path, changed(system.cat_file(path)))
    words = rf"The shard {URL}/shards/audio/{shard} was changed since .* Open the store again; if"
    with pytest.raises(StoreDamagedError, match=words):
        Reader(corpus).encoded(rows[-1])
    with pytest.raises(StoreDamagedError, match="was changed since the store was opened"):
        other_worker.encoded(0)  # though it is in the cache
    anew = Reader(Corpus.open(URL))
    assert [anew.encoded(row) for row in rows] == [changed(expected[row]) for row in rows]
    # What is of other shards was kept.
    del faults.seen[:]
    with pytest.raises(StoreDamagedError, match="was changed since the store was opened"):
        other_worker.encoded(0)
    assert not faults.seen


def test_a_server_that_knows_no_conditions_is_compared_with(
    local: Path, expected: list[bytes]
) -> None:
    system = fsspec.filesystem("memory")
    system.put(str(local), "/changing", recursive=True)
    try:
        corpus = Corpus.open("memory://changing")
        place = corpus.place(0)
        assert Reader(corpus).encoded(0) == expected[0]
        path = f"/changing/shards/audio/{place.shard}"
        system.pipe_file(path, changed(system.cat_file(path)))
        with pytest.raises(StoreDamagedError, match="was changed since the store was opened"):
            Reader(corpus).encoded(15)
    finally:
        system.rm("/changing", recursive=True)


class _Tagged(LoopbackHandler):
    """Sends two bytes of a file, with a version."""

    def answer(self) -> None:
        if self.headers["Range"] == "bytes=9-9":
            self.reply(416, b"", {})
            return
        self.reply(206, b"bc", {"ETag": '"7"', "Content-Range": "bytes 1-2/4"})


def test_versions_of_web_servers_and_buckets(faults: Faults) -> None:
    with LoopbackServer(_Tagged) as server:
        system, path = connect(f"{server.url}/x.arrow")
        assert read_range(system, path, 1, 2, None) == (b"bc", '"7"')
        assert read_range(system, path, 9, 1, None).data == b""
    fsspec.filesystem("s3").pipe_file("bucket/x", b"abcd")
    system, path = connect("s3://bucket/x")
    data, version = read_range(system, path, 1, 2, None)
    assert (data, version) == (b"bc", '"e2fc714c4727ee9395f324cd2e7f331f"')  # the MD5
    assert read_range(system, path, 1, 2, version).data == b"bc"
    assert read_range(system, path, 9, 1, version).data == b""
    fsspec.filesystem("s3").pipe_file("bucket/x", b"abce")
    with pytest.raises(OtherVersionError):
        read_range(system, path, 1, 2, version)
    assert faults.seen


# -- Servers that fail -----------------------------------------------------------------------------


def test_errors_of_a_server_are_told_and_tried_again(
    faults: Faults,
    expected: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corpus = Corpus.open(URL)
    ErrorClock(monkeypatch)
    faults.refused = first(6, of="GET /bucket/store/shards")
    with caplog.at_level(logging.WARNING, "voxblink2_lib"):
        assert Reader(corpus).encoded(0) == expected[0]
    texts = [record.getMessage() for record in own_records(caplog)]
    assert texts[0].startswith(f"{URL} fails (")
    assert "An error occurred" in texts[0]
    assert "It is tried again until " in texts[0]
    assert texts[1:] == [f"{URL} answers again."]
    assert len(shard_requests(faults)) == 7


def test_errors_that_go_on_end_at_the_deadline(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.open(URL)
    ErrorClock(monkeypatch)
    faults.refused = lambda name: name.startswith("GET /bucket/store/shards")
    with pytest.raises(
        StoreDiskError, match=rf"The shard {URL}/\S+ cannot be read: .*An error occ"
    ):
        Reader(corpus).encoded(0)
    faults.refused = never


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (PermissionError("Forbidden"), StoreError, "Ask its owner for permission, or use other"),
        (FileNotFoundError("gone"), StoreDamagedError, r"The shard s3://\S+ is missing"),
    ],
)
def test_what_trying_again_does_not_mend_is_told_at_once(
    error: Exception,
    kind: type[StoreError],
    words: str,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus, tries = Corpus.open(URL), []

    def refused(*_: object) -> None:
        tries.append(1)
        raise error

    monkeypatch.setattr(remote_shards, "read_range", refused)
    with pytest.raises(kind, match=words):
        Reader(corpus).encoded(0)
    assert len(tries) == 1
    assert faults.seen


# -- No server -------------------------------------------------------------------------------------


def test_a_store_that_is_in_the_cache_opens_without_its_server(
    faults: Faults,
    expected: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corpus = Corpus.open(URL)
    assert [Reader(corpus).encoded(row) for row in range(16)] == expected[:16]
    faults.refused = bool  # everything
    ErrorClock(monkeypatch)
    with caplog.at_level(logging.WARNING, "voxblink2_lib"):
        offline = Corpus.open(URL)
    record = own_records(caplog)[-1]
    assert len([each for each in own_records(caplog) if "opened last" in each.getMessage()]) == 1
    cache = shards_of(corpus).cache
    assert record.getMessage().startswith(f"The store {URL} cannot be read: ")
    assert record.getMessage().endswith(
        f"What was opened last is used, as far as it is in {cache}."
    )
    assert offline.names() == corpus.names()
    assert [Reader(offline).encoded(row) for row in range(16)] == expected[:16]
    with pytest.raises(StoreDiskError, match=rf"The shard {URL}/shards/\S+ cannot be read: "):
        Reader(offline).encoded(ROWS - 1)
    faults.refused = never
    assert read_all(offline) == expected


def test_a_store_that_was_never_opened_needs_its_server(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.refused = bool  # everything
    ErrorClock(monkeypatch)
    with pytest.raises(
        TrainingError, match=rf"The store {URL} cannot be read: .*check the network"
    ):
        Corpus.open(URL)
    faults.refused = never


@pytest.mark.parametrize("content", [b"", b"[]", b'{"names": {}}', b'{"names": 1, "catalogue": 2}'])
def test_a_note_of_what_was_opened_that_is_none_is_not_used(
    content: bytes, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards_of(Corpus.open(URL)).cache / ".opened.json").write_bytes(content)
    faults.refused = bool  # everything
    ErrorClock(monkeypatch)
    with pytest.raises(TrainingError, match="cannot be read"):
        Corpus.open(URL)
    faults.refused = never


# -- No room ---------------------------------------------------------------------------------------


def test_a_full_disk_costs_downloads_and_nothing_else(
    faults: Faults, expected: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corpus = Corpus.open(URL, cache_dir=tmp_path, cache_bytes=3 * PIECE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PieceCache, "_store", full)
    assert read_all(corpus) == expected
    assert not list(shards_of(corpus).cache.glob("*.arrow.*"))
    assert faults.seen


# -- Several at once -------------------------------------------------------------------------------


def test_what_a_batch_lacks_is_downloaded_at_the_same_time_and_neighbours_together(
    faults: Faults, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.open(URL)
    size = corpus.place(0).shard_bytes
    together = threading.Barrier(2)
    requested: list[tuple[str, int, int]] = []

    def noted(system: Any, path: str, start: int, count: int, version: str | None) -> Any:
        requested.append((path, start, count))
        together.wait(30)
        return read_range(system, path, start, count, version)

    monkeypatch.setattr(remote_shards, "read_range", noted)
    assert size > 3 * PIECE
    shards_of(corpus).prefetch(
        [
            ShardRange("0.arrow", size, PIECE + 5, 9),
            ShardRange("0.arrow", size, PIECE - 5, 10),
            ShardRange("0.arrow", size, PIECE - 5, 10),
            ShardRange("1.arrow", corpus.place(16).shard_bytes, 7, 1),
        ]
    )
    assert sorted(requested) == [
        ("bucket/store/shards/audio/0.arrow", 0, 2 * PIECE),
        ("bucket/store/shards/audio/1.arrow", 0, PIECE),
    ]
    monkeypatch.setattr(remote_shards, "read_range", read_range)
    del faults.seen[:]
    dataset = UtteranceDataset(corpus)
    batch = dataset.__getitems__(range(ROWS))
    alone = [dataset[row] for row in range(ROWS)]
    assert [example.row for example in batch] == list(range(ROWS))
    for example, other in zip(batch, alone, strict=True):
        assert isinstance(example, Example)
        assert isinstance(other, Example)
        assert example.waveform.equal(other.waveform)
    with pytest.raises(IndexError, match="Row 48 was requested"):
        dataset.__getitems__([0, 48])


def _download(folder: Path, key: str, name: str, has_claim: Any, is_awaited: Any) -> None:
    """Have the claim of a piece until another process waits for it; then store something."""
    claims = PieceClaims(folder)
    assert claims.take(key)
    has_claim.set()
    is_awaited.wait(60)
    PieceCache(folder, 1 << 30).keep(name, b"\7" * PIECE)
    os._exit(0)


def test_what_another_process_downloads_is_awaited(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus.open(URL)
    shards, size = shards_of(corpus), corpus.place(0).shard_bytes
    shards.read("0.arrow", size, 0, 1)
    piece = _Piece("0.arrow", size, 1)
    has_claim, is_awaited = FORK.Event(), FORK.Event()
    words = (shards.cache, piece.key, shards._name_of(piece), has_claim, is_awaited)
    other = FORK.Process(target=_download, args=words)
    other.start()
    assert has_claim.wait(60)
    wait = PieceClaims.wait

    def awaited(claims: PieceClaims, name: str, seconds: float) -> bool:
        is_awaited.set()
        return wait(claims, name, seconds)

    monkeypatch.setattr(PieceClaims, "wait", awaited)
    del faults.seen[:]
    assert shards.read("0.arrow", size, PIECE + 3, 5) == b"\7" * 5
    assert not faults.seen
    other.join(60)
