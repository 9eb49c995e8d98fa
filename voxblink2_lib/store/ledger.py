"""What happened to each video of a store: what a run writes and reads.

Only the process that has the store's lock writes; anyone may read. The ledger may lag behind the
files by what was in flight when a run was killed, and is never ahead of them: clips are in their
part file before the row is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import pyarrow as pa

from voxblink2_lib.outcomes import GREATEST_WAIT_SECONDS, Outcome
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.cut_jobs import CutJobs, split_in
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_outcomes import LedgerOutcomes
from voxblink2_lib.store.ledger_purge import LedgerPurge
from voxblink2_lib.store.ledger_schema import BY_JOB, STORE_ID, WITHOUT_FACTS
from voxblink2_lib.store.ledger_search import LedgerSearch
from voxblink2_lib.store.ledger_statistics import LedgerStatistics
from voxblink2_lib.store.ledger_videos import LedgerVideos
from voxblink2_lib.store.many_videos import add_videos, videos_added
from voxblink2_lib.store.reopened import ReopenedJobs, fact_of_job
from voxblink2_lib.store.stale_outcomes import (
    mark_first_stale,
    mark_former_stale,
    mark_stale,
    mark_video_stale,
)
from voxblink2_lib.store.tail import FIRST_RETRY_JOB, JobKind, RecoveredShards, next_job
from voxblink2_lib.store.verdicts import Verdicts
from voxblink2_lib.store.video_rows import VideosFromElsewhere

_LAST_CONFIG = "last_config"
# Excluded videos belong to no job.
_NO_JOB = -1
_ROWS_PER_BATCH = 65_536
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_PLANNED_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("status", pa.string()),
        ("digest", pa.int64()),
        ("is_open", pa.bool_()),
    ]
)


class Ledger:
    """The ledger of one configuration.

    Args:
        path: the SQLite file.
        config: name of the configuration.
        readonly: open only for reading; the file must exist.
        is_copy: nobody writes to it any more.

    Raises:
        StoreError: the file is not a ledger, has another format, or cannot be created.
    """

    def __init__(
        self, path: Path, config: str, *, readonly: bool = False, is_copy: bool = False
    ) -> None:
        self._config = config
        self._database = LedgerDatabase.open(path, readonly=readonly, is_copy=is_copy)

    @property
    def config(self) -> str:
        """Name of the configuration."""
        return self._config

    @property
    def is_of_earlier_version(self) -> bool:
        """Whether version 0.1 can still open the file."""
        return self._database.fact("format") == WITHOUT_FACTS

    @property
    def store_id(self) -> str:
        """Which store it is of, in hexadecimal digits; empty of one made before there were ids."""
        return self._database.fact(STORE_ID) or ""

    @property
    def statistics(self) -> LedgerStatistics:
        """Counts and rates of the whole corpus."""
        return LedgerStatistics(self._database, self._config)

    @property
    def search(self) -> LedgerSearch:
        """Finds videos, for people who look."""
        return LedgerSearch(self._database, self._config)

    @property
    def recovered(self) -> RecoveredShards:
        """Shards of videos that came back in retries."""
        return RecoveredShards(self._database, self._config)

    @property
    def cut(self) -> CutJobs:
        """Jobs that were cut from an archive, and the archive."""
        return CutJobs(self._database, self._config)

    @contextmanager
    def together(self, *, new_videos: int = 0) -> Iterator[None]:
        """Write all that the body writes at once, or nothing of it if the body raises.

        Args:
            new_videos: how many it adds, of which there may be millions.
        """
        with self._database.transaction() as connection, videos_added(connection, new_videos):
            yield

    @property
    def reopened(self) -> ReopenedJobs:
        """Jobs that are open again since their shard was damaged."""
        return ReopenedJobs(self._database, self._config)

    @property
    def videos(self) -> LedgerVideos:
        """All videos, one after the other."""
        return LedgerVideos(self._database, self._config)

    @property
    def purge(self) -> LedgerPurge:
        """How rows are taken out of it, of all configurations."""
        return LedgerPurge(self._database)

    @property
    def elsewhere(self) -> VideosFromElsewhere:
        """How it takes what other machines found out."""
        return VideosFromElsewhere(self._database, self._config)

    def problem(self) -> str:
        """Return what SQLite finds wrong with the whole file; an empty text if nothing."""
        return self._database.problem()

    def configs(self) -> list[str]:
        """Return all configurations that have jobs or videos, sorted."""
        return self._database.configs()

    @property
    def outcomes(self) -> LedgerOutcomes:
        """What belongs into the files beside the shards."""
        return LedgerOutcomes(self._database, self._config)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setting(self, name: str, *, config: str | None = None) -> str | None:
        """Return the value of a setting of this configuration, or of another one, or ``None``."""
        return self._database.fact(f"{config or self._config}.{name}")

    def set_setting(self, name: str, value: str) -> None:
        """Store the value of a setting of this configuration."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into facts values (?, ?)", (f"{self._config}.{name}", value)
            )
            mark_first_stale(connection, self._config)

    def last_config(self) -> str | None:
        """Return the configuration of the store's last run; of a store of old, its only one."""
        if config := self._database.fact(_LAST_CONFIG):
            return config
        configs = self._database.query("select distinct config from jobs")
        return str(configs[0][0]) if len(configs) == 1 else None

    def set_last_config(self) -> None:
        """Store that the last run was of this configuration."""
        if self._database.fact(_LAST_CONFIG) != self._config:
            with self._database.transaction() as connection:
                connection.execute(
                    "insert or replace into facts values (?, ?)", (_LAST_CONFIG, self._config)
                )
                # The newest file of outcomes is then one of this configuration.
                mark_first_stale(connection, self._config)

    def verdicts(self, source: str) -> Verdicts:
        """Return what a source answered.

        Args:
            source: its name, without secrets.
        """
        return Verdicts(self._database, self._config, source)

    # -- Planning ----------------------------------------------------------------------------------

    def planned_videos(self) -> pa.Table:
        """Return every planned video, with ``status``, ``digest`` and ``is_open``.

        ``digest`` identifies the annotations that the clips were cropped by; a video is open while
        its job is not sealed.
        """
        rows = self._database.rows(
            "select speaker_id, video_id, status, digest, job in (select job from jobs "
            "where config = ? and shard is null) from videos "
            "where config = ? and status <> 'excluded'",
            self._config,
            self._config,
        )
        batches = []
        while chunk := list(islice(rows, _ROWS_PER_BATCH)):
            columns = zip(zip(*chunk, strict=True), _PLANNED_COLUMNS, strict=True)
            # SQLite has no truth values, only numbers.
            arrays = [pa.array(values).cast(field.type) for values, field in columns]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=_PLANNED_COLUMNS))
        return pa.Table.from_batches(batches, schema=_PLANNED_COLUMNS)

    def add_jobs(
        self, jobs: Iterable[Iterable[VideoKey]], *, kind: JobKind = "planned"
    ) -> list[int]:
        """Assign videos to new jobs, all or none of them; what is known of them is kept.

        Returns:
            The numbers of the jobs.
        """
        numbers = []
        with self._database.transaction() as connection:
            first = next_job(connection, self._config, kind)
            for number, videos in zip(count(first, self.recovered.step()), jobs, strict=False):
                numbers.append(number)
                connection.execute(
                    "insert into jobs (config, job, kind) values (?, ?, ?)",
                    (self._config, number, kind),
                )
                mark_stale(connection, self._config, number)
                keys = list(videos)
                if kind == "retry":
                    # Nothing may be left of the retry before; its first job is another matter.
                    for key in keys:
                        mark_video_stale(connection, self._config, key, least_job=FIRST_RETRY_JOB)
                add_videos(connection, self._config, number, "planned", keys)
        return numbers

    def drop(self, keys: Iterable[VideoKey]) -> None:
        """Remove videos that are no longer selected and have no clips in the store."""
        has_moved = False
        with self._database.transaction() as connection:
            for key in keys:
                dropped = connection.execute(
                    f"delete from videos where {_IS_VIDEO} and status <> 'done' returning job",  # noqa: S608  # a constant
                    (self._config, *key),
                ).fetchall()
                if not dropped:
                    continue
                ((job,),) = dropped
                mark_stale(connection, self._config, job)
                has_moved |= job >= FIRST_RETRY_JOB
                for table in ("missing", "verdicts"):
                    connection.execute(
                        f"delete from {table} where {_IS_VIDEO}",  # noqa: S608  # constants
                        (self._config, *key),
                    )
            if has_moved:
                mark_former_stale(connection, self._config)

    def exclude(self, keys: Iterable[VideoKey]) -> None:
        """Write which videos the user excludes, in place of those excluded before.

        What is known of a video stays: of one with clips, or with an answer.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "delete from videos where config = ? and status = 'excluded'", (self._config,)
            )
            add_videos(connection, self._config, _NO_JOB, "excluded", keys)

    def jobs(self) -> list[int]:
        """Return the numbers of all jobs, in order."""
        rows = self._database.query(
            "select job from jobs where config = ? order by job", self._config
        )
        return [job for (job,) in rows]

    def open_jobs(self) -> list[int]:
        """Return the numbers of jobs that are not sealed, in order."""
        rows = self._database.query(
            "select job from jobs where config = ? and shard is null order by job", self._config
        )
        return [job for (job,) in rows]

    def sealed_jobs(self) -> list[int]:
        """Return the numbers of jobs that are sealed, with or without a shard, in order."""
        rows = self._database.query(
            "select job from jobs where config = ? and shard is not null order by job", self._config
        )
        return [job for (job,) in rows]

    def waiting(self) -> tuple[int, float | None]:
        """Return how many videos will be retried, and the Unix time of the first retry."""
        ((count, first),) = self._database.query(
            "select count(*), min(next_at) from videos where config = ? and next_at is not null",
            self._config,
        )
        # A time beyond the greatest wait is of a clock that was wrong: such videos are due.
        now = time.time()
        return count, now if first and first > now + GREATEST_WAIT_SECONDS else first

    def job_videos(self, job: int) -> list[tuple[VideoKey, str]]:
        """Return the videos of a job with their status, sorted by speaker and video.

        Also those that have clips in it and are in a later job, see
        :mod:`~voxblink2_lib.store.cut_jobs`.
        """
        rows = self._database.query(
            f"select speaker_id, video_id, status from videos {BY_JOB} "  # noqa: S608  # a constant
            "where config = ? and job = ? order by speaker_id, video_id",
            self._config,
            job,
        )
        videos = [(VideoKey(speaker_id, video_id), status) for speaker_id, video_id, status in rows]
        split = [(key, "done") for key in split_in(self._database, self._config, job)]
        return sorted(videos + split) if split else videos

    # -- Shards ------------------------------------------------------------------------------------

    def seal(self, shard: SealedShard) -> None:
        """Write that a job is sealed. A shard without rows has no file and no name."""
        with self._database.transaction() as connection:
            connection.execute(
                "update jobs set shard = ?, sha256 = ?, rows = ?, bytes = ? "
                "where config = ? and job = ?",
                (shard.name, shard.sha256, shard.rows, shard.size_bytes, self._config, shard.job),
            )
            connection.execute(
                "delete from facts where name = ?", (fact_of_job(self._config, shard.job),)
            )
            mark_first_stale(connection, self._config)
            mark_stale(connection, self._config, shard.job)

    def adopt(self, shard: SealedShard, outcomes: Iterable[Outcome]) -> None:
        """Write at once that a shard is sealed that was not known, and what it has of its videos.

        Args:
            shard: what is on disk.
            outcomes: of its videos, all of which are done.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "insert into jobs (config, job, shard, sha256, rows, bytes) "
                "values (?, ?, ?, ?, ?, ?)",
                (self._config, shard.job, shard.name, shard.sha256, shard.rows, shard.size_bytes),
            )
            mark_stale(connection, self._config, shard.job)
            for outcome in outcomes:
                mark_video_stale(connection, self._config, outcome.key)
                connection.execute(
                    "insert or replace into videos (config, speaker_id, video_id, job, status, "
                    "clips, samples, digest) values (?, ?, ?, ?, 'done', ?, ?, ?)",
                    (
                        self._config,
                        *outcome.key,
                        shard.job,
                        outcome.clips,
                        outcome.samples,
                        outcome.digest,
                    ),
                )
                connection.execute(
                    f"delete from missing where {_IS_VIDEO}",  # noqa: S608  # a constant
                    (self._config, *outcome.key),
                )
                connection.executemany(
                    "insert into missing values (?, ?, ?, ?, ?)",
                    ((self._config, *outcome.key, *missing) for missing in outcome.missing),
                )

    def shards(self) -> list[SealedShard]:
        """Return the sealed shards that have rows, in order."""
        rows = self._database.query(
            "select job, shard, sha256, rows, bytes from jobs "
            "where config = ? and shard <> '' order by job",
            self._config,
        )
        return [SealedShard(*row) for row in rows]
