"""One job on a node: the loop of a local run over a store of that job alone, in a scratch folder.

::

    restore    what attempts before have left at the URL
    run        as on any machine; what is finished leaves the node every few videos
    upload     the shard, under the name of an attempt
    result     outcomes, SHA-256 and catalogue of the shard: the driver commits them
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from voxblink2_lib.cluster.checkpoints import Checkpoints
from voxblink2_lib.cluster.records import ClusterRun, JobResult, JobWork, Problem, Report
from voxblink2_lib.errors import SourceError, StoppedError, StoreBusyError, VoxBlink2Error
from voxblink2_lib.materialize.dashboard import Snapshot
from voxblink2_lib.materialize.routes import RouteRecord
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published.manifest import PublishedFile, new_attempt
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import Place
from voxblink2_lib.records import SealedShard
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.catalogue import update_catalogue
from voxblink2_lib.store.job_outcomes import JobOutcomes
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.lock import hold_lock
from voxblink2_lib.store.outcome_files import outcomes_path, read_outcomes

_REPORT_SECONDS = 1.0

# Takes a report; returns whether the job is to stop.
Reporter = Callable[[Report], bool]


def run_job(
    run: ClusterRun,
    work: JobWork,
    *,
    cores: int,
    rate_limiter: RateLimiter,
    remembered: Mapping[str, RouteRecord],
    report: Reporter,
) -> tuple[JobResult, dict[str, RouteRecord]]:
    """Do one job in a scratch folder of this machine.

    Args:
        run: what all jobs have in common.
        work: the job.
        cores: of this machine.
        rate_limiter: budgets and pauses of this machine, or of all.
        remembered: what the jobs before it have learned of the routes.
        report: takes what happens.

    Returns:
        What was done, and what the next job needs to know of the routes. Whatever ends the job
        before its time is in the result, as far as it is an error of this library.
    """
    with _scratch_store(work) as store, Ledger(store.ledger, work.known.config) as ledger:
        ledger.elsewhere.add_job(work.known)
        for name, value in work.known.settings.items():
            ledger.set_setting(name, value)
        job = _Job(run, work, store, ledger=ledger, rate_limiter=rate_limiter)
        job.records.update(remembered)
        problem = None
        try:
            job.run(cores, report)
        except VoxBlink2Error as error:
            problem = Problem.of(error)
        return job.result(problem), job.records


class _Job:
    def __init__(
        self,
        run: ClusterRun,
        work: JobWork,
        store: Store,
        *,
        ledger: Ledger,
        rate_limiter: RateLimiter,
    ) -> None:
        self._run, self._work, self._store, self._ledger = run, work, store, ledger
        self._rate_limiter = rate_limiter
        self.records: dict[str, RouteRecord] = {}
        self._upload: PublishedFile | None = None

    def run(self, cores: int, report: Reporter) -> None:
        """Do all that is left of it, and upload what comes of it."""
        work, ledger = self._work, self._ledger
        _check_source(self._run)
        place, number = open_place(self._run.url), work.known.job
        with Checkpoints(place, self._store, ledger, number) as checkpoints:
            restored = checkpoints.restore({video.key: video.digest for video in work.videos})
            view = _NodeView(number, checkpoints, report, restored=restored)
            scheduler = Scheduler(self._context(cores), view=view, seals=work.is_sealed_there)
            try:
                scheduler.run([number])
            finally:
                self.records = scheduler.route_records
                if not ledger.shards():
                    checkpoints.save()
        self._upload = _upload_shard(place, self._store, ledger)

    def _context(self, cores: int) -> RunContext:
        source, ledger = self._run.source, self._ledger
        return RunContext(
            request=self._run.on(cores),
            store=self._store,
            index=self._work.videos,
            source=source,
            ledger=ledger,
            verdicts=ledger.verdicts(source.label),
            options=self._run.options,
            rate_limiter=self._rate_limiter,
            remembered=self.records,
        )

    def result(self, problem: Problem | None) -> JobResult:
        """Return what was done."""
        config, number = self._ledger.config, self._work.known.job
        folder, outcomes = self._store.shards(config), self._outcomes()
        if self._upload is None:
            return JobResult(outcomes, problem=problem)
        catalogue = self._store.tmp / "catalogue.arrow"
        (shard,) = self._ledger.shards()
        update_catalogue(catalogue, folder, {shard.name: shard.size_bytes})
        with_digests = read_outcomes(outcomes_path(folder, config, number))
        return JobResult(with_digests, self._upload, catalogue.read_bytes(), problem)

    def _outcomes(self) -> JobOutcomes:
        outcomes = self._ledger.outcomes.read(self._work.known.job)
        assert outcomes is not None  # for mypy: the job is in its ledger
        return outcomes


def _check_source(run: ClusterRun) -> None:
    """Refuse a source that is not on this machine: its videos would all be taken for missing.

    Raises:
        SourceError: a folder, or a file of the options, is not here.
    """
    if run.source.kind == "folder" and not os.path.isdir(run.source.place):
        raise SourceError(
            f"The source {run.source.place} is not on this node. All nodes need to see the folder "
            "under the same path, as on a shared file system."
        )
    # They were checked on the driver's machine.
    replace(run.source.options)


def _upload_shard(place: Place, store: Store, ledger: Ledger) -> PublishedFile | None:
    shards: list[SealedShard] = ledger.shards()
    if not shards:
        return None
    (shard,) = shards
    name = f"shards/{ledger.config}/{shard.name}"
    file = PublishedFile(name, new_attempt(), shard.size_bytes, shard.sha256)
    with open(store.shards(ledger.config) / shard.name, "rb") as source:
        place.upload(source, file.name, shard.size_bytes)
    return file


class _NodeView:
    """Reports to the driver what a person would see, and saves what is finished."""

    def __init__(
        self, job: int, checkpoints: Checkpoints, report: Reporter, *, restored: int
    ) -> None:
        self._job, self._checkpoints, self._report = job, checkpoints, report
        # The driver counts each video once, whichever attempt has made it.
        self._counts = [("done", 0)] * restored
        self._reported_at = time.monotonic()

    def __enter__(self) -> _NodeView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def count(self, status: str, bytes_fetched: int) -> None:
        """Take note of a video that is finished."""
        self._counts.append((status, bytes_fetched))
        self._checkpoints.note(has_clips=status == "done")

    def show(self, snapshot: Callable[[], Snapshot], *, at_once: bool = False) -> None:
        """Save and report what is due."""
        self._checkpoints.save_if_due()
        now = time.monotonic()
        if not at_once and now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = now
        counts, self._counts = self._counts, []
        seen = snapshot()
        is_to_stop = self._report(Report(self._job, counts, seen.routes, seen.slow_calls))
        # At the end, what has ended the job is what the driver is to read.
        if is_to_stop and not at_once:
            raise StoppedError("The run is being stopped.")


@contextmanager
def _scratch_store(work: JobWork) -> Iterator[Store]:
    """Yield a new store below the folder for temporary files; those of killed jobs are removed."""
    parent = Path(tempfile.gettempdir()) / f"voxblink2-jobs-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    # Nobody takes a folder for that of a killed job before its lock is held, or while it goes.
    with hold_lock(parent, wait=True), ExitStack() as making:
        for left in parent.iterdir():
            if left.is_dir():
                _remove_if_dead(left)
        prefix = f"{work.known.config}-{work.known.job}-"
        folder = tempfile.TemporaryDirectory(prefix=prefix, dir=parent)
        store = Store(Path(making.enter_context(folder)))
        making.enter_context(store.locked(wait=False))
        store.tmp.mkdir()
        made = making.pop_all()
    try:
        yield store
    finally:
        with hold_lock(parent, wait=True):
            made.close()


def _remove_if_dead(folder: Path) -> None:
    with suppress(StoreBusyError), Store(folder).locked(wait=False):
        shutil.rmtree(folder, ignore_errors=True)
