"""What is purged from a store at a URL is in no object there, whatever is killed meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import jmespath  # type: ignore[import-untyped]  # has no types
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from support.bucket import bucket_server
from support.cli_process import run_any, run_inline, run_inline_json
from support.killed_writes import KilledError, kill_at_write

import voxblink2
from voxblink2_lib.errors import StoreBusyError, StoreError, UsageError
from voxblink2_lib.published import publisher as publisher_file
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import LEDGER_ONLY
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import cache_of, open_published
from voxblink2_lib.published.session import publishing
from voxblink2_lib.published.versions import FORMER_VERSIONS
from voxblink2_lib.purge import published_store
from voxblink2_lib.purge.ids import read_purged_ids
from voxblink2_lib.purge.published_store import PublishedPurge, purge_published
from voxblink2_lib.store import lease
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.training import Corpus, Reader

assert voxblink2  # registers the builder

SPEAKER, VIDEOS = "id000001", ("video000002", "video000003")
GONE = (SPEAKER, *VIDEOS)
BUCKET = "s3://bucket/corpora/store"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of our own; and whoever holds a lease in this process is dead."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(lease, "_is_of_the_dead", lambda _: True)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        yield system


def publish(url: str, root: Path) -> int:
    with publishing(url, Store(root, url)) as publisher:
        pass
    return publisher.generation


def purge(url: str, *ids: str, scratch: Path | None = None) -> PublishedPurge:
    named = None if scratch is None else str(scratch)
    return purge_published(url, read_purged_ids(ids), reason="asked", scratch=named)


def packed(data: bytes) -> bytes:
    """All that is in a file: of Parquet also what it packs."""
    if data[:4] != b"PAR1":
        return data
    import pyarrow as pa

    file = pq.ParquetFile(pa.BufferReader(data))
    return data + repr((file.metadata.metadata, file.read().to_pylist())).encode()


def objects_at(url: str) -> dict[str, bytes]:
    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return {name: system.cat_file(name) for name in system.find(path)}


def objects_with(url: str) -> list[str]:
    """Objects at a URL in whose names or bytes something of what was purged is."""
    return names_with(objects_at(url))


def names_with(contents: dict[str, bytes]) -> list[str]:
    texts = {name: name.encode() + packed(data) for name, data in contents.items()}
    return [name for name, text in texts.items() if any(word.encode() in text for word in GONE)]


def files_with(folder: Path) -> list[str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return names_with({str(path.relative_to(folder)): path.read_bytes() for path in files})


def speakers_at(url: str) -> set[str]:
    stream = load_dataset("voxblink2", "audio", store=url, split="train", streaming=True)
    return {row["speaker_id"] for row in stream.remove_columns("audio")}


def planned_at(url: str) -> set[str]:
    with Ledger(open_published(url, LEDGER_ONLY).ledger, "audio", readonly=True) as ledger:
        return set(ledger.planned_videos()["speaker_id"].to_pylist())


# -- What is left ----------------------------------------------------------------------------------


def check_nothing_is_left(url: str, local: Path, change: Callable[[Path], object]) -> None:
    """Purge what is published from a scratch store, which something happens to before."""
    publish(url, local)
    with Ledger(local / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("note", "another generation")
    publish(url, local)
    assert objects_with(url)
    before = {name: data for name, data in objects_at(url).items() if name.endswith(".arrow")}
    change(local)
    result = purge(url, SPEAKER, scratch=local)
    assert result.purge.clips == 2
    assert objects_with(url) == []
    assert files_with(local) == []
    after = objects_at(url)
    shards = [name for name in before if "/shards/" in name and after.get(name) == before[name]]
    assert len(shards) == 4  # those that are not concerned were not uploaded again
    assert planned_at(url) == {"id000000", "id000002"}
    assert result.purge.store == url


def test_nothing_of_it_is_left(url: str, local: Path) -> None:
    check_nothing_is_left(url, local, lambda _: None)
    assert run_any("verify", "--store", url).returncode == 0
    assert speakers_at(url) == {"id000000", "id000002"}
    again = purge(url, scratch=local)
    assert again.purge.clips == 0
    assert run_any("verify", "--store", url).returncode == 0


def without_shards(local: Path) -> None:
    for path in local.glob("shards/audio/*.arrow"):
        path.unlink()


def test_what_open_jobs_have_uploaded_goes(url: str, local: Path) -> None:
    publish(url, local)
    system, path = fsspec.core.url_to_fs(url)
    system.makedirs(f"{path}/jobs/audio/00007/attempt", exist_ok=True)
    system.pipe_file(f"{path}/jobs/audio/00007/attempt/id000001_video000002.arrow", b"clip")
    purge(url, SPEAKER, scratch=local)
    assert not [name for name in system.find(path) if "/jobs/" in name]


@pytest.mark.parametrize("change", [shutil.rmtree, without_shards])
def test_nor_where_the_scratch_store_has_no_shards(
    memory: str, local: Path, change: Callable[[Path], object]
) -> None:
    check_nothing_is_left(memory, local, change)
    assert run_any("verify", "--store", memory).returncode == 0


def test_versions_that_a_bucket_keeps_are_told_and_deleted_by_what_is_printed(
    bucket: Any, local: Path
) -> None:
    bucket.call_s3(
        "put_bucket_versioning",
        Bucket="bucket",
        VersioningConfiguration={"Status": "Enabled"},
    )
    publish(BUCKET, local)
    kept = purge(BUCKET, SPEAKER, scratch=local).kept
    assert kept.startswith(f"The bucket of {BUCKET} keeps versions of what was removed")
    assert "--bucket bucket --prefix corpora/store/ " in kept
    assert f"--query '{FORMER_VERSIONS}'" in kept
    place = {"Bucket": "bucket", "Prefix": "corpora/store/"}
    listed = bucket.call_s3("list_object_versions", **place)
    assert names_with(read_bodies(listed))
    for key, version in jmespath.search(FORMER_VERSIONS, listed):
        bucket.call_s3("delete_object", Bucket="bucket", Key=key, VersionId=version)
    left = read_bodies(bucket.call_s3("list_object_versions", **place))
    assert len(left) == len(objects_at(BUCKET))
    assert names_with(left) == []


def read_bodies(listed: Any) -> dict[str, bytes]:
    """Contents of all versions of objects in a listing."""
    system = fsspec.filesystem("s3", version_aware=True)
    return {
        f"{each['Key']} {each['VersionId']}": system.cat_file(
            f"bucket/{each['Key']}?versionId={each['VersionId']}"
        )
        for each in listed["Versions"]
    }


def test_a_bucket_without_versions_keeps_nothing(url: str, local: Path) -> None:
    publish(url, local)
    assert purge(url, SPEAKER, scratch=local).kept == ""


def test_copies_of_readers_are_removed(memory: str, local: Path, home: Path) -> None:
    publish(memory, local)
    shutil.rmtree(local)
    dataset = load_dataset("voxblink2", "audio", store=memory, split="train")
    corpus = Corpus.open(memory)
    for row in range(len(corpus)):
        Reader(corpus).encoded(row)
    cached = [path for path in (home / "published").rglob("audio-*.arrow") if path.is_file()]
    pieces = [*home.glob("pieces/*/*.arrow.*")]
    assert (len(cached), len(pieces)) == (6, 6)
    result = purge(memory, SPEAKER)
    assert files_with(home) == []
    assert len([*home.glob("pieces/*/*.arrow.*")]) == 4
    assert len([*cache_of(memory).glob("files/*")]) == 4  # the shards that are as they were
    assert {Path(name).parent.name for name in result.cleared} >= {"files"}
    # That of datasets is named.
    (cache,) = result.purge.caches
    assert cache == str(Path(dataset.cache_files[0]["filename"]).parent)
    assert speakers_at(memory) == {"id000000", "id000002"}


def test_a_reader_elsewhere_removes_its_copies_with_the_next_load(
    memory: str, local: Path, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(memory, local)
    load_dataset("voxblink2", "audio", store=memory, split="train")
    corpus = Corpus.open(memory)
    assert Reader(corpus).encoded(2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("VOXBLINK2_HOME", str(tmp_path / "another home"))
        purge(memory, SPEAKER, scratch=local)
    assert files_with(home)
    status = run_any("status", "--store", memory)
    assert "Something was purged from memory://corpora/store since" in status.stderr
    Corpus.open(memory)
    assert files_with(home) == []
    assert "Something was purged" not in run_any("status", "--store", memory).stderr


def test_a_scratch_store_that_was_purged_as_a_folder_is_published_without_grace(
    memory: str, local: Path
) -> None:
    publish(memory, local)
    run_inline("purge", SPEAKER, "--store", local)
    assert objects_with(memory)
    publish(memory, local)
    assert objects_with(memory) == []


# -- What is refused -------------------------------------------------------------------------------


def test_a_scratch_store_of_which_half_is_purged_is_not_published(
    memory: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(memory, local)
    before = objects_at(memory)
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.purge.run.clear_drafts", _killed)
        with pytest.raises(KilledError):
            purge(memory, SPEAKER, scratch=local)
    with pytest.raises(StoreError, match=r"Nothing was published. A purge of the store .*purge"):
        publish(memory, local)
    assert objects_at(memory) == before
    purge(memory, scratch=local)
    assert objects_with(memory) == []


def _killed(*_: Any) -> None:
    raise KilledError


def test_a_folder_whose_shards_are_only_at_the_url(memory: str, local: Path) -> None:
    publish(memory, local)
    for path in local.glob("shards/audio/*.arrow"):
        path.unlink()
    result = run_any("purge", SPEAKER, "--store", local)
    assert result.returncode == 2
    assert "2 shards that are to be rewritten, such as audio-00002.arrow, are not" in result.stderr
    assert "name that URL with --store" in result.stderr
    run_inline("purge", "id000009", "--store", local)  # it concerns no shard


def test_what_cannot_be_purged(memory: str, local: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at memory://corpora/store"):
        purge(memory, SPEAKER)
    publish(memory, local)
    before = objects_at(memory)
    with pytest.raises(UsageError, match="Nothing to purge"):
        purge(memory, scratch=local)
    with pytest.raises(StoreError, match="leave nothing of the store"):
        purge(memory, "id000000", "id000001", "id000002", scratch=local)
    assert objects_at(memory) == before
    result = run_any("purge", SPEAKER, "--store", local, "--scratch", local)
    assert result.returncode == 2
    assert "--scratch is of a store at a URL" in result.stderr


def test_while_another_process_publishes(
    memory: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(memory, local)
    monkeypatch.setattr(UrlLease, "acquire", lambda _: False)
    with pytest.raises(StoreBusyError, match="Another process publishes to memory://"):
        purge(memory, SPEAKER, scratch=local)


# -- The command -----------------------------------------------------------------------------------


def test_the_command(memory: str, local: Path, tmp_path: Path) -> None:
    publish(memory, local)
    names = tmp_path / "names.txt"
    names.write_text(f"{SPEAKER}/{VIDEOS[0]}/00001\n")
    words = ("purge", SPEAKER, "--reason", "asked", "--store", memory)
    before = objects_at(memory)
    dry = run_inline_json(*words, "--dry-run", code=1)
    assert (dry["store"], dry["clips"], dry["dry_run"]) == (memory, 2, True)
    assert objects_at(memory) == before
    done = run_inline(*words, "--scratch", tmp_path / "scratch")
    assert "Purged   2 clips removed from 2 shards" in done.stdout
    assert "URL      generation 2 has nothing of it" in done.stdout
    assert objects_with(memory) == []
    left = run_inline_json("purge", "--check", names, "--store", memory, code=1)
    assert (left["store"], left["traces"][0]["path"]) == (memory, str(names))
    again = run_inline_json("purge", "--store", memory, "--scratch", tmp_path / "scratch")
    assert (again["clips"], again["kept"]) == (0, "")
    run_inline("materialize", "--store", memory, "--scratch", tmp_path / "scratch")
    assert objects_with(memory) == []


# -- Kills -----------------------------------------------------------------------------------------


def killed_at(patched: pytest.MonkeyPatch, number: int, *, is_done: bool) -> Callable[[], int]:
    writes: dict[Any, tuple[str, ...]] = {
        Place: ("_upload", "_put", "_remove"),
        UrlLease: ("_create", "_overwrite", "_remove"),
        publisher_file: ("note_next", "note_published"),
        published_store: ("fetch_files", "purge_store", "clear_purged", "clear_purged_pieces"),
    }
    patched.setattr(publisher_file, "AT_ONCE", 1)
    patched.setattr(UrlLease, "keep", lambda _: None)  # no beats between
    named = [(owner, name) for owner, names in writes.items() for name in names]
    return kill_at_write(patched, named, number, is_done=is_done)


class Scene:
    """A published store and its scratch store, which can be put back as they were."""

    def __init__(self, local: Path) -> None:
        publish(BUCKET, local)
        with Ledger(local / "ledger.sqlite", "audio") as ledger:
            ledger.set_setting("note", "another generation")
        publish(BUCKET, local)
        self.scratch, self._kept = local, local.with_name("kept")
        shutil.copytree(local, self._kept)
        self._objects = objects_at(BUCKET)
        assert len(objects_with(BUCKET)) > 5
        self.writes = self._count()

    def _count(self) -> int:
        with pytest.MonkeyPatch.context() as patched:
            count = killed_at(patched, 10**9, is_done=False)
            purge(BUCKET, SPEAKER, scratch=self.scratch)
        self.put_back()
        return count()

    def put_back(self) -> None:
        system, _ = fsspec.core.url_to_fs(BUCKET)
        present = objects_at(BUCKET)
        for name in present.keys() - self._objects.keys():
            system.rm_file(name)
        for name, data in self._objects.items():
            if present.get(name) != data:
                system.pipe_file(name, data)
        shutil.rmtree(self.scratch)
        shutil.copytree(self._kept, self.scratch)

    def check(self, number: int, *, is_done: bool) -> bool:
        """Kill a purge at a write, look at the store as a reader, and run it again.

        Returns:
            Whether all of it was there after the kill.
        """
        with pytest.MonkeyPatch.context() as patched:
            killed_at(patched, number, is_done=is_done)
            with pytest.raises(KilledError):
                purge(BUCKET, SPEAKER, scratch=self.scratch)
        has_all = SPEAKER in planned_at(BUCKET)
        readable = Place(BUCKET).read().manifest
        assert readable is not None
        objects = objects_at(BUCKET)
        names = [f"{BUCKET.removeprefix('s3://')}/{name}" for name in readable.names()]
        left = names_with({name: objects[name] for name in names if name in objects})
        assert bool(left) == has_all, (number, is_done)
        # A scratch store that is lost does not know what is to be purged.
        ids = (SPEAKER,) if has_all else ()
        scratch = self.scratch if number % 2 else self.scratch.with_name("another")
        purge(BUCKET, *ids, scratch=scratch)
        assert objects_with(BUCKET) == [], (number, is_done)
        assert planned_at(BUCKET) == {"id000000", "id000002"}
        shutil.rmtree(self.scratch.with_name("another"), ignore_errors=True)
        self.put_back()
        return has_all


@pytest.fixture
def scene(bucket: Any, local: Path) -> Scene:
    del bucket
    return Scene(local)


def test_a_kill_leaves_all_of_it_or_nothing(scene: Scene) -> None:
    assert scene.writes > 20
    # In the middle of the uploads; around the manifest; while old files are removed.
    kills = ((0.2, False), (0.5, True), (0.8, False))
    left = [scene.check(round(place * scene.writes), is_done=is_done) for place, is_done in kills]
    assert set(left) == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("part", range(4))
def test_a_kill_at_each_write_leaves_all_of_it_or_nothing(
    scene: Scene, part: int, *, is_done: bool
) -> None:
    for number in range(1 + part, scene.writes + 1, 4):
        scene.check(number, is_done=is_done)
