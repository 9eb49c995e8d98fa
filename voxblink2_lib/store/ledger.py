"""What happened to each video: one SQLite file in the store.

Only the process that holds the store's lock writes; anyone may read. The ledger may lag behind
the files by what was in flight when a run was killed, never run ahead of them: clips are in
their part file before the row says so.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from voxblink2_lib.errors import StoreError
from voxblink2_lib.outcomes import Outcome, Status, next_attempt
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.ledger_database import (
    FORMAT,
    MIGRATE_1_TO_2,
    SCHEMA,
    as_store_error,
    make_ledger,
)
from voxblink2_lib.store.ledger_statistics import LedgerStatistics

# Excluded videos belong to no job.
_NO_JOB = -1
_TO_DO = "(status = 'planned' or next_at <= ?)"
_KNOWN = pa.schema(
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
        readonly: open only for reading; the file must be there.

    Raises:
        StoreError: the file is no ledger of ours, or of another version, or cannot be made.
    """

    def __init__(self, path: Path, config: str, *, readonly: bool = False) -> None:
        self._config = config
        self._path = path
        if not readonly and not (path.exists() and path.stat().st_size):
            make_ledger(path)
        address = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rw'}"
        if readonly and not os.access(path.parent, os.W_OK):
            # SQLite wants to write beside a file in WAL mode even to read it. Who may not write
            # there can read it as it is, unless a writer has rows outside of it just now.
            waiting = Path(f"{path}-wal")
            if not waiting.exists() or not waiting.stat().st_size:
                address += "&immutable=1"
        try:
            self._database = sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreError(f"The ledger {path} cannot be opened: {error}.") from error
        try:
            self._prepare(path, readonly=readonly)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise as_store_error(error, path) from error
            raise

    def _prepare(self, path: Path, *, readonly: bool) -> None:
        if not readonly:
            # A new one has it; one that was copied with SQLite's tools may not.
            self._database.execute("pragma journal_mode = wal")
            # The part files are the truth; losing the last rows in a power cut costs nothing,
            # since the next run finds the parts.
            self._database.execute("pragma synchronous = normal")
            if self._fact("format") == "1":
                self._database.executescript(MIGRATE_1_TO_2)
            self._database.executescript(SCHEMA)
        found = self._fact("format")
        if found == "1":
            raise StoreError(
                f"The ledger {path} is of an earlier version. Run 'voxblink2 materialize' on the "
                "store once to bring it up to date; nothing in it is lost."
            )
        if found != FORMAT:
            raise StoreError(
                f"The ledger {path} has format {found}, this version reads format {FORMAT}. "
                "Use the version of voxblink2 that made the store, or another store."
            )

    @property
    def statistics(self) -> LedgerStatistics:
        """What it says of the corpus as a whole."""
        return LedgerStatistics(self._database, self._config)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._database.execute("begin immediate")
            yield self._database
            self._database.execute("commit")
        except BaseException as error:
            if self._database.in_transaction:
                self._database.execute("rollback")
            if isinstance(error, sqlite3.Error):
                raise as_store_error(error, self._path) from error
            raise

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, values).fetchall()

    def setting(self, name: str) -> str | None:
        """Return what is kept under a name for this configuration, or ``None``."""
        return self._fact(f"{self._config}.{name}")

    def set_setting(self, name: str, value: str) -> None:
        """Keep a text under a name for this configuration."""
        with self._transaction() as database:
            database.execute(
                "insert or replace into facts values (?, ?)", (f"{self._config}.{name}", value)
            )

    def _fact(self, name: str) -> str | None:
        rows = self._query("select value from facts where name = ?", name)
        return rows[0][0] if rows else None

    # -- planning -----------------------------------------------------------------------------

    def planned_videos(self) -> pa.Table:
        """Return every planned video, with ``status`` and ``digest``.

        ``digest`` says which annotations the clips were cut by.
        """
        rows = self._database.execute(
            "select speaker_id, video_id, status, digest from videos "
            "where config = ? and status <> 'excluded'",
            (self._config,),
        )
        batches = []
        while chunk := rows.fetchmany(65_536):
            *texts, digests = zip(*chunk, strict=True)
            columns = [pa.array(one, pa.string()) for one in texts]
            columns += [pa.array(digests, pa.int64())]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=_KNOWN))
        return pa.Table.from_batches(batches, schema=_KNOWN)

    def add_jobs(self, jobs: Iterable[Iterable[VideoKey]]) -> None:
        """Give videos to new jobs, all or none of them."""
        with self._transaction() as database:
            (last,) = database.execute(
                "select coalesce(max(job), -1) from jobs where config = ?", (self._config,)
            ).fetchone()
            for number, keys in enumerate(jobs, start=last + 1):
                database.execute(
                    "insert into jobs (config, job) values (?, ?)", (self._config, number)
                )
                database.executemany(
                    "insert into videos (config, speaker_id, video_id, job, status) "
                    "values (?, ?, ?, ?, 'planned') on conflict do update set "
                    "job = excluded.job, status = 'planned', next_at = null",
                    ((self._config, *key, number) for key in keys),
                )

    def drop(self, keys: Iterable[VideoKey]) -> None:
        """Forget videos that are no longer wanted and never came."""
        with self._transaction() as database:
            for key in keys:
                one = (self._config, *key)
                dropped = database.execute(
                    "delete from videos where config = ? and speaker_id = ? and video_id = ? "
                    "and status <> 'done'",
                    one,
                )
                if dropped.rowcount:
                    database.execute(
                        "delete from missing where config = ? and speaker_id = ? and video_id = ?",
                        one,
                    )

    def exclude(self, keys: Iterable[VideoKey]) -> None:
        """Write which videos the user leaves out; those of before are forgotten."""
        with self._transaction() as database:
            database.execute(
                "delete from videos where config = ? and status = 'excluded'", (self._config,)
            )
            database.executemany(
                "insert into videos (config, speaker_id, video_id, job, status) "
                "values (?, ?, ?, ?, 'excluded')",
                ((self._config, *key, _NO_JOB) for key in keys),
            )

    def open_jobs(self) -> list[int]:
        """Return the numbers of jobs that are not sealed, in order."""
        rows = self._query(
            "select job from jobs where config = ? and shard is null order by job", self._config
        )
        return [job for (job,) in rows]

    def count_pending(self) -> int:
        """Return the number of videos of open jobs that are to be tried now."""
        return int(
            self._query(
                "select count(*) from jobs join videos using (config, job) "  # noqa: S608  # our own words
                f"where config = ? and shard is null and {_TO_DO}",
                self._config,
                time.time(),
            )[0][0]
        )

    def pending_videos(self, job: int) -> list[VideoKey]:
        """Return the videos of a job that are to be tried now, sorted by speaker and video."""
        rows = self._query(
            "select speaker_id, video_id from videos "  # noqa: S608  # our own words
            f"where config = ? and job = ? and {_TO_DO} order by speaker_id, video_id",
            self._config,
            job,
            time.time(),
        )
        return list(map(VideoKey._make, rows))

    def due(
        self, *, statuses: Iterable[Status] | None = None, after_a_wait: bool = False
    ) -> list[VideoKey]:
        """Return the videos of sealed jobs that may be asked for again by now, sorted.

        Args:
            statuses: only those of these classes; ``None`` means of all.
            after_a_wait: only those that had to wait since they were tried last: a run that
                asked for the others again and again would never end.
        """
        wanted = None if statuses is None else json.dumps([*statuses])
        rows = self._query(
            "select speaker_id, video_id from videos join jobs using (config, job) "
            "where config = ? and next_at <= ? and shard is not null "
            "and (next_at > updated_at or not ?) "
            "and (? is null or status in (select value from json_each(?))) "
            "order by speaker_id, video_id",
            self._config,
            time.time(),
            after_a_wait,
            wanted,
            wanted,
        )
        return list(map(VideoKey._make, rows))

    def waiting(self) -> tuple[int, float | None]:
        """Return how many videos will be asked for again, and the Unix time of the first."""
        ((count, first),) = self._query(
            "select count(*), min(next_at) from videos where config = ? and next_at is not null",
            self._config,
        )
        return count, first

    def reset_for_retry(self, statuses: Iterable[Status]) -> int:
        """Let the videos of some classes be asked for again at once; return how many they are."""
        with self._transaction() as database:
            return sum(
                database.execute(
                    "update videos set next_at = 0, tries = 0 where config = ? and status = ?",
                    (self._config, status),
                ).rowcount
                for status in statuses
            )

    def job_videos(self, job: int) -> list[tuple[VideoKey, str]]:
        """Return the videos of a job with their status, sorted by speaker and video."""
        rows = self._query(
            "select speaker_id, video_id, status from videos where config = ? and job = ? "
            "order by speaker_id, video_id",
            self._config,
            job,
        )
        return [(VideoKey(speaker_id, video_id), status) for speaker_id, video_id, status in rows]

    # -- what happened ------------------------------------------------------------------------

    def record(self, outcome: Outcome, *, is_settled: bool = True) -> Status | None:
        """Write the outcome of a video.

        Args:
            outcome: what happened.
            is_settled: this run will not try it again. Otherwise it stays to be tried at once.

        Returns:
            The class that it has now, or ``None`` if the ledger does not know the video.
        """
        now = time.time()
        with self._transaction() as database:
            before = database.execute(
                "select attempts, tries, ambiguous_since from videos "
                "where config = ? and speaker_id = ? and video_id = ?",
                (self._config, *outcome.key),
            ).fetchone()
            if before is None:
                return None
            attempts, tries, since = before
            tries += is_settled
            status, next_at = outcome.status, now
            if is_settled:
                status, next_at = next_attempt(  # type: ignore[assignment]  # no time means never
                    outcome.key, status, tries=tries, ambiguous_since=since, now=now
                )
            # Another answer in between begins the waiting anew.
            since = (since or now) if outcome.status == "ambiguous" else None
            database.execute(
                "update videos set status = ?, reason = ?, attempts = ?, tries = ?, next_at = ?, "
                "ambiguous_since = ?, clips = ?, samples = ?, bytes_fetched = bytes_fetched + ?, "
                "seconds_taken = ?, digest = ?, updated_at = ? "
                "where config = ? and speaker_id = ? and video_id = ?",
                (
                    *(status, outcome.reason, attempts + 1, tries, next_at, since),
                    *(outcome.clips, outcome.samples, outcome.bytes_fetched),
                    *(outcome.seconds_taken, outcome.digest, now, self._config, *outcome.key),
                ),
            )
            self._log(database, outcome, attempts + 1, now)
            return status

    def _log(
        self, database: sqlite3.Connection, outcome: Outcome, attempt: int, now: float
    ) -> None:
        key = (self._config, *outcome.key)
        database.execute(
            "insert or replace into attempts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(*key, attempt, now, outcome.status, outcome.reason, outcome.route),
                *(outcome.bytes_fetched, outcome.seconds_taken),
            ),
        )
        database.execute(
            "delete from missing where config = ? and speaker_id = ? and video_id = ?", key
        )
        database.executemany(
            "insert into missing values (?, ?, ?, ?, ?)",
            ((*key, *missing) for missing in outcome.missing),
        )

    def seal(self, shard: SealedShard) -> None:
        """Write that a job is done. A shard without rows has no file and no name."""
        with self._transaction() as database:
            database.execute(
                "update jobs set shard = ?, sha256 = ?, rows = ?, bytes = ? "
                "where config = ? and job = ?",
                (shard.name, shard.sha256, shard.rows, shard.size_bytes, self._config, shard.job),
            )

    # -- what there is ------------------------------------------------------------------------

    def shards(self) -> list[SealedShard]:
        """Return the sealed shards that have rows, in order."""
        rows = self._query(
            "select job, shard, sha256, rows, bytes from jobs "
            "where config = ? and shard <> '' order by job",
            self._config,
        )
        return [SealedShard(*row) for row in rows]

    def missing_utterances(self) -> int:
        """Return how many utterances could not be cut although their video came."""
        return int(self._query("select count(*) from missing where config = ?", self._config)[0][0])

    def missing_names(self, job: int) -> set[str]:
        """Return the ``speaker/video/utterance`` names of a job that could not be cut."""
        rows = self._query(
            "select speaker_id, video_id, utterance_id from missing "
            "join videos using (config, speaker_id, video_id) where config = ? and job = ?",
            self._config,
            job,
        )
        return {"/".join(row) for row in rows}
