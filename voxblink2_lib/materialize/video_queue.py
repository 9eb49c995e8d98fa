"""What a run still has to do: videos job by job, and those that are tried again in between."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import jitter
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import AnnotatedVideo, Index
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import read_part_outcome

# A video is tried so often within one run, after so long and twice as long.
RUN_TRIES = 3
_RETRY_SECONDS = 2.0

# Who asks to wait longer for one video is asked by a later run.
_MOST_ASKED_SECONDS = 60.0


@dataclass(slots=True)
class Job:
    """An open job of this run, and its videos that are not settled yet."""

    number: int
    left: set[VideoKey]
    is_sealing: bool = False


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run works on.

    Attributes:
        request: what to do.
        store: where.
        index: what is annotated.
        source: where media come from.
        ledger: what happened so far.
        options: how clips are made.
    """

    request: MaterializeRequest
    store: Store
    index: Index
    source: SourceSpec
    ledger: Ledger
    options: ClipOptions


class VideoQueue:
    """Yields the videos of open jobs, each until it is settled.

    Args:
        work: what the run works on.
    """

    def __init__(self, work: RunContext) -> None:
        self._request = work.request
        self._store = work.store
        self._index = work.index
        self._source = work.source
        self._ledger = work.ledger
        self._options = work.options
        self.schema = arrow_schema(work.request.config)
        self._jobs: dict[VideoKey, Job] = {}
        self._complete: list[Job] = []
        self._videos: Iterator[VideoTask] = iter(())
        # Those put back: when they may be tried, in the order they came in, and what.
        self._later: list[tuple[float, int, VideoTask]] = []
        self._tries: Counter[VideoKey] = Counter()
        self._refusals: Counter[VideoKey] = Counter()
        self._number = 0

    def add_jobs(self, numbers: list[int]) -> None:
        """Go on with these jobs after the others."""
        self._videos = self._tasks(numbers)

    def next(self) -> VideoTask | float | None:
        """Return a video to try now, or after how long there is one, or ``None`` at the end."""
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2]
        task = next(self._videos, None)
        if task is not None:
            return task
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def complete(self) -> list[Job]:
        """Return the jobs whose last video was settled since this was asked last."""
        jobs, self._complete = self._complete, []
        return jobs

    def try_again(self, task: VideoTask, *, asked_seconds: float = 0.0) -> bool:
        """Put a video back for a later try, unless this run has tried it often enough.

        Args:
            task: the video.
            asked_seconds: the source asked to wait so long; a run waits a minute at most.
        """
        self._tries[task.key] += 1
        tries = self._tries[task.key]
        if tries >= RUN_TRIES or asked_seconds > _MOST_ASKED_SECONDS:
            return False
        wait = _RETRY_SECONDS * 2 ** (tries - 1) * jitter(task.key, tries)
        self.put_back(task, max(wait, asked_seconds))
        return True

    def refused(self, task: VideoTask) -> int:
        """Count that the source asked to wait when it was asked for a video; return how often."""
        self._refusals[task.key] += 1
        return self._refusals[task.key]

    def put_back(self, task: VideoTask, wait_seconds: float = 0.0) -> None:
        """Put a video back, to be tried after some seconds."""
        self._number += 1
        heapq.heappush(self._later, (time.monotonic() + wait_seconds, self._number, task))

    def settle(self, key: VideoKey) -> None:
        """Note that a video will not be tried again in this run."""
        job = self._jobs.pop(key)
        self._tries.pop(key, None)
        self._refusals.pop(key, None)
        job.left.discard(key)
        self._seal_if_complete(job)

    def _seal_if_complete(self, job: Job) -> None:
        if not job.left and not job.is_sealing:
            job.is_sealing = True
            self._complete.append(job)

    def _tasks(self, numbers: list[int]) -> Iterator[VideoTask]:
        for number in numbers:
            job = Job(number, set())
            statuses = dict(self._ledger.job_videos(number))
            wanted = set(self._ledger.pending_videos(number))
            for key, status in statuses.items():
                if key not in wanted and status != "done":
                    continue
                # A run that was killed may have left the part without its row in the ledger; a
                # part that someone removed has to be made again.
                outcome = read_part_outcome(self._store.part(self._request.config, number, key))
                if outcome is None:
                    job.left.add(key)
                elif status != "done":
                    self._ledger.record(outcome)
            self._jobs.update(dict.fromkeys(job.left, job))
            for video in self._index.annotated(
                frozenset(job.left), with_tracks=self._request.with_faces
            ):
                yield self._task(job, video)
            self._seal_if_complete(job)

    def _task(self, job: Job, video: AnnotatedVideo) -> VideoTask:
        config = self._request.config
        return VideoTask(
            key=video.key,
            utterances=video.utterances,
            tracks=video.tracks,
            digest=video.digest,
            source=self._source,
            part=self._store.part(config, job.number, video.key),
            tmp=self._store.tmp,
            schema=self.schema,
            options=self._options,
            fetched=self._store.fetched(config, video.key) if self._source.is_remote else None,
        )
