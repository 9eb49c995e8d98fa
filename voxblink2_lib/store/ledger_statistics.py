"""What the ledger says of a corpus as a whole: counts, histograms, rates. It only reads.

Every view is one pass over a table or an index, in constant memory: a ledger of millions of
videos is summed up in SQL and never read into Python. Times are Unix times, in seconds.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import SAMPLE_RATE_HZ

MOST_BINS = 60

# Bars of a plot over time begin at whole seconds, minutes, hours or days, in UTC.
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS_SECONDS = (
    *(1, 2, 5, 10, 30),
    *(_MINUTE * n for n in (1, 2, 5, 10, 20, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7)),
)

# Widths of the bars of a plot of durations.
_WIDTHS_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


class Totals(NamedTuple):
    """Sums over all videos.

    Attributes:
        clips: utterances cut.
        samples: their length, samples at 16 kHz.
        bytes_fetched: what came from the source.
    """

    clips: int
    samples: int
    bytes_fetched: int

    @property
    def hours(self) -> float:
        """Length of the clips."""
        return self.samples / SAMPLE_RATE_HZ / 3600


class Coverage(NamedTuple):
    """How much of each speaker is there. Excluded videos are not counted.

    Attributes:
        complete: speakers of whom every video is done.
        partial: speakers of whom some videos are done, and not all.
        empty: speakers of whom no video is done.
        speakers: number of speakers by the share of videos that are done, of 12 classes: none,
            above 0 and up to 10 %, ..., above 90 % and below all, all.
    """

    complete: int
    partial: int
    empty: int
    speakers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Numbers of things by a duration.

    Attributes:
        width_seconds: of each class. The first is [0, width); the last one has no end.
        counts: one for each class.
    """

    width_seconds: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Numbers in equal stretches of time.

    Attributes:
        start: where the first stretch begins.
        step_seconds: length of each.
        series: by name, one number for each stretch. Empty when nothing happened yet.
    """

    start: float
    step_seconds: float
    series: dict[str, tuple[int, ...]]


class Throughput(NamedTuple):
    """How fast it went in the last hour in which something happened.

    Attributes:
        until: end of the last attempt.
        seconds: from the start of the first attempt of that hour to ``until``.
        attempts: number of attempts that ended in that time.
        done: those that brought their video.
        bytes_fetched: what they brought.
    """

    until: float
    seconds: float
    attempts: int
    done: int
    bytes_fetched: int

    @property
    def videos_an_hour(self) -> float:
        """Videos that came, an hour."""
        return 3600 * self.done / self.seconds

    @property
    def bytes_a_second(self) -> float:
        """Bytes that came, a second."""
        return self.bytes_fetched / self.seconds


class ReasonCount(NamedTuple):
    """A reason that videos share. Their ids in it are left open."""

    status: str
    words: str
    videos: int


class MissingVideo(NamedTuple):
    """A video that is wanted and not done.

    Attributes:
        speaker_id: its speaker.
        video_id: the video.
        status: its class, or ``planned``.
        reason: the source's own words at the last attempt; empty if there was none.
        attempts: how often it was tried.
        next_at: from when it may be tried again; ``None`` means never by itself.
        updated_at: when it was last tried.
    """

    speaker_id: str
    video_id: str
    status: str
    reason: str
    attempts: int
    next_at: float | None
    updated_at: float | None


class LedgerStatistics:
    """Read-only views of one configuration of a ledger.

    Every method raises :class:`StoreError` when the file cannot be read.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: sqlite3.Connection, config: str) -> None:
        self._database = database
        self._config = config

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all views show the same moment, whatever a run writes meanwhile."""
        if self._database.in_transaction:
            yield
            return
        self._query("begin")
        try:
            yield
        finally:
            self._database.rollback()  # nothing was written

    # -- counts -------------------------------------------------------------------------------

    def videos(self) -> dict[str, int]:
        """Return the number of videos by status."""
        return dict(
            self._query(
                "select status, count(*) from videos where config = ? group by status", self._config
            )
        )

    def totals(self) -> Totals:
        """Return the sums over all videos."""
        (row,) = self._query(
            "select coalesce(sum(clips), 0), coalesce(sum(samples), 0), "
            "coalesce(sum(bytes_fetched), 0) from videos where config = ?",
            self._config,
        )
        return Totals(*row)

    def coverage(self) -> Coverage:
        """Return how much of each speaker is there."""
        # Rounded up: of 20 videos, 1 is in the class up to 10 %, and 19 are in the one below all.
        rows = self._query(
            "select case when done = wanted then 11 else (10 * done + wanted - 1) / wanted end, "
            "count(*) from (select sum(status = 'done') as done, "
            "sum(status <> 'excluded') as wanted from videos where config = ? "
            "group by speaker_id) where wanted > 0 group by 1",
            self._config,
        )
        speakers = _dense(rows, 12)
        return Coverage(speakers[11], sum(speakers[1:11]), speakers[0], speakers)

    def reasons(self, most: int) -> list[ReasonCount]:
        """Return the most frequent reasons of missing videos that were tried.

        Args:
            most: how many.
        """
        # In this order: grouped by the status first, SQLite reads the table by an index, one
        # row here and one there, which takes ten times as long.
        rows = self._query(
            "select status, replace(replace(reason, video_id, '<video>'), speaker_id, '<speaker>') "
            "as words, count(*) as number from videos not indexed where config = ? "
            "and status not in ('done', 'excluded', 'planned') "
            "group by words, status order by number desc, words, status limit ?",
            self._config,
            most,
        )
        return [ReasonCount(*row) for row in rows]

    def missing(self) -> Iterator[MissingVideo]:
        """Yield every video that is wanted and not done, sorted by speaker and video."""
        with _readable():
            for row in self._database.execute(
                "select speaker_id, video_id, status, reason, attempts, next_at, updated_at "
                "from videos not indexed where config = ? and status not in ('done', 'excluded') "
                "order by speaker_id, video_id",
                (self._config,),
            ):
                yield MissingVideo(*row)

    # -- durations ----------------------------------------------------------------------------

    def seconds_per_video(self) -> Histogram:
        """Return how many seconds of clips came of how many videos."""
        ((mean_samples,),) = self._query(
            "select avg(samples) from videos where config = ? and status = 'done'", self._config
        )
        width = bar_width((mean_samples or 0) / SAMPLE_RATE_HZ)
        rows = self._query(
            "select min(cast(samples / ? as integer), ?), count(*) from videos not indexed "
            "where config = ? and status = 'done' group by 1",
            *(width * SAMPLE_RATE_HZ, MOST_BINS // 2 - 1, self._config),
        )
        return Histogram(width, _dense(rows, MOST_BINS // 2))

    def mean_seconds_per_utterance(self) -> Histogram:
        """Return how many videos have utterances of which mean length."""
        ((mean_samples,),) = self._query(
            "select sum(samples) * 1.0 / sum(clips) from videos where config = ? "
            "and status = 'done'",
            self._config,
        )
        width = bar_width((mean_samples or 0) / SAMPLE_RATE_HZ)
        rows = self._query(
            "select min(cast(samples / (clips * ?) as integer), ?), count(*) "
            "from videos not indexed where config = ? and status = 'done' and clips > 0 group by 1",
            *(width * SAMPLE_RATE_HZ, MOST_BINS // 2 - 1, self._config),
        )
        return Histogram(width, _dense(rows, MOST_BINS // 2))

    # -- over time ----------------------------------------------------------------------------

    def outcomes_over_time(self) -> TimeLine:
        """Return how many videos got the class that they have now, by class, over time."""
        edges = [self._updated(status) for status in STATUSES]
        starts = [first for first, _ in edges if first is not None]
        if not starts:
            return TimeLine(0.0, _MINUTE, {})
        start, step, bins = _stretches(
            min(starts), max(last for _, last in edges if last is not None)
        )
        series = {}
        for status, (first, _) in zip(STATUSES, edges, strict=True):
            if first is not None:
                series[status] = tuple(
                    self._count_updated(status, start + step * n, start + step * (n + 1))
                    for n in range(bins)
                )
        return TimeLine(start, step, series)

    def _updated(self, status: str) -> tuple[float | None, float | None]:
        # Two queries in one: asked for both at once, SQLite reads all there is between them.
        (row,) = self._query(
            "select (select min(updated_at) from videos where config = ?1 and status = ?2), "
            "(select max(updated_at) from videos where config = ?1 and status = ?2)",
            *(self._config, status),
        )
        return row[0], row[1]

    def _count_updated(self, status: str, start: float, stop: float) -> int:
        # A stretch of the index: no sorting, unlike a group for every stretch of time.
        (row,) = self._query(
            "select count(*) from videos where config = ? and status = ? "
            "and updated_at >= ? and updated_at < ?",
            *(self._config, status, start, stop),
        )
        return int(row[0])

    def traffic_over_time(self) -> TimeLine:
        """Return ``attempts``, ``done`` (those that brought a video) and ``bytes`` over time."""
        ((first, last),) = self._query(
            "select (select min(at) from attempts where config = ?1), "
            "(select max(at) from attempts where config = ?1)",
            self._config,
        )
        if first is None:
            return TimeLine(0.0, _MINUTE, {})
        start, step, bins = _stretches(first, last)
        rows = self._query(
            "select cast((at - ?) / ? as integer), count(*), sum(status = 'done'), sum(bytes) "
            "from attempts where config = ? group by 1",
            *(start, step, self._config),
        )
        return TimeLine(
            start,
            step,
            {
                "attempts": _dense([(row[0], row[1]) for row in rows], bins),
                "done": _dense([(row[0], row[2]) for row in rows], bins),
                "bytes": _dense([(row[0], row[3]) for row in rows], bins),
            },
        )

    def speed(self) -> Throughput | None:
        """Return how fast the last hour with any attempt went; ``None`` if there was none."""
        (row,) = self._query(
            "select max(at), min(at - seconds), count(*), sum(status = 'done'), sum(bytes) "
            "from attempts where config = ?1 "
            "and at > (select max(at) from attempts where config = ?1) - ?2",
            *(self._config, _HOUR),
        )
        if row[0] is None:
            return None
        until, started, attempts, done, size = row
        # A run of ten minutes is not to be spread over an hour, nor one video over no time.
        return Throughput(until, min(max(until - started, 1.0), _HOUR), attempts, done, size)

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with _readable():
            return self._database.execute(sql, values).fetchall()


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"The ledger cannot be read: {error}.") from error


def bar_width(mean_seconds: float) -> float:
    """Return a round width that spreads four times the mean over half of ``MOST_BINS`` bars.

    >>> bar_width(5.9), bar_width(40.0)
    (1, 10)
    """
    wanted = 4 * mean_seconds / (MOST_BINS // 2)
    return next((width for width in _WIDTHS_SECONDS if width >= wanted), math.ceil(wanted))


def _stretches(first: float, last: float) -> tuple[float, int, int]:
    """Return start, length and number of equal stretches that hold two times and all between."""
    for step in _STEPS_SECONDS:
        start = first // step * step
        bins = int((last - start) // step) + 1
        if bins <= MOST_BINS:
            return start, step, bins
    step = math.ceil((last - first) / (MOST_BINS - 1) / _DAY) * _DAY
    start = first // step * step
    return start, step, int((last - start) // step) + 1


def _dense(rows: list[tuple[Any, ...]], length: int) -> tuple[int, ...]:
    """Return one number for each place, 0 where no row speaks of it."""
    counts = [0] * length
    for place, count in rows:
        counts[min(max(place, 0), length - 1)] += count
    return tuple(counts)
