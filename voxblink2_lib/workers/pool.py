"""A pool of worker processes that survives the death of any of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from voxblink2_lib.errors import StoppedError, VoxBlink2Error

_MAIN = "from voxblink2_lib.workers.worker import main; main()"
Call = tuple[Callable[[Any], Any], Any]


class WorkerDiedError(VoxBlink2Error):
    """The process that ran a call died. Others go on."""


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    calls: dict[int, Call] = field(default_factory=dict)


class WorkerPool:
    """Runs calls on worker processes.

    Args:
        size: number of processes; they start when there is work for them.
        threads: calls that each process works on at the same time.
        environment: variables for the processes; the user's own ones go before.

    Example:
        >>> import math
        >>> with WorkerPool(1) as pool:
        ...     [result for _, result in pool.run(iter([(math.sqrt, 9.0)]).__next__)]
        [3.0]
    """

    def __init__(
        self, size: int, *, threads: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        self._size = size
        self._threads = threads
        self._number = 0
        self._environment = environment or {}
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End all workers at once, with whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            worker.connection.close()
        self._workers = []

    def run(self, next_call: Callable[[], Call]) -> Iterator[tuple[Call, Any]]:
        """Run calls until there are no more, yielding each with its result as it comes.

        Args:
            next_call: returns a function that can be imported and its argument, or raises
                ``StopIteration`` when there is nothing to do *now*; it is asked again after
                every result.

        Yields:
            The call and its result; a :class:`WorkerDiedError` where the process died.

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

    @property
    def busy(self) -> int:
        """Number of calls that are not answered yet."""
        return sum(len(worker.calls) for worker in self._workers)

    @property
    def free(self) -> int:
        """Number of calls that could be worked on at once."""
        return self._size * self._threads - self.busy

    def submit(self, call: Call) -> None:
        """Hand a call to a process; only while there is a free one."""
        self._number += 1
        worker = self._idlest()
        try:
            worker.connection.send((self._number, *call))
        except (BrokenPipeError, ConnectionResetError):
            if worker.calls:
                # It has died of one of those; they are told so when they are collected.
                worker.calls[self._number] = call
                return
            # It died while it had nothing to do; that says nothing about this call.
            self._forget(worker)
            worker = self._start()
            worker.connection.send((self._number, *call))
        worker.calls[self._number] = call

    def _idlest(self) -> _Worker:
        worker = min(self._workers, key=lambda one: len(one.calls), default=None)
        if worker is None or (worker.calls and len(self._workers) < self._size):
            return self._start()
        return worker

    def connections(self) -> list[Connection]:
        """Return the connections that answers are awaited on."""
        return [worker.connection for worker in self._workers if worker.calls]

    def answers(self, connection: Connection) -> Iterator[tuple[Call, Any]]:
        """Yield what one connection has to say: an answer, or that its process died.

        Raises:
            StoppedError: a worker process cannot run at all.
            Exception: what a call raised.
        """
        worker = next(one for one in self._workers if one.connection is connection)
        try:
            number, value, error, trace = connection.recv()
        except (EOFError, ConnectionResetError):
            lost = list(worker.calls.values())
            death = self._death(worker)
            yield from ((call, death) for call in lost)
            return
        call = worker.calls.pop(number)
        if error is not None:
            if not isinstance(error, VoxBlink2Error):
                error.add_note(f"In a worker process:\n{trace}")
            raise error
        yield call, value

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # this Python and our own words
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno()), str(self._threads)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal goes to all processes of the group; the parent decides.
                start_new_session=True,
                env={
                    **self._environment,
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
                },
            )
        worker = _Worker(process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _forget(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        worker.connection.close()
        return worker.process.wait()

    def _death(self, worker: _Worker) -> WorkerDiedError:
        code = self._forget(worker)
        if code >= 0:
            # No crash of a decoder: Python itself ended, which the next call would meet too.
            raise StoppedError(
                f"A worker process ended with exit code {code}; its own words are above. "
                "Nothing finished is lost. Mend the installation, then run this again."
            )
        return WorkerDiedError(f"the worker process died of {signal.Signals(-code).name}")


def collect(
    pools: Sequence[WorkerPool], *, timeout_seconds: float | None = None
) -> Iterator[tuple[Call, Any]]:
    """Wait until a pool has answers, and yield each call with its result.

    Args:
        pools: the pools.
        timeout_seconds: wait no longer than this; ``None`` means as long as it takes.

    Yields:
        The call and its result; a :class:`WorkerDiedError` where the process died.

    Raises:
        StoppedError: a worker process cannot run at all.
        Exception: what a call raised.
    """
    of = {connection: pool for pool in pools for connection in pool.connections()}
    for ready in wait(list(of), timeout_seconds):
        yield from of[ready].answers(ready)  # type: ignore[index,arg-type]  # only those went in
