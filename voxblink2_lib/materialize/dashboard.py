"""The view of a run that may take weeks: redrawn in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from voxblink2_lib.progress import clock_text, duration_text

_TERMINAL_SECONDS = 1.0
_LINE_SECONDS = 30.0

# Speed is that of the last minutes: a night's pause says nothing of now.
_RECENT_SECONDS = 600.0

# What a person counts as one: how it ended, for now or for good.
_WAITING = ("rate-limited", "blocked", "credentials", "environment", "transient", "ambiguous")


@dataclass(frozen=True, slots=True)
class RouteSnapshot:
    """What a person wants to know of an outgoing address.

    Attributes:
        name: its name.
        in_flight: videos being fetched.
        used: videos asked for in the last 60 seconds.
        a_minute: how many are allowed; infinity for no limit.
        paused_until: Unix time, 0 if it does not rest.
        why: why it rests or is closed, in the source's own words.
        is_closed: nothing more is asked for.
    """

    name: str
    in_flight: int
    used: int
    a_minute: float
    paused_until: float
    why: str
    is_closed: bool


class Snapshot(NamedTuple):
    """The parts of the view that are looked up, and not counted as they come."""

    addresses: Sequence[RouteSnapshot]
    waiting: int
    next_try: float | None


class Dashboard:
    """Shows how far a run is, how fast it goes, and what holds it up.

    Args:
        total: number of videos of this run.
        clock: Unix time in seconds.
    """

    def __init__(self, total: int, *, clock: Callable[[], float] = time.time) -> None:
        self._total = total
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._recent: deque[tuple[float, int]] = deque()
        self._started = self._shown_at = clock()
        self._live: Any = None
        self._is_quiet = _bars_are_off()
        self._seconds = _TERMINAL_SECONDS if sys.stderr.isatty() else _LINE_SECONDS

    def __enter__(self) -> Dashboard:
        if not self._is_quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def settled(self, status: str, bytes_fetched: int) -> None:
        """Count a video that this run will not try again."""
        self._counts[status] += 1
        now = self._clock()
        self._recent.append((now, bytes_fetched))
        while self._recent[0][0] < now - _RECENT_SECONDS:
            self._recent.popleft()

    def show(self, look: Callable[[], Snapshot], *, at_once: bool = False) -> None:
        """Draw the view if it is time to.

        Args:
            look: looks up what is needed for it.
            at_once: whatever the time.
        """
        now = self._clock()
        if self._is_quiet or not (at_once or now - self._shown_at >= self._seconds):
            return
        self._shown_at = now
        lines = self.lines(look())
        if self._live is not None:
            from rich.text import Text

            bar = _bar(sum(self._counts.values()), self._total)
            # Plain text: the words of a source are no markup.
            self._live.update(Text("\n".join([bar, *lines])))
            self._live.refresh()
            return
        sys.stderr.write(f"{clock_text(now)}  {'; '.join(lines)}\n")
        sys.stderr.flush()

    def lines(self, moment: Snapshot) -> list[str]:
        """Return what is to be told, a line each."""
        counts = self._counts
        ended = sum(counts.values())
        waiting = sum(counts[name] for name in _WAITING)
        lines = [
            f"{ended:,} of {self._total:,} videos: {counts['done']:,} done, "
            f"{ended - counts['done'] - waiting:,} gone or unusable, {waiting:,} for later"
        ]
        if moment.waiting:
            is_later = moment.next_try is not None and moment.next_try > self._clock()
            when = f", the first at {clock_text(moment.next_try or 0)}" if is_later else ""
            lines.append(f"{moment.waiting:,} wait to be asked for again{when}")
        lines.append(self._speed(moment))
        for one in moment.addresses:
            lines.append(_address_line(one))
        return lines

    def _speed(self, moment: Snapshot) -> str:
        now = self._clock()
        span = max(1.0, min(_RECENT_SECONDS, now - self._started))
        recent = [size for at, size in self._recent if at >= now - span]
        a_minute = 60 * len(recent) / span
        said = f"{a_minute:.1f} videos a minute, {sum(recent) / span / 1e6:.2f} MB/s"
        budget = sum(one.a_minute for one in moment.addresses if not one.is_closed)
        expected = min(a_minute, budget or math.inf)
        left = self._total - sum(self._counts.values())
        if left > 0 and expected:
            said += f", about {duration_text(60 * left / expected)} left"
        return said


def _address_line(one: RouteSnapshot) -> str:
    words = one.why if len(one.why) <= 120 else f"{one.why[:117]}..."
    if one.is_closed:
        return f"{one.name}: closed ({words})"
    said = f"{one.name}: {one.in_flight} in flight"
    if not math.isinf(one.a_minute):
        left = max(0, math.ceil(one.a_minute) - one.used)
        said += f", {left} of {one.a_minute:g} a minute left"
    if one.paused_until:
        said += f", paused until {clock_text(one.paused_until)} ({words})"
    return said


def _bar(part: int, whole: int) -> str:
    filled = 40 * part // max(1, whole)
    return f"{'█' * filled}{'░' * (40 - filled)} {100 * part / max(1, whole):.1f} %"


def _bars_are_off() -> bool:
    # Whoever has switched off the bars of datasets has loaded it.
    datasets = sys.modules.get("datasets.utils")
    return datasets is not None and bool(datasets.are_progress_bars_disabled())
