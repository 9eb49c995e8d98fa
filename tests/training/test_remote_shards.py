"""A store in a bucket: a real S3 protocol server on loopback, s3fs, a cache within its bound."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from botocore import exceptions  # type: ignore[import-untyped]
from filelock import FileLock
from moto.server import ThreadedMotoServer
from support import shard_builder
from support.error_clock import ErrorClock
from support.loopback_server import LoopbackServer
from support.remote_store import make_store

from voxblink2_lib.errors import StoreDamagedError, StoreDiskError, TrainingError
from voxblink2_lib.published import remote_errors
from voxblink2_lib.training import (
    Corpus,
    Reader,
    ShuffleSampler,
    TrainingLoader,
    UtteranceDataset,
    patient_downloads,
    piece_cache,
    remote_shards,
)

PIECE = 64 << 10
URL = "s3://bucket/corpora/store"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a running S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _user(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a user sets, and small pieces."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setattr(remote_shards, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0,))
    monkeypatch.setattr(patient_downloads, "PAUSES_SECONDS", (0.01,))
    system = fsspec.get_filesystem_class("s3")
    system.clear_instance_cache()
    yield
    system.clear_instance_cache()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three shards with its catalogue; some clips are longer than a piece."""
    return make_store(tmp_path_factory.mktemp("local"))


@pytest.fixture
def bucket(local: Path) -> str:
    """A bucket with the store as it was uploaded; everything else in it is gone."""
    system = fsspec.filesystem("s3")
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    for folder in ("shards", "catalogue"):
        system.put(str(local / folder), f"bucket/corpora/store/{folder}", recursive=True)
    return URL


class Fetches:
    """Notes what s3fs fetches: name of the file, and first byte or -1 for all of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.errors: list[Exception] = []
        """The next fetches fail with these."""

    def patched(self, call: Any) -> Any:
        async def noted(system: Any, method: str, *words: Any, **options: Any) -> Any:
            answer = await call(system, method, *words, **options)
            name = str(options.get("Key", "")).rpartition("/")[2]
            if method == "get_object":
                span = re.fullmatch(r"bytes=(\d+)-\d+", options.get("Range", ""))
                self.seen.append((name, int(span[1]) if span else -1))
                if self.errors:
                    raise self.errors.pop(0)
            return answer

        return noted


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Fetches:
    recorder, system = Fetches(), type(fsspec.filesystem("s3"))
    monkeypatch.setattr(system, "_call_s3", recorder.patched(system._call_s3))
    system.clear_instance_cache()  # instances keep the method that they began with
    return recorder


def pieces(corpus: Corpus) -> list[Path]:
    """The files of the cache, half-written ones too."""
    assert isinstance(corpus.shards, remote_shards.RemoteShards)
    return sorted(p for p in corpus.shards.cache.iterdir() if p.is_file() and p.name[0] != ".")


def _index_of(path: Path) -> int:
    return int(path.name.rpartition(".")[2])


def kept_bytes(corpus: Corpus) -> int:
    return sum(path.stat().st_size for path in pieces(corpus))


def pieces_of(corpus: Corpus, rows: Any) -> set[tuple[str, int]]:
    """Shard and first byte of every piece that some clips touch."""
    touched = set()
    for row in rows:
        place = corpus.place(int(row))
        last = place.offset + place.size - 1
        for number in range(place.offset // PIECE, last // PIECE + 1):
            touched.add((place.shard, number * PIECE))
    return touched


# -- What is read ----------------------------------------------------------------------------------


def test_a_store_in_a_bucket_is_the_local_one(local: Path, bucket: str) -> None:
    here, remote = Corpus.open(local), Corpus.open(bucket)
    assert remote.names() == here.names()
    assert remote.speakers == here.speakers
    assert repr(remote) == repr(here)
    assert [remote.place(row) for row in range(48)] == [here.place(row) for row in range(48)]
    ours, theirs = Reader(here), Reader(remote)
    for row in range(48):
        assert theirs.encoded(row) == ours.encoded(row)
        assert np.array_equal(theirs.read(row, start=50).numpy(), ours.read(row, start=50).numpy())


def test_opening_fetches_no_shard(bucket: str, fetches: Fetches) -> None:
    for ending in ("", "/"):
        assert len(Corpus.open(bucket + ending)) == 48
    # Of the second time, what was kept of the first is used.
    assert fetches.seen == [("audio.arrow", -1)]


def test_opening_asks_little_of_a_server(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, methods = fsspec.get_filesystem_class("s3"), []
    call = system._call_s3

    async def noted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        methods.append(method)
        return await call(self, method, *args, **options)

    monkeypatch.setattr(system, "_call_s3", noted)
    system.clear_instance_cache()
    Corpus.open(bucket)
    # s3fs asks for the size of what it fetches whole once more.
    no_manifest = no_slices = ["head_object", "list_objects_v2"]
    unpublished = ["get_object", *no_manifest, *no_slices]  # first, whether it answers
    assert methods == [*unpublished, "head_object", "head_object", "get_object"]
    Corpus.open(bucket)
    assert methods[8:] == [*unpublished, "head_object"]


def test_only_what_is_needed_is_fetched_and_once(bucket: str, fetches: Fetches) -> None:
    corpus = Corpus.open(bucket)
    fetches.seen.clear()
    reader, rows = Reader(corpus), [30, 3, 4, 30, 17, 3]
    for row in rows:
        reader.read(row, samples=100)
    assert len(fetches.seen) == len(set(fetches.seen))
    assert set(fetches.seen) <= pieces_of(corpus, rows)  # neighbours come by one request
    stored = {
        (path.name.split(".arrow.")[0] + ".arrow", _index_of(path) * PIECE)
        for path in pieces(corpus)
    }
    assert stored == pieces_of(corpus, rows)
    Reader(Corpus.open(bucket)).read(17)
    assert len(fetches.seen) == len(set(fetches.seen))


def test_a_new_catalogue_is_fetched(local: Path, bucket: str, tmp_path: Path) -> None:
    before = Corpus.open(bucket)
    grown = Path(shutil.copytree(local, tmp_path / "grown"))
    shard_builder.seal(
        grown / "shards" / "audio" / "zz.arrow", [shard_builder.clip(0, data=b"new")]
    )
    assert len(Corpus.open(grown)) == 49
    for name in ("shards/audio/zz.arrow", "catalogue/audio.arrow"):
        fsspec.filesystem("s3").put(str(grown / name), f"bucket/corpora/store/{name}")
    after = Corpus.open(bucket)
    assert after.names()[:48] == before.names()
    assert Reader(after).encoded(48) == b"new"


# -- The cache -------------------------------------------------------------------------------------


def test_the_cache_stays_within_its_bound(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bound = 3 * PIECE + 1_000
    corpus = Corpus.open(bucket, cache_dir=tmp_path / "cache", cache_bytes=bound)
    most: list[int] = []
    keep = piece_cache.PieceCache.keep

    def measured(cache: piece_cache.PieceCache, name: str, data: bytes) -> None:
        keep(cache, name, data)
        most.append(kept_bytes(corpus))

    monkeypatch.setattr(piece_cache.PieceCache, "keep", measured)
    reader = Reader(corpus)
    local = [reader.encoded(row) for row in range(48)]
    for row in np.random.default_rng(0).integers(48, size=150).tolist():
        assert reader.encoded(row) == local[row]
    assert len(most) > 50
    assert 2 * PIECE < max(most) <= bound
    assert {path.parent.parent for path in pieces(corpus)} == {tmp_path / "cache"}


def test_workers_share_a_cache_within_its_bound(bucket: str, local: Path, tmp_path: Path) -> None:
    bound = 4 * PIECE
    corpus = Corpus.open(bucket, cache_dir=tmp_path, cache_bytes=bound)
    dataset = _Measuring(corpus)
    loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=4), num_workers=2)
    expected = Reader(Corpus.open(local))
    for _ in range(2):
        rows = []
        for batch in loader:
            assert kept_bytes_at_most(corpus, bound)
            for row, waveform, length in zip(
                batch["rows"].tolist(), batch["waveforms"], batch["lengths"].tolist(), strict=True
            ):
                assert np.array_equal(waveform[:length].numpy(), expected.read(row).numpy())
                rows.append(row)
        assert sorted(rows) == list(range(48))
    assert pieces(corpus)


class _Measuring(UtteranceDataset):
    """Looks at the cache after each clip, in the worker that read it."""

    def __getitem__(self, row: int) -> Any:
        example = super().__getitem__(row)
        shards = self.corpus.shards
        assert isinstance(shards, remote_shards.RemoteShards)
        assert kept_bytes_at_most(self.corpus, shards.cache_bytes)
        return example


def kept_bytes_at_most(corpus: Corpus, bound: int) -> bool:
    """Say whether the cache is within its bound; nobody changes it meanwhile."""
    assert isinstance(corpus.shards, remote_shards.RemoteShards)
    with FileLock(corpus.shards.cache / ".lock"):
        return kept_bytes(corpus) <= bound


def test_pieces_used_longest_ago_go_first(tmp_path: Path, bucket: str) -> None:
    system = fsspec.filesystem("s3")
    data = np.random.default_rng(0).bytes(6 * PIECE)
    system.pipe_file("bucket/corpora/store/shards/audio/x.arrow", data)
    shards = remote_shards.RemoteShards.at(URL, "audio", tmp_path, 3 * PIECE)

    def read(offset: int, size: int) -> bytes:
        return shards.read("x.arrow", len(data), offset, size)

    def kept() -> list[int]:
        return sorted(int(path.name.rpartition(".")[2]) for path in shards.cache.glob("x.arrow.*"))

    def use(number: int) -> None:
        assert read(number * PIECE + 7, 9) == data[number * PIECE + 7 :][:9]

    for number in (0, 1, 2):
        use(number)
    assert kept() == [0, 1, 2]
    use(0)
    use(3)
    assert kept() == [0, 2, 3]
    use(2)
    use(4)
    assert kept() == [2, 3, 4]
    assert read(2 * PIECE - 3, 6) == data[2 * PIECE - 3 : 2 * PIECE + 3]


@pytest.mark.parametrize("left", [0, 1_000])
def test_a_piece_that_a_crash_cut_short_is_fetched_again(
    left: int, bucket: str, local: Path
) -> None:
    corpus, expected = Corpus.open(bucket), Reader(Corpus.open(local))
    last = len(corpus) - 1  # in the last piece of its shard, which is shorter than others
    whole = {}
    for row in (9, last):
        assert Reader(corpus).encoded(row) == expected.encoded(row)
    for path in pieces(corpus):
        whole[path] = path.read_bytes()
        path.write_bytes(whole[path][:left])
    for row in (9, last):
        assert Reader(corpus).encoded(row) == expected.encoded(row)
    assert {path: path.read_bytes() for path in pieces(corpus)} == whole


def test_a_store_made_anew_at_the_same_address_is_read_anew(bucket: str, tmp_path: Path) -> None:
    before = Reader(Corpus.open(bucket))
    old = [before.encoded(row) for row in range(48)]
    anew = tmp_path / "anew"
    (anew / "shards" / "audio").mkdir(parents=True)
    sound = [shard_builder.clip(row, frames=30) for row in range(16)]
    shard_builder.seal(anew / "shards" / "audio" / "0.arrow", sound)  # a name that was there before
    expected = Reader(Corpus.open(anew))
    for name in ("shards/audio/0.arrow", "catalogue/audio.arrow"):
        fsspec.filesystem("s3").put(str(anew / name), f"bucket/corpora/store/{name}")
    after = Reader(Corpus.open(bucket))
    assert [after.encoded(row) for row in range(16)] == [expected.encoded(row) for row in range(16)]
    assert after.encoded(0) != old[0]


def test_a_cache_that_holds_not_one_piece(bucket: str) -> None:
    with pytest.raises(TrainingError, match="cache_bytes is 65,535; expected are at least 65,536"):
        Corpus.open(bucket, cache_bytes=PIECE - 1)


# -- What goes wrong -------------------------------------------------------------------------------


def test_a_broken_connection_is_tried_again(bucket: str, local: Path, fetches: Fetches) -> None:
    corpus = Corpus.open(bucket)
    fetches.seen.clear()
    fetches.errors += [
        ConnectionResetError("reset"),
        exceptions.ConnectionClosedError(endpoint_url="x"),
    ]
    assert Reader(corpus).encoded(0) == Reader(Corpus.open(local)).encoded(0)
    assert 3 <= len(fetches.seen) <= 2 + len(pieces_of(corpus, [0]))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError("reset"), "ConnectionResetError: reset"),
        (exceptions.EndpointConnectionError(endpoint_url="x"), "Could not connect"),
    ],
)
def test_a_connection_that_stays_broken_ends_at_the_deadline(
    error: Exception,
    words: str,
    bucket: str,
    fetches: Fetches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = Corpus.open(bucket)
    fetches.seen.clear()
    fetches.errors += [error] * 1000
    clock = ErrorClock(monkeypatch)
    place = rf"The shard {URL}/shards/audio/0.arrow cannot be read: "
    with pytest.raises(StoreDiskError, match=rf"{place}.*{words}.*check the network"):
        Reader(corpus).encoded(0)
    assert len(fetches.seen) >= clock.errors == 60 / 5


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, unused: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", unused)
    ErrorClock(monkeypatch)
    words = rf"The store {URL} cannot be read: EndpointConnectionError: Could not connect"
    with pytest.raises(TrainingError, match=words):
        Corpus.open(URL)


@pytest.fixture
def unused() -> Iterator[str]:
    """An address that nobody answers: bound, but not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_store_without_a_catalogue(bucket: str) -> None:
    fsspec.filesystem("s3").rm("bucket/corpora/store/catalogue", recursive=True)
    words = rf"no catalogue at {URL}/catalogue/audio\.arrow\. Corpus\.open\(\) on the local store"
    with pytest.raises(TrainingError, match=words):
        Corpus.open(bucket)


def test_a_bucket_that_is_not_there() -> None:
    with pytest.raises(
        TrainingError, match=r"s3://nobody/store cannot be read: .*Make the bucket first"
    ):
        Corpus.open("s3://nobody/store")


def test_a_catalogue_that_is_none(bucket: str) -> None:
    fsspec.filesystem("s3").pipe_file("bucket/corpora/store/catalogue/audio.arrow", b"junk")
    with pytest.raises(
        TrainingError, match=rf"The store {URL} cannot be opened: .*it is no Arrow file"
    ):
        Corpus.open(bucket)


def test_s3fs_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, "s3", raising=False)
    with pytest.raises(TrainingError, match=r"cannot be opened: .*[Ii]nstall s3fs"):
        Corpus.open(URL)


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(TrainingError, match=r"The store what://x/y cannot be opened: .*what"):
        Corpus.open("what://x/y")


def test_a_remote_shard_that_is_gone_or_short(bucket: str) -> None:
    corpus, system = Corpus.open(bucket), fsspec.filesystem("s3")
    place = corpus.place(0)
    path = f"bucket/corpora/store/shards/audio/{place.shard}"
    system.pipe_file(path, system.cat_file(path)[: place.offset + place.size - 1])
    words = rf"The shard {URL}/shards/audio/{place.shard} ends before byte \d"
    with pytest.raises(StoreDamagedError, match=words):
        Reader(corpus).read(0)
    gone = corpus.place(47).shard
    system.rm(f"bucket/corpora/store/shards/audio/{gone}")
    with pytest.raises(StoreDamagedError, match=rf"The shard {URL}/shards/audio/{gone} is missing"):
        Reader(corpus).read(47)


# -- Other file systems ----------------------------------------------------------------------------


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, and the ranges of them that are asked for."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if requested is None:
            super().do_GET()
            return
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        first, last = int(requested[1]), min(int(requested[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


class _Silent(http.server.SimpleHTTPRequestHandler):
    """Python's own server: it knows no ranges and sends the whole file."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def web(store: Path, handler: type[http.server.SimpleHTTPRequestHandler]) -> Iterator[str]:
    """Serve a store."""
    with LoopbackServer(functools.partial(handler, directory=str(store))) as server:
        yield server.url


def test_a_store_on_a_web_server(local: Path) -> None:
    expected = Reader(Corpus.open(local))
    with web(local, _Ranges) as url:
        reader = Reader(Corpus.open(url))
        assert [reader.encoded(row) for row in range(48)] == [
            expected.encoded(row) for row in range(48)
        ]
        with pytest.raises(TrainingError, match=rf"no catalogue at {url}/none/catalogue"):
            Corpus.open(f"{url}/none")


def test_a_web_server_without_ranges_is_told(local: Path) -> None:
    with web(local, _Silent) as url:
        corpus = Corpus.open(url)
        words = r"cannot be read in parts: 65,536 bytes were requested and [\d,]+ received\. The s"
        with pytest.raises(StoreDamagedError, match=words):
            Reader(corpus).read(0)
        assert not pieces(corpus)


def test_a_store_in_memory(local: Path) -> None:
    system = fsspec.filesystem("memory")
    system.put(str(local), "/store", recursive=True)
    try:
        reader, expected = Reader(Corpus.open("memory://store")), Reader(Corpus.open(local))
        assert all(reader.encoded(row) == expected.encoded(row) for row in range(48))
    finally:
        system.rm("/store", recursive=True)
