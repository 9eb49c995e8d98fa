"""What happened to each video of a store: what a run writes and reads.

Only the process that has the store's lock writes; anyone may read. The ledger may lag behind the
files by what was in flight when a run was killed, and is never ahead of them: clips are in their
part file before the row is written.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from voxblink2_lib.outcomes import Outcome, RetryDecision, Status, next_attempt
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.ledger_database import WITHOUT_FACTS, LedgerDatabase
from voxblink2_lib.store.ledger_statistics import LedgerStatistics
from voxblink2_lib.store.tail import JobKind, RecoveredShards, next_job

# Excluded videos belong to no job.
_NO_JOB = -1
_ROWS_PER_BATCH = 65_536
_IS_PENDING = "(status = 'planned' or next_at <= ?)"
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_UPDATE_VIDEO = """
update videos set status = :status, reason = :reason, attempts = :attempt, tries = :tries,
    next_at = :next_at, ambiguous_since = :since, clips = :clips, samples = :samples,
    bytes_fetched = bytes_fetched + :bytes, seconds_taken = :seconds, digest = :digest,
    updated_at = :now
where config = :config and speaker_id = :speaker_id and video_id = :video_id
"""
_ADD_ATTEMPT = """
insert or replace into attempts values (:config, :speaker_id, :video_id, :attempt, :now, :status,
    :reason, :route, :bytes, :seconds, :facts)
"""
_PLANNED_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("status", pa.string()),
        ("digest", pa.int64()),
    ]
)


class Ledger:
    """The ledger of one configuration.

    Args:
        path: the SQLite file.
        config: name of the configuration.
        readonly: open only for reading; the file must exist.

    Raises:
        StoreError: the file is not a ledger, has another format, or cannot be created.
    """

    def __init__(self, path: Path, config: str, *, readonly: bool = False) -> None:
        self._config = config
        self._database = LedgerDatabase.open(path, readonly=readonly)

    @property
    def config(self) -> str:
        """Name of the configuration."""
        return self._config

    @property
    def is_of_earlier_version(self) -> bool:
        """Whether the version before can still open the file."""
        return self._database.fact("format") == WITHOUT_FACTS

    @property
    def statistics(self) -> LedgerStatistics:
        """Counts and rates of the whole corpus."""
        return LedgerStatistics(self._database, self._config)

    @property
    def recovered(self) -> RecoveredShards:
        """Shards of videos that came back in retries."""
        return RecoveredShards(self._database, self._config)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setting(self, name: str) -> str | None:
        """Return the value of a setting of this configuration, or ``None``."""
        return self._database.fact(f"{self._config}.{name}")

    def set_setting(self, name: str, value: str) -> None:
        """Store the value of a setting of this configuration."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into facts values (?, ?)", (f"{self._config}.{name}", value)
            )

    # -- Planning ----------------------------------------------------------------------------------

    def planned_videos(self) -> pa.Table:
        """Return every planned video, with ``status`` and ``digest``.

        ``digest`` identifies the annotations that the clips were cropped by.
        """
        rows = self._database.rows(
            "select speaker_id, video_id, status, digest from videos "
            "where config = ? and status <> 'excluded'",
            self._config,
        )
        batches = []
        while chunk := list(islice(rows, _ROWS_PER_BATCH)):
            columns = zip(zip(*chunk, strict=True), _PLANNED_COLUMNS, strict=True)
            arrays = [pa.array(values, field.type) for values, field in columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=_PLANNED_COLUMNS))
        return pa.Table.from_batches(batches, schema=_PLANNED_COLUMNS)

    def add_jobs(self, jobs: Iterable[Iterable[VideoKey]], *, kind: JobKind = "planned") -> None:
        """Assign videos to new jobs, all or none of them."""
        with self._database.transaction() as connection:
            first = next_job(connection, self._config, kind)
            for number, keys in enumerate(jobs, start=first):
                connection.execute(
                    "insert into jobs (config, job, kind) values (?, ?, ?)",
                    (self._config, number, kind),
                )
                connection.executemany(
                    "insert into videos (config, speaker_id, video_id, job, status) "
                    "values (?, ?, ?, ?, 'planned') on conflict do update set "
                    "job = excluded.job, status = 'planned', next_at = null",
                    ((self._config, *key, number) for key in keys),
                )

    def drop(self, keys: Iterable[VideoKey]) -> None:
        """Remove videos that are no longer selected and have no clips in the store."""
        with self._database.transaction() as connection:
            for key in keys:
                dropped = connection.execute(
                    f"delete from videos where {_IS_VIDEO} and status <> 'done'",  # noqa: S608  # a constant
                    (self._config, *key),
                )
                if dropped.rowcount:
                    self._drop_missing(connection, key)

    def exclude(self, keys: Iterable[VideoKey]) -> None:
        """Write which videos the user excludes, in place of those excluded before."""
        with self._database.transaction() as connection:
            connection.execute(
                "delete from videos where config = ? and status = 'excluded'", (self._config,)
            )
            connection.executemany(
                "insert into videos (config, speaker_id, video_id, job, status) "
                "values (?, ?, ?, ?, 'excluded')",
                ((self._config, *key, _NO_JOB) for key in keys),
            )

    def open_jobs(self) -> list[int]:
        """Return the numbers of jobs that are not sealed, in order."""
        rows = self._database.query(
            "select job from jobs where config = ? and shard is null order by job", self._config
        )
        return [job for (job,) in rows]

    def count_pending(self) -> int:
        """Return the number of videos of open jobs that can be tried now."""
        return int(
            self._database.query(
                "select count(*) from jobs join videos using (config, job) "  # noqa: S608  # a constant
                f"where config = ? and shard is null and {_IS_PENDING}",
                self._config,
                time.time(),
            )[0][0]
        )

    def pending_videos(self, job: int) -> list[VideoKey]:
        """Return the videos of a job that can be tried now, sorted by speaker and video."""
        rows = self._database.query(
            "select speaker_id, video_id from videos "  # noqa: S608  # a constant
            f"where config = ? and job = ? and {_IS_PENDING} order by speaker_id, video_id",
            self._config,
            job,
            time.time(),
        )
        return list(map(VideoKey._make, rows))

    def due(
        self, *, statuses: Iterable[Status] | None = None, after_a_wait: bool = False
    ) -> list[VideoKey]:
        """Return the videos of sealed jobs whose retry is due, sorted.

        Args:
            statuses: only those of these classes; ``None`` means of all.
            after_a_wait: only those with a back-off since their last attempt: a run that retried
                the others again and again would never end.
        """
        classes = None if statuses is None else json.dumps([*statuses])
        rows = self._database.query(
            "select speaker_id, video_id from videos join jobs using (config, job) "
            "where config = ? and next_at <= ? and shard is not null "
            "and (next_at > updated_at or not ?) "
            "and (? is null or status in (select value from json_each(?))) "
            "order by speaker_id, video_id",
            self._config,
            time.time(),
            after_a_wait,
            classes,
            classes,
        )
        return list(map(VideoKey._make, rows))

    def waiting(self) -> tuple[int, float | None]:
        """Return how many videos will be retried, and the Unix time of the first retry."""
        ((count, first),) = self._database.query(
            "select count(*), min(next_at) from videos where config = ? and next_at is not null",
            self._config,
        )
        return count, first

    def reset_for_retry(self, statuses: Iterable[Status]) -> int:
        """Make the videos of some classes due at once, with no tries counted; return how many."""
        statuses = [status for status in statuses if self._has_videos(status)]
        if not statuses:
            return 0  # writing nothing would still migrate the file
        with self._database.transaction() as connection:
            return sum(
                connection.execute(
                    "update videos set next_at = 0, tries = 0 where config = ? and status = ?",
                    (self._config, status),
                ).rowcount
                for status in statuses
            )

    def _has_videos(self, status: Status) -> bool:
        sql = "select 1 from videos where config = ? and status = ? limit 1"
        return bool(self._database.query(sql, self._config, status))

    def job_videos(self, job: int) -> list[tuple[VideoKey, str]]:
        """Return the videos of a job with their status, sorted by speaker and video."""
        rows = self._database.query(
            "select speaker_id, video_id, status from videos where config = ? and job = ? "
            "order by speaker_id, video_id",
            self._config,
            job,
        )
        return [(VideoKey(speaker_id, video_id), status) for speaker_id, video_id, status in rows]

    # -- Outcomes ----------------------------------------------------------------------------------

    def record(self, outcome: Outcome, *, is_settled: bool = True) -> Status | None:
        """Write the outcome of a video.

        Args:
            outcome: what happened.
            is_settled: this run does not try it again. Otherwise it remains pending.

        Returns:
            The class that it has now, or ``None`` if the video is not in the ledger.
        """
        now = time.time()
        with self._database.transaction() as connection:
            row = connection.execute(
                f"select attempts, tries, ambiguous_since from videos where {_IS_VIDEO}",  # noqa: S608  # a constant
                (self._config, *outcome.key),
            ).fetchone()
            if row is None:
                return None
            attempts, tries, since = row
            tries += is_settled
            decision = RetryDecision(outcome.status, now)
            if is_settled:
                decision = next_attempt(
                    outcome.key, outcome.status, tries=tries, ambiguous_since=since, now=now
                )
            values = {**_values(outcome), "config": self._config, "now": now}
            values |= {"attempt": attempts + 1, "tries": tries}
            connection.execute(_ADD_ATTEMPT, values)
            # Another outcome in between restarts the wait.
            values["since"] = (since or now) if outcome.status == "ambiguous" else None
            connection.execute(_UPDATE_VIDEO, values | decision._asdict())
            self._replace_missing(connection, outcome)
            return decision.status

    def _replace_missing(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        self._drop_missing(connection, outcome.key)
        connection.executemany(
            "insert into missing values (?, ?, ?, ?, ?)",
            ((self._config, *outcome.key, *missing) for missing in outcome.missing),
        )

    def _drop_missing(self, connection: sqlite3.Connection, key: VideoKey) -> None:
        connection.execute(
            f"delete from missing where {_IS_VIDEO}",  # noqa: S608  # a constant
            (self._config, *key),
        )

    def seal(self, shard: SealedShard) -> None:
        """Write that a job is sealed. A shard without rows has no file and no name."""
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set shard = ?, sha256 = ?, rows = ?, bytes = ? "
                "where config = ? and job = ?",
                (shard.name, shard.sha256, shard.rows, shard.size_bytes, self._config, shard.job),
            )

    def shards(self) -> list[SealedShard]:
        """Return the sealed shards that have rows, in order."""
        rows = self._database.query(
            "select job, shard, sha256, rows, bytes from jobs "
            "where config = ? and shard <> '' order by job",
            self._config,
        )
        return [SealedShard(*row) for row in rows]


def _values(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome by the names in the statements that write it."""
    return {
        **outcome.key._asdict(),
        "status": outcome.status,
        "reason": outcome.reason,
        "route": outcome.route,
        "clips": outcome.clips,
        "samples": outcome.samples,
        "bytes": outcome.bytes_fetched,
        "seconds": outcome.seconds_taken,
        "digest": outcome.digest,
        "facts": json.dumps(outcome.facts.as_dict()),
    }
