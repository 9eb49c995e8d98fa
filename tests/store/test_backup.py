"""The ledger is copied once an hour, whole, and a copy that fails ends no run."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import growing_folder, ledger_tables
from support.clocks import StoppedTime
from support.growing_folder import Runner
from support.plain_corpus import make_corpus

from voxblink2_lib.errors import StoreDamagedError, StoreError, StoreFullError
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store import backup
from voxblink2_lib.store.backup import back_up_ledger, is_backup_due
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

KEYS = [VideoKey("id000001", letter * 11) for letter in "abcdef"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS])
    return store


def statuses(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [status for (status,) in connection.execute("select status from videos")]


def test_the_copy_has_what_was_committed_and_is_one_file(store: Store) -> None:
    with Ledger(store.ledger, "audio") as ledger:
        # In the log, not in the file.
        ledger.verdicts("").record(Outcome(KEYS[0], "done", clips=1))
        back_up_ledger(store)
        ledger.verdicts("").record(Outcome(KEYS[1], "done", clips=1))
        assert sorted(path.name for path in store.root.glob("ledger.backup*")) == [
            "ledger.backup.sqlite"
        ]
        assert statuses(store.backup).count("done") == 1
        back_up_ledger(store)
        assert ledger_tables.tables(store.backup) == ledger_tables.tables(store.ledger)
    assert not list(store.tmp.iterdir())


def test_it_is_due_after_an_hour(store: Store) -> None:
    assert is_backup_due(store, now=0.0)
    back_up_ledger(store)
    os.utime(store.backup, (10_000, 10_000))
    assert not is_backup_due(store, now=10_000)
    assert not is_backup_due(store, now=13_599)
    assert is_backup_due(store, now=13_600)
    assert is_backup_due(store, now=9_999), "of a clock that was wrong"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 3] = os.urandom(4096)
    path.write_bytes(data)


def test_a_damaged_ledger_does_not_replace_the_copy_before(store: Store) -> None:
    back_up_ledger(store)
    before = store.backup.read_bytes()
    damage(store.ledger)
    with pytest.raises(StoreDamagedError, match="voxblink2 repair --store"):
        back_up_ledger(store)
    assert store.backup.read_bytes() == before
    assert not list(store.tmp.iterdir())


def test_a_full_disk_and_a_ledger_that_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up_ledger(store)
    before = store.backup.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(backup, "_flush", full)
        with pytest.raises(StoreFullError, match=r"No space is left for .*ledger\.backup\.sqlite"):
            back_up_ledger(store)
    store.ledger.unlink()
    with pytest.raises(StoreError, match="cannot be opened"):
        back_up_ledger(store)
    assert store.backup.read_bytes() == before


# -- In a run --------------------------------------------------------------------------------------


@pytest.fixture
def runner(tmp_path: Path, inline_workers: None) -> Runner:
    return Runner(make_corpus(tmp_path / "corpus", growing_folder.VIDEOS), tmp_path)


def test_a_run_copies_it_once_an_hour(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(runner.store)
    runner.run([0, 1, 2])
    assert statuses(store.backup).count("done") >= 1
    copied = store.backup.stat()
    clock = StoppedTime(copied.st_mtime + 3599)
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.time.time", clock.time)
    runner.run([3])
    assert store.backup.stat().st_ino == copied.st_ino
    clock.now += 1
    runner.run([4])
    assert store.backup.stat().st_ino != copied.st_ino


def test_a_copy_that_fails_is_a_warning_once(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Store) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "ledger.backup.sqlite")

    monkeypatch.setattr("voxblink2_lib.materialize.pipeline.back_up_ledger", refuse)
    with caplog.at_level(logging.WARNING):
        runner.run(range(12))
    assert [record.getMessage() for record in caplog.records] == [
        "The ledger was not copied: [Errno 13] Permission denied: 'ledger.backup.sqlite'"
    ]
    assert not runner.problems()
    assert not Store(runner.store).backup.exists()
