"""Live view of a run that may take weeks: its progress, its speed, and what delays it."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.run_screens import RunScreen, RunState, open_screen
from voxblink2_lib.progress import are_bars_off, clock_text, duration_text
from voxblink2_lib.redaction import redact

# Speed is that of the last minutes: a pause at night has no effect in the morning.
_RECENT_SECONDS = 600.0
# A wait that a person would wonder about.
_LONG_WAIT_SECONDS = 60.0
_MAX_REASON_LENGTH = 120

# Classes that end a video for this run only; the others count as unavailable.
_TEMPORARY = ("rate-limited", "blocked", "credentials", "environment", "transient", "ambiguous")


@dataclass(frozen=True, slots=True)
class RouteSnapshot:
    """State of a route, as far as it is of interest to a person.

    Attributes:
        name: its name.
        in_flight: videos being downloaded.
        requests_last_minute: videos requested in the last 60 seconds.
        per_minute: how many are allowed; infinity for no limit.
        paused_until: Unix time; ``None`` if not paused.
        next_permit_at: Unix time of the next request that its budget allows.
        reason: why it is paused or closed, as the source states it.
        is_closed: it is not used any more.
        held: failures that may be its own, and are not written yet.
        is_in_question: it is used for nothing but to find that out.
    """

    name: str
    in_flight: int
    requests_last_minute: int
    per_minute: float
    paused_until: float | None
    reason: str
    is_closed: bool
    next_permit_at: float = 0.0
    held: int = 0
    is_in_question: bool = False

    def line(self, now: float) -> str:
        """Return it as one line of text.

        Args:
            now: Unix time.
        """
        reason = redact(self.reason)
        if len(reason) > _MAX_REASON_LENGTH:
            reason = f"{reason[: _MAX_REASON_LENGTH - 3]}..."
        if self.is_closed:
            return f"{self.name}: closed ({reason})"
        parts = [f"{self.in_flight} in flight"]
        if self.held:
            parts.append(f"{self.held} failed alike, not written yet")
        if self.is_in_question:
            parts.append("requests videos that are known to come")
        if not math.isinf(self.per_minute):
            left = max(0, math.ceil(self.per_minute) - self.requests_last_minute)
            parts.append(f"{left} of {self.per_minute:g} requests left this minute")
        if self.paused_until is not None:
            parts.append(f"paused until {clock_text(self.paused_until)} ({reason})")
        elif self.next_permit_at - now >= _LONG_WAIT_SECONDS:
            # A budget of some videos a day has requests left this minute, and allows none of them.
            parts.append(f"next request at {clock_text(self.next_permit_at)}")
        return f"{self.name}: {', '.join(parts)}"


class Snapshot(NamedTuple):
    """The parts of the dashboard that are looked up, not counted.

    Attributes:
        routes: state of each route.
        waiting: videos that will be retried.
        next_at: Unix time of the first retry, if there is one.
        slow_calls: a line for each call of a worker that takes long.
    """

    routes: Sequence[RouteSnapshot]
    waiting: int
    next_at: float | None
    slow_calls: Sequence[str] = ()


class RunView(Protocol):
    """Who watches a run."""

    def __enter__(self) -> RunView: ...

    def __exit__(self, *_: object) -> None: ...

    def count(self, status: str, bytes_fetched: int) -> None:
        """Take note of a video that is finished in this run: all of it is on disk."""

    def show(self, snapshot: Callable[[], Snapshot], *, at_once: bool = False) -> None:
        """Take note that the run goes on; called at least once a second, and at its end."""


class Dashboard:
    """Shows the progress of a run, its speed, and what delays it.

    Args:
        total: number of videos of this run.
        clock: Unix time in seconds.
    """

    def __init__(self, total: int, *, clock: Callable[[], float] = time.time) -> None:
        self._total = total
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._recent: deque[tuple[float, int]] = deque()
        self._started = self._updated_at = clock()
        self._screen: RunScreen | None = None

    def __enter__(self) -> Dashboard:
        # A run may only have to seal what was cropped before.
        if self._total and not are_bars_off():
            self._screen = open_screen()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.close()

    def count(self, status: str, bytes_fetched: int) -> None:
        """Count a video that is finished in this run."""
        self._counts[status] += 1
        now = self._clock()
        self._recent.append((now, bytes_fetched))
        while self._recent[0][0] < now - _RECENT_SECONDS:
            self._recent.popleft()

    def show(self, snapshot: Callable[[], Snapshot], *, at_once: bool = False) -> None:
        """Update the view if it is due.

        Args:
            snapshot: looks up what is needed for it.
            at_once: update it whether or not it is due.
        """
        now = self._clock()
        if self._screen is None:
            return
        if at_once or now - self._updated_at >= self._screen.SECONDS:
            self._updated_at = now
            lines = [visible(line) for line in self.lines(snapshot())]
            self._screen.draw(RunState(self._counts.total(), self._total, lines, now))

    def lines(self, snapshot: Snapshot) -> list[str]:
        """Return the lines of the view."""
        counts, now = self._counts, self._clock()
        finished = sum(counts.values())
        temporary = sum(counts[status] for status in _TEMPORARY)
        lines = [
            f"{finished:,} of {self._total:,} videos: {counts['done']:,} done, "
            f"{finished - counts['done'] - temporary:,} unavailable, {temporary:,} to retry later"
        ]
        if snapshot.waiting:
            next_at = snapshot.next_at
            is_later = next_at is not None and next_at > now
            first = f", the first at {clock_text(next_at or 0)}" if is_later else ""
            lines.append(f"{snapshot.waiting:,} wait for a retry{first}")
        routes = [route.line(now) for route in snapshot.routes]
        return [*lines, self._speed(snapshot), *routes, *snapshot.slow_calls]

    def _speed(self, snapshot: Snapshot) -> str:
        now = self._clock()
        span = max(1.0, min(_RECENT_SECONDS, now - self._started))
        recent = [size for at, size in self._recent if at >= now - span]
        per_minute = 60 * len(recent) / span
        text = f"{per_minute:.1f} videos/min, {sum(recent) / span / 1e6:.2f} MB/s"
        budget = sum(route.per_minute for route in snapshot.routes if not route.is_closed)
        expected = min(per_minute, budget or math.inf)
        left = self._total - sum(self._counts.values())
        if left > 0 and expected:
            text += f", about {duration_text(60 * left / expected)} left"
        return text
