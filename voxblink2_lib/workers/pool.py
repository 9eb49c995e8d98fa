"""A pool of worker processes that survives the death of any of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from voxblink2_lib.errors import StoppedError, VoxBlink2Error, first_line
from voxblink2_lib.progress import duration_text

# What a decoder dies of by its own fault, or by that of the file. All other signals come from
# outside: of the kernel, where memory is short, or of a person.
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_MAIN = "from voxblink2_lib.workers.worker import main; main()"
# For workers that allocate and free megabytes all the time. The C library would return each to the
# system and get it back filled with zeros: up to a fifth of the time of ECAPA-TDNN.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
Call = tuple[Callable[[Any], Any], Any]


class WorkerDiedError(VoxBlink2Error):
    """The process that ran a call died of it, or was short of memory. Others go on.

    Args:
        message: what happened, for people.
        signal_number: see below.
        is_overdue: see below.

    Attributes:
        signal_number: what the process died of; ``None`` where it raised a ``MemoryError``.
        is_overdue: the pool killed it, since its call took too long; see :meth:`WorkerPool.end`.
    """

    def __init__(
        self, message: str, *, signal_number: int | None = None, is_overdue: bool = False
    ) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.is_overdue = is_overdue

    @property
    def is_fault_of_call(self) -> bool:
        """Whether it crashed or hung by what the call did, and was not ended from outside."""
        return self.is_overdue or self.signal_number in _CRASHES


class RunningCall(NamedTuple):
    """A call that has no result yet.

    Attributes:
        call: the function and its argument.
        worker: number of its process, from 1.
        seconds: how long it has been running.
    """

    call: Call
    worker: int
    seconds: float


@dataclass(slots=True)
class _Submitted:
    """A call, and since when its process runs it; ``None`` while it waits."""

    call: Call
    since: float | None = None


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    calls: dict[int, _Submitted] = field(default_factory=dict)
    # How long the call took for which the pool killed the process.
    overdue_seconds: float | None = None


class WorkerPool:
    """Runs calls on worker processes.

    Args:
        size: number of processes; they start when there is work for them.
        threads: calls that each process runs at the same time.
        waiting: further calls that each process has at hand, which begin as soon as others end.
        environment: variables for the processes; those of the user have precedence.
        clock: seconds, by which calls are timed.

    Example:
        >>> import math
        >>> with WorkerPool(1) as pool:
        ...     [result for _, result in pool.run(iter([(math.sqrt, 9.0)]).__next__)]
        [3.0]
    """

    def __init__(
        self,
        size: int,
        *,
        threads: int = 1,
        waiting: int = 0,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._threads = threads
        self._waiting = waiting
        self._number = 0
        self._environment = environment or {}
        self._clock = clock
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End all workers at once, with whatever they are doing and have started."""
        for worker in self._workers:
            _kill_group(worker.process)
        for worker in self._workers:
            worker.process.wait()
            worker.connection.close()
        self._workers = []

    def run(self, next_call: Callable[[], Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls until there are no more, yielding each with its result as it arrives.

        Args:
            next_call: returns a function that can be imported and its argument, or raises
                ``StopIteration`` when there is nothing to do *now*; it is called again after
                every result.

        Yields:
            The call and its result; a :class:`WorkerDiedError` where the process died or was
            short of memory.

        Raises:
            StoppedError: a worker process cannot run at all.
            Exception: what a call raised.
        """
        while True:
            while self.free:
                try:
                    call = next_call()
                except StopIteration:
                    break
                self.submit(call)
            if not self.busy:
                return
            yield from collect([self])

    # A pool of another kind replaces these four; all else is built on them.

    @property
    def busy(self) -> int:
        """Number of calls whose results have not been yielded yet."""
        return sum(len(worker.calls) for worker in self._workers)

    def submit(self, call: Call) -> None:
        """Hand a call to a process; only while :attr:`free` is above 0."""
        self._number += 1
        worker = self._least_busy()
        # Before it is sent: a process that runs may be far into it when this one goes on.
        begins = len(worker.calls) < self._threads
        submitted = _Submitted(call, self._clock() if begins else None)
        try:
            worker.connection.send((self._number, *call))
        except (BrokenPipeError, ConnectionResetError):
            if worker.calls:
                # It died of one of those; their results report it.
                worker.calls[self._number] = submitted
                return
            # It died while it had nothing to do; that is not this call's fault.
            self._forget(worker)
            worker = self._start()
            worker.connection.send((self._number, *call))
        worker.calls[self._number] = submitted

    def connections(self) -> list[Connection]:
        """Return the connections that become readable when there are results."""
        return [worker.connection for worker in self._workers if worker.calls]

    def results(self) -> Iterator[tuple[Call, Any]]:
        """Yield the results that have arrived, without waiting; see :meth:`run`."""
        for worker in [worker for worker in self._workers if worker.calls]:
            if worker.connection.poll():
                yield from self._receive(worker)

    def running(self) -> list[RunningCall]:
        """Return the calls that have no result yet, as far as processes run them."""
        now = self._clock()
        return [
            RunningCall(submitted.call, worker.number, now - (submitted.since or now))
            for worker in self._workers
            for submitted in self._running(worker)
        ]

    def _running(self, worker: _Worker) -> list[_Submitted]:
        """Return the calls that a process runs: the first ones, which began in this order."""
        running = [*itertools.islice(worker.calls.values(), self._threads)]
        for submitted in running:
            if submitted.since is None:
                submitted.since = self._clock()
        return running

    def end(self, overdue: RunningCall) -> None:
        """Kill the process of a call that takes too long.

        The result of all its calls is then a :class:`WorkerDiedError` that is overdue, unless a
        result has arrived by now.
        """
        for worker in self._workers:
            if worker.number == overdue.worker and not worker.connection.poll():
                worker.overdue_seconds = overdue.seconds
                _kill_group(worker.process)

    @property
    def free(self) -> int:
        """Number of calls that processes could be handed at once."""
        return self._size * (self._threads + self._waiting) - self.busy

    def _least_busy(self) -> _Worker:
        worker = min(self._workers, key=lambda worker: len(worker.calls), default=None)
        if worker is None or (worker.calls and len(self._workers) < self._size):
            return self._start()
        return worker

    def _receive(self, worker: _Worker) -> Iterator[tuple[Call, Any]]:
        try:
            number, value, error, trace = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            calls = [submitted.call for submitted in worker.calls.values()]
            death = self._death(worker)
            for call in calls[self._threads :]:  # which had not begun
                self.submit(call)
            yield from ((call, death) for call in calls[: self._threads])
            return
        call = worker.calls.pop(number).call
        self._running(worker)
        if isinstance(error, MemoryError):
            # Raised here or killed by the kernel: which of the two happens is chance.
            value = WorkerDiedError(f"the worker process ran out of memory{_detail(error)}")
        elif error is not None:
            if not isinstance(error, VoxBlink2Error):
                error.add_note(f"In a worker process:\n{trace}")
            raise error
        yield call, value

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        arguments = theirs.fileno(), self._threads, self._waiting
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # this Python and our own arguments
                [sys.executable, "-P", "-c", _MAIN, *map(str, arguments)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal goes to all processes of the group; the parent decides.
                start_new_session=True,
                env={
                    **self._environment,
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                },
            )
        numbers = {worker.number for worker in self._workers}
        number = next(number for number in range(1, self._size + 1) if number not in numbers)
        worker = _Worker(number, process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _forget(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        # While it is ending: closed now, its connection would end it with another exit code.
        code = _wait_for_end(worker.process)
        worker.connection.close()
        return code

    def _death(self, worker: _Worker) -> WorkerDiedError:
        code = self._forget(worker)
        if code == os.EX_OSERR:
            raise StoppedError(
                "A worker process could not start a thread. Everything finished is kept: raise the "
                "limit ('ulimit -u', or that of the container), or use fewer workers, and run the "
                "same command again."
            )
        if code >= 0:
            # No crash of a decoder: Python itself ended, and would do so on the next call too.
            raise StoppedError(
                f"A worker process ended with exit code {code}; its error message is above. "
                "Nothing finished is lost. Repair the installation, then run this again."
            )
        if worker.overdue_seconds is not None:
            duration = duration_text(worker.overdue_seconds)
            message = f"the worker process had not finished after {duration} and was killed"
            return WorkerDiedError(message, signal_number=-code, is_overdue=True)
        message = f"the worker process died of {signal_name(-code)}"
        return WorkerDiedError(message, signal_number=-code)


def signal_name(number: int) -> str:
    """Return the name of a signal.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    try:
        return signal.Signals(number).name
    except ValueError:  # of those for real time only the first and the last have one
        return f"signal {number}"


def _detail(error: BaseException) -> str:
    return f": {text}" if (text := first_line(error)) != type(error).__name__ else ""


def _wait_for_end(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process has ended, kill what it started, and return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ChildProcessError):  # another part of the program waited for it
            # The id stays taken, so that the group is none of another process.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _kill_group(process)
    return process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started.

    Only until it has been waited for: then another process may have its id.
    """
    if process.returncode is None:
        # Some systems permit no signal to a group whose only process has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def collect(
    pools: Sequence[WorkerPool], *, timeout_seconds: float | None = None
) -> Iterator[tuple[Call, Any]]:
    """Wait until a pool has results, and yield each call with its result.

    Args:
        pools: the pools.
        timeout_seconds: wait no longer than this; ``None`` means as long as it takes.

    Yields:
        The call and its result; a :class:`WorkerDiedError` where the process died or was short of
        memory.

    Raises:
        StoppedError: a worker process cannot run at all.
        Exception: what a call raised.
    """
    if connections := [connection for pool in pools for connection in pool.connections()]:
        wait(connections, timeout_seconds)
    for pool in pools:
        yield from pool.results()
