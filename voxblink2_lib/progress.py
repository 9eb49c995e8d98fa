"""Progress of long tasks: a bar in a terminal, a line every half minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import tqdm

_DELAY_SECONDS = 1.0

# Called with how many more are done.
Advance = Callable[[int], object]


class AdvanceWithNote(Protocol):
    """An :data:`Advance` that also takes a note to show beside the numbers."""

    def __call__(self, count: int, /, *, note: str = "") -> object:
        """Count items that are done; the note replaces the one before."""


class Progress(Protocol):
    """Shows how far a task is, from the start of a ``with`` block to its end.

    Functions that take long take one of these, :func:`no_progress` by default; the command line
    hands :func:`show_progress` in.

    >>> with no_progress("Verifying", unit="shard", total=2) as advance:
    ...     advance(1)
    """

    def __call__(
        self, task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[AdvanceWithNote]:
        """Begin a task.

        Args:
            task: what is done, as "Verifying".
            unit: what is counted.
            total: how many there are, where that is known.
            done: how many of them an earlier run did; they do not count for the speed.
        """


@contextmanager
def no_progress(
    task: str, *, unit: str, total: int | None = None, done: int = 0
) -> Iterator[AdvanceWithNote]:
    """Show nothing.

    Args:
        task: what is done.
        unit: what is counted.
        total: how many there are, where that is known.
        done: how many of them an earlier run did.
    """
    del task, unit, total, done
    yield _ignore


def _ignore(count: int, /, *, note: str = "") -> None:
    """Count nothing."""


@contextmanager
def show_progress(
    task: str, *, unit: str, total: int | None = None, done: int = 0
) -> Iterator[AdvanceWithNote]:
    """Show a bar on standard error, if the task takes longer than a second.

    Args:
        task: what is done, as "Verifying".
        unit: what is counted.
        total: how many there are, where that is known.
        done: how many of them an earlier run did; they do not count for the speed.
    """
    started = time.monotonic()
    with _bar(desc=task, unit=unit, total=total, initial=done, delay=_DELAY_SECONDS) as bar:

        def advance(count: int, /, *, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        try:
            yield advance
        finally:
            if time.monotonic() - started > _DELAY_SECONDS:
                # In a log file, the first line may not be due yet; tqdm would not write a last one.
                bar.last_print_t = time.time()


def _bar(**options: Any) -> Any:
    if options["unit"] == "B":
        options |= {"unit_scale": True, "unit_divisor": 1000}
    # A log file gets a line every half minute instead of ten a second.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    # Only a program that has loaded datasets can have switched its bars off; loading takes long.
    bar = sys.modules["datasets.utils"].tqdm if "datasets.utils" in sys.modules else tqdm.tqdm
    return bar(mininterval=interval, maxinterval=max(10.0, interval), dynamic_ncols=True, **options)


# Verbs whose singular is not the plural with an "s".
_SINGULAR = {"are": "is", "were": "was", "have": "has"}


def counted(number: int, noun: str, verb: str = "", *, of: str = "") -> str:
    """Return a number with its noun, and a verb that agrees with it.

    Args:
        number: how many.
        noun: what they are, in the singular.
        verb: in the plural.
        of: what stands between noun and verb.

    >>> counted(1, "clip"), counted(2_000, "clip"), counted(1, "line", "have", of="of a.txt")
    ('1 clip', '2,000 clips', '1 line of a.txt has')
    """
    if number == 1:
        verb = _SINGULAR.get(verb, f"{verb}s" if verb else "")
    return " ".join(filter(None, [f"{number:,} {noun}{'s' * (number != 1)}", of, verb]))


def size_text(size_bytes: float) -> str:
    """Return a number of bytes as text, in decimal units.

    >>> size_text(999), size_text(4.5e6), size_text(2e12)
    ('999 bytes', '4.5 MB', '2.00 TB')
    """
    if size_bytes < 1000:
        return f"{size_bytes:,.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:,.1f} {unit}"
    return f"{size_bytes / 1000:,.2f} TB"


def interval_text(seconds: float) -> str:
    """Return a duration as text, in its largest unit.

    >>> interval_text(1), interval_text(900), interval_text(5400), interval_text(86_400)
    ('1 second', '15 minutes', '1.5 hours', '1 day')
    """
    units = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, size = next((unit, size) for unit, size in units if seconds >= size)
    return f"{seconds / size:g} {unit}" + ("" if seconds == size else "s")


def duration_text(seconds: float) -> str:
    """Return a readable duration in its two largest units.

    >>> duration_text(59), duration_text(3700), duration_text(200_000)
    ('59 s', '1 h 1 min', '2 d 7 h')
    """
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def clock_text(at: float) -> str:
    """Return a Unix time as local time, with the date if it is not today."""
    is_today = time.localtime(at)[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M", time.localtime(at))
