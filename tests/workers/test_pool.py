"""Worker processes that run several calls at once, and the results of calls when one dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import cli_process
from support.worker_calls import die_with_child, hang_with_child

from voxblink2_lib.errors import StoppedError
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool, collect

THREADS = 4
# In a worker, a copy of its own.
TOGETHER = threading.Barrier(THREADS, timeout=cli_process.DEADLINE_SECONDS)
NEVER = threading.Event()


def meet(number: int) -> tuple[int, int]:
    """Return when as many calls as there are threads have come this far."""
    TOGETHER.wait()
    return os.getpid(), number


def process(_: object) -> int:
    return os.getpid()


def is_main(_: object) -> bool:
    return threading.current_thread() is threading.main_thread()


def hang(_: object) -> None:
    NEVER.wait()


def die(how: int) -> None:
    os.kill(os.getpid(), how)
    # The signal may come to another thread, a moment later; nothing is answered until then.
    time.sleep(60)


def leave(code: object) -> None:
    raise SystemExit(code)


def reversed_bytes(data: bytes) -> bytes:
    return data[::-1]


def refuse(word: str) -> None:
    raise ValueError(word)


def exhaust(how: str) -> None:
    if how == "MemoryError":
        raise MemoryError
    if how == "ENOMEM":
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    bytearray(1 << 60)


def unportable(_: object) -> object:
    return threading.Lock()


def all_of(pool: WorkerPool) -> Iterator[tuple[Call, Any]]:
    while pool.busy:
        yield from collect([pool])


def test_threads_of_a_process_work_at_the_same_time() -> None:
    with WorkerPool(1, threads=THREADS) as pool:
        calls = iter([(meet, number) for number in range(2 * THREADS)])
        results = [result for _, result in pool.run(calls.__next__)]
    assert sorted(number for _, number in results) == list(range(2 * THREADS))
    assert len({process_id for process_id, _ in results}) == 1


def test_calls_are_spread_over_the_processes() -> None:
    with WorkerPool(2, threads=2) as pool:
        assert (pool.free, pool.busy) == (4, 0)
        for number in range(4):
            pool.submit((hang, number))
        assert (pool.free, pool.busy, len(pool.connections())) == (0, 4, 2)
        assert [len(worker.calls) for worker in pool._workers] == [2, 2]


def test_processes_start_when_there_is_work_for_them() -> None:
    with WorkerPool(3, threads=2) as pool:
        assert pool._workers == []
        pool.submit((process, 0))
        assert [call for call, _ in all_of(pool)] == [(process, 0)]
        pool.submit((process, 1))
        assert len(list(all_of(pool))) == len(pool._workers) == 1


def test_one_call_at_a_time_is_in_the_main_thread() -> None:
    for threads in (1, 2):
        with WorkerPool(1, threads=threads) as pool:
            pool.submit((is_main, 0))
            assert [result for _, result in all_of(pool)] == [threads == 1]


def test_results_belong_to_their_calls() -> None:
    with WorkerPool(1, threads=THREADS) as pool:
        calls = [(meet, number) for number in range(THREADS)]
        for call in calls:
            pool.submit(call)
        results = {call[1]: result for call, result in all_of(pool)}
    assert {number: result[1] for number, result in results.items()} == {
        number: number for number in range(THREADS)
    }


def test_a_death_is_the_result_of_all_calls_of_the_process() -> None:
    with WorkerPool(1, threads=3) as pool:
        calls: list[Call] = [(hang, 1), (hang, 2), (die, int(signal.SIGSEGV))]
        for call in calls:
            pool.submit(call)
        results = list(all_of(pool))
        assert [call for call, _ in results] == calls
        assert {str(result) for _, result in results} == {"the worker process died of SIGSEGV"}
        assert all(isinstance(result, WorkerDiedError) for _, result in results)
        assert {result.signal_number for _, result in results} == {signal.SIGSEGV}
        assert not any(result.is_overdue for _, result in results)
        # Another process takes its place.
        assert (pool.free, pool.connections()) == (3, [])
        pool.submit((process, 0))
        assert [result for _, result in all_of(pool)] != [os.getpid()]


def test_calls_that_wait_outlive_the_process_that_they_wait_for() -> None:
    with WorkerPool(1, waiting=3) as pool:
        assert pool.free == 4
        calls: list[Call] = [(die, int(signal.SIGSEGV)), (process, 1), (process, 2)]
        for call in calls:
            pool.submit(call)
        dead = pool._workers[0].process.pid
        results = list(all_of(pool))
        assert [call for call, _ in results] == calls
        assert isinstance(results[0][1], WorkerDiedError)
        assert {result for _, result in results[1:]} == {pool._workers[0].process.pid} != {dead}


def test_large_calls_may_wait_while_large_results_do() -> None:
    size_bytes = 4 << 20  # far more than a socket holds
    with WorkerPool(1, waiting=3) as pool:
        for _ in range(4):
            pool.submit((reversed_bytes, bytes(size_bytes)))
        assert [len(result) for _, result in all_of(pool)] == [size_bytes] * 4


def test_a_death_costs_no_call_of_another_process() -> None:
    with WorkerPool(2) as pool:
        pool.submit((hang, 1))
        pool.submit((die, int(signal.SIGKILL)))
        ((call, result),) = list(collect([pool]))
        assert (call[0], isinstance(result, WorkerDiedError)) == (die, True)
        assert pool.busy == 1


def test_a_call_for_a_process_that_has_just_died_has_the_same_result() -> None:
    with WorkerPool(1, threads=2) as pool:
        pool.submit((hang, 1))
        (worker,) = pool._workers
        worker.process.kill()
        worker.process.wait()
        pool.submit((process, 2))
        results = list(all_of(pool))
        assert [call for call, _ in results] == [(hang, 1), (process, 2)]
        assert {str(result) for _, result in results} == {"the worker process died of SIGKILL"}


def test_what_a_thread_raises_comes_with_its_traceback() -> None:
    with WorkerPool(1, threads=2) as pool:
        pool.submit((refuse, "no"))
        with pytest.raises(ValueError, match="no") as caught:
            list(all_of(pool))
        assert "in refuse" in caught.value.__notes__[0]
        assert pool.busy == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("call", "code"), [((leave, 7), 7), ((leave, "text"), 1), ((unportable, 0), 1)]
)
def test_a_process_that_ends_does_not_keep_the_run_waiting(
    threads: int, call: Call, code: int
) -> None:
    with WorkerPool(1, threads=threads) as pool:
        pool.submit(call)
        with pytest.raises(StoppedError, match=rf"^A worker process ended with exit code {code};"):
            list(all_of(pool))


def test_collect_waits_no_longer_than_its_timeout() -> None:
    assert list(collect([], timeout_seconds=0)) == []
    with WorkerPool(1, threads=2) as first, WorkerPool(1) as second:
        assert list(collect([first, second], timeout_seconds=0)) == []
        first.submit((hang, 1))
        assert list(collect([first, second], timeout_seconds=0)) == []
        assert first.busy == 1
        second.submit((process, 2))
        # As long as it takes, for the first result.
        ((call, result),) = list(collect([first, second]))
        assert call == (process, 2)
        assert result == second._workers[0].process.pid
        assert (first.busy, second.busy) == (1, 0)


def test_kill_ends_what_hangs() -> None:
    with WorkerPool(1, threads=2) as pool:
        pool.submit((hang, 1))
        (worker,) = pool._workers
        pool.kill()
        assert worker.process.returncode == -signal.SIGKILL
        assert (pool.busy, pool.free, pool.connections()) == (0, 2, [])


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("MemoryError", "the worker process ran out of memory"),
        ("ENOMEM", "the worker process ran out of memory: [Errno 12] Cannot allocate memory"),
        ("really", "the worker process ran out of memory"),
    ],
)
def test_a_call_that_runs_out_of_memory_ends_as_one_that_was_killed(
    how: str, message: str, threads: int
) -> None:
    with WorkerPool(1, threads=threads) as pool:
        pool.submit((exhaust, how))
        ((call, result),) = list(all_of(pool))
        assert (call, str(result)) == ((exhaust, how), message)
        assert isinstance(result, WorkerDiedError)
        assert (result.signal_number, result.is_overdue) == (None, False)
        # The process goes on.
        (worker,) = pool._workers
        pool.submit((process, 0))
        assert [result for _, result in all_of(pool)] == [worker.process.pid]


# -- time ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_running_calls_have_the_number_of_their_process_and_their_time() -> None:
    clock = Clock()
    with WorkerPool(2, clock=clock) as pool:
        assert pool.running() == []
        pool.submit((hang, 1))
        clock.now += 60
        pool.submit((hang, 2))
        clock.now += 1
        assert pool.running() == [((hang, 1), 1, 61.0), ((hang, 2), 2, 1.0)]
        pool.end(pool.running()[0])
        ((call, result),) = list(collect([pool]))
        assert call == (hang, 1)
        assert (result.is_overdue, result.signal_number) == (True, signal.SIGKILL)
        assert str(result) == ("the worker process had not finished after 1 min and was killed")
        # The next process gets the number that is free.
        pool.submit((hang, 3))
        assert [(call[1], worker) for call, worker, _ in pool.running()] == [(2, 2), (3, 1)]


def test_a_call_whose_result_has_arrived_is_not_ended() -> None:
    with WorkerPool(1) as pool:
        pool.submit((process, 0))
        (running,) = pool.running()
        (connection,) = pool.connections()
        assert connection.poll(cli_process.DEADLINE_SECONDS)
        pool.end(running)
        assert [result for _, result in all_of(pool)] == [pool._workers[0].process.pid]


def test_all_calls_of_an_overdue_process_end_with_it() -> None:
    with WorkerPool(1, threads=2) as pool:
        pool.submit((hang, 1))
        pool.submit((hang, 2))
        pool.end(pool.running()[1])
        assert [(call[1], result.is_overdue) for call, result in all_of(pool)] == [
            (1, True),
            (2, True),
        ]


# -- what a call has started -----------------------------------------------------------------------


def members(group: int) -> list[psutil.Process]:
    """Return the processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def group_with_child(note: Path) -> int:
    """Wait until a call has started a process; return the group, with both in it."""
    assert cli_process.eventually(note.exists)
    group = int(note.read_text())
    assert len(members(group)) == 2
    return group


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", ["kill", "end"])
def test_what_a_call_has_started_ends_with_its_process(
    how: str, threads: int, tmp_path: Path
) -> None:
    note = tmp_path / "group"
    with WorkerPool(1, threads=threads) as pool:
        pool.submit((hang_with_child, note))
        group = group_with_child(note)
        if how == "kill":
            pool.kill()
        else:
            pool.end(pool.running()[0])
            list(all_of(pool))
        assert cli_process.eventually(lambda: not members(group))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGSEGV, None])
def test_what_a_call_has_started_ends_when_the_call_ends_its_process(
    how: signal.Signals | None, tmp_path: Path
) -> None:
    note = tmp_path / "group"
    with WorkerPool(1) as pool:
        pool.submit((die_with_child, (note, how)))
        if how is None:
            with pytest.raises(StoppedError, match="exit code 7"):
                list(all_of(pool))
        else:
            assert [result.signal_number for _, result in all_of(pool)] == [how]
        assert cli_process.eventually(lambda: not members(int(note.read_text())))


PARENT = """
import sys
from pathlib import Path
from support.worker_calls import hang_with_child
from voxblink2_lib.workers.pool import WorkerPool, collect
pool = WorkerPool(1, threads=int(sys.argv[1]))
pool.submit((hang_with_child, Path(sys.argv[2])))
list(collect([pool]))
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_call_has_started_ends_with_the_parent(
    how: signal.Signals, threads: int, tmp_path: Path
) -> None:
    note = tmp_path / "group"
    words = [sys.executable, "-c", PARENT, str(threads), str(note)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, env=environment) as parent:
        group = group_with_child(note)
        parent.send_signal(how)
        assert parent.wait() == -how
    assert cli_process.eventually(lambda: not members(group))


def test_no_group_is_killed_whose_first_process_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its id may be that of another process by now."""
    with WorkerPool(1) as pool:
        pool.submit((hang, 1))
        (worker,) = pool._workers
        worker.process.kill()
        worker.process.wait()
        groups: list[int] = []
        monkeypatch.setattr(os, "killpg", lambda group, _: groups.append(group))
        assert [result.signal_number for _, result in all_of(pool)] == [signal.SIGKILL]
        pool.kill()
        assert groups == []


def test_a_call_that_waits_is_timed_from_when_it_begins() -> None:
    clock = Clock()
    with WorkerPool(1, waiting=1, clock=clock) as pool:
        pool.submit((process, 1))
        pool.submit((hang, 2))
        assert [running.call for running in pool.running()] == [(process, 1)]
        clock.now += 60
        list(collect([pool]))
        clock.now += 1
        assert pool.running() == [((hang, 2), 1, 1.0)]


def test_a_call_is_timed_from_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    send = Connection.send

    def send_and_be_held_up(self: Connection, message: object) -> None:
        send(self, message)
        clock.now += 60  # the other process works meanwhile

    with WorkerPool(1, threads=2, clock=clock) as pool:
        pool.submit((hang, 1))
        monkeypatch.setattr(Connection, "send", send_and_be_held_up)
        pool.submit((hang, 2))
        assert [running.seconds for running in pool.running()] == [60.0, 60.0]
