"""Worker pools without processes, for tests that a process proves nothing to."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from typing import Any

from voxblink2_lib.workers.pool import Call, WorkerPool


class InlinePool(WorkerPool):
    """Run calls in this process as soon as they are submitted.

    Calls and results are pickled and unpickled, as they are on the way to a process and back:
    what cannot travel fails here too.
    """

    def __init__(
        self, size: int, *, threads: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(size, threads=threads, environment=environment)
        self._results: list[tuple[Call, Any, Exception | None]] = []
        self._ours, self._theirs = Pipe()

    @property
    def busy(self) -> int:
        return len(self._results)

    def submit(self, call: Call) -> None:
        assert self.free > 0
        self._run(call)

    def _run(self, call: Call) -> None:
        function, argument = pickle.loads(pickle.dumps(call))
        try:
            result, error = pickle.loads(pickle.dumps(function(argument))), None
        except Exception as raised:
            result, error = None, pickle.loads(pickle.dumps(raised))
            error.add_note(f"In a worker:\n{traceback.format_exc()}")
        self._results.append((call, result, error))
        self._theirs.send(None)

    def connections(self) -> list[Any]:
        return [self._ours] if self._results else []

    def answers(self, connection: Any) -> Iterator[tuple[Call, Any]]:
        connection.recv()
        call, result, error = self._results.pop(0)
        if error is not None:
            raise error
        yield call, result


class ThreadPool(InlinePool):
    """Run calls in threads of this process, as many at once as a pool of processes would."""

    def __init__(
        self, size: int, *, threads: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(size, threads=threads, environment=environment)
        self._executor = ThreadPoolExecutor(size * threads)
        self._busy = 0

    @property
    def busy(self) -> int:
        return self._busy

    def submit(self, call: Call) -> None:
        assert self.free > 0
        self._busy += 1
        self._executor.submit(self._run, call)

    def connections(self) -> list[Any]:
        return [self._ours] if self._busy else []

    def answers(self, connection: Any) -> Iterator[tuple[Call, Any]]:
        self._busy -= 1
        yield from super().answers(connection)

    def kill(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        super().kill()
