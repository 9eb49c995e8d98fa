"""Clocks that go on when a test says so."""

from __future__ import annotations


class StoppedTime:
    """Stands for the module ``time``."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


class SteppingClock:
    """A clock that advances by a step at each reading, and by the time slept."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.now = 0.0
        self.slept = 0.0
        self._step = step_seconds

    def __call__(self) -> float:
        self.now += self._step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
