"""Whatever operation on a file a run dies at, the next run ends in the same shards.

Real processes are killed in `test_kills` and `test_storm`, at some moments; here a run in this
process is stopped at each operation once, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cli_process
from support.disk_faults import Fault, FaultyDisk, KilledError
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize

pytestmark = pytest.mark.usefixtures("inline_workers")

# How many videos there are. What is full needs no second shard.
VIDEOS: dict[Fault, int] = {"killed": 3, "full": 1, "broken": 1}
# What a refusal is called.
SAYS: dict[Fault, str] = {"full": "No space is left", "broken": "check the disk"}
# Tests that share the operations, so that none takes long.
PARTS = 4


@pytest.fixture
def fault() -> Fault:
    return "killed"


@pytest.fixture
def corpus(fault: Fault, tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "release", video_ids(VIDEOS[fault]))


@pytest.fixture
def media_site(corpus: Path) -> Iterator[MediaSite]:
    with MediaSite(corpus / "media") as site:
        yield site


@pytest.fixture(autouse=True)
def _two_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has two videos; whether the site answers is no question of disks."""
    monkeypatch.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 2)
    monkeypatch.setattr("voxblink2_lib.materialize.run.check_source", lambda *_, **__: None)


def go(corpus: Path, store: Path, site: MediaSite, *, retry: bool = False) -> None:
    request = MaterializeRequest(
        data_dir=str(corpus), store=str(store), source=site.url_template, workers=1
    )
    materialize(request, retry=retry, wait=False)


def kept(store: Path) -> set[str]:
    """Videos that need not be fetched again: waiting to be cut, or cut."""
    staged = cli_process.listed(store, "media/audio/*/fetched.json")
    return {path.parent.name.split("_", 1)[1] for path in staged} | cli_process.finished_videos(
        store
    )


def assert_is_whole(store: Path, shards: dict[str, bytes]) -> None:
    assert cli_process.shards(store) == shards
    for folder in ("index", "shards"):
        assert not list((store / folder).rglob("*.tmp")), "half-written files are left"
    for folder in ("parts/audio", "media/audio", "tmp"):
        assert not list((store / folder).glob("*")), f"{folder} is not empty"


def test_every_kind_of_operation_is_seen(
    corpus: Path, media_site: MediaSite, tmp_path: Path
) -> None:
    disk = FaultyDisk(tmp_path / "store")
    with disk.installed():
        go(corpus, tmp_path / "store", media_site)
    kinds = Counter(operation.partition(" ")[0] for operation in disk.operations)
    # Of each shard, checksum and part file; of the index and its tables of speakers; the catalogue
    # and its checksum.
    expected = 2 + 2 + 3 + 1 + 3 + 2
    # Outcomes of each job when it is planned and sealed, and of the first with new settings.
    expected += 2 + 2 + 1
    # The ledger, its copy, its checksum.
    assert kinds["replace"] == expected + 3
    # The index, then the staged folder of each video and what is in it.
    assert kinds["rename"] == 1 + 2 * 3
    assert min(kinds[kind] for kind in ("open", "write", "fsync", "mkdir", "unlink", "rmdir")) > 8
    assert kinds["commit"] > 8
    assert len(cli_process.shards(tmp_path / "store")) == 4


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("fault", ["killed", "full", "broken"])
def test_a_fault_at_any_operation_costs_nothing_finished(
    fault: Fault, part: int, corpus: Path, media_site: MediaSite, tmp_path: Path
) -> None:
    go(corpus, tmp_path / "whole", media_site)
    whole = cli_process.shards(tmp_path / "whole")
    at = part
    while True:
        store = tmp_path / f"store{at}"
        disk = FaultyDisk(store, fault, at)
        with disk.installed():
            try:
                go(corpus, store, media_site)
            except KilledError:
                assert disk.is_dead
            except StoreError as error:
                assert fault in SAYS
                assert SAYS[fault] in str(error)  # noqa: PT017  # others pass
                assert error.exit_code == 3  # noqa: PT017
        if not disk.is_reached:
            break
        counts = {video: media_site.count(video) for video in kept(store)}
        # A load of a store that is complete writes nothing; a run clears what is left.
        go(corpus, store, media_site, retry=True)
        assert_is_whole(store, whole)
        again = [video for video, count in counts.items() if media_site.count(video) != count]
        assert not again, f"fetched again after {disk.operations[-1]}"
        at += PARTS
    assert at > 50 * VIDEOS[fault], "the operations were not seen"
