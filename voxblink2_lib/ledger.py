"""What happened to each video: one SQLite file in the store.

Only the process that holds the store's lock writes; anyone may read. The ledger may lag behind
the files by what was in flight when a run was killed, never run ahead of them: clips are in
their part file before the row says so.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from voxblink2_lib.errors import StoreError, StoreFullError
from voxblink2_lib.records import Outcome, SealedShard, VideoKey

_FORMAT = "1"
_SCHEMA = """
create table if not exists facts (
    name text primary key, value text not null) without rowid;
create table if not exists jobs (
    config text not null, job integer not null,
    shard text,               -- null until sealed; '' when no video of the job came
    sha256 text, rows integer, bytes integer,
    primary key (config, job)) without rowid;
create table if not exists videos (
    config text not null, speaker_id text not null, video_id text not null,
    job integer not null,     -- the last job that this video was given to
    status text not null,     -- planned, done, failed, unusable
    reason text not null default '',
    attempts integer not null default 0,
    clips integer not null default 0, samples integer not null default 0,
    bytes_fetched integer not null default 0, seconds_taken real not null default 0,
    digest integer not null default 0,   -- of the annotations that the clips were cut by
    updated_at real,
    primary key (config, speaker_id, video_id)) without rowid;
create index if not exists videos_by_job on videos (config, job);
create table if not exists missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
"""


def _named(error: sqlite3.Error, path: Path) -> StoreError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"No space is left for the ledger {path}. Everything finished is kept: free some "
            "space and run the same command again."
        )
    return StoreError(f"The ledger {path} cannot be used: {error}.")


_KNOWN = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("status", pa.string()),
        ("open", pa.bool_()),
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
        StoreError: the file is no ledger of ours, or of another version.
    """

    def __init__(self, path: Path, config: str, *, readonly: bool = False) -> None:
        self._config = config
        self._path = path
        address = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rwc'}"
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
                raise _named(error, path) from error
            raise

    def _prepare(self, path: Path, *, readonly: bool) -> None:
        if not readonly:
            self._database.execute("pragma journal_mode = wal")
            # The part files are the truth; losing the last rows in a power cut costs nothing,
            # since the next run finds the parts.
            self._database.execute("pragma synchronous = normal")
            self._database.executescript(_SCHEMA)
        found = self.fact("format")
        if found is None and not readonly:
            self.set_fact("format", _FORMAT)
        elif found != _FORMAT:
            raise StoreError(
                f"The ledger {path} has format {found}, this version reads format {_FORMAT}. "
                "Use the version of voxblink2 that made the store, or another store."
            )

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
                raise _named(error, self._path) from error
            raise

    def _query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, values).fetchall()

    def fact(self, name: str) -> str | None:
        """Return a fact about the store, or ``None``."""
        rows = self._query("select value from facts where name = ?", name)
        return rows[0][0] if rows else None

    def set_fact(self, name: str, value: str) -> None:
        """Write a fact about the store."""
        with self._transaction() as database:
            database.execute("insert or replace into facts values (?, ?)", (name, value))

    # -- planning -----------------------------------------------------------------------------

    def known(self) -> pa.Table:
        """Return every known video, with ``status``, ``open`` and ``digest``.

        ``open`` says that the video's job is not sealed yet, ``digest`` which annotations the
        clips were cut by.
        """
        rows = self._database.execute(
            "select speaker_id, video_id, status, shard is null, digest from videos join jobs "
            "using (config, job) where config = ?",
            (self._config,),
        )
        batches = []
        while chunk := rows.fetchmany(65_536):
            speakers, videos, statuses, is_open, digests = zip(*chunk, strict=True)
            columns = [pa.array(one, pa.string()) for one in (speakers, videos, statuses)]
            columns += [pa.array(map(bool, is_open), pa.bool_()), pa.array(digests, pa.int64())]
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
                    "job = excluded.job, status = 'planned'",
                    ((self._config, *key, number) for key in keys),
                )

    def drop(self, keys: Iterable[VideoKey]) -> None:
        """Forget videos that are no longer wanted and never came."""
        with self._transaction() as database:
            database.executemany(
                "delete from videos where config = ? and speaker_id = ? and video_id = ? "
                "and status <> 'done'",
                ((self._config, *key) for key in keys),
            )
            database.execute(
                "delete from missing where (config, speaker_id, video_id) not in "
                "(select config, speaker_id, video_id from videos)"
            )

    def open_jobs(self) -> list[int]:
        """Return the numbers of jobs that are not sealed, in order."""
        rows = self._query(
            "select job from jobs where config = ? and shard is null order by job", self._config
        )
        return [job for (job,) in rows]

    def unfinished(self) -> int:
        """Return the number of videos of open jobs that are not done."""
        return int(
            self._query(
                "select count(*) from videos join jobs using (config, job) "
                "where config = ? and shard is null and status <> 'done'",
                self._config,
            )[0][0]
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

    def record(self, outcome: Outcome) -> None:
        """Write the outcome of a video."""
        with self._transaction() as database:
            updated = database.execute(
                "update videos set status = ?, reason = ?, attempts = attempts + 1, clips = ?, "
                "samples = ?, bytes_fetched = bytes_fetched + ?, seconds_taken = ?, digest = ?, "
                "updated_at = ? "
                "where config = ? and speaker_id = ? and video_id = ?",
                (
                    outcome.status,
                    outcome.reason,
                    outcome.clips,
                    outcome.samples,
                    outcome.bytes_fetched,
                    outcome.seconds_taken,
                    outcome.digest,
                    time.time(),
                    self._config,
                    *outcome.key,
                ),
            )
            if not updated.rowcount:
                return
            database.execute(
                "delete from missing where config = ? and speaker_id = ? and video_id = ?",
                (self._config, *outcome.key),
            )
            database.executemany(
                "insert into missing values (?, ?, ?, ?, ?)",
                ((self._config, *outcome.key, *missing) for missing in outcome.missing),
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

    def counts(self) -> dict[str, int]:
        """Return the number of videos by status."""
        return dict(
            self._query(
                "select status, count(*) from videos where config = ? group by status", self._config
            )
        )

    def totals(self) -> tuple[int, int, int]:
        """Return clips, samples and bytes fetched, over all videos."""
        (row,) = self._query(
            "select coalesce(sum(clips), 0), coalesce(sum(samples), 0), "
            "coalesce(sum(bytes_fetched), 0) from videos where config = ?",
            self._config,
        )
        return row[0], row[1], row[2]

    def speakers(self) -> Iterator[tuple[str, int, int]]:
        """Yield each speaker with the numbers of planned and of done videos."""
        yield from self._database.execute(
            "select speaker_id, count(*), sum(status = 'done') from videos "
            "where config = ? group by speaker_id",
            (self._config,),
        )

    def problems(self) -> Iterator[tuple[VideoKey, str, str, int]]:
        """Yield each video that did not come: its key, status, reason and attempts."""
        for speaker_id, video_id, *rest in self._database.execute(
            "select speaker_id, video_id, status, reason, attempts from videos "
            "where config = ? and status in ('failed', 'unusable') order by speaker_id, video_id",
            (self._config,),
        ):
            yield VideoKey(speaker_id, video_id), *rest

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
