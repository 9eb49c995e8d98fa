"""The loop of one run: who fetches, who cuts, what becomes of what comes back."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import deque
from typing import Any

from voxblink2_lib.errors import BlockedError, DependencyError, StoppedError
from voxblink2_lib.materialize.dashboard import Dashboard, Snapshot
from voxblink2_lib.materialize.fetched_media import open_staged
from voxblink2_lib.materialize.pipeline import fetch_video, run_video, seal_job
from voxblink2_lib.materialize.routes import SILENCE_LIMIT, Routes, RouteState
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask, SealTask, VideoTask
from voxblink2_lib.materialize.video_queue import RUN_TRIES, RunContext, VideoQueue
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.sources.rate_limits import Permit, RateLimiter
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool, collect

# Fetching waits for the network, so threads share a process; more than two would not help.
_FETCH_PROCESSES = 2
_SHOWN_SECONDS = 1.0

# So often may the source ask to wait when it is asked for a video: hours, if it does not say how
# long. The next run asks for it again.
_MOST_REFUSALS = 8


class Run:
    """One run over open jobs of a store.

    Args:
        work: what it works on.
    """

    def __init__(self, work: RunContext) -> None:
        self._request = work.request
        self._store = work.store
        self._source = work.source
        self._ledger = work.ledger
        self._feed = VideoQueue(work)
        self._lanes = Routes(work.source, RateLimiter())
        self._seals: deque[Call] = deque()
        # Fetched and waiting to be cut.
        self._ready: deque[VideoTask] = deque()
        self._fetching: dict[FetchTask, tuple[VideoTask, RouteState]] = {}
        self._tasks: dict[FetchTask, VideoTask] = {}  # of what got no answer
        self._next_try = 0.0

    def run(self, open_jobs: list[int]) -> None:
        """Do all that is left in these jobs."""
        self._feed.add_jobs(open_jobs)
        self._ledger.set_setting("videos_an_hour", str(self._lanes.videos_an_hour))
        fetches = self._source.options.fetch_count
        processes = min(_FETCH_PROCESSES, fetches)
        with contextlib.ExitStack() as stack:
            self._view = stack.enter_context(Dashboard(self._ledger.count_pending()))
            self._cutters = stack.enter_context(WorkerPool(self._request.worker_count))
            self._fetchers = stack.enter_context(
                WorkerPool(processes, threads=-(-fetches // processes))
            )
            try:
                while self._step():
                    pass
            finally:
                self._view.show(self._moment, at_once=True)
        self._raise_if_stopped()

    def _step(self) -> bool:
        """Hand out, take what comes; return False when nothing is left to do or to wait for."""
        wait = self._hand_out()
        self._view.show(self._moment)
        if not (self._cutters.busy or self._fetchers.busy):
            if silent := [lane for lane in self._lanes.open if lane.unanswered]:
                self._settle_silence(silent[0])
                return True
            if wait is None or math.isinf(wait):
                return False
            time.sleep(min(wait, _SHOWN_SECONDS))
            return True
        timeout = _SHOWN_SECONDS if wait is None else min(wait, _SHOWN_SECONDS)
        for call, result in collect((self._cutters, self._fetchers), timeout_seconds=timeout):
            self._take(call, result)
        return True

    def _moment(self) -> Snapshot:
        addresses = self._lanes.states() if self._source.is_remote else []
        return Snapshot(addresses, *self._ledger.waiting())

    # -- handing out --------------------------------------------------------------------------

    def _hand_out(self) -> float | None:
        """Keep all busy; return after how long to try again, ``None`` if nothing waits for time."""
        wait = self._feed_workers()
        for job in self._feed.complete():
            self._seal(job.number)
        while self._cutters.free and (self._seals or self._ready):
            task = None if self._seals else self._ready.popleft()
            self._cutters.submit((run_video, task) if task else self._seals.popleft())
        return wait

    def _feed_workers(self) -> float | None:
        while self._has_room():
            wait = max(0.0, self._next_try - time.monotonic())
            if wait:
                return wait
            task = self._feed.next()
            if not isinstance(task, VideoTask):
                return task
            if not self._source.is_remote or (task.fetched and open_staged(task.fetched)):
                self._ready.append(task)
                continue
            taken = self._lanes.take()
            if isinstance(taken, float):
                self._feed.put_back(task)
                if math.isinf(taken):
                    return taken
                self._next_try = time.monotonic() + taken
                return taken
            self._fetch(task, *taken)
        return None

    def _has_room(self) -> bool:
        # What is fetched lies on the disk until it is cut: no more than keeps the cutters busy.
        ready = len(self._ready) < 2 * self._request.worker_count
        return ready and (not self._source.is_remote or self._fetchers.free > 0)

    def _fetch(self, task: VideoTask, lane: RouteState, turn: Permit) -> None:
        assert task.fetched is not None  # for mypy: remote sources have it
        fetch = FetchTask(
            key=task.key,
            needed_seconds=task.needed_seconds,
            source=lane.source,
            pictures=task.tracks is not None,
            target=task.fetched,
            tmp=task.tmp,
            turn=turn,
        )
        self._fetching[fetch] = (task, lane)
        self._fetchers.submit((fetch_video, fetch))

    def _seal(self, number: int) -> None:
        config = self._request.config
        parts = tuple(
            self._store.part(config, number, key)
            for key, status in self._ledger.job_videos(number)
            if status == "done"
        )
        target = self._store.shards(config) / f"{config}-{number:05}.arrow"
        self._seals.append((seal_job, SealTask(number, parts, target, self._feed.schema)))

    # -- what comes back ----------------------------------------------------------------------

    def _take(self, call: Call, result: Any) -> None:
        """Write down what came of a call."""
        task = call[1]
        if isinstance(task, SealTask):
            self._sealed(task, result)
        elif isinstance(task, FetchTask):
            if isinstance(result, WorkerDiedError):
                died = Outcome(task.key, "transient", str(result), address=task.source.route.name)
                result = FetchResult(task.key, died)
            self._fetched(task, result)
        else:
            if isinstance(result, WorkerDiedError):
                result = Outcome(task.key, "media-unusable", str(result))
            self._settle(result)

    def _fetched(self, fetch: FetchTask, result: FetchResult) -> None:
        task, lane = self._fetching.pop(fetch)
        lane.in_flight -= 1
        # This lane may have waited for it, while the others rest for an hour.
        self._next_try = 0.0
        if result.is_unanswered:
            self._tasks[fetch] = task
            lane.unanswered.append((fetch, result))
            if len(lane.unanswered) >= SILENCE_LIMIT or lane.closed:
                self._settle_silence(lane)
            return
        self._lanes.answered(lane, result)
        self._judge_silent(lane)
        if result.failure is None:
            self._ready.append(task)
        else:
            self._failed(task, lane, result, closes=bool(lane.closed))

    def _failed(
        self, task: VideoTask, lane: RouteState, result: FetchResult, *, closes: bool
    ) -> None:
        failure = result.failure
        assert failure is not None  # for mypy: it failed
        status = failure.status
        if status == "environment":
            self._ledger.record(failure, is_settled=False)
            raise DependencyError(
                f"This machine lacks something that fetching needs: {failure.reason}. Everything "
                "finished is kept. 'voxblink2 doctor' tells what is missing; then run this again."
            )
        is_of_address = status == "blocked" or (status == "credentials" and closes)
        if status == "rate-limited":
            # One video alone that is refused again and again must not stop the others for ever,
            # nor the run, where it is the last one.
            most = RUN_TRIES if self._lanes.is_healthy(lane) else _MOST_REFUSALS
            is_of_address = self._feed.refused(task) < most
        if is_of_address:
            self._ledger.record(failure, is_settled=False)
            self._feed.put_back(task)
        elif status == "transient" and self._feed.try_again(
            task, asked_seconds=result.pause_seconds or 0.0
        ):
            self._ledger.record(failure, is_settled=False)
        else:
            self._settle(failure)

    def _settle(self, outcome: Outcome) -> None:
        status = self._ledger.record(outcome)
        self._view.settled(status or outcome.status, outcome.bytes_fetched)
        self._feed.settle(outcome.key)

    def _sealed(self, task: SealTask, shard: Any) -> None:
        if isinstance(shard, WorkerDiedError):
            raise StoppedError(
                f"Sealing {task.target} failed: {shard}. Nothing is lost; run the same command "
                "again. If it happens again, the machine may be short of memory."
            )
        self._ledger.seal(shard)
        shutil.rmtree(self._store.job_parts(self._request.config, task.job), ignore_errors=True)

    # -- no answer, and no address left -------------------------------------------------------

    def _settle_silence(self, lane: RouteState) -> None:
        """Decide whether it is the videos that get no answer, or all that goes by this lane."""
        if not lane.closed and self._lanes.answers(lane):
            self._judge_silent(lane)
            return
        silent, lane.unanswered = lane.unanswered, []
        for fetch, _ in silent:
            self._feed.put_back(self._tasks.pop(fetch))

    def _judge_silent(self, lane: RouteState) -> None:
        """An answer came by this lane: what got none was not the network's fault."""
        silent, lane.unanswered = lane.unanswered, []
        for fetch, result in silent:
            self._failed(self._tasks.pop(fetch), lane, result, closes=False)

    def _raise_if_stopped(self) -> None:
        left = self._ledger.count_pending()
        closed = self._lanes.closed
        if not closed or not left:
            return
        refused = [lane for lane in closed if not lane.is_silent]
        if not refused:
            raise StoppedError(
                f"The source does not answer: {closed[-1].closed}. "
                f"{left} videos are left and nothing finished is lost. Check the "
                "network and the source's address, then run the same command again."
            )
        words = "; ".join(f"{lane.name}: {lane.closed}" for lane in closed)
        raise BlockedError(
            f"The source refuses every address that was used ({words}). {left} videos are left "
            "and nothing finished is lost. Wait some hours, or give other addresses with --proxy "
            "or an account's cookies with --cookies, then run the same command again."
        )
