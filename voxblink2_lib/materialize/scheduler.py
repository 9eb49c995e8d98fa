"""The loop of one run: which video is downloaded or cropped next, and what follows from results."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import deque
from typing import Any

from voxblink2_lib.errors import BlockedError, DependencyError, StoppedError
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.dashboard import Dashboard, Snapshot
from voxblink2_lib.materialize.fetched_media import open_staged
from voxblink2_lib.materialize.pipeline import fetch_video, run_video, seal_job
from voxblink2_lib.materialize.routes import InFlight, Routes, RouteState
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask, SealTask, VideoTask
from voxblink2_lib.materialize.video_queue import RunContext, VideoQueue
from voxblink2_lib.outcomes import POLICIES, RUN_TRIES, Outcome, RetryPolicy
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool, collect

# Downloads wait for the network, so threads share a process; more than two would not help.
_FETCH_PROCESSES = 2
_REFRESH_SECONDS = 1.0


class Scheduler:
    """One run over open jobs of a store.

    Args:
        context: what it works on.
    """

    def __init__(self, context: RunContext) -> None:
        self._request = context.request
        self._store = context.store
        self._source = context.source
        self._ledger = context.ledger
        self._rate_limiter = context.rate_limiter
        self._queue = VideoQueue(context)
        self._routes = Routes(context.source, context.rate_limiter)
        self._seals: deque[Call] = deque()
        # At hand and waiting to be cropped.
        self._ready: deque[VideoTask] = deque()
        # No route has a permit before (of the monotonic clock), unless a result arrives.
        self._next_permit_at = 0.0

    def run(self, open_jobs: list[int]) -> None:
        """Do all that is left in these jobs.

        Raises:
            StoppedError, BlockedError: work is left, and no route is open.
            DependencyError: this machine lacks something that downloading needs.
        """
        self._queue.add_jobs(open_jobs)
        self._ledger.set_setting("videos_an_hour", str(self._routes.videos_per_hour))
        fetches = self._source.options.fetch_count
        processes = min(_FETCH_PROCESSES, fetches)
        with contextlib.ExitStack() as stack:
            self._dashboard = stack.enter_context(Dashboard(self._ledger.count_pending()))
            self._croppers = stack.enter_context(WorkerPool(self._request.worker_count))
            self._fetchers = stack.enter_context(
                WorkerPool(processes, threads=-(-fetches // processes))
            )
            try:
                while self._step():
                    pass
            finally:
                self._dashboard.show(self._snapshot, at_once=True)
        self._raise_if_stopped()

    def _step(self) -> bool:
        """Hand out work and handle results; return whether there is anything left to wait for."""
        seconds = self._hand_out()
        timeout = _REFRESH_SECONDS if seconds is None else min(seconds, _REFRESH_SECONDS)
        self._dashboard.show(self._snapshot)
        if self._croppers.busy or self._fetchers.busy:
            for call, result in collect((self._croppers, self._fetchers), timeout_seconds=timeout):
                self._handle_result(call, result)
        elif route := self._routes.unanswered_route():
            self._check_unanswered_route(route)
        elif seconds is None:
            return False
        else:
            time.sleep(timeout)
        return True

    def _snapshot(self) -> Snapshot:
        routes = self._routes.snapshots() if self._source.is_remote else []
        return Snapshot(routes, *self._ledger.waiting())

    # -- handing out --------------------------------------------------------------------------

    def _hand_out(self) -> float | None:
        """Keep all workers busy.

        Returns:
            Seconds after which there may be more to hand out; ``None`` if only a result can lead to
            more.
        """
        seconds = self._hand_out_videos()
        for job in self._queue.pop_complete():
            self._seals.append(self._seal_call(job.number))
        while self._croppers.free and (self._seals or self._ready):
            call = self._seals.popleft() if self._seals else (run_video, self._ready.popleft())
            self._croppers.submit(call)
        return seconds

    def _hand_out_videos(self) -> float | None:
        while self._has_room():
            seconds = self._next_permit_at - time.monotonic()
            if seconds > 0:
                return seconds
            task = self._queue.next_task()
            if task is None:
                return self._queue.seconds_until_ready()
            if self._is_at_hand(task):
                self._ready.append(task)
            elif flight := self._routes.acquire(task):
                self._fetchers.submit((fetch_video, self._fetch_task(flight)))
            else:
                self._queue.requeue(task)
                return self._wait_for_permit()
        return None

    def _has_room(self) -> bool:
        # Staged media take space until they are cropped: no more than keeps the croppers busy.
        has_space = len(self._ready) < 2 * self._request.worker_count
        return has_space and (not self._source.is_remote or self._fetchers.free > 0)

    def _is_at_hand(self, task: VideoTask) -> bool:
        return task.staged is None or open_staged(task.staged) is not None

    def _wait_for_permit(self) -> float | None:
        seconds = self._routes.seconds_until_permit()
        if seconds is not None:
            self._next_permit_at = time.monotonic() + seconds
        return seconds

    def _fetch_task(self, flight: InFlight) -> FetchTask:
        task = flight.task
        assert task.staged is not None  # for mypy: videos at hand are not in flight
        return FetchTask(
            key=task.key,
            needed_seconds=task.needed_seconds,
            source=flight.route.source,
            with_video=task.tracks is not None,
            target=task.staged,
            tmp=task.tmp,
            permit=flight.permit,
            rate_limiter=self._rate_limiter,
        )

    def _seal_call(self, number: int) -> Call:
        config = self._request.config
        parts = tuple(
            self._store.part(config, number, key)
            for key, status in self._ledger.job_videos(number)
            if status == "done"
        )
        target = self._store.shards(config) / f"{config}-{number:05}.arrow"
        return seal_job, SealTask(number, parts, target, self._queue.schema)

    # -- results ------------------------------------------------------------------------------

    def _handle_result(self, call: Call, result: Any) -> None:
        task = call[1]
        death = result if isinstance(result, WorkerDiedError) else None
        if isinstance(task, SealTask):
            self._handle_sealed(task, result)
        elif isinstance(task, FetchTask):
            route = task.source.route.name
            died = Outcome(task.key, "transient", str(death), route=route) if death else None
            self._handle_fetched(FetchResult(task.key, died) if died else result)
        else:
            died = Outcome(task.key, "media-unusable", str(death)) if death else None
            self._finish(died or result)

    def _handle_fetched(self, result: FetchResult) -> None:
        flight = self._routes.record(result)
        # Its route may have waited for it, while the others are paused for an hour.
        self._next_permit_at = 0.0
        if not result.is_unanswered:
            # The source answers on this route: videos without an answer are at fault themselves.
            self._fail_unanswered(flight.route)
            self._handle_answered(flight, result)
        elif self._routes.is_suspect(flight.route):
            self._check_unanswered_route(flight.route)

    def _handle_answered(self, flight: InFlight, result: FetchResult) -> None:
        failure = result.failure
        if failure is None:
            self._ready.append(flight.task)
            return
        policy = POLICIES[failure.status]
        if policy.scope == "machine":
            self._ledger.record(failure, is_settled=False)
            raise DependencyError(
                "This machine lacks something that downloading needs: "
                f"{visible(failure.reason)}. Finished work is kept. 'voxblink2 doctor' shows what "
                "is missing; then run this again."
            )
        if self._is_requeued(flight, result, policy):
            self._ledger.record(failure, is_settled=False)
        else:
            self._finish(failure)

    def _is_requeued(self, flight: InFlight, result: FetchResult, policy: RetryPolicy) -> bool:
        """Requeue a video that failed, where this run tries it again; return whether it does."""
        task, route = flight.task, flight.route
        if policy.scope == "video":
            wait_seconds = result.action.pause_seconds or 0.0
            return policy.run_tries > 1 and self._queue.try_again(task, wait_seconds=wait_seconds)
        # One video alone that is refused again and again must not stop the others for ever, nor
        # the run, where it is the last one.
        tries = policy.run_tries
        if self._routes.is_healthy(route):
            tries = min(tries, RUN_TRIES)
        is_requeued = route.closure is not None or self._queue.count_refusal(task) < tries
        if is_requeued:
            self._queue.requeue(task)
        return is_requeued

    def _finish(self, outcome: Outcome) -> None:
        status = self._ledger.record(outcome)
        self._dashboard.count(status or outcome.status, outcome.bytes_fetched)
        self._queue.finish(outcome.key)

    def _handle_sealed(self, task: SealTask, shard: Any) -> None:
        if isinstance(shard, WorkerDiedError):
            raise StoppedError(
                f"Sealing {task.target} failed: {shard}. Nothing is lost; run the same command "
                "again. If it happens again, the machine may be short of memory."
            )
        self._ledger.seal(shard)
        shutil.rmtree(self._store.job_parts(self._request.config, task.job), ignore_errors=True)

    # -- no answer, and no open route ---------------------------------------------------------

    def _check_unanswered_route(self, route: RouteState) -> None:
        """Decide whether videos without an answer are at fault, or the whole route."""
        if route.closure is None and self._routes.probe(route):
            self._fail_unanswered(route)
        else:
            self._close_unanswered_route(route)

    def _fail_unanswered(self, route: RouteState) -> None:
        for flight in self._routes.pop_unanswered(route):
            assert flight.unanswered is not None  # for mypy: only those are returned
            self._handle_answered(flight, flight.unanswered)

    def _close_unanswered_route(self, route: RouteState) -> None:
        """Leave the videos of a closed route to the other routes, or to the next run."""
        for flight in self._routes.pop_unanswered(route):
            self._queue.requeue(flight.task)

    def _raise_if_stopped(self) -> None:
        left = self._ledger.count_pending()
        closures = self._routes.closures()
        if not closures or not left:
            return
        if all(closure.is_unanswered for _, closure in closures):
            raise StoppedError(
                f"The source does not answer: {visible(closures[-1][1].reason)}. "
                f"{left} videos are left and nothing finished is lost. Check the network and the "
                "URL of the source, then run the same command again."
            )
        reasons = "; ".join(f"{name}: {visible(closure.reason)}" for name, closure in closures)
        raise BlockedError(
            f"The source refuses every route that was used ({reasons}). {left} videos are left "
            "and nothing finished is lost. Wait some hours, or give other routes with --proxy "
            "or an account's cookies with --cookies, then run the same command again."
        )
