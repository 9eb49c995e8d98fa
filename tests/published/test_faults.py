"""Whatever fails while a store is published: readers see one whole manifest; a rerun ends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support.faulty_bucket import Faults, faulty_bucket, first, never
from support.killed_writes import KilledError, kill_at_write

from voxblink2_lib.errors import StoreBusyError, StoreDamagedError, StoreDiskError, StoreError
from voxblink2_lib.published import publisher as publisher_file
from voxblink2_lib.published.manifest import ALL_BUT_SHARDS
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.publisher import Publisher
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.published.scratch import check_base
from voxblink2_lib.published.session import publishing
from voxblink2_lib.store import lease
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.verify import verify_store

BUCKET = "s3://bucket/corpora/store"
MEMORY = "memory://corpora/store"


def publish(url: str, root: Path) -> int:
    with publishing(url, Store(root, url)) as publisher:
        pass
    return publisher.generation


def grow(root: Path) -> None:
    """Change what is published of a store: its ledger."""
    with Ledger(root / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("note", (ledger.setting("note") or "") + "x")


def note(url: str) -> str | None:
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        return ledger.setting("note")


def check_whole(url: str) -> None:
    """Make sure that a reader gets a store without a problem."""
    copy = open_published(url, ALL_BUT_SHARDS)
    with Ledger(copy.ledger, "audio", readonly=True) as ledger:
        fetch_shards(url, copy, "audio", [shard.name for shard in ledger.shards()])
    assert not verify_store(copy, sample=1).problems


def check_nothing_else(url: str) -> None:
    """Make sure that nothing is at a URL but what its manifest names."""
    place = Place(url)
    manifest = place.read().manifest
    assert manifest is not None
    assert set(place.sizes()) == {"manifest.json", *manifest.names()}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds a lease in this process is dead."""
    monkeypatch.setattr(lease, "_is_of_the_dead", lambda _: True)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    with faulty_bucket(monkeypatch) as faults:
        yield faults


# -- Kills -----------------------------------------------------------------------------------------


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, is_done: bool) -> Callable[[], int]:
    system = type(fsspec.filesystem("memory"))
    writes: list[tuple[Any, str]] = [(system, name) for name in ("pipe_file", "rm_file", "open")]
    writes += [(publisher_file, name) for name in ("note_next", "note_published")]
    monkeypatch.setattr(publisher_file, "AT_ONCE", 1)
    return kill_at_write(monkeypatch, writes, number, is_done=is_done)


def writes_of_a_publication(local: Path, memory: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        count = killed_at(patched, 10**9, is_done=False)
        publish(memory, local)
    fsspec.filesystem("memory").store.clear()
    shutil.rmtree(local / "published")
    return count()


def die_and_go_on(local: Path, url: str, number: int, *, is_done: bool, before: int) -> None:
    """Kill a publication at a write, look at the store as a reader, and run it again."""
    with pytest.MonkeyPatch.context() as patched:
        killed_at(patched, number, is_done=is_done)
        with pytest.raises(KilledError):
            publish(url, local)
    manifest = Place(url).read().manifest
    generation = manifest.generation if manifest else 0
    assert generation in {before, before + 1}
    if generation:
        check_whole(url)
    assert publish(url, local) == before + 1
    check_whole(url)
    check_nothing_else(url)


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0])
def test_a_kill_leaves_a_whole_store(
    local: Path, memory: str, place: float, *, is_done: bool
) -> None:
    writes = writes_of_a_publication(local, memory)
    assert writes > 10
    die_and_go_on(local, memory, 1 + round(place * (writes - 1)), is_done=is_done, before=0)


@pytest.mark.slow
def test_a_kill_at_any_write_leaves_a_whole_store(local: Path, memory: str) -> None:
    writes = writes_of_a_publication(local, memory)
    for number in range(1, writes + 1):
        for is_done in (False, True):
            die_and_go_on(local, memory, number, is_done=is_done, before=0)
            fsspec.filesystem("memory").store.clear()
            shutil.rmtree(local / "published")


def test_a_kill_of_a_later_publication_leaves_the_generation_before(
    local: Path, memory: str
) -> None:
    for generation, place in enumerate([1, 2, 3, 4, 5, 6], start=1):
        publish(memory, local)
        grow(local)
        die_and_go_on(local, memory, place, is_done=False, before=generation)


# -- Servers ---------------------------------------------------------------------------------------


def test_errors_of_a_server_are_passed_over(local: Path, faults: Faults) -> None:
    # The first of each kind is refused.
    faults.refused = lambda name: "/corpora/" in name and faults.seen.count(name) == 1
    assert publish(BUCKET, local) == 1
    check_whole(BUCKET)
    faults.refused = never
    check_nothing_else(BUCKET)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_manifest_whose_answer_was_lost_is_known_for_ones_own(
    local: Path, faults: Faults, generation: int
) -> None:
    if generation == 2:
        publish(BUCKET, local)
        grow(local)
    faults.lost = first(1, "PUT /bucket/corpora/store/manifest.json")
    assert publish(BUCKET, local) == generation
    grow(local)
    assert publish(BUCKET, local) == generation + 1


def test_a_manifest_that_arrives_late_replaces_no_later_one(local: Path, faults: Faults) -> None:
    publish(BUCKET, local)
    grow(local)
    # Its client gives up after a second, and sends it again.
    faults.held = first(1, "PUT /bucket/corpora/store/manifest.json")
    assert publish(BUCKET, local) == 2
    grow(local)
    assert publish(BUCKET, local) == 3
    faults.release.set()
    assert faults.late.wait(30)
    assert note(BUCKET) == "xx"
    check_whole(BUCKET)


def test_a_server_that_fails_for_good_costs_nothing(local: Path, faults: Faults) -> None:
    publish(BUCKET, local)
    grow(local)
    faults.refused = lambda name: name.startswith("PUT")
    with pytest.raises(StoreDiskError, match=r"cannot be published: .*run the same command again"):
        publish(BUCKET, local)
    faults.refused = never
    assert note(BUCKET) is None
    assert publish(BUCKET, local) == 2
    assert note(BUCKET) == "x"


def test_a_bucket_that_is_not_there(local: Path, faults: Faults) -> None:
    del faults
    with pytest.raises(StoreError, match=r"s3://nobody/store cannot be .*bucket.*Make the bucket"):
        publish("s3://nobody/store", local)
    with pytest.raises(StoreError, match=r"s3://nobody/store cannot be read: .*Make the bucket"):
        open_published("s3://nobody/store")


def test_missing_credentials(local: Path, monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    del faults
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        publish(BUCKET, local)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/store", "pip install gcsfs"),
        ("bogus://bucket/store", "Name a folder, or a URL such as s3://bucket/store"),
        ("memory://", "has no name. Name a bucket, and a folder in it"),
    ],
)
def test_urls_that_cannot_be_opened(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_published(url)


def test_a_url_without_a_store(memory: str) -> None:
    with pytest.raises(
        StoreError, match=r"There is no store at memory://corpora/store.*materialize"
    ):
        open_published(memory)


# -- Others ----------------------------------------------------------------------------------------


def test_only_one_process_publishes(url: str, local: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(local, tmp_path / "other"))
    with (
        publishing(url, Store(local, url)),
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(lease, "_is_of_the_dead", lambda _: False)
        beat = Place(url).lease()
        looks = iter(range(100))

        def renewed(self: Any) -> bytes:
            return f'{{"beat": {next(looks)}}}'.encode()

        patched.setattr(type(beat), "_read", renewed)
        patched.setattr("time.sleep", lambda _: None)
        with pytest.raises(StoreBusyError, match="Another process publishes to"):
            publish(url, other)
    publish(url, local)


def test_of_two_with_a_lease_the_later_manifest_is_refused(
    url: str, local: Path, tmp_path: Path
) -> None:
    publish(url, local)
    other = Path(shutil.copytree(local, tmp_path / "other"))
    place = Place(url)
    first_lease, base = place.lease(), place.read()
    assert first_lease.acquire()
    late = Publisher(Store(other, url), place, first_lease, base)
    grow(other)
    # The lease is taken away from it, as if it had been suspended for an hour.
    grow(local)
    grow(local)
    publish(url, local)
    with pytest.raises(StoreBusyError):
        late.publish()
    assert note(url) == "xx"
    # Its scratch store is not what is published.
    with pytest.raises(StoreBusyError, match=r"is not what is published at .*--scratch NEW_FOLDER"):
        check_base(Store(other, url), place.read().manifest, url)


def test_a_manifest_that_is_none(url: str, local: Path) -> None:
    publish(url, local)
    system, path = fsspec.core.url_to_fs(f"{url}/manifest.json")
    for content in (b"", b"[]", b'{"format": 7}', b"\xff"):
        system.pipe_file(path, content)
        with pytest.raises(StoreDamagedError, match=r"manifest.json cannot be used"):
            open_published(url)


def test_a_file_that_is_not_what_the_manifest_names(url: str, local: Path) -> None:
    publish(url, local)
    manifest = Place(url).read().manifest
    assert manifest is not None
    (shard, *_) = manifest.shards("audio").values()
    system, path = fsspec.core.url_to_fs(f"{url}/{shard.name}")
    data = bytearray(system.cat_file(path))
    data[len(data) // 2] ^= 1
    copy = open_published(url)
    for content, words in ((data, "its SHA-256 is"), (data[:-1], "it has other bytes")):
        system.pipe_file(path, bytes(content))
        with pytest.raises(StoreDamagedError, match=f"is damaged: {words}"):
            fetch_shards(url, copy, "audio", ["audio-00000.arrow"])
    system.rm_file(path)
    with pytest.raises(StoreDamagedError, match=r"is missing. If it was published anew"):
        fetch_shards(url, copy, "audio", ["audio-00000.arrow"])


def test_a_damaged_shard_is_not_published(local: Path, memory: str) -> None:
    shard = local / "shards" / "audio" / "audio-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreDamagedError, match=r"audio-00001.arrow is damaged.*not published"):
        publish(memory, local)
    assert Place(memory).read().manifest is None
