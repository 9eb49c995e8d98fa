"""The cache of pieces: its bound, its count, kills, full disks, several processes."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.killed_writes import KilledError, kill_at_write

from voxblink2_lib.training import piece_cache, piece_queue
from voxblink2_lib.training.piece_cache import PieceCache
from voxblink2_lib.training.piece_claims import PieceClaims
from voxblink2_lib.training.piece_queue import QUEUE, PieceQueue

SIZE = 100
FORK = multiprocessing.get_context("fork")


def name_of(number: int) -> str:
    return f"x.arrow.1000.{number:06}"


def content_of(number: int, size: int = SIZE) -> bytes:
    return bytes([number % 251]) * size


def fill(cache: PieceCache, numbers: range) -> None:
    for number in numbers:
        cache.keep(name_of(number), content_of(number))


def stored(cache: PieceCache) -> dict[str, int]:
    """Sizes of the pieces on the disk."""
    files = (path for path in cache.folder.iterdir() if not path.name.startswith("."))
    return {path.name: path.stat().st_size for path in files}


def counted(cache: PieceCache) -> int:
    with PieceQueue(cache.folder) as queue:
        return queue.total


class Clock:
    """Stands for the module ``time``: a nanosecond goes by at each look."""

    def __init__(self) -> None:
        self.now = 10**18

    def time_ns(self) -> int:
        self.now += 1
        return self.now


# -- What is kept ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60),
    most=st.integers(SIZE, 5 * SIZE),
)
def test_second_chances_are_those_of_the_textbook(
    steps: list[tuple[bool, int]], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = PieceCache(tmp_path_factory.mktemp("cache"), most)
    queue: list[int] = []  # the oldest first
    used: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piece_cache, "time", Clock())
        for is_read, number in steps:
            data = cache.read(name_of(number), SIZE, 10, 20) if is_read else None
            if is_read:
                assert data == (content_of(number)[10:20] if number in queue else None)
                used |= {number} & set(queue)
            elif number not in queue:
                while queue and (len(queue) + 1) * SIZE > most:
                    oldest = queue.pop(0)
                    if oldest in used:
                        used.remove(oldest)
                        queue.append(oldest)
                queue.append(number)
                cache.keep(name_of(number), content_of(number))
            assert stored(cache) == {name_of(number): SIZE for number in queue}


def test_a_miss_looks_at_no_other_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [0]

    def counting(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted_call(*words: Any, **options: Any) -> Any:
            looks[0] += 1
            return function(*words, **options)

        monkeypatch.setattr(owner, name, counted_call)

    for name in ("stat", "scandir", "open", "pread", "pwrite", "unlink"):
        counting(os, name)
    calls = []
    for pieces in (20, 500):
        cache = PieceCache(tmp_path / str(pieces), pieces * SIZE)
        fill(cache, range(pieces + 5))
        looks[0] = 0
        fill(cache, range(pieces + 5, pieces + 15))
        calls.append(looks[0])
        assert sum(stored(cache).values()) == pieces * SIZE
    assert calls[0] == calls[1] <= 15 * 10


def test_used_pieces_cost_a_miss_no_more_than_a_few_looks(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 300 * SIZE)
    fill(cache, range(300))
    for number in range(300):
        assert cache.read(name_of(number), SIZE, 0, SIZE) == content_of(number)
    before = (tmp_path / QUEUE).stat().st_size
    fill(cache, range(300, 301))
    line = len(f"{10**18} {SIZE} {name_of(0)}\n")
    assert (tmp_path / QUEUE).stat().st_size - before == (piece_queue._SECOND_CHANCES + 1) * line
    assert name_of(300) in stored(cache)
    assert counted(cache) == 300 * SIZE


def test_the_queue_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_queue, "_COMPACTED_BYTES", 500)
    cache = PieceCache(tmp_path, 5 * SIZE)
    fill(cache, range(200))
    assert set(stored(cache)) == {name_of(number) for number in range(195, 200)}
    assert (tmp_path / QUEUE).stat().st_size < 1500
    assert counted(cache) == 5 * SIZE


def test_pieces_of_a_cache_without_a_queue_are_counted(tmp_path: Path) -> None:
    # Those of an earlier version, which had none, and a file of somebody else.
    (tmp_path / "cleared").write_bytes(b"digest")
    for number in range(4):
        path = tmp_path / f"old.arrow.1000.{number:06}"
        path.write_bytes(content_of(number))
        os.utime(path, ns=(number, 10 - number))
    cache = PieceCache(tmp_path, 4 * SIZE)
    fill(cache, range(2))
    old = {f"old.arrow.1000.{number:06}" for number in (0, 1)}
    assert set(stored(cache)) == {"cleared", name_of(0), name_of(1)} | old


@pytest.mark.parametrize("damage", ["head", "cut", "lines", "empty"])
def test_a_queue_that_a_crash_damaged_is_made_anew(damage: str, tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 5 * SIZE)
    fill(cache, range(5))
    queue = tmp_path / QUEUE
    content = bytearray(queue.read_bytes())
    if damage == "head":
        content[10] ^= 1
    elif damage == "cut":
        del content[70:]
    elif damage == "lines":
        content[64:] = bytes(len(content) - 64)
    else:
        content.clear()
    queue.write_bytes(content)
    fill(cache, range(5, 12))
    assert set(stored(cache)) == {name_of(number) for number in range(7, 12)}
    assert counted(cache) == 5 * SIZE


def test_what_somebody_else_removes_leaves_the_count_in_its_turn(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 5 * SIZE)
    fill(cache, range(5))
    for number in (1, 3):
        (tmp_path / name_of(number)).unlink()
    fill(cache, range(5, 10))
    assert set(stored(cache)) == {name_of(number) for number in range(5, 10)}
    assert counted(cache) == 5 * SIZE


def test_another_process_gets_folder_and_bound_alone(tmp_path: Path) -> None:
    cache = PieceCache(tmp_path, 5 * SIZE)
    cache._remember(name_of(0), content_of(0))
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.folder, copy.most_bytes, copy.has(name_of(0), SIZE)) == (tmp_path, 5 * SIZE, False)


# -- Kills -----------------------------------------------------------------------------------------

_WRITES = [(os, "pwrite"), (os, "open"), (os, "write"), (os, "unlink")]


@pytest.mark.parametrize("is_done", [False, True])
def test_a_kill_at_any_moment_leaves_nothing_that_counts_wrong_for_ever(
    is_done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_queue, "_COMPACTED_BYTES", 100)
    number, was_killed = 0, True
    while was_killed:
        number += 1
        cache = PieceCache(tmp_path / str(number), 3 * SIZE)
        fill(cache, range(2))
        was_killed = False
        with pytest.MonkeyPatch.context() as patch:
            kill_at_write(patch, _WRITES, number, is_done=is_done)
            try:
                fill(cache, range(2, 5))
            except KilledError:
                was_killed = True
        other = PieceCache(cache.folder, 3 * SIZE)
        for later in range(2, 12):
            fill(other, range(later, later + 1))
            sizes = stored(other)
            assert sum(sizes.values()) <= counted(other) <= 3 * SIZE
            assert other.read(name_of(later), SIZE, 0, SIZE) == content_of(later)
        assert sizes == {name_of(each): SIZE for each in (9, 10, 11)}
        assert counted(other) == 3 * SIZE
    assert number > 20


def _churn(folder: Path, seed: int, rounds: int) -> None:
    """Store and read pieces, and look that none is damaged."""
    cache = PieceCache(folder, 8 * 5000)
    for step in range(rounds):
        number = (seed * 7 + step * 13) % 40
        data = cache.read(name_of(number), 5000, 0, 5000)
        assert data in (None, content_of(number, 5000))
        cache.keep(name_of(number), content_of(number, 5000))
    os._exit(0)


def test_several_processes_and_a_killed_one_share_a_folder(tmp_path: Path) -> None:
    workers = [FORK.Process(target=_churn, args=(tmp_path, seed, 200)) for seed in range(3)]
    endless = FORK.Process(target=_churn, args=(tmp_path, 5, 10**9))
    for process in (*workers, endless):
        process.start()
    cache = PieceCache(tmp_path, 8 * 5000)
    looks = 0
    while any(process.is_alive() for process in workers):
        with cache._locked():
            assert sum(stored(cache).values()) <= 8 * 5000
        looks += 1
    os.kill(endless.pid or 0, signal.SIGKILL)
    for process in (*workers, endless):
        process.join(60)
    assert [process.exitcode for process in workers] == [0, 0, 0]
    assert looks
    for number in range(100, 120):
        cache.keep(name_of(number), content_of(number, 5000))
    assert set(stored(cache)) == {name_of(number) for number in range(112, 120)}
    assert counted(cache) == 8 * 5000


# -- Disks that take nothing -----------------------------------------------------------------------


def full_at_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Take half of a piece, and then nothing more."""
    write = os.write

    def refused(file: int, data: Any) -> int:
        if len(data) < SIZE:
            raise OSError(number, os.strerror(number))
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", refused)


def full_at_queue(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refused)


def refused_at_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    opened = os.open

    def refused(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refused)


def refused_at_lock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.parametrize(
    ("refuse", "number"),
    [
        (full_at_write, errno.ENOSPC),
        (full_at_write, errno.EDQUOT),
        (full_at_queue, errno.ENOSPC),
        (refused_at_open, errno.EROFS),
        (refused_at_open, errno.EACCES),
        (refused_at_lock, errno.ENOLCK),
    ],
)
def test_what_the_disk_does_not_take_is_held_in_memory_and_that_is_said_once(
    refuse: Callable[[pytest.MonkeyPatch, int], None],
    number: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = PieceCache(tmp_path, 5 * SIZE)
    fill(cache, range(2))
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, number)
        fill(cache, range(2, 5))
    assert stored(cache) == {name_of(0): SIZE, name_of(1): SIZE}
    for piece in range(5):
        assert cache.read(name_of(piece), SIZE, 3, 9) == content_of(piece)[3:9]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert text.startswith(f"Pieces of remote shards cannot be stored in {tmp_path}: ")
    assert f"{os.strerror(number)}. They are held in memory, at most 500 bytes" in text
    fill(cache, range(5, 8))  # once there is room
    assert set(stored(cache)) == {name_of(piece) for piece in (0, 1, 5, 6, 7)}
    assert counted(cache) == 5 * SIZE


def test_what_is_held_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused_at_open(monkeypatch, errno.EROFS)
    cache = PieceCache(tmp_path, 3 * SIZE)
    fill(cache, range(10))
    assert [cache.has(name_of(piece), SIZE) for piece in range(10)] == [False] * 7 + [True] * 3


# -- Claims ----------------------------------------------------------------------------------------


def _hold(folder: Path, has_claim: Any, end: Any) -> None:
    claims = PieceClaims(folder)
    assert claims.take("a")
    has_claim.set()
    end.wait(60)
    claims.release("a")
    end.clear()
    time.sleep(60)


def test_a_claim_is_for_one_process_until_it_is_released_or_killed(tmp_path: Path) -> None:
    claims = PieceClaims(tmp_path)
    for is_killed in (False, True):
        has_claim, end = FORK.Event(), FORK.Event()
        holder = FORK.Process(target=_hold, args=(tmp_path, has_claim, end))
        holder.start()
        assert has_claim.wait(60)
        assert not claims.take("a")
        assert not claims.wait("a", 0.0)
        assert claims.take("b")
        claims.release("b")
        if is_killed:
            holder.kill()
        else:
            end.set()
        assert claims.wait("a", 60.0)
        claims.release("a")
        holder.kill()
        holder.join(60)


def _tries(claims: PieceClaims, answer: Any) -> None:
    answer.put(claims.take("a"))
    answer.close()
    answer.join_thread()
    os._exit(0)


def test_a_forked_process_has_no_claim_of_its_parent(tmp_path: Path) -> None:
    claims = PieceClaims(tmp_path)
    assert claims.take("a")
    answer = FORK.Queue()
    child = FORK.Process(target=_tries, args=(claims, answer))
    child.start()
    assert answer.get(timeout=60) is False
    child.join(60)
    claims.release("a")


def test_where_files_cannot_be_locked_everybody_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_at_open(monkeypatch, errno.EROFS)
    claims = PieceClaims(tmp_path)
    assert claims.take("a")
    assert claims.take("a")
    claims.release("a")
