"""Cut audio: what was purged is not read again, whether the archive was read to its end or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cut_runs
from support.cut_runs import go, in_order, round_robin, row_names
from support.disk_faults import FaultyDisk, KilledError

from voxblink2_lib.purge.ids import read_purged_ids
from voxblink2_lib.purge.run import purge_store
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.verify import verify_store

VIDEOS = 12
# A speaker, a video of another one, and an utterance of a third.
PURGED = ("id000001", "video000007", "id000003/video000010/00001")


@pytest.fixture(autouse=True)
def runs() -> Iterator[None]:
    with cut_runs.small():
        yield


def names(videos: int = VIDEOS) -> list[str]:
    """Names of the utterances of the archive, without what is purged."""
    return sorted(name for name in in_order(videos) if not any(purged in name for purged in PURGED))


def purge(store: Path) -> None:
    purge_store(Store(store), read_purged_ids(PURGED))


def raw(store: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file())


def assert_is_purged(store: Path) -> None:
    assert sorted(row_names(store)) == names()
    assert verify_store(Store(store), sample=99).problems == ()
    data = raw(store)
    ids = (*PURGED, "video000003", "video000004", "video000005")
    assert [text for text in ids if text.encode() in data] == []


@pytest.mark.parametrize("order", [in_order, round_robin])
def test_an_archive_that_was_read(tmp_path: Path, order: object) -> None:
    archive = cut_runs.write(tmp_path / "archive", order(VIDEOS))  # type: ignore[operator]
    store = tmp_path / "store"
    go(archive, store)
    purge(store)
    assert_is_purged(store)
    go(archive, store)
    assert_is_purged(store)
    # A new archive of the same files is read from its start.
    later = cut_runs.write(tmp_path / "later", order(VIDEOS + 3))  # type: ignore[operator]
    go(later, store)
    assert sorted(row_names(store)) == names(VIDEOS + 3)


@pytest.mark.parametrize("at", range(60, 260, 80))
def test_an_archive_that_is_half_read(tmp_path: Path, at: int) -> None:
    archive = cut_runs.write(tmp_path / "archive", round_robin(VIDEOS))
    store = tmp_path / "store"
    disk = FaultyDisk(store, "killed", at)
    with disk.installed(), contextlib.suppress(KilledError):
        go(archive, store)
    purge(store)
    data = raw(store)
    assert not any(text.encode() in data for text in PURGED), disk.operations[-1:]
    go(archive, store)
    assert_is_purged(store)
