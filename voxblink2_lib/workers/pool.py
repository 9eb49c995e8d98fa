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
        threads: calls that each process runs at the same time.
        environment: variables for the processes; those of the user have precedence.

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
        """Run calls until there are no more, yielding each with its result as it arrives.

        Args:
            next_call: returns a function that can be imported and its argument, or raises
                ``StopIteration`` when there is nothing to do *now*; it is called again after
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

    # A pool of another kind replaces these four; all else is built on them.

    @property
    def busy(self) -> int:
        """Number of calls whose results have not been yielded yet."""
        return sum(len(worker.calls) for worker in self._workers)

    def submit(self, call: Call) -> None:
        """Hand a call to a process; only while :attr:`free` is above 0."""
        self._number += 1
        worker = self._least_busy()
        try:
            worker.connection.send((self._number, *call))
        except (BrokenPipeError, ConnectionResetError):
            if worker.calls:
                # It died of one of those; their results report it.
                worker.calls[self._number] = call
                return
            # It died while it had nothing to do; that is not this call's fault.
            self._forget(worker)
            worker = self._start()
            worker.connection.send((self._number, *call))
        worker.calls[self._number] = call

    def connections(self) -> list[Connection]:
        """Return the connections that become readable when there are results."""
        return [worker.connection for worker in self._workers if worker.calls]

    def results(self) -> Iterator[tuple[Call, Any]]:
        """Yield the results that have arrived, without waiting; see :meth:`run`."""
        for worker in [worker for worker in self._workers if worker.calls]:
            if worker.connection.poll():
                yield from self._receive(worker)

    @property
    def free(self) -> int:
        """Number of calls that could start at once."""
        return self._size * self._threads - self.busy

    def _least_busy(self) -> _Worker:
        worker = min(self._workers, key=lambda worker: len(worker.calls), default=None)
        if worker is None or (worker.calls and len(self._workers) < self._size):
            return self._start()
        return worker

    def _receive(self, worker: _Worker) -> Iterator[tuple[Call, Any]]:
        try:
            number, value, error, trace = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            calls = list(worker.calls.values())
            death = self._death(worker)
            yield from ((call, death) for call in calls)
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
            process = subprocess.Popen(  # noqa: S603  # this Python and our own arguments
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno()), str(self._threads)],
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
        worker = _Worker(process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _forget(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        # While it is ending: closed now, its connection would end it with another exit code.
        code = worker.process.wait()
        worker.connection.close()
        return code

    def _death(self, worker: _Worker) -> WorkerDiedError:
        code = self._forget(worker)
        if code >= 0:
            # No crash of a decoder: Python itself ended, and would do so on the next call too.
            raise StoppedError(
                f"A worker process ended with exit code {code}; its error message is above. "
                "Nothing finished is lost. Repair the installation, then run this again."
            )
        return WorkerDiedError(f"the worker process died of {signal.Signals(-code).name}")


def collect(
    pools: Sequence[WorkerPool], *, timeout_seconds: float | None = None
) -> Iterator[tuple[Call, Any]]:
    """Wait until a pool has results, and yield each call with its result.

    Args:
        pools: the pools.
        timeout_seconds: wait no longer than this; ``None`` means as long as it takes.

    Yields:
        The call and its result; a :class:`WorkerDiedError` where the process died.

    Raises:
        StoppedError: a worker process cannot run at all.
        Exception: what a call raised.
    """
    if connections := [connection for pool in pools for connection in pool.connections()]:
        wait(connections, timeout_seconds)
    for pool in pools:
        yield from pool.results()
