"""Where audio is continuous, and where a new piece begins: what time stamps of frames tell.

time stamps    0    20   40            100  120        a packet of 20 ms was lost twice
               |====|====|====|        |====|====|
pieces         [ first            )    [ second  )

time stamps    0    20    46  58  80   100             they jitter, as in recordings of live
               |====|====|====|===|====|====|          streams: one piece
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

# Container clocks tick in milliseconds at worst; a lost packet is 20 ms or more.
MAX_JITTER_SECONDS = 0.005

# Time stamps of live streams jitter by up to so much; what is farther off is a jump.
_MAX_LIVE_JITTER_SECONDS = 0.05

# Frames that are all late, or all early, are no jitter if there are so many in a row.
_PATIENCE = 8

# How far a clock in milliseconds rounds the distance of two time stamps.
_ROUNDING_SECONDS = 0.001


class TimedFrame(NamedTuple):
    """A frame, and the container's time of the piece that begins with it; ``None`` within one."""

    frame: Any
    begins_at: float | None


class _Waiting(NamedTuple):
    """A frame that is early or late: jitter, or the beginning of a new piece."""

    frame: Any
    stamp: float
    late_seconds: float


class PieceBoundaries:
    """Decides, frame by frame, where a new piece begins.

    Attributes:
        end_seconds: the container's time at which all frames so far end.
    """

    def __init__(self) -> None:
        self.end_seconds = 0.0
        self._decided_seconds = 0.0
        self._format: tuple[int, str, str] | None = None
        self._waiting: list[_Waiting] = []

    def add(self, frame: Any, stamp: float | None) -> Iterable[TimedFrame]:
        """Add the next frame; return those that are decided.

        Args:
            frame: an ``av.AudioFrame``.
            stamp: its time on the container's clock; ``None`` if it has none.
        """
        late = 0.0 if stamp is None else stamp - self.end_seconds
        seconds = frame.samples / frame.sample_rate
        format_of_frame = _format(frame)
        if format_of_frame != self._format or abs(late) > _MAX_LIVE_JITTER_SECONDS:
            decided = self.finish()
            begin = self.end_seconds if stamp is None else stamp
            if self._format is not None:
                begin = _without_rounding(begin, self._decided_seconds, frame)
            self._format = format_of_frame
            self.end_seconds = self._decided_seconds = begin + seconds
            return [*decided, TimedFrame(frame, begin)]
        self.end_seconds += seconds
        if abs(late) > MAX_JITTER_SECONDS and stamp is not None:
            self._waiting.append(_Waiting(frame, stamp, late))
            return self._decided() if len(self._waiting) == _PATIENCE else ()
        within = TimedFrame(frame, None)
        if not self._waiting:
            self._decided_seconds = self.end_seconds
            return (within,)
        return [*self._continued(), within]

    def finish(self) -> list[TimedFrame]:
        """Return the frames that wait."""
        decided: list[TimedFrame] = []
        while self._waiting:
            decided += self._decided()
        return decided

    def _decided(self) -> list[TimedFrame]:
        """Begin a piece with the first frame that waits, unless some are early and others late."""
        late = [each.late_seconds for each in self._waiting]
        if min(late) < 0 < max(late):
            return self._continued()
        (first, stamp, _), *others = self._waiting
        begin = _without_rounding(stamp, self._decided_seconds, first)
        self.end_seconds = self._decided_seconds = begin + first.samples / first.sample_rate
        self._waiting = []
        decided = [TimedFrame(first, begin)]
        for each in others:  # more may be lost between them
            decided += self.add(each.frame, each.stamp)
        return decided

    def _continued(self) -> list[TimedFrame]:
        decided = [TimedFrame(each.frame, None) for each in self._waiting]
        self._waiting = []
        self._decided_seconds = self.end_seconds
        return decided


def _format(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def _without_rounding(stamp: float, expected: float, frame: Any) -> float:
    """Return the time of a frame after lost ones, without the rounding of a clock in milliseconds.

    Lost are whole frames, usually of the same length.
    """
    seconds = frame.samples / frame.sample_rate
    exact = expected + round((stamp - expected) / seconds) * seconds
    return exact if abs(exact - stamp) <= _ROUNDING_SECONDS else stamp
