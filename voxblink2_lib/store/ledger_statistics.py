"""Counts, histograms and rates of a corpus, from its ledger. Only for reports; reads only.

Every query is one pass over a table or an index, in constant memory: a ledger of millions of
videos is summed up in SQL and never read into Python. Times are Unix times, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import SAMPLE_RATE_HZ, UtteranceKey
from voxblink2_lib.store.histograms import (
    DURATION_BINS,
    HOUR_SECONDS,
    MINUTE_SECONDS,
    Histogram,
    TimeLine,
    bar_width,
    dense_counts,
    split_time,
)
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import HAS_NOTES, WITHOUT_FACTS

_ROWS_PER_PAGE = 10_000


class Totals(NamedTuple):
    """Sums over all videos.

    Attributes:
        clips: utterances cut.
        samples: their length, samples at 16 kHz.
        bytes_fetched: what was downloaded, or read from files.
    """

    clips: int
    samples: int
    bytes_fetched: int

    @property
    def hours(self) -> float:
        """Length of the clips."""
        return self.samples / SAMPLE_RATE_HZ / 3600


class SpeakerCoverage(NamedTuple):
    """How complete the speakers are. Excluded videos are not counted.

    Attributes:
        complete: speakers of whom every video is done.
        partial: speakers of whom some videos are done, and not all.
        empty: speakers of whom no video is done.
        by_share: number of speakers by the share of videos that are done, of 12 classes: none,
            above 0 and up to 10 %, ..., above 90 % and below all, all.
    """

    complete: int
    partial: int
    empty: int
    by_share: tuple[int, ...]


class Throughput(NamedTuple):
    """Speed of the last hour in which something was tried.

    Attributes:
        until: end of the last attempt.
        seconds: from the start of the first attempt of that hour to ``until``.
        attempts: number of attempts that ended in that time.
        done: attempts after which their video was done.
        bytes_fetched: what they downloaded.
    """

    until: float
    seconds: float
    attempts: int
    done: int
    bytes_fetched: int

    @property
    def videos_an_hour(self) -> float:
        """Videos done per hour."""
        return 3600 * self.done / self.seconds

    @property
    def bytes_a_second(self) -> float:
        """Bytes downloaded per second."""
        return self.bytes_fetched / self.seconds


class ReasonCount(NamedTuple):
    """A reason that videos share, with placeholders for their ids."""

    status: str
    message: str
    videos: int


class MissingVideo(NamedTuple):
    """A video that is selected and not done.

    Attributes:
        speaker_id: its speaker.
        video_id: the video.
        status: its class, or ``planned``.
        reason: error message of the last attempt; empty if there was none.
        attempts: how often it was tried.
        next_at: time of the next retry; ``None`` means never by itself.
        updated_at: when it was last tried.
    """

    speaker_id: str
    video_id: str
    status: str
    reason: str
    attempts: int
    next_at: float | None
    updated_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 status --missing --json`` writes."""
        names = ("speaker_id", "video_id", "status", "reason", "attempts")
        return {name: getattr(self, name) for name in names}


class LouderChannel(NamedTuple):
    """A video whose channels cancel each other, so that one of them was used alone.

    ``channel`` is counted from 1.
    """

    speaker_id: str
    video_id: str
    channel: int


class SoundNotes(NamedTuple):
    """What a person should hear of the sound of the videos, by the last attempt of each.

    Attributes:
        videos_with_tracks: videos with more than one audio track.
        clipped_samples: samples of the clips that exceeded full scale.
        clipped_videos: videos that have such samples.
        louder_channels: videos of which the louder channel was used alone, sorted.
    """

    videos_with_tracks: int = 0
    clipped_samples: int = 0
    clipped_videos: int = 0
    louder_channels: tuple[LouderChannel, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``voxblink2 status --json`` writes it."""
        return {
            **self._asdict(),
            "louder_channels": [row._asdict() for row in self.louder_channels],
        }


class LedgerStatistics:
    """Statistics of one configuration of a ledger.

    Every method raises :class:`StoreError` when the file cannot be read.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all queries see the same state, whatever a run writes meanwhile."""
        return self._database.snapshot()

    # -- Counts ------------------------------------------------------------------------------------

    def videos(self) -> dict[str, int]:
        """Return the number of videos by status."""
        return dict(
            self._database.query(
                "select status, count(*) from videos where config = ? group by status", self._config
            )
        )

    def totals(self) -> Totals:
        """Return the sums over all videos."""
        (row,) = self._database.query(
            "select coalesce(sum(clips), 0), coalesce(sum(samples), 0), "
            "coalesce(sum(bytes_fetched), 0) from videos where config = ?",
            self._config,
        )
        return Totals(*row)

    def coverage(self) -> SpeakerCoverage:
        """Return how complete the speakers are."""
        # Rounded up: of 20 videos, 1 is in the class up to 10 %, and 19 are in the one below all.
        rows = self._database.query(
            "select case when done = planned then 11 else (10 * done + planned - 1) / planned end, "
            "count(*) from (select sum(status = 'done') as done, "
            "sum(status <> 'excluded') as planned from videos where config = ? "
            "group by speaker_id) where planned > 0 group by 1",
            self._config,
        )
        by_share = dense_counts(rows, 12)
        return SpeakerCoverage(by_share[11], sum(by_share[1:11]), by_share[0], by_share)

    def reasons(self, most: int) -> list[ReasonCount]:
        """Return the most frequent reasons of missing videos that were tried.

        Args:
            most: how many.
        """
        # In this order: grouped by the status first, SQLite reads the table by an index, one
        # row here and one there, which takes ten times as long.
        rows = self._database.query(
            "select status, replace(replace(reason, video_id, '<video>'), speaker_id, '<speaker>') "
            "as message, count(*) as number from videos not indexed where config = ? "
            "and status not in ('done', 'excluded', 'planned') "
            "group by message, status order by number desc, message, status limit ?",
            self._config,
            most,
        )
        return [ReasonCount(*row) for row in rows]

    def missing(self) -> Iterator[MissingVideo]:
        """Yield every video that is selected and not done, sorted by speaker and video."""
        last: tuple[Any, ...] = ("", "")
        # In pages: whoever reads the list may take hours, and a run writes meanwhile.
        while rows := self._database.query(
            "select speaker_id, video_id, status, reason, attempts, next_at, updated_at "
            "from videos not indexed where config = ? and (speaker_id, video_id) > (?, ?) "
            "and status not in ('done', 'excluded') order by speaker_id, video_id limit ?",
            self._config,
            *last,
            _ROWS_PER_PAGE,
        ):
            yield from map(MissingVideo._make, rows)
            last = rows[-1][:2]

    def missing_utterances(self) -> int:
        """Return how many utterances could not be cropped although their video was downloaded."""
        ((count,),) = self._database.query(
            "select count(*) from missing where config = ?", self._config
        )
        return int(count)

    def missing_names(self, job: int) -> set[str]:
        """Return the ``speaker/video/utterance`` names of a job that could not be cropped."""
        rows = self._database.query(
            "select speaker_id, video_id, utterance_id from missing "
            "join videos using (config, speaker_id, video_id) where config = ? and job = ?",
            self._config,
            job,
        )
        return {UtteranceKey(*row).name for row in rows}

    def sound_notes(self) -> SoundNotes:
        """Return what a person should hear of the sound of the videos."""
        if self._database.fact("format") == WITHOUT_FACTS:
            return SoundNotes()
        rows = self._database.rows(
            "select speaker_id, video_id, json_extract(facts, '$.audio_tracks'), "  # noqa: S608  # a constant
            "json_extract(facts, '$.clipped_samples'), json_extract(facts, '$.louder_channel') "
            "from attempts join videos using (config, speaker_id, video_id) "
            f"where config = ? and {HAS_NOTES} and attempts.attempt = videos.attempts",
            self._config,
        )
        videos = clipped_samples = clipped_videos = 0
        louder = []
        for speaker_id, video_id, tracks, clipped, channel in rows:
            videos += (tracks or 0) > 1
            clipped_samples += clipped or 0
            clipped_videos += bool(clipped)
            if channel:
                louder.append(LouderChannel(speaker_id, video_id, channel))
        return SoundNotes(videos, clipped_samples, clipped_videos, tuple(sorted(louder)))

    # -- Durations ---------------------------------------------------------------------------------

    def seconds_per_video(self) -> Histogram:
        """Return the number of videos by the total length of their clips."""
        ((mean_samples,),) = self._database.query(
            "select avg(samples) from videos where config = ? and status = 'done'", self._config
        )
        width = bar_width((mean_samples or 0) / SAMPLE_RATE_HZ)
        rows = self._database.query(
            "select min(cast(samples / ? as integer), ?), count(*) from videos not indexed "
            "where config = ? and status = 'done' group by 1",
            width * SAMPLE_RATE_HZ,
            DURATION_BINS - 1,
            self._config,
        )
        return Histogram(width, dense_counts(rows, DURATION_BINS))

    def mean_seconds_per_utterance(self) -> Histogram:
        """Return the number of videos by the mean length of their utterances."""
        ((mean_samples,),) = self._database.query(
            "select sum(samples) * 1.0 / sum(clips) from videos where config = ? "
            "and status = 'done'",
            self._config,
        )
        width = bar_width((mean_samples or 0) / SAMPLE_RATE_HZ)
        rows = self._database.query(
            "select min(cast(samples / (clips * ?) as integer), ?), count(*) "
            "from videos not indexed where config = ? and status = 'done' and clips > 0 group by 1",
            width * SAMPLE_RATE_HZ,
            DURATION_BINS - 1,
            self._config,
        )
        return Histogram(width, dense_counts(rows, DURATION_BINS))

    # -- Over time ---------------------------------------------------------------------------------

    def outcomes_over_time(self) -> TimeLine:
        """Return how many videos got their present class, by class, over time."""
        edges = [self._updated(status) for status in STATUSES]
        starts = [first for first, _ in edges if first is not None]
        if not starts:
            return TimeLine(0.0, MINUTE_SECONDS, {})
        start, step, bins = split_time(
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
        # Two queries in one: with both in one select, SQLite reads everything between them.
        ((first, last),) = self._database.query(
            "select (select min(updated_at) from videos where config = ?1 and status = ?2), "
            "(select max(updated_at) from videos where config = ?1 and status = ?2)",
            self._config,
            status,
        )
        return first, last

    def _count_updated(self, status: str, start: float, stop: float) -> int:
        # A range of the index: no sorting, unlike a group for every interval.
        (row,) = self._database.query(
            "select count(*) from videos where config = ? and status = ? "
            "and updated_at >= ? and updated_at < ?",
            self._config,
            status,
            start,
            stop,
        )
        return int(row[0])

    def traffic_over_time(self) -> TimeLine:
        """Return ``attempts``, ``done`` (successful attempts) and ``bytes`` over time."""
        ((first, last),) = self._database.query(
            "select (select min(at) from attempts where config = ?1), "
            "(select max(at) from attempts where config = ?1)",
            self._config,
        )
        if first is None:
            return TimeLine(0.0, MINUTE_SECONDS, {})
        start, step, bins = split_time(first, last)
        rows = self._database.query(
            "select cast((at - ?) / ? as integer), count(*), sum(status = 'done'), sum(bytes) "
            "from attempts where config = ? group by 1",
            start,
            step,
            self._config,
        )
        numbers, *columns = zip(*rows, strict=True)
        series = {
            name: dense_counts([*zip(numbers, values, strict=True)], bins)
            for name, values in zip(("attempts", "done", "bytes"), columns, strict=True)
        }
        return TimeLine(start, step, series)

    def speed(self) -> Throughput | None:
        """Return the throughput of the last hour with any attempt; ``None`` if there was none."""
        (row,) = self._database.query(
            "select max(at), min(at - seconds), count(*), sum(status = 'done'), sum(bytes) "
            "from attempts where config = ?1 "
            "and at > (select max(at) from attempts where config = ?1) - ?2",
            self._config,
            HOUR_SECONDS,
        )
        if row[0] is None:
            return None
        until, started, attempts, done, size = row
        # A run of ten minutes is not spread over an hour, nor one video over no time.
        return Throughput(until, min(max(until - started, 1.0), HOUR_SECONDS), attempts, done, size)
