"""Shards of recovered videos in the ledger, the last of which is superseded by fuller ones.

A job of the table ``jobs`` is one of four kinds:

* ``planned``: the first job of its videos. It is sealed into a shard of its own.
* ``retry``: of videos that were tried before. What comes back moves into a recovered job; then it
  is closed without a shard.
* ``cut``: of videos in the order in which an archive of cut audio has them, as ``planned``
  otherwise; see :mod:`~voxblink2_lib.store.cut_jobs`.
* ``recovered``: a shard of videos that came back. The last one may not be full: it is the tail.
  Superseded, it has no shard and no videos, and its number is not used again.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.job_slices import SLICE, JobSlice
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import BY_JOB, FORMAT
from voxblink2_lib.store.stale_outcomes import mark_stale, mark_video_stale

JobKind = Literal["planned", "retry", "cut", "recovered"]

# Numbers of retry jobs begin here. Those below are of shards: retries that bring nothing use up
# none, so that the name of a shard follows from what came, not from how often nothing did.
FIRST_RETRY_JOB = 1_000_000_000
_NEXT_JOB = """
select coalesce(max(job), ?) + 1, (select value from facts where name = ? || '.' || ?)
from jobs where config = ? and (kind = 'retry') = ?
"""
_MOVE = "update videos set job = ? where config = ? and speaker_id = ? and video_id = ?"
CLOSE = "update jobs set shard = '', sha256 = '', rows = 0, bytes = 0 where config = ? and job = ?"


@dataclass(frozen=True, slots=True)
class Tail:
    """The last shard of recovered videos, which is not full.

    Attributes:
        shard: its entry in the ledger.
        videos: number of videos in it.
    """

    shard: SealedShard
    videos: int


def next_job(connection: sqlite3.Connection, config: str, kind: JobKind) -> int:
    """Return the number of the next job of a kind."""
    is_retry = kind == "retry"
    least = FIRST_RETRY_JOB if is_retry else 0
    values = (least - 1, config, SLICE, config, is_retry)
    return _in_slice(*connection.execute(_NEXT_JOB, values).fetchone())


def _in_slice(number: int, job_slice: str | None) -> int:
    return JobSlice.parse(job_slice).next_job(number) if job_slice else number


class RecoveredShards:
    """What a ledger has of recovered videos, of one configuration.

    Args:
        database: an open ledger. One of an earlier format has none of this.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def retry_jobs(self) -> list[int]:
        """Return the numbers of the retry jobs that are open, in order."""
        return self._jobs("kind = 'retry' and shard is null")

    def superseded(self) -> list[int]:
        """Return the numbers of shards whose rows are in a fuller one, in order."""
        return self._jobs("kind = 'recovered' and shard = ''")

    def _jobs(self, condition: str) -> list[int]:
        if self._database.fact("format") != FORMAT:
            return []
        sql = f"select job from jobs where config = ? and {condition} order by job"  # noqa: S608  # constants
        return [job for (job,) in self._database.query(sql, self._config)]

    def done_videos(self, job: int) -> list[VideoKey]:
        """Return the videos of a retry job that came and are in no shard yet, sorted."""
        rows = self._database.query(
            f"select speaker_id, video_id from videos {BY_JOB} where config = ? and job = ? "  # noqa: S608  # a constant
            "and status = 'done' order by speaker_id, video_id",
            self._config,
            job,
        )
        return list(map(VideoKey._make, rows))

    def last(self) -> SealedShard | None:
        """Return the last shard of recovered videos, full or not."""
        tail = self.tail(full=sys.maxsize)
        return tail.shard if tail else None

    def tail(self, *, full: int) -> Tail | None:
        """Return the last shard of recovered videos, if it has fewer than ``full`` videos."""
        rows = self._database.query(
            "select job, shard, sha256, rows, bytes, (select count(*) from videos "
            "where videos.config = jobs.config and videos.job = jobs.job) from jobs "
            "where config = ? and kind = 'recovered' and shard <> '' order by job desc limit 1",
            self._config,
        )
        tails = [Tail(SealedShard(*shard), videos) for *shard, videos in rows if videos < full]
        return tails[0] if tails else None

    def next_number(self) -> int:
        """Return the number of the next shard."""
        values = (-1, self._config, SLICE, self._config, False)
        ((number, job_slice),) = self._database.query(_NEXT_JOB, *values)
        return _in_slice(number, job_slice)

    def step(self) -> int:
        """Return how far the numbers of two shards are apart at least."""
        job_slice = self._database.fact(f"{self._config}.{SLICE}")
        return JobSlice.parse(job_slice).slices if job_slice else 1

    def switch(
        self,
        shard: SealedShard,
        videos: Iterable[VideoKey],
        *,
        tail: Tail | None,
        closed: Collection[int],
    ) -> None:
        """Write at once that a shard has the videos of retry jobs, and those of the tail.

        Args:
            shard: what is on disk, under the next number.
            videos: those of retry jobs.
            tail: superseded by the shard, if there was one.
            closed: retry jobs of which nothing is left.
        """
        config = self._config
        superseded = [tail.shard.job] if tail else []
        with self._database.transaction() as connection:
            connection.execute(
                "insert into jobs (config, job, kind, shard, sha256, rows, bytes) "
                "values (?, ?, 'recovered', ?, ?, ?, ?)",
                (config, shard.job, shard.name, shard.sha256, shard.rows, shard.size_bytes),
            )
            for key in videos:
                mark_video_stale(connection, config, key)
                connection.execute(_MOVE, (shard.job, config, *key))
            connection.executemany(
                "update videos set job = ? where config = ? and job = ?",
                ((shard.job, config, job) for job in superseded),
            )
            connection.executemany(CLOSE, ((config, job) for job in (*superseded, *closed)))
            for job in (shard.job, *superseded, *closed):
                mark_stale(connection, config, job)
