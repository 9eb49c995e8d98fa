"""Ctrl-C that waits until what was done is saved; a second one does not."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """Takes note of Ctrl-C instead of raising ``KeyboardInterrupt``, within its ``with`` block.

    Whoever works looks at :attr:`is_requested` where it can stop, saves, and raises it. The second
    Ctrl-C raises it at once. In other threads than the main one, which get no signals, and where a
    program handles them itself, nothing changes.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._take_note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
