"""A real terminal without a person before it: what is written to standard error can be read."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

ROWS, COLUMNS = 24, 100


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Let standard error be a terminal; yield what returns all that was written to it.

    Args:
        monkeypatch: of the test.
    """
    screen, stream = pty.openpty()
    termios.tcsetwinsize(stream, (ROWS, COLUMNS))
    tty.setraw(stream)  # or the end of a line would become two characters
    with os.fdopen(screen, "rb", buffering=0) as reader, os.fdopen(stream, "w") as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        monkeypatch.setenv("TERM", "xterm")
        written = bytearray()

        def read() -> str:
            writer.flush()
            while select.select([reader], [], [], 0)[0]:
                written.extend(reader.read(4096))
            return written.decode()

        yield read
