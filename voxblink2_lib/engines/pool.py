"""A pool of worker processes that survives the death of any of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from voxblink2_lib.errors import StoppedError, VoxBlink2Error

_MAIN = "from voxblink2_lib.engines.worker import main; main()"
Call = tuple[Callable[[Any], Any], Any]


class WorkerDiedError(VoxBlink2Error):
    """The process that ran a call died. Others go on."""


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    call: Call | None = None


class WorkerPool:
    """Runs calls on worker processes, each one call at a time.

    Args:
        size: number of processes; they start when there is work for them.
        environment: variables for the processes; the user's own ones go before.

    Example:
        >>> import math
        >>> with WorkerPool(1) as pool:
        ...     [result for _, result in pool.run(iter([(math.sqrt, 9.0)]).__next__)]
        [3.0]
    """

    def __init__(self, size: int, *, environment: Mapping[str, str] | None = None) -> None:
        self._size = size
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
            self._hand_out(next_call)
            busy = {worker.connection: worker for worker in self._workers if worker.call}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]  # only connections went in
                call, worker.call = worker.call, None
                assert call is not None  # for mypy: busy workers have calls
                yield call, self._result(worker)

    def _hand_out(self, next_call: Callable[[], Call]) -> None:
        idle = [worker for worker in self._workers if worker.call is None]
        while idle or len(self._workers) < self._size:
            try:
                call = next_call()
            except StopIteration:
                return
            worker = idle.pop() if idle else self._start()
            try:
                worker.connection.send(call)
            except (BrokenPipeError, ConnectionResetError):
                # It died while it had nothing to do; that says nothing about this call.
                self._forget(worker)
                worker = self._start()
                worker.connection.send(call)
            worker.call = call

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # this Python and our own words
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
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

    def _result(self, worker: _Worker) -> Any:
        try:
            value, error, trace = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            code = self._forget(worker)
            if code >= 0:
                # No crash of a decoder: Python itself ended, which the next call would meet too.
                raise StoppedError(
                    f"A worker process ended with exit code {code}; its own words are above. "
                    "Nothing finished is lost. Mend the installation, then run this again."
                ) from None
            name = signal.Signals(-code).name
            return WorkerDiedError(f"the worker process died of {name}")
        if error is not None:
            if not isinstance(error, VoxBlink2Error):
                error.add_note(f"In a worker process:\n{trace}")
            raise error
        return value
