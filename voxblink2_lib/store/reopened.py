"""Jobs that were sealed, and are open again since their shard was damaged.

The videos of which all clips are whole have part files; the others count as not tried. So the
next run crops those, and seals the job as ever. With the same clips in the same order, the shard
has the bytes that it had before. If it has others, it takes another name: whoever has the former
shard in a cache would take the new one for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale, mark_video_stale

_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"


@dataclass(frozen=True, slots=True)
class FormerShard:
    """The shard of a job that is open again.

    Attributes:
        sha256: its checksum, as it was sealed.
        order: its videos, in the order of their rows.
        hurt: ids of the utterances that it had of each video that is to be cropped again.
    """

    sha256: str
    order: tuple[VideoKey, ...]
    hurt: Mapping[VideoKey, tuple[str, ...]]


class VideoState(NamedTuple):
    """What the ledger has of a video: class, words, and the utterances that it lacks."""

    status: str
    reason: str
    missing: frozenset[str]


class ReopenedJobs:
    """What a ledger has of jobs that are open again, of one configuration.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def jobs(self) -> list[int]:
        """Return the numbers of the jobs, in order."""
        rows = self._database.query(
            "select job from jobs join facts on name = ? || job "
            "where config = ? and shard is null order by job",
            fact_of_job(self._config, ""),
            self._config,
        )
        return [job for (job,) in rows]

    def former(self, job: int) -> FormerShard | None:
        """Return the former shard of a job that is open again; ``None`` of any other."""
        text = self._database.fact(fact_of_job(self._config, job))
        if text is None:
            return None
        record = json.loads(text)
        return FormerShard(
            record["sha256"],
            tuple(VideoKey(*key) for key in record["order"]),
            {VideoKey(*key): tuple(utterances) for key, utterances in record["hurt"]},
        )

    def reopen(self, job: int, former: FormerShard) -> None:
        """Write at once that a job is open, and that its hurt videos are to be cropped again."""
        record = json.dumps(
            {"sha256": former.sha256, "order": former.order, "hurt": [*former.hurt.items()]}
        )
        config = self._config
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into facts values (?, ?)", (fact_of_job(config, job), record)
            )
            connection.execute(
                "update jobs set shard = null, sha256 = null, rows = null, bytes = null "
                "where config = ? and job = ?",
                (config, job),
            )
            mark_stale(connection, config, job)
            mark_first_stale(connection, config)
            for key in former.hurt:
                self._forget(connection, key)

    def forget(self, hurt: Collection[VideoKey]) -> None:
        """Write at once that videos of open jobs are to be cropped again."""
        if hurt:
            with self._database.transaction() as connection:
                for key in hurt:
                    self._forget(connection, key)

    def _forget(self, connection: sqlite3.Connection, key: VideoKey) -> None:
        video = (self._config, *key)
        mark_video_stale(connection, self._config, key)
        connection.execute(
            "update videos set status = 'planned', reason = '', clips = 0, samples = 0, "  # noqa: S608  # a constant
            f"next_at = null where {_IS_VIDEO}",
            video,
        )
        # Whichever source is used next, it may be asked.
        connection.execute(
            f"update verdicts set next_at = 0, tries = 0 where {_IS_VIDEO}",  # noqa: S608  # a constant
            video,
        )
        connection.execute(f"delete from missing where {_IS_VIDEO}", video)  # noqa: S608  # a constant

    def status(self, key: VideoKey) -> str | None:
        """Return the class of a video; ``None`` if it is not in the ledger."""
        rows = self._database.query(
            f"select status from videos where {_IS_VIDEO}",  # noqa: S608  # a constant
            self._config,
            *key,
        )
        return rows[0][0] if rows else None

    def state(self, key: VideoKey) -> VideoState:
        """Return what became of a video."""
        ((status, reason),) = self._database.query(
            f"select status, reason from videos where {_IS_VIDEO}",  # noqa: S608  # a constant
            self._config,
            *key,
        )
        missing = self._database.query(
            f"select utterance_id from missing where {_IS_VIDEO}",  # noqa: S608  # a constant
            self._config,
            *key,
        )
        return VideoState(status, reason, frozenset(name for (name,) in missing))

    def move(self, job: int, shard: SealedShard) -> None:
        """Write at once that the videos of a job are in a shard of another number."""
        config = self._config
        with self._database.transaction() as connection:
            connection.execute(
                "insert into jobs (config, job, kind, shard, sha256, rows, bytes) "
                "select config, ?, kind, ?, ?, ?, ? from jobs where config = ? and job = ?",
                (shard.job, shard.name, shard.sha256, shard.rows, shard.size_bytes, config, job),
            )
            connection.execute(
                "update videos set job = ? where config = ? and job = ?", (shard.job, config, job)
            )
            connection.execute(
                "update jobs set shard = '', sha256 = '', rows = 0, bytes = 0 "
                "where config = ? and job = ?",
                (config, job),
            )
            connection.execute("delete from facts where name = ?", (fact_of_job(config, job),))
            for number in (job, shard.job):
                mark_stale(connection, config, number)
            mark_first_stale(connection, config)


def fact_of_job(config: str, job: int | str) -> str:
    """Return the name of the fact that a job is open again."""
    return f"{config}.reopened.{job}"
