"""Videos of one run: job by job, with retries in between."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.routes import RouteRecord
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import RUN_TRIES, jitter
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import AnnotatedVideo
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import read_part_outcome
from voxblink2_lib.store.verdicts import Verdicts

# The first wait before another try within a run; the second is twice as long.
_RETRY_SECONDS = 2.0

# A video that must wait longer is left to a later run.
_MAX_WAIT_SECONDS = 60.0


@dataclass(slots=True)
class Job:
    """An open job of this run, and its videos that are not finished yet."""

    number: int
    left: set[VideoKey]
    is_sealing: bool = False


class Annotations(Protocol):
    """What is annotated: an index, or a part of one."""

    def annotated(
        self, keys: Collection[VideoKey], *, with_tracks: bool = False
    ) -> Iterator[AnnotatedVideo]:
        """Yield videos with all their annotations, in the order of the index."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run works on.

    Attributes:
        request: what to do.
        store: where.
        index: what is annotated; ``None`` if nothing is, and no video is left to be cropped.
        source: where media come from.
        ledger: what happened so far.
        verdicts: what this source answered so far.
        options: how clips are made.
        rate_limiter: budgets and pauses of all runs on this machine.
        remembered: what earlier jobs of this run have learned of the routes, by their names.
    """

    request: MaterializeRequest
    store: Store
    index: Annotations | None
    source: SourceSpec
    ledger: Ledger
    verdicts: Verdicts
    options: ClipOptions
    rate_limiter: RateLimiter
    remembered: Mapping[str, RouteRecord] = field(default_factory=dict)


class VideoQueue:
    """Yields the videos of open jobs, each until it is finished.

    Args:
        context: what the run works on.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._config = context.request.config
        self.schema = arrow_schema(self._config)
        self._jobs: dict[VideoKey, Job] = {}
        self._complete: list[Job] = []
        self._videos: Iterator[VideoTask] = iter(())
        # Requeued videos: when they may be tried, in which order they came, and what.
        self._later: list[tuple[float, int, VideoTask]] = []
        self._tries: Counter[VideoKey] = Counter()
        self._refusals: Counter[VideoKey] = Counter()
        self._number = 0

    def add_jobs(self, numbers: list[int], *, last: Collection[VideoKey] = ()) -> None:
        """Set the jobs whose videos are queued.

        Args:
            numbers: the jobs.
            last: videos that come after all others.
        """
        self._videos = self._tasks(numbers, frozenset(last))

    @property
    def unfinished(self) -> int:
        """How many videos were queued so far and are not finished."""
        return len(self._jobs)

    def next_task(self) -> VideoTask | None:
        """Return a video to try now, or ``None`` if there is none now."""
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2]
        return next(self._videos, None)

    def seconds_until_ready(self) -> float | None:
        """Return how long the first requeued video must wait; ``None`` if there is none."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def pop_complete(self) -> list[Job]:
        """Return the jobs whose last video was finished since the last call."""
        jobs, self._complete = self._complete, []
        return jobs

    def try_again(self, task: VideoTask, *, wait_seconds: float = 0.0) -> bool:
        """Requeue a video that failed, unless this run has tried it often enough.

        Args:
            task: the video.
            wait_seconds: the source requests to wait so long; a run waits a minute at most.
        """
        self._tries[task.key] += 1
        tries = self._tries[task.key]
        if tries >= RUN_TRIES or wait_seconds > _MAX_WAIT_SECONDS:
            return False
        back_off = _RETRY_SECONDS * 2 ** (tries - 1) * jitter(task.key, tries)
        self.requeue(task, max(back_off, wait_seconds))
        return True

    def count_refusal(self, task: VideoTask) -> int:
        """Count that a video failed by fault of its route; return how often it did."""
        self._refusals[task.key] += 1
        return self._refusals[task.key]

    def requeue(self, task: VideoTask, wait_seconds: float = 0.0) -> None:
        """Put a video back, to be tried after some seconds."""
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + wait_seconds, self._number, task))

    def finish(self, key: VideoKey) -> None:
        """Record that a video is not tried again in this run."""
        job = self._jobs.pop(key)
        self._tries.pop(key, None)
        self._refusals.pop(key, None)
        job.left.discard(key)
        self._seal_if_complete(job)

    def _seal_if_complete(self, job: Job) -> None:
        if not job.left and not job.is_sealing:
            job.is_sealing = True
            self._complete.append(job)

    def _tasks(self, numbers: list[int], last: frozenset[VideoKey]) -> Iterator[VideoTask]:
        index, with_faces = self._context.index, self._context.request.with_faces
        postponed: list[VideoTask] = []
        for number in numbers:
            job = Job(number, self._unfinished_videos(number))
            self._jobs.update(dict.fromkeys(job.left, job))
            keys = frozenset(job.left)
            for video in index.annotated(keys, with_tracks=with_faces) if index and keys else ():
                task = self._task(job, video)
                if task.key in last:
                    postponed.append(task)
                else:
                    yield task
            self._seal_if_complete(job)
        yield from postponed

    def _unfinished_videos(self, number: int) -> set[VideoKey]:
        store, verdicts = self._context.store, self._context.verdicts
        statuses = dict(self._context.ledger.job_videos(number))
        pending = set(verdicts.pending_videos(number))
        unfinished = set()
        for key, status in statuses.items():
            if key not in pending and status != "done":
                continue
            # A run that was killed may have left the part without its row in the ledger; a
            # part that someone removed has to be made again.
            outcome = read_part_outcome(store.part(self._config, number, key))
            if outcome is None:
                unfinished.add(key)
            elif status != "done":
                verdicts.record(outcome)
        return unfinished

    def _task(self, job: Job, video: AnnotatedVideo) -> VideoTask:
        store, source = self._context.store, self._context.source
        return VideoTask(
            key=video.key,
            utterances=video.utterances,
            tracks=video.tracks,
            digest=video.digest,
            source=source,
            part=store.part(self._config, job.number, video.key),
            tmp=store.tmp,
            schema=self.schema,
            options=self._context.options,
            staged=store.fetched(self._config, video.key) if source.is_remote else None,
        )
