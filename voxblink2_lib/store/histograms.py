"""Bins of durations and of time, for plots."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_BINS = 60
DURATION_BINS = MOST_BINS // 2

MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS = 60, 3600, 86_400
# Bars of a plot over time begin at whole seconds, minutes, hours or days, in UTC.
_STEPS_SECONDS = (
    *(1, 2, 5, 10, 30),
    *(MINUTE_SECONDS * n for n in (1, 2, 5, 10, 20, 30)),
    *(HOUR_SECONDS * n for n in (1, 2, 3, 6, 12)),
    *(DAY_SECONDS * n for n in (1, 2, 7)),
)

# Widths of the bars of a plot of durations.
_WIDTHS_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by duration.

    Attributes:
        width_seconds: of each bin. The first is [0, width); the last one has no end.
        counts: one for each bin.
    """

    width_seconds: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Counts in equal intervals of time.

    Attributes:
        start: Unix time at which the first interval begins.
        step_seconds: length of each.
        series: by name, one number for each interval. Empty when nothing happened yet.
    """

    start: float
    step_seconds: float
    series: dict[str, tuple[int, ...]]


def bar_width(mean_seconds: float) -> float:
    """Return a round width that spreads four times the mean over ``DURATION_BINS`` bins.

    >>> bar_width(5.9), bar_width(40.0)
    (1, 10)
    """
    least = 4 * mean_seconds / DURATION_BINS
    return next((width for width in _WIDTHS_SECONDS if width >= least), math.ceil(least))


def split_time(first: float, last: float) -> tuple[float, int, int]:
    """Return start, length and number of equal intervals that cover two times and all between.

    >>> split_time(61.0, 179.0)
    (60.0, 2, 60)
    """
    for step in _STEPS_SECONDS:
        start = first // step * step
        bins = int((last - start) // step) + 1
        if bins <= MOST_BINS:
            return start, step, bins
    step = math.ceil((last - first) / (MOST_BINS - 1) / DAY_SECONDS) * DAY_SECONDS
    start = first // step * step
    return start, step, int((last - start) // step) + 1


def dense_counts(counts_by_bin: Iterable[tuple[int, int]], length: int) -> tuple[int, ...]:
    """Return one count for each bin, 0 where none is given; bins beyond the ends count there.

    >>> dense_counts([(1, 5), (7, 2)], 4)
    (0, 5, 0, 2)
    """
    counts = [0] * length
    for place, count in counts_by_bin:
        counts[min(max(place, 0), length - 1)] += count
    return tuple(counts)
