"""Run everything that a store still lacks, on the processes of this machine."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from voxblink2_lib import demo
from voxblink2_lib.config import ClipOptions, MaterializeConfig
from voxblink2_lib.engines.planning import is_complete, plan_run
from voxblink2_lib.engines.pool import Call, WorkerDiedError, WorkerPool
from voxblink2_lib.errors import StoppedError, StoreReadOnlyError
from voxblink2_lib.index import AnnotatedVideo, Index, open_index
from voxblink2_lib.ledger import Ledger
from voxblink2_lib.pipeline import SealTask, VideoTask, run_video, seal_job
from voxblink2_lib.progress import VideoProgress, counting
from voxblink2_lib.records import Outcome, VideoKey
from voxblink2_lib.resources import Release, open_release
from voxblink2_lib.schema import arrow_schema
from voxblink2_lib.shards import read_part_outcome
from voxblink2_lib.sources import SourceSpec, parse_source
from voxblink2_lib.store import Store, open_store

_log = logging.getLogger(__name__)

# So many videos in a row without any answer mean that the network is gone, not the videos.
_UNREACHABLE_LIMIT = 8


def find_store(config: MaterializeConfig) -> tuple[Release, Store]:
    """Return the release and the store that a configuration means."""
    release = open_release(config.data_dir)
    return release, open_store(config.store, release)


def index_release(config: MaterializeConfig) -> Index:
    """Make the index of a store, or check the one that is there.

    Raises:
        ReleaseError: the release cannot be read.
        StoreMismatchError: the store was made from another release.
        StoreBusyError: another process works on the store.
    """
    release, store = find_store(config)
    with store.locked(wait=False):
        return _index(release, store)


def _index(release: Release, store: Store) -> Index:
    with counting("Reading annotations", unit="file") as progress:
        index = open_index(release, store.index, progress=progress)
    if index.info.rejected:
        _log.warning(
            "%d annotation files could not be read and are left out; %s says why.",
            index.info.rejected,
            store.index / "rejects.csv",
        )
    return index


def materialize(config: MaterializeConfig, *, retry: bool, wait: bool) -> Store:
    """Bring, cut and seal every selected video that the store does not have yet.

    Args:
        config: what to do, and where.
        retry: try again the videos that failed in an earlier run.
        wait: wait, with a message, while another process works on the store.

    Returns:
        The store. All jobs in it are sealed.

    Raises:
        ReleaseError, SelectionError, SourceError: the input is not usable.
        StoreMismatchError: the store holds another corpus.
        StoreBusyError: another process works on the store, and ``wait`` is false.
        StoreReadOnlyError: work is left in a store that cannot be written to.
        StoreFullError: the disk is full.
        StoppedError: work is left, since the source could not be reached.
    """
    release, store = find_store(config)
    named = config.source or (str(demo.MEDIA) if release.is_demo else None)
    source = parse_source(named)
    try:
        with store.locked(wait=wait):
            index = _index(release, store)
            with Ledger(store.ledger, config.config) as ledger:
                options = plan_run(config, store, index, ledger, retry=retry)
                _Run(config, store, index, source, ledger, options=options).run()
    except StoreReadOnlyError:
        if not is_complete(config, store, release):
            raise
    return store


@dataclass(slots=True)
class _Job:
    """An open job of this run, and its videos that are not settled yet."""

    number: int
    left: set[VideoKey]
    is_sealing: bool = False


class _Run:
    """One run over the open jobs of a store."""

    def __init__(
        self,
        config: MaterializeConfig,
        store: Store,
        index: Index,
        source: SourceSpec,
        ledger: Ledger,
        *,
        options: ClipOptions,
    ) -> None:
        self._config = config
        self._options = options
        self._store = store
        self._index = index
        self._source = source
        self._ledger = ledger
        self._schema: pa.Schema = arrow_schema(config.config)
        self._seals: deque[Call] = deque()
        self._jobs: dict[VideoKey, _Job] = {}
        # Outcomes without any answer wait here: should the source answer again, it was the
        # video; should it not, the network is gone, and these videos have not been tried.
        self._unanswered: list[Outcome] = []
        self._answered = False

    def run(self) -> None:
        """Do all that is left."""
        open_jobs = self._ledger.open_jobs()
        self._store.clear_leftovers(self._config.config, open_jobs=open_jobs)
        if not open_jobs:
            return
        videos = self._videos(open_jobs)
        count = self._ledger.unfinished()
        with VideoProgress(count) as progress, WorkerPool(self._config.worker_count) as pool:
            for call, result in pool.run(lambda: self._next(videos)):
                self._take(call, result, progress)
            if self._unanswered and not self._answered:
                self._stop_unreachable()
            self._settle_unanswered(progress)
            for call, result in pool.run(lambda: self._next(videos)):
                self._take(call, result, progress)

    def _next(self, videos: Iterator[Call]) -> Call:
        """Return a seal that is due, else the next video; asking for that may make a seal due."""
        if not self._seals:
            call = next(videos, None)
            if call is not None:
                return call
        if not self._seals:
            raise StopIteration
        return self._seals.popleft()

    def _videos(self, open_jobs: list[int]) -> Iterator[Call]:
        """Yield a call for every video that is not in the store yet, job by job."""
        for number in open_jobs:
            rows = self._ledger.job_videos(number)
            job = _Job(number, set())
            for key, status in rows:
                # A run that was killed may have left the part without its row in the ledger; a
                # part that someone removed has to be made again.
                outcome = read_part_outcome(self._store.part(self._config.config, number, key))
                if outcome is None:
                    job.left.add(key)
                elif status != "done":
                    self._ledger.record(outcome)
            self._jobs.update(dict.fromkeys(job.left, job))
            for video in self._index.annotated(
                frozenset(job.left), with_tracks=self._config.with_faces
            ):
                yield run_video, self._task(job, video)
            self._seal_if_complete(job)

    def _task(self, job: _Job, video: AnnotatedVideo) -> VideoTask:
        return VideoTask(
            key=video.key,
            utterances=video.utterances,
            tracks=video.tracks,
            digest=video.digest,
            source=self._source,
            part=self._store.part(self._config.config, job.number, video.key),
            tmp=self._store.tmp,
            schema=self._schema,
            options=self._options,
        )

    def _take(self, call: Call, result: Any, progress: VideoProgress) -> None:
        """Write down what came of a call."""
        if isinstance(call[1], SealTask):
            self._sealed(call[1], result)
            return
        if isinstance(result, WorkerDiedError):
            result = Outcome(call[1].key, "unusable", str(result))
        if result.unreachable:
            self._unanswered.append(result)
            if len(self._unanswered) >= _UNREACHABLE_LIMIT:
                self._stop_unreachable()
            return
        self._answered = True
        self._settle_unanswered(progress)
        self._settle(result, progress)

    def _settle_unanswered(self, progress: VideoProgress) -> None:
        for outcome in self._unanswered:
            self._settle(outcome, progress)
        self._unanswered = []

    def _settle(self, outcome: Outcome, progress: VideoProgress) -> None:
        self._ledger.record(outcome)
        progress.update(outcome.status)
        job = self._jobs.pop(outcome.key)
        job.left.discard(outcome.key)
        self._seal_if_complete(job)

    def _seal_if_complete(self, job: _Job) -> None:
        if job.left or job.is_sealing:
            return
        job.is_sealing = True
        config, number = self._config.config, job.number
        parts = tuple(
            self._store.part(config, number, key)
            for key, status in self._ledger.job_videos(number)
            if status == "done"
        )
        target = self._store.shards(config) / f"{config}-{number:05}.arrow"
        self._seals.append((seal_job, SealTask(number, parts, target, self._schema)))

    def _sealed(self, task: SealTask, shard: Any) -> None:
        if isinstance(shard, WorkerDiedError):
            raise StoppedError(
                f"Sealing {task.target} failed: {shard}. Nothing is lost; run the same command "
                "again. If it happens again, the machine may be short of memory."
            )
        self._ledger.seal(shard)
        shutil.rmtree(self._store.job_parts(self._config.config, task.job), ignore_errors=True)

    def _stop_unreachable(self) -> None:
        raise StoppedError(
            f"The source does not answer: {self._unanswered[-1].reason}. "
            f"{self._ledger.unfinished()} videos are left and nothing finished is lost. Check the "
            "network and the source's address, then run the same command again."
        )
