"""Worker pools without processes, for tests that a process proves nothing to."""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from typing import Any

from voxblink2_lib.workers.pool import Call, RunningCall, WorkerDiedError, WorkerPool
from voxblink2_lib.workers.worker import is_out_of_memory

Result = tuple[Call, Any, Exception | None]


def run_call(call: Call) -> Result:
    """Run a call as a worker would; return it with its value, or with what it raised.

    Calls and values are pickled and unpickled, as they are on the way to a process and back: what
    cannot travel fails here too.
    """
    function, argument = pickle.loads(pickle.dumps(call))
    try:
        return call, pickle.loads(pickle.dumps(function(argument))), None
    except Exception as raised:
        if is_out_of_memory(raised):
            return call, WorkerDiedError(f"the worker process ran out of memory: {raised}"), None
        error: Exception = pickle.loads(pickle.dumps(raised))
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        return call, None, error


class InlinePool(WorkerPool):
    """Runs each call in this process as soon as it is submitted."""

    def __init__(
        self,
        size: int,
        *,
        threads: int = 1,
        waiting: int = 0,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            size, threads=threads, waiting=waiting, environment=environment, clock=clock
        )
        self._results: list[Result] = []

    @property
    def busy(self) -> int:
        return len(self._results)

    def running(self) -> list[RunningCall]:
        return [RunningCall(call, 1, 0.0) for call, _, _ in self._results]

    def submit(self, call: Call) -> None:
        assert self.free > 0
        self._results.append(run_call(call))

    def results(self) -> Iterator[tuple[Call, Any]]:
        while self._results:
            call, value, error = self._results.pop(0)
            if error is not None:
                raise error
            yield call, value


class ThreadPool(InlinePool):
    """Runs calls in threads of this process, as many at once as a pool of processes would."""

    def __init__(
        self,
        size: int,
        *,
        threads: int = 1,
        waiting: int = 0,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            size, threads=threads, waiting=waiting, environment=environment, clock=clock
        )
        self._executor = ThreadPoolExecutor(size * threads)
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        # A result is announced, so that it can be waited for.
        self._reader, self._writer = Pipe(duplex=False)

    @property
    def busy(self) -> int:
        return len(self._calls)

    def running(self) -> list[RunningCall]:
        return [RunningCall(call, 1, 0.0) for call in self._calls]

    def submit(self, call: Call) -> None:
        assert self.free > 0
        self._calls.append(call)
        self._executor.submit(self._run, call)

    def _run(self, call: Call) -> None:
        result = run_call(call)
        with self._lock:
            self._results.append(result)
            self._writer.send(None)

    def connections(self) -> list[Any]:
        return [self._reader] if self._calls else []

    def results(self) -> Iterator[tuple[Call, Any]]:
        while self._reader.poll():
            self._reader.recv()
            call, value, error = self._results.pop(0)
            self._calls = [other for other in self._calls if other is not call]
            if error is not None:
                raise error
            yield call, value

    def kill(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._reader.close()
        self._writer.close()
