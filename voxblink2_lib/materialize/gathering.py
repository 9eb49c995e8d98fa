"""Videos that come back in retries share shards: full ones, and at most one that is not.

::

    tail of the runs before      |x y|
    retry jobs of this run           |a . b .|. . . .|c . . d|. e ? ?|    . failed, ? not tried
    shards, of three videos      |x y a|      |b c d|           |e|       the new tail

The order is that of the jobs, and by speaker and video within each. A shard is written as soon as
all jobs are complete that its videos are of, the tail at the end of the run; so workers and kills
change neither the rows nor their order. A shard is on disk before the ledger names it, and what it
supersedes is removed after that: a run that is killed in between is done again by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import DependencyError, StoppedError, StoreDamagedError
from voxblink2_lib.materialize import jobs
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import write_outcomes
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import check_shard, seal_shard
from voxblink2_lib.store.tail import Tail


class _Arrival(NamedTuple):
    """A video that came back, and the retry job that has its part file."""

    job: int
    key: VideoKey


class Gathering:
    """Gathers the videos of the retry jobs that are open.

    As a context manager it writes the rest of them at the end, also if the run stops with work
    left.

    Args:
        context: what the run works on.
    """

    def __init__(self, context: RunContext) -> None:
        self._config = context.request.config
        self._store = context.store
        self._ledger = context.ledger
        self._recovered = context.ledger.recovered
        self._jobs = self._recovered.retry_jobs()
        self._complete: set[int] = set()
        # What came and is in no shard yet, by job.
        self._arrived: dict[int, list[VideoKey]] = {}

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After any other error, as after a kill, the next run goes on where this one was.
        if kind is None or issubclass(kind, (StoppedError, DependencyError)):
            self._write_all()

    def has(self, job: int) -> bool:
        """Return whether a job is one of those whose videos are gathered."""
        return job in self._jobs

    def complete(self, job: int) -> None:
        """Take note that no video of a job is left; write the shards that are full by now."""
        self._complete.add(job)
        self._arrived[job] = self._recovered.done_videos(job)
        if not self._arrived[job]:
            self._ledger.seal(SealedShard(job, "", "", 0, 0))
            write_outcomes(self._store, self._ledger, job)
            self._remove_jobs([job])
        waiting = self._arrivals(takewhile(self._complete.__contains__, self._jobs))
        while waiting and len(waiting) >= (room := self._room(tail := self._tail())):
            self._write(tail, waiting[:room])
            waiting = waiting[room:]

    def _write_all(self) -> None:
        """Write all that has come, the last shard even if it is not full."""
        for job in self._jobs:
            if job not in self._complete:
                # A part that someone removed is made again, as long as its job is open.
                done = self._recovered.done_videos(job)
                self._arrived[job] = [key for key in done if self._part(job, key).exists()]
        waiting = self._arrivals(self._jobs)
        while waiting:
            tail = self._tail()
            room = self._room(tail)
            self._write(tail, waiting[:room])
            waiting = waiting[room:]

    def _arrivals(self, numbers: Iterable[int]) -> list[_Arrival]:
        return [_Arrival(job, key) for job in numbers for key in self._arrived[job]]

    def _tail(self) -> Tail | None:
        return self._recovered.tail(full=jobs.MAX_VIDEOS_PER_JOB)

    def _room(self, tail: Tail | None) -> int:
        return jobs.MAX_VIDEOS_PER_JOB - (tail.videos if tail else 0)

    def _part(self, job: int, key: VideoKey) -> Path:
        return self._store.part(self._config, job, key)

    def _write(self, tail: Tail | None, arrivals: Sequence[_Arrival]) -> None:
        """Write a shard of the tail and what came; then the ledger; then remove what is in it."""
        folder = self._store.shards(self._config)
        number = self._recovered.next_number()
        files = [self._part(*arrival) for arrival in arrivals]
        if tail:
            self._check(tail)
            files.insert(0, folder / tail.shard.name)
        target = folder / shard_name(self._config, number)
        shard = seal_shard(number, files, target, arrow_schema(self._config))
        for job, key in arrivals:
            self._arrived[job].remove(key)
        closed = [job for job in self._jobs if job in self._complete and not self._arrived[job]]
        self._recovered.switch(
            shard, (arrival.key for arrival in arrivals), tail=tail, closed=closed
        )
        # Before the tail and the parts go: without the ledger, either of them has the clips.
        write_outcomes(self._store, self._ledger, number, shard.digests)
        for file in files:
            file.unlink(missing_ok=True)
        if tail:
            checksum_file(files[0]).unlink(missing_ok=True)
        superseded = [tail.shard.job] if tail else []
        for job in sorted({*superseded, *closed, *(job for job, _ in arrivals)}):
            write_outcomes(self._store, self._ledger, job)
        self._remove_jobs(closed)

    def _check(self, tail: Tail) -> None:
        """Refuse to copy damaged rows into a shard whose checksum would be right.

        Raises:
            StoreDamagedError: the tail is not as it was sealed.
        """
        try:
            check_shard(self._store.shards(self._config), tail.shard)
        except StoreDamagedError as error:
            raise StoreDamagedError(
                f"{error} It is to be superseded by a fuller one, and the videos that came back "
                "wait for that."
            ) from error

    def _remove_jobs(self, numbers: Iterable[int]) -> None:
        for job in numbers:
            self._jobs.remove(job)
            shutil.rmtree(self._store.job_parts(self._config, job), ignore_errors=True)


def clear_gathered(store: Store, ledger: Ledger) -> None:
    """Remove what a killed run left of videos that are in a fuller shard. Requires the lock."""
    config, recovered = ledger.config, ledger.recovered
    for number in recovered.superseded():
        shard = store.shards(config) / shard_name(config, number)
        for path in (shard, checksum_file(shard)):
            path.unlink(missing_ok=True)
    for job in recovered.retry_jobs():
        parts = set(store.job_parts(config, job).glob("*.arrow"))
        if parts:
            kept = {store.part(config, job, key) for key, _ in ledger.job_videos(job)}
            for path in parts - kept:
                path.unlink()
