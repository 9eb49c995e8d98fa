"""One ledger of several: of the slices of a corpus, or of stores that are merged.

Of a video that several have, the rows of one are kept, all of them: clips win over failures, then
the most clips, then any answer over none, then the ledger that is named first. A job keeps its
number, unless a job of a ledger before has it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.ledger_database import as_store_error, make_ledger
from voxblink2_lib.store.ledger_schema import SCHEMA, VIDEO_INDEXES
from voxblink2_lib.store.stale_outcomes import mark_stale
from voxblink2_lib.store.tail import FIRST_RETRY_JOB, JobKind

# Of excluded videos; and of those whose job the ledger does not have.
_NO_JOB, _LOST_JOB = -1, -2
_KEY = "config, speaker_id, video_id"
_OWNERS = f"""
create temp table owners (
    config text not null, speaker_id text not null, video_id text not null,
    part integer not null, is_done integer not null, clips integer not null,
    is_answered integer not null, primary key ({_KEY})) without rowid
"""
_ADD_OWNERS = f"""
insert into owners
select {_KEY}, ?, status = 'done', clips, status not in ('planned', 'excluded')
from part.videos where true
on conflict do update set part = excluded.part, is_done = excluded.is_done,
    clips = excluded.clips, is_answered = excluded.is_answered
where (excluded.is_done, excluded.clips, excluded.is_answered)
    > (owners.is_done, owners.clips, owners.is_answered)
"""  # noqa: S608  # constants
# Of each job: videos, videos that are kept, and both of those that have clips in its shard.
_JOBS = f"""
with own as (
    select v.config, v.job, v.speaker_id, v.video_id, v.status = 'done' as has_clips
    from part.videos v where v.job >= 0
    union all select config, job, speaker_id, video_id, 1 from part.split_videos),
counted as (
    select config, job, sum(part = ?) as kept, sum(has_clips) as with_clips,
        sum(has_clips and part = ?) as kept_with_clips
    from own join owners using ({_KEY}) group by config, job)
select config, job, kind, shard, sha256, rows, bytes, coalesce(kept, 0),
    coalesce(with_clips, 0), coalesce(kept_with_clips, 0)
from part.jobs left join counted using (config, job) order by config, job
"""  # noqa: S608  # constants
_KEPT_KEYS = f"""
select speaker_id, video_id from (
    select {_KEY} from part.videos
    where config = :config and job = :job and (status = 'done' or not :clips)
    union select {_KEY} from part.split_videos where config = :config and job = :job)
join owners using ({_KEY}) where part = :part order by speaker_id, video_id
"""  # noqa: S608  # constants
_VIDEO_COLUMNS = (
    "status, reason, attempts, next_at, clips, samples, bytes_fetched, seconds_taken, digest, "
    "updated_at"
)
_OTHER_INDEXES = ("attempts_by_time", "attempts_with_notes", "verdicts_due", "splits_by_video")
_IS_MINE = (
    "exists (select 1 from owners o where o.part = :part and o.config = t.config "
    "and o.speaker_id = t.speaker_id and o.video_id = t.video_id)"
)
_NUMBERS = (
    "create temp table numbers (config, job, number, primary key (config, job)) without rowid"
)
_NUMBER = "(select number from numbers n where n.config = t.config and n.job = t.job)"
_SOURCE = (
    "(select s.id from sources s join part.sources p on p.name = s.name where p.id = t.source)"
)
_ADD_ROWS = (
    f"insert into videos ({_KEY}, job, {_VIDEO_COLUMNS}) select {_KEY}, "  # noqa: S608  # constants
    f"coalesce({_NUMBER}, iif(job = {_NO_JOB}, {_NO_JOB}, {_LOST_JOB})), {_VIDEO_COLUMNS} "
    f"from part.videos t where {_IS_MINE}",
    f"insert into missing select * from part.missing t where {_IS_MINE}",  # noqa: S608  # constants
    f"insert into attempts select * from part.attempts t where {_IS_MINE}",  # noqa: S608  # constants
    f"insert into split_videos select config, {_NUMBER}, speaker_id, video_id "  # noqa: S608  # constants
    f"from part.split_videos t where {_IS_MINE}",
    "insert or ignore into sources (name) "
    "select name from part.sources where :part >= 0 order by id",
    f"insert into verdicts select {_KEY}, {_SOURCE}, status, reason, tries, next_at, since, address, "  # noqa: S608, E501  # constants
    f"updated_at from part.verdicts t where {_IS_MINE}",
    f"insert into witnesses select {_SOURCE}, address, speaker_id, video_id, at "  # noqa: S608  # constants
    "from part.witnesses t where :part >= 0 on conflict do update set "
    "speaker_id = excluded.speaker_id, video_id = excluded.video_id, at = excluded.at "
    "where excluded.at > witnesses.at",
)
_PROBLEMS = {
    "select count(*) <> (select count(*) from owners) from videos": "videos are lost",
    f"select exists (select 1 from videos where job = {_LOST_JOB})": "videos are in no job",  # noqa: S608  # a constant
    f"select exists (select 1 from videos v join owners o using ({_KEY}) "  # noqa: S608  # constants
    "where v.clips <> o.clips)": "clips are lost",
}


class JoinedJob(NamedTuple):
    """A job of a ledger that is joined to others.

    Attributes:
        part: place of the ledger among them.
        config: the configuration.
        job: its number there.
        number: its number in the joined ledger.
        kind: see :mod:`~voxblink2_lib.store.tail`.
        shard: what it was sealed into; ``None`` while it is open.
        is_whole: all clips of its shard are kept.
        has_clips: some of them are kept.
    """

    part: int
    config: str
    job: int
    number: int
    kind: JobKind
    shard: SealedShard | None
    is_whole: bool
    has_clips: bool


class LedgerJoin:
    """Joins ledgers of the present format, to which nobody writes.

    Args:
        path: of the joined ledger; it must not exist yet.
        parts: the ledgers.
        progress: counts them.

    Raises:
        StoreDamagedError, StoreFullError, StoreError: one cannot be read, or the new one written.
    """

    def __init__(
        self, path: Path, parts: Sequence[Path], *, progress: Progress = no_progress
    ) -> None:
        make_ledger(path)
        self._path = path
        self._parts = parts
        self._progress = progress
        uri = f"{path.resolve().as_uri()}?mode=rw"
        self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        # A draft is flushed when it is whole.
        self._connection.execute("pragma synchronous = off")
        for statement in (_OWNERS, _NUMBERS):
            self._connection.execute(statement)
        self.jobs = list(self._numbered())

    def __enter__(self) -> LedgerJoin:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextmanager
    def _attached(self, part: int) -> Iterator[None]:
        path = self._parts[part]
        try:
            uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
            self._connection.execute("attach ? as part", (uri,))
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                self._connection.execute("detach part")
        except sqlite3.Error as error:
            raise as_store_error(error, path) from error

    # -- What is kept ------------------------------------------------------------------------------

    def _numbered(self) -> Iterator[JoinedJob]:
        """Choose the owner of each video, then the numbers of jobs of which something is kept."""
        total = 2 * len(self._parts)
        with self._progress("Comparing ledgers", unit="ledger", total=total) as advance:
            for part in range(len(self._parts)):
                with self._attached(part):
                    self._connection.execute(_ADD_OWNERS, (part,))
                advance(1)
            rows: list[tuple[Any, ...]] = []
            for part in range(len(self._parts)):
                with self._attached(part):
                    rows += [(part, *row) for row in self._connection.execute(_JOBS, (part, part))]
                advance(1)
        taken: set[tuple[str, int]] = set()
        free = _free_numbers((config, job) for _, config, job, *_ in rows)
        for part, config, job, kind, *shard, kept, with_clips, kept_with_clips in rows:
            if not kept:
                continue
            is_taken = (config, job) in taken
            number = next(free[config, kind == "retry"]) if is_taken else job
            taken.add((config, number))
            entry = None if shard[0] is None else SealedShard(job, *shard)
            is_whole = kept_with_clips == with_clips
            yield JoinedJob(part, config, job, number, kind, entry, is_whole, kept_with_clips > 0)

    def kept_videos(self, job: JoinedJob, *, only_clips: bool = True) -> list[VideoKey]:
        """Return the videos of a job that are kept, sorted.

        Args:
            job: the job.
            only_clips: only those that have clips in it.
        """
        values = {"config": job.config, "job": job.job, "part": job.part, "clips": only_clips}
        with self._attached(job.part):
            rows = self._connection.execute(_KEPT_KEYS, values).fetchall()
        return list(map(VideoKey._make, rows))

    # -- The joined ledger -------------------------------------------------------------------------

    def write(
        self,
        shards: Mapping[tuple[int, str, int], SealedShard],
        *,
        drops: Callable[[str], bool],
    ) -> None:
        """Write all rows at once, and check that nothing is lost.

        Args:
            shards: what has the clips of sealed jobs now, by ledger, configuration and number.
            drops: whether a setting, which is named as in the table ``facts``, is not kept.

        Raises:
            StoreDamagedError: the ledgers contradict themselves.
        """
        # To sort all entries of an index once is faster than to look for the place of each.
        for name in (*VIDEO_INDEXES, *_OTHER_INDEXES):
            self._connection.execute(f"drop index {name}")
        with self._progress("Joining ledgers", unit="ledger", total=len(self._parts)) as advance:
            for part in range(len(self._parts)):
                with self._attached(part):
                    self._connection.execute("begin")
                    self._add_jobs(part, shards)
                    self._add_rows(part)
                    self._add_facts(drops)
                    self._connection.execute("commit")
                advance(1)
        self._connection.executescript(SCHEMA)
        self._check()

    def _add_jobs(self, part: int, shards: Mapping[tuple[int, str, int], SealedShard]) -> None:
        self._connection.execute("delete from numbers")
        for job in self.jobs:
            if job.part != part:
                continue
            entry: tuple[Any, ...] = (None,) * 4
            if job.shard is not None:
                shard = shards[part, job.config, job.job]
                entry = (shard.name, shard.sha256, shard.rows, shard.size_bytes)
            self._connection.execute(
                "insert into jobs (config, job, kind, shard, sha256, rows, bytes) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                (job.config, job.number, job.kind, *entry),
            )
            self._connection.execute(
                "insert into numbers values (?, ?, ?)", (job.config, job.job, job.number)
            )
            mark_stale(self._connection, job.config, job.number)

    def _add_rows(self, part: int) -> None:
        """Add the rows of the videos that a ledger owns."""
        for statement in _ADD_ROWS:
            self._connection.execute(statement, {"part": part})

    def _add_facts(self, drops: Callable[[str], bool]) -> None:
        facts = self._connection.execute("select name, value from part.facts").fetchall()
        self._connection.executemany(
            "insert or ignore into facts values (?, ?)",
            ((name, value) for name, value in facts if not drops(name)),
        )

    def _check(self) -> None:
        """Check that each video is there once, in a job that is there, with all of its clips."""
        for query, problem in _PROBLEMS.items():
            if self._connection.execute(query).fetchone()[0]:
                raise StoreDamagedError(f"The ledgers cannot be joined in {self._path}: {problem}.")


def _free_numbers(jobs: Iterable[tuple[str, int]]) -> dict[tuple[str, bool], Iterator[int]]:
    """Return numbers that no job has, by configuration and whether they are of retries."""
    last: dict[tuple[str, bool], int] = {}
    for config, job in jobs:
        for is_retry in (False, True):
            last.setdefault((config, is_retry), FIRST_RETRY_JOB - 1 if is_retry else -1)
        place = config, job >= FIRST_RETRY_JOB
        last[place] = max(last[place], job)
    return {place: count(number + 1) for place, number in last.items()}
