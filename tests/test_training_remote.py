"""A store in a bucket: a real S3 protocol server on loopback, s3fs, and a cache within its bound."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clips
import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from voxblink2_lib.errors import StoreDamagedError, TrainingError
from voxblink2_lib.training import (
    Corpus,
    Reader,
    ShuffleSampler,
    TrainingLoader,
    UtteranceDataset,
    remote,
)

PIECE = 64 << 10
URL = "s3://bucket/corpora/store"
Cat = Callable[..., Any]


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
    monkeypatch.setattr(remote, "PIECE_BYTES", PIECE)
    fsspec.filesystem("s3").clear_instance_cache()
    yield
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def local(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's store with its catalogue."""
    store = tmp_path_factory.mktemp("local") / "store"
    shutil.copytree(undisturbed, store, ignore=shutil.ignore_patterns("catalogue"))
    Corpus.open(store)
    return store


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


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, bucket: str) -> list[tuple[str, int]]:
    """What is fetched from here on: name of the file, and first byte or -1 for all of it."""
    import s3fs

    seen: list[tuple[str, int]] = []
    cat = s3fs.S3FileSystem.cat_file

    def noted(self: Any, path: str, start: int | None = None, end: int | None = None) -> Any:
        seen.append((path.rpartition("/")[2], -1 if start is None else start))
        return cat(self, path, start=start, end=end)

    # Instances have a method of their own, made of the asynchronous one, unless the class has one.
    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", noted)
    return seen


def pieces(corpus: Corpus) -> list[Path]:
    """The files of the cache, half-written ones too."""
    assert isinstance(corpus.shards, remote.RemoteShards)
    return sorted(p for p in corpus.shards.cache.iterdir() if p.is_file() and p.name != ".lock")


def kept_bytes(corpus: Corpus) -> int:
    return sum(path.stat().st_size for path in pieces(corpus))


def pieces_of(corpus: Corpus, rows: Any) -> set[tuple[str, int]]:
    """Shard and first byte of every piece that some clips touch."""
    found = set()
    for row in rows:
        place = corpus.place(int(row))
        last = place.offset + place.size - 1
        for number in range(place.offset // PIECE, last // PIECE + 1):
            found.add((place.shard, number * PIECE))
    return found


# -- what is read -----------------------------------------------------------------------------


def test_a_store_in_a_bucket_is_the_local_one(local: Path, bucket: str) -> None:
    here, there = Corpus.open(local), Corpus.open(bucket)
    assert there.names() == here.names()
    assert there.speakers == here.speakers
    assert repr(there) == repr(here)
    assert [there.place(row) for row in range(48)] == [here.place(row) for row in range(48)]
    ours, theirs = Reader(here), Reader(there)
    for row in range(48):
        assert theirs.encoded(row) == ours.encoded(row)
        assert np.array_equal(theirs.read(row, start=50).numpy(), ours.read(row, start=50).numpy())


def test_opening_fetches_no_shard(bucket: str, fetched: list[tuple[str, int]]) -> None:
    for ending in ("", "/"):
        assert len(Corpus.open(bucket + ending)) == 48
    # Of the second time, what was kept of the first is used.
    assert fetched == [("audio.arrow", -1)]


def test_only_what_is_needed_is_fetched_and_once(
    bucket: str, fetched: list[tuple[str, int]]
) -> None:
    corpus = Corpus.open(bucket)
    fetched.clear()
    reader, rows = Reader(corpus), [30, 3, 4, 30, 17, 3]
    for row in rows:
        reader.read(row, samples=100)
    assert len(fetched) == len(set(fetched))
    assert set(fetched) == pieces_of(corpus, rows)
    Reader(Corpus.open(bucket)).read(17)
    assert len(fetched) == len(set(fetched))


def test_a_new_catalogue_is_fetched(local: Path, bucket: str, tmp_path: Path) -> None:
    before = Corpus.open(bucket)
    grown = Path(shutil.copytree(local, tmp_path / "grown"))
    clips.seal(grown / "shards" / "audio" / "zz.arrow", [clips.clip(0, data=b"new")])
    assert len(Corpus.open(grown)) == 49
    for name in ("shards/audio/zz.arrow", "catalogue/audio.arrow"):
        fsspec.filesystem("s3").put(str(grown / name), f"bucket/corpora/store/{name}")
    after = Corpus.open(bucket)
    assert after.names()[:48] == before.names()
    assert Reader(after).encoded(48) == b"new"


# -- the cache --------------------------------------------------------------------------------


def test_the_cache_stays_within_its_bound(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bound = 3 * PIECE + 1_000
    corpus = Corpus.open(bucket, cache_dir=tmp_path / "cache", cache_bytes=bound)
    most: list[int] = []
    write = remote.atomic_write_quickly

    def measured(path: Path, data: bytes) -> None:
        write(path, data)
        most.append(kept_bytes(corpus))

    monkeypatch.setattr(remote, "atomic_write_quickly", measured)
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
        assert isinstance(shards, remote.RemoteShards)
        assert kept_bytes_at_most(self.corpus, shards.cache_bytes)
        return example


def kept_bytes_at_most(corpus: Corpus, bound: int) -> bool:
    """Say whether the cache is within its bound; nobody changes it meanwhile."""
    from filelock import FileLock

    assert isinstance(corpus.shards, remote.RemoteShards)
    with FileLock(corpus.shards.cache / ".lock"):
        return kept_bytes(corpus) <= bound


def test_pieces_used_longest_ago_go_first(tmp_path: Path, bucket: str) -> None:
    system = fsspec.filesystem("s3")
    data = np.random.default_rng(0).bytes(6 * PIECE)
    system.pipe_file("bucket/corpora/store/shards/audio/x.arrow", data)
    shards = remote.RemoteShards.at(URL, "audio", tmp_path, 3 * PIECE)

    def kept() -> list[int]:
        return sorted(int(path.name.rpartition(".")[2]) for path in shards.cache.glob("x.arrow.*"))

    def use(number: int) -> None:
        assert shards.read("x.arrow", number * PIECE + 7, 9) == data[number * PIECE + 7 :][:9]
        # Clocks of file systems are coarse: a piece of the past is made older than all.
        for path in shards.cache.glob("x.arrow.*"):
            about = path.stat()
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns - 10**9))
        os.utime(shards.cache / f"x.arrow.{number:06}")

    for number in (0, 1, 2):
        use(number)
    assert kept() == [0, 1, 2]
    use(0)
    use(3)
    assert kept() == [0, 2, 3]
    use(2)
    use(4)
    assert kept() == [2, 3, 4]
    assert shards.read("x.arrow", 2 * PIECE - 3, 6) == data[2 * PIECE - 3 : 2 * PIECE + 3]


def test_an_empty_piece_is_fetched_again(bucket: str, local: Path) -> None:
    corpus, expected = Corpus.open(bucket), Reader(Corpus.open(local)).encoded(9)
    assert Reader(corpus).encoded(9) == expected
    for path in pieces(corpus):
        path.write_bytes(b"")
    assert Reader(corpus).encoded(9) == expected
    assert all(path.stat().st_size for path in pieces(corpus))


def test_a_cache_that_holds_not_one_piece(bucket: str) -> None:
    with pytest.raises(TrainingError, match="cache_bytes is 65,535; expected are at least 65,536"):
        Corpus.open(bucket, cache_bytes=PIECE - 1)


# -- what goes wrong --------------------------------------------------------------------------


def broken(
    monkeypatch: pytest.MonkeyPatch, fetched: list[tuple[str, int]], errors: list[Exception]
) -> None:
    """Let the next fetches fail."""
    import s3fs

    cat = s3fs.S3FileSystem.cat_file

    def failing(self: Any, path: str, **ends: int) -> Any:
        found = cat(self, path, **ends)
        if errors:
            raise errors.pop(0)
        return found

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", failing)


def test_a_broken_connection_is_tried_again(
    bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch, fetched: list[tuple[str, int]]
) -> None:
    from botocore.exceptions import ConnectionClosedError

    corpus = Corpus.open(bucket)
    fetched.clear()
    errors = [ConnectionResetError("reset"), ConnectionClosedError(endpoint_url="x")]
    broken(monkeypatch, fetched, errors)
    assert Reader(corpus).encoded(0) == Reader(Corpus.open(local)).encoded(0)
    assert len(fetched) == 2 + len(pieces_of(corpus, [0]))


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_a_connection_that_stays_broken_is_told(
    kind: str, bucket: str, monkeypatch: pytest.MonkeyPatch, fetched: list[tuple[str, int]]
) -> None:
    from botocore.exceptions import EndpointConnectionError

    corpus = Corpus.open(bucket)
    fetched.clear()
    theirs = EndpointConnectionError(endpoint_url="http://x")
    broken(monkeypatch, fetched, [ConnectionResetError("reset") if kind == "ours" else theirs] * 3)
    words = "reset" if kind == "ours" else "Could not connect"
    with pytest.raises(StoreDamagedError, match=rf"{URL}/shards/.*cannot be read: .*{words}"):
        Reader(corpus).encoded(0)
    assert len(fetched) == 3


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch, unused: str) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", unused)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    once = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1}}
    monkeypatch.setitem(fsspec.config.conf, "s3", once)
    words = rf"The store {URL} cannot be opened: Could not connect to the endpoint"
    with pytest.raises(TrainingError, match=words):
        Corpus.open(URL)


@pytest.fixture
def unused() -> Iterator[str]:
    """An address that nobody answers: bound, but not listened to."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_store_without_a_catalogue(bucket: str) -> None:
    fsspec.filesystem("s3").rm("bucket/corpora/store/catalogue", recursive=True)
    words = rf"no catalogue at {URL}/catalogue/audio\.arrow\. Corpus\.open\(\) on the local store"
    with pytest.raises(TrainingError, match=words):
        Corpus.open(bucket)


def test_a_bucket_that_is_not_there() -> None:
    with pytest.raises(TrainingError, match=r"no catalogue at s3://nobody/store/catalogue/audio"):
        Corpus.open("s3://nobody/store")


def test_a_catalogue_that_is_none(bucket: str) -> None:
    fsspec.filesystem("s3").pipe_file("bucket/corpora/store/catalogue/audio.arrow", b"junk")
    with pytest.raises(TrainingError, match=rf"The store {URL} cannot be opened: .*Arrow"):
        Corpus.open(bucket)


def test_s3fs_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):
        monkeypatch.delitem(fsspec.registry.target, name, raising=False)
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
    with pytest.raises(StoreDamagedError, match=rf"The shard {URL}/shards/audio/{gone} is gone"):
        Reader(corpus).read(47)
