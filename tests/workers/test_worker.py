"""The process of a worker, apart from its pool."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

import pytest
from support.worker_calls import leave

# The thread that watches for the parent's end begins to poll when the call has closed everything.
LATE = """
import atexit, select, sys, threading
from types import SimpleNamespace
from voxblink2_lib.workers import worker

closed, polled = threading.Event(), threading.Event()

class Late:
    def __init__(self):
        self._poll = select.poll()

    def register(self, descriptor, events):
        self._poll.register(descriptor, events)

    def poll(self):
        closed.wait()
        if not self._poll.poll(0):
            polled.set()
            threading.Event().wait()

atexit.register(polled.wait)
atexit.register(closed.set)
worker.select = SimpleNamespace(poll=Late)
worker.main()
"""


def test_a_call_that_ends_the_process_sets_its_exit_code() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", LATE, str(theirs.fileno()), "1", "0"],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    with process, Connection(ours.detach()) as connection:
        connection.send((1, leave, 0))
        with pytest.raises(EOFError):
            connection.recv()
        assert process.wait() == 7
