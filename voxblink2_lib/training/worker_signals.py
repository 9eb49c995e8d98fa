"""Signals in the workers of a loader.

A scheduler signals all processes of a job, and a terminal the whole process group. The training
process then saves and ends; until it has, workers must go on, or it waits for a batch in vain.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def signals_held(start_method: str = "fork") -> Iterator[None]:
    """Hold back signals to this thread; processes that are started meanwhile are born so.

    Args:
        start_method: of these processes.
    """
    if start_method != "fork":
        resource_tracker.ensure_running()  # would unblock SIGINT and SIGTERM when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerStart:
    """Begins a worker: it ignores SIGINT, SIGUSR1, and SIGTERM unless its own parent sends it.

    ``DataLoader`` ends a worker that does not answer with SIGTERM. A worker whose parent is gone
    ends by itself: ``DataLoader`` sees to that every few seconds.

    Args:
        then: is called with the worker's number next; the user's ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], object] | None) -> None:
        self._then = then

    def __call__(self, worker: int) -> None:
        """Begin a worker, in its process."""
        obey_only_the_parent()
        if self._then is not None:
            self._then(worker)


def obey_only_the_parent() -> None:
    """Ignore signals, but for the parent's SIGTERM, which ends this process.

    A process that was not started by ``multiprocessing`` is left as it is.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    # Only a signal that is blocked waits for `sigwaitinfo`, which tells the sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    # As DataLoader's own handler does, so that it does not report a worker that it ended itself.
    os._exit(0)
