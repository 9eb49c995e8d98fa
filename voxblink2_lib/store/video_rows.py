"""Write what is known of videos from elsewhere into a ledger, in place of what was there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from voxblink2_lib.store.job_outcomes import JobOutcomes, VideoOutcomes, VideoRow, WitnessRow
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import BY_JOB
from voxblink2_lib.store.salvage import ConfigKey
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale

_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"


def put_video(
    connection: sqlite3.Connection, key: ConfigKey, job: int, video: VideoOutcomes
) -> None:
    """Write all that is known of a video, within a transaction."""
    for table in ("verdicts", "missing", "attempts"):
        connection.execute(f"delete from {table} where {_IS_VIDEO}", key)  # noqa: S608  # constants
    columns = ", ".join(VideoRow._fields[2:])
    connection.execute(
        "insert or replace into videos (config, speaker_id, video_id, "  # noqa: S608  # constants
        f"job, {columns}) values ({_marks(4 + len(VideoRow._fields[2:]))})",
        (*key, job, *video.row[2:]),
    )
    verdicts = [(source_id(connection, verdict.source), *verdict[1:]) for verdict in video.verdicts]
    _insert(connection, "verdicts", key, verdicts)
    _insert(connection, "missing", key, video.missing)
    _insert(connection, "attempts", key, video.attempts)


def put_witness(connection: sqlite3.Connection, witness: WitnessRow) -> None:
    """Write which video came last by a route, within a transaction."""
    connection.execute(
        "insert or replace into witnesses values (?, ?, ?, ?, ?)",
        (source_id(connection, witness.source), *witness[1:]),
    )


def source_id(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of a source, which gets one if it has none."""
    connection.execute("insert or ignore into sources (name) values (?)", (name,))
    (number,) = connection.execute("select id from sources where name = ?", (name,)).fetchone()
    return int(number)


def _insert(
    connection: sqlite3.Connection, table: str, key: ConfigKey, rows: Sequence[tuple[Any, ...]]
) -> None:
    if rows:
        connection.executemany(
            f"insert into {table} values ({_marks(len(key) + len(rows[0]))})",  # noqa: S608  # constants
            ((*key, *row) for row in rows),
        )


def _marks(count: int) -> str:
    return ", ".join("?" * count)


class VideosFromElsewhere:
    """What other machines found out about videos of one configuration.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def add_job(self, outcomes: JobOutcomes) -> None:
        """Add an open job that is not in the ledger, with its videos, as a planned one."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert into jobs (config, job) values (?, ?)", (self._config, outcomes.job)
            )
            for name in outcomes.sources:
                source_id(connection, name)
            for video in outcomes.videos:
                put_video(connection, ConfigKey(self._config, *video.key), outcomes.job, video)
            _put_later_witnesses(connection, outcomes.witnesses)

    def take(self, outcomes: JobOutcomes) -> None:
        """Write what is later than what is here, of videos that are in this job here too."""
        config, job = self._config, outcomes.job
        with self._database.transaction() as connection:
            rows = connection.execute(
                f"select speaker_id, video_id, attempts from videos {BY_JOB} "  # noqa: S608  # a constant
                "where config = ? and job = ?",
                (config, job),
            )
            attempts = {(speaker_id, video_id): number for speaker_id, video_id, number in rows}
            for video in outcomes.videos:
                if video.row.attempts > attempts.get(video.key, video.row.attempts):
                    put_video(connection, ConfigKey(config, *video.key), job, video)
            _put_later_witnesses(connection, outcomes.witnesses)
            mark_stale(connection, config, job)
            mark_first_stale(connection, config)


def _put_later_witnesses(connection: sqlite3.Connection, witnesses: Iterable[WitnessRow]) -> None:
    for witness in witnesses:
        before = connection.execute(
            "select at from witnesses where source = ? and address = ?",
            (source_id(connection, witness.source), witness.address),
        ).fetchone()
        if before is None or witness.at > before[0]:
            put_witness(connection, witness)
