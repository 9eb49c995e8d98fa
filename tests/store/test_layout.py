"""Where a store lies, and that only one process works on it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.release_builder import small_release, write_archive, write_release

from voxblink2_lib.errors import StoreBusyError, StoreError
from voxblink2_lib.files import HOME_VARIABLE
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.location import META_ARCHIVE, Release, open_release
from voxblink2_lib.store.layout import Store, open_store

RELEASE = Release(Path("/releases/voxblink2/meta"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# -- Places ----------------------------------------------------------------------------------------


def test_places(store: Store) -> None:
    root = store.root
    assert store.index == root / "index"
    assert store.ledger == root / "ledger.sqlite"
    assert store.tmp == root / "tmp"
    assert store.shards("audio") == root / "shards" / "audio"
    part = store.part("audio", 7, VideoKey("id000001", "-bcdefghijk"))
    assert part == root / "parts" / "audio" / "00007" / "id000001_-bcdefghijk.arrow"
    assert part.parent == store.job_parts("audio", 7)


def test_videos_that_differ_in_case_have_files_of_their_own(store: Store) -> None:
    keys = [VideoKey("id000001", name) for name in ("abcDEFghijk", "abcdefghijk", "ABCDEFGHIJK")]

    def names() -> set[str]:
        return {store.part("audio", 7, key).name for key in keys} | {
            store.fetched("audio", key).name for key in keys
        }

    with store.locked(wait=False):
        assert len({name.lower() for name in names()}) == 2
        # As on a disk that ignores case: there, a look-up of one name finds the other.
        (store.root / ".LOCK").touch()
        assert len({name.lower() for name in names()}) == 6
        part = store.part("audio", 7, keys[1])
        assert part.name == "id000001_abcdefghijk.arrow", "what needs no mark has none"
        assert all(re.fullmatch(r"[\w.-]+\w", name) for name in names()), "FAT allows no others"


def test_a_named_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("here", RELEASE).root == tmp_path / "here"
    assert open_store(str(tmp_path / "there"), RELEASE).root == tmp_path / "there"
    assert open_store("~/s", RELEASE).root == tmp_path / "home" / "s"
    assert list(tmp_path.iterdir()) == []


def test_home_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv(HOME_VARIABLE, "~/vb2")
    assert open_store(None, open_release("demo")).root == tmp_path / "vb2" / "demo"
    root = open_store(None, RELEASE).root
    assert root.parent == tmp_path / "vb2"
    assert root.name.startswith("voxblink2-")


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_store(None, open_release("demo")).root == tmp_path / "xdg" / "voxblink2" / "demo"
    for unset in (True, False):
        if unset:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", "")
        root = open_store(None, open_release("demo")).root
        assert root == tmp_path / ".cache" / "voxblink2" / "demo"


def test_every_release_has_a_store_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    first = write_release(tmp_path / "a" / "release", small_release())
    second = write_release(tmp_path / "b" / "release", small_release())
    write_archive(tmp_path / "c" / META_ARCHIVE, small_release())
    roots = {
        name: open_store(None, open_release(where)).root
        for name, where in {"a": first, "b": second, "c": tmp_path / "c"}.items()
    }
    assert len(set(roots.values())) == 3
    assert all(name.startswith("release-") for name in (roots["a"].name, roots["b"].name))
    assert roots["c"].name.startswith("c-")
    assert open_store(None, open_release(first / "meta")).root == roots["a"]
    monkeypatch.chdir(first)
    assert open_store(None, open_release(".")).root == roots["a"]
    (tmp_path / "link").symlink_to(first)
    assert open_store(None, open_release(tmp_path / "link")).root == roots["a"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_text("x")
    with pytest.raises(StoreError, match=r"The store .*store is a file; it must be a folder"):
        open_store(str(path), RELEASE)


def test_a_store_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = open_store(str(tmp_path / "file" / "store"), RELEASE)
    with (
        pytest.raises(StoreError, match=r"The store .*file/store cannot be used: .*Not a dir"),
        store.locked(wait=False),
    ):
        pass


def test_a_store_that_cannot_take_the_holder_is_named(store: Store) -> None:
    (store.root / ".lock-holder").mkdir(parents=True)
    with (
        pytest.raises(StoreError, match=r"The store .*store cannot be used"),
        store.locked(wait=False),
    ):
        pass
    (store.root / ".lock-holder").rmdir()
    with store.locked(wait=False):
        pass


def test_an_error_of_the_work_is_not_an_error_of_the_store(store: Store) -> None:
    with (
        pytest.raises(PermissionError, match="something else"),
        store.locked(wait=False),
    ):
        raise PermissionError("something else")


def test_clear_leftovers(store: Store) -> None:
    store.clear_leftovers("audio", open_jobs=[])
    (store.tmp / "left").mkdir()
    (store.tmp / "left" / "video.part").write_bytes(b"half")
    store.clear_leftovers("audio", open_jobs=[])
    assert list(store.tmp.iterdir()) == []


# -- One at a time ---------------------------------------------------------------------------------


HOLDER = """
import pathlib, sys
from voxblink2_lib.store.layout import Store
with Store(pathlib.Path(sys.argv[1])).locked(wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Hold a store's lock in another process, until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_holder_is_named(store: Store) -> None:
    with held_elsewhere(store) as process:
        with (
            pytest.raises(
                StoreBusyError,
                match=rf"^process {process.pid} on \S+ is working on the store .*Nothing was chan",
            ) as caught,
            store.locked(wait=False),
        ):
            pytest.fail("the lock was given twice")
        assert caught.value.exit_code == 3
        process.kill()
        process.wait()
        # A killed process leaves no lock behind.
        with store.locked(wait=False):
            assert str(os.getpid()) in (store.root / ".lock-holder").read_text()


def test_waiting_says_for_whom(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with held_elsewhere(store) as process:
        logged = threading.Event()

        class LogWatch(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                del record
                logged.set()

        def let_go() -> None:
            logged.wait(60)
            assert process.stdin is not None
            process.stdin.close()

        watch = LogWatch()
        logger = logging.getLogger("voxblink2_lib.store.lock")
        logger.addHandler(watch)
        helper = threading.Thread(target=let_go)
        helper.start()
        try:
            with store.locked(wait=True):
                assert process.wait(60) == 0
        finally:
            logged.set()
            helper.join()
            logger.removeHandler(watch)
        assert f"process {process.pid} on " in caplog.text
        assert "waiting for it to finish" in caplog.text


def test_the_same_process_cannot_hold_it_twice(store: Store) -> None:
    with store.locked(wait=False):
        with (
            pytest.raises(StoreBusyError, match=f"process {os.getpid()} on"),
            store.locked(wait=False),
        ):
            pytest.fail("the lock was given twice")
        with Store(store.root.with_name("other")).locked(wait=False):
            pass


def test_the_lock_is_given_back_after_an_error(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(KeyError, match="work"), store.locked(wait=False):
            raise KeyError("work")
