"""A store is written to by one process, where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.clocks import SteppingClock

from voxblink2_lib.errors import StoreBusyError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store import lease as lease_module
from voxblink2_lib.store import lock
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.lease import BEAT_SECONDS, STALE_SECONDS, Lease
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.lock import has_no_locks, lock_problem

A = VideoKey("id000001", "video000001")


class Waiting(SteppingClock):
    """A clock at whose every sleep something else happens."""

    def __init__(self, meanwhile: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.meanwhile()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lease"


@pytest.fixture
def clock() -> Waiting:
    return Waiting()


def leased(path: Path, clock: Waiting) -> Lease:
    return Lease(path, clock=clock, sleep=clock.sleep)


def move_to_another_machine(path: Path) -> None:
    """Change what a lease says of its holder, so that nobody here can tell whether it lives."""
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "system": "another"}))


def test_a_free_lease_is_taken_at_once_and_given_back(path: Path, clock: Waiting) -> None:
    lease = leased(path, clock)
    assert lease.acquire()
    assert clock.slept == 0
    lease.check()
    assert json.loads(path.read_bytes())["pid"] == os.getpid()
    lease.release()
    assert list(path.parent.iterdir()) == []


def test_a_lease_that_is_renewed_is_not_taken(path: Path, clock: Waiting) -> None:
    holder = leased(path, clock)
    assert holder.acquire()
    clock.meanwhile = holder.renew
    other = leased(path, clock)
    assert not other.acquire()
    assert clock.slept <= 2 * BEAT_SECONDS
    holder.check()
    other.release()
    assert path.exists(), "the other's lease was removed"


def test_a_lease_whose_holder_died_elsewhere_is_taken_after_a_while(
    path: Path, clock: Waiting
) -> None:
    dead = leased(path, clock)
    assert dead.acquire()
    move_to_another_machine(path)
    other = leased(path, clock)
    assert other.acquire()
    assert STALE_SECONDS <= clock.slept <= STALE_SECONDS + 5
    other.check()
    # It was only suspended, and wakes up.
    with pytest.raises(StoreBusyError, match=r"lost its lease of the store .*; run the same"):
        dead.check()
    content = path.read_bytes()
    dead.renew()
    dead.release()
    assert path.read_bytes() == content
    other.check()


def test_a_lease_whose_holder_died_here_is_taken_at_once(path: Path, clock: Waiting) -> None:
    assert leased(path, clock).acquire()
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "pid": 1 << 30}))  # more than there are
    assert leased(path, clock).acquire()
    assert clock.slept < 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 9])
def test_a_file_that_is_no_lease_is_replaced(content: bytes, path: Path, clock: Waiting) -> None:
    path.write_bytes(content)
    assert leased(path, clock).acquire()
    assert clock.slept >= STALE_SECONDS


def test_of_two_that_replace_a_dead_one_at_once_one_has_it(path: Path) -> None:
    clock = Waiting()
    assert leased(path, clock).acquire()
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "pid": 1 << 30}))
    first, second = leased(path, clock), Waiting()
    taken = []

    def other_comes() -> None:
        clock.meanwhile = lambda: None
        # It has judged the file before the first one replaced it.
        late = leased(path, second)
        taken.append(late._replace())

    clock.meanwhile = other_comes
    taken.append(first.acquire())
    assert sorted(taken) == [False, True]


def test_a_holder_that_was_suspended_for_a_moment_goes_on(path: Path, clock: Waiting) -> None:
    lease = leased(path, clock)
    assert lease.acquire()
    clock.now += 10 * STALE_SECONDS
    lease.check()


@pytest.mark.parametrize("is_back", [False, True])
def test_a_disk_that_is_gone_for_long_ends_the_lease(
    is_back: bool, path: Path, clock: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leased(path, clock)
    assert lease.acquire()
    with monkeypatch.context() as gone:
        gone.setattr(lease_module, "open", functools.partial(_fail, errno.ESTALE), raising=False)
        clock.now += STALE_SECONDS - 1
        lease.check()  # it may come back
        clock.now += 2
        if not is_back:
            with pytest.raises(StoreBusyError, match="could not renew"):
                lease.check()
    if is_back:
        lease.check()


def test_a_lease_that_was_deleted_is_lost(path: Path, clock: Waiting) -> None:
    lease = leased(path, clock)
    assert lease.acquire()
    path.unlink()
    lease.renew()
    with pytest.raises(StoreBusyError, match="lost its lease"):
        lease.check()
    assert not path.exists()


# -- In a store ------------------------------------------------------------------------------------


def _fail(number: int, *_: Any, **__: Any) -> Any:
    raise OSError(number, os.strerror(number))


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: Waiting,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """A store on a disk without locks, as far as Python asks for them."""
    monkeypatch.setattr(fcntl, "flock", functools.partial(_fail, request.param))
    monkeypatch.setattr(lock, "Lease", functools.partial(Lease, clock=clock, sleep=clock.sleep))
    return Store(tmp_path / "store")


def test_a_store_without_locks_has_a_lease(store: Store, clock: Waiting) -> None:
    with store.locked(wait=False):
        assert (store.root / ".lease").exists()
        clock.meanwhile = lease_module._held[store.root].renew
        with (
            pytest.raises(StoreBusyError, match=f"process {os.getpid()} on .* is working on"),
            store.locked(wait=False),
        ):
            pytest.fail("two have the lease")
    assert not (store.root / ".lease").exists()
    assert lease_module._held == {}
    with store.locked(wait=False):
        pass


def test_whoever_lost_the_lease_writes_nothing_to_the_ledger(store: Store) -> None:
    with store.locked(wait=False), Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([[A]])
        (store.root / ".lease").write_text("{}")
        lease_module._held[store.root].renew()
        with pytest.raises(StoreBusyError, match="lost its lease"):
            ledger.set_setting("name", "value")
        assert ledger.setting("name") is None
    with Ledger(store.ledger, "audio", readonly=True) as ledger:
        assert ledger.open_jobs() == [0]


def test_a_lease_beside_a_lock_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have found no locks where this one finds some."""
    clock = Waiting()
    monkeypatch.setattr(lock, "Lease", functools.partial(Lease, clock=clock, sleep=clock.sleep))
    store = Store(tmp_path)
    holder = leased(tmp_path / ".lease", clock)
    assert holder.acquire()
    clock.meanwhile = holder.renew
    with pytest.raises(StoreBusyError, match="is working on"), store.locked(wait=False):
        pytest.fail("two may write")
    holder.release()
    with store.locked(wait=False):
        assert not (tmp_path / ".lease").exists()


def test_locks_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock_problem(tmp_path) == ""
    assert not has_no_locks(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda *_: None)
        assert lock_problem(tmp_path) == "two processes can hold the same lock"
    (tmp_path / ".lock").touch()
    assert not has_no_locks(tmp_path)
    monkeypatch.setattr(fcntl, "lockf", functools.partial(_fail, errno.ENOLCK))
    assert "No locks available" in lock_problem(tmp_path)
    assert has_no_locks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
