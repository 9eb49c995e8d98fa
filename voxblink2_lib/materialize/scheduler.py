"""The loop of one run: which video is downloaded or cropped next, and what follows from results."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from voxblink2_lib.errors import BlockedError, DependencyError, StoppedError, next_command
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.croppers import Croppers
from voxblink2_lib.materialize.dashboard import Dashboard, RunView, Snapshot
from voxblink2_lib.materialize.deadlines import end_overdue, slow_lines
from voxblink2_lib.materialize.fetched_media import open_staged
from voxblink2_lib.materialize.gathering import Gathering
from voxblink2_lib.materialize.judgement import Judgement, asked_in_vain
from voxblink2_lib.materialize.pipeline import back_up, fetch_canary, fetch_video
from voxblink2_lib.materialize.resealing import seal_call, take_sealed
from voxblink2_lib.materialize.routes import Answer, InFlight, RouteRecord, Routes, RouteState
from voxblink2_lib.materialize.tasks import (
    BackupTask,
    FetchResult,
    FetchTask,
    SealTask,
    VideoTask,
)
from voxblink2_lib.materialize.video_queue import RunContext, VideoQueue
from voxblink2_lib.outcomes import POLICIES, RUN_TRIES, Outcome, RetryPolicy
from voxblink2_lib.store.backup import BACKUP_SECONDS, is_backup_due
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool, collect

# Downloads wait for the network, so threads share a process; more than two would not help.
_FETCH_PROCESSES = 2
_REFRESH_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Scheduler:
    """One run over open jobs of a store.

    Args:
        context: what it works on.
        view: who watches it; by default a dashboard on standard error.
        seals: seal jobs. Otherwise their parts are left to who has the store.
    """

    def __init__(
        self, context: RunContext, *, view: RunView | None = None, seals: bool = True
    ) -> None:
        self._view = view
        self._seals = seals
        self._request = context.request
        self._store = context.store
        self._source = context.source
        self._ledger = context.ledger
        self._verdicts = context.verdicts
        self._rate_limiter = context.rate_limiter
        self._last = asked_in_vain(context)
        self._queue = VideoQueue(context)
        self._gathering = Gathering(context)
        self._routes = Routes(context.source, context.rate_limiter, context.remembered)
        self._judgement = Judgement(context, self._routes, self._queue)
        # No route has a permit before (of the monotonic clock), unless a result arrives.
        self._next_permit_at = 0.0
        # A copy of the ledger that failed is tried again in an hour (of the monotonic clock).
        self._next_backup_at = -math.inf

    def run(self, open_jobs: list[int]) -> None:
        """Do all that is left in these jobs.

        Raises:
            StoppedError, BlockedError: work is left, and no route is open.
            DependencyError: this machine lacks something that downloading needs.
        """
        self._queue.add_jobs(open_jobs, last=self._last)
        self._ledger.set_setting("videos_an_hour", str(self._routes.videos_per_hour))
        fetches = self._source.options.fetch_count
        processes = min(_FETCH_PROCESSES, fetches)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._gathering)
            total = self._verdicts.count_pending(open_jobs)
            self._dashboard = stack.enter_context(self._view or Dashboard(total))
            self._croppers = Croppers(stack.enter_context(WorkerPool(self._request.worker_count)))
            self._fetchers = stack.enter_context(
                WorkerPool(processes, threads=-(-fetches // processes))
            )
            try:
                while self._step():
                    pass
            finally:
                self._dashboard.show(self._snapshot, at_once=True)
        self._raise_if_stopped(open_jobs)

    @property
    def route_records(self) -> dict[str, RouteRecord]:
        """What later jobs of the same run need to know of the routes, by their names."""
        return self._routes.records()

    def _step(self) -> bool:
        """Hand out work and handle results; return whether there is anything left to wait for."""
        seconds = self._hand_out()
        timeout = _REFRESH_SECONDS if seconds is None else min(seconds, _REFRESH_SECONDS)
        self._dashboard.show(self._snapshot)
        pools = (self._croppers.pool, self._fetchers)
        if any(pool.busy for pool in pools):
            for call, result in collect(pools, timeout_seconds=timeout):
                self._handle_result(call, result)
            end_overdue(pools)
        elif route := self._routes.unanswered_route():
            self._check_unanswered_route(route)
        elif seconds is None:
            answers, is_asking = self._judgement.settle_idle()
            self._settle(answers)
            return bool(answers) or is_asking
        else:
            time.sleep(timeout)
        return True

    def _snapshot(self) -> Snapshot:
        routes = self._routes.snapshots() if self._source.is_remote else []
        slow_calls = slow_lines(self._croppers.pool, self._fetchers)
        return Snapshot(routes, *self._ledger.waiting(), slow_calls)

    # -- handing out --------------------------------------------------------------------------

    def _hand_out(self) -> float | None:
        """Keep all workers busy.

        Returns:
            Seconds after which there may be more to hand out; ``None`` if only a result can lead to
            more.
        """
        self._hand_out_canaries()
        seconds = self._hand_out_videos()
        for job in self._queue.pop_complete():
            if not self._seals:
                continue
            if self._gathering.has(job.number):
                self._gathering.complete(job.number)
                self._back_up_if_due()
            else:
                call = seal_call(self._store, self._ledger, job.number, self._queue.schema)
                self._croppers.seals.append(call)
        self._croppers.hand_out()
        waits = (seconds, self._routes.seconds_until_canary())
        return min((wait for wait in waits if wait is not None), default=None)

    def _hand_out_videos(self) -> float | None:
        while self._has_room():
            seconds = self._next_permit_at - time.monotonic()
            if seconds > 0:
                return seconds
            task = self._queue.next_task()
            if task is None:
                return self._queue.seconds_until_ready()
            if self._is_at_hand(task):
                self._croppers.ready.append(task)
            elif flight := self._routes.acquire(task):
                self._fetchers.submit((fetch_video, self._fetch_task(flight)))
            else:
                self._queue.requeue(task)
                return self._wait_for_permit()
        return None

    def _hand_out_canaries(self) -> None:
        while self._fetchers.free and (task := self._judgement.next_canary()):
            self._fetchers.submit((fetch_canary, task))

    def _has_room(self) -> bool:
        # Staged media take space until they are cropped: no more than keeps the croppers busy.
        has_space = len(self._croppers.ready) < 2 * self._request.worker_count
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

    # -- results ------------------------------------------------------------------------------

    def _handle_result(self, call: Call, result: Any) -> None:
        # What waits for a permit may wait no longer: its route, or this result's, is free again.
        self._next_permit_at = 0.0
        task = call[1]
        death = result if isinstance(result, WorkerDiedError) else None
        if isinstance(task, SealTask):
            take_sealed(self._store, self._ledger, task, result)
            self._back_up_if_due()
        elif isinstance(task, BackupTask):
            if result is not None:
                _log.warning("The ledger was not copied: %s", result)
        elif isinstance(task, FetchTask):
            route = task.source.route.name
            died = Outcome(task.key, "transient", str(death), route=route, is_explicit=False)
            answer = FetchResult(task.key, died) if death else result
            if call[0] is fetch_canary:
                self._settle(self._judgement.record_canary(task, answer))
            else:
                self._handle_fetched(answer)
        elif outcome := self._croppers.outcome(task, result):
            if death and outcome.status == "transient":
                self._finish(outcome)  # the fault of this machine, and of no route
                self._judgement.forget(task.key)
            else:
                self._handle_cropped(task, outcome)

    def _handle_fetched(self, result: FetchResult) -> None:
        flight = self._routes.record(result)
        if not result.is_unanswered:
            # The source answers on this route: videos without an answer are at fault themselves.
            self._fail_unanswered(flight.route)
            self._handle_answered(flight, result)
            return
        # It may be the last that a route in question waited for.
        self._judgement.conclude(flight.route)
        if self._routes.is_suspect(flight.route):
            self._check_unanswered_route(flight.route)

    def _handle_answered(self, flight: InFlight, result: FetchResult) -> None:
        failure = result.failure
        if failure is None:
            self._judgement.record_fetched(flight)
            self._croppers.ready.append(flight.task)
            return
        policy = POLICIES[failure.status]
        if policy.scope == "machine":
            self._verdicts.record(failure, is_settled=False)
            raise DependencyError(
                "This machine lacks something that downloading needs: "
                f"{visible(failure.reason)}. Finished work is kept. {next_command('doctor')} shows "
                "what is missing; then run this again."
            )
        if policy.scope == "video":
            wait_seconds = result.action.pause_seconds or 0.0
            answer = Answer(flight.task, failure, flight.position, wait_seconds, result.warnings)
            self._settle(self._judgement.judge(flight.route, answer))
            return
        if self._is_requeued(flight, policy):
            self._verdicts.record(failure, is_settled=False)
        else:
            self._finish(failure)
        self._judgement.conclude(flight.route)

    def _is_requeued(self, flight: InFlight, policy: RetryPolicy) -> bool:
        """Requeue a video whose route was refused; return whether this run tries it again."""
        task, route = flight.task, flight.route
        # One video alone that is refused again and again must not stop the others for ever, nor
        # the run, where it is the last one.
        tries = policy.run_tries
        if self._routes.is_healthy(route):
            tries = min(tries, RUN_TRIES)
        is_requeued = route.closure is not None or self._queue.count_refusal(task) < tries
        if is_requeued:
            self._queue.requeue(task)
        return is_requeued

    def _settle(self, answers: Sequence[Answer]) -> None:
        """Write failures; those of which another try may help are tried again in this run."""
        for answer in answers:
            task, outcome = answer.task, answer.outcome
            has_tries = POLICIES[outcome.status].run_tries > 1
            if has_tries and self._queue.try_again(task, wait_seconds=answer.wait_seconds):
                self._verdicts.record(outcome, is_settled=False, at=answer.at)
            else:
                self._finish(outcome, at=answer.at, is_witnessed=answer.is_witnessed)

    def _handle_cropped(self, task: VideoTask, outcome: Outcome) -> None:
        route = self._routes.named(outcome.route)
        if route is None:
            self._finish(outcome)  # of this machine, or downloaded by another route before
        elif outcome.status == "done":
            self._finish(outcome)
            self._settle(self._judgement.record_success(route, task.key))
        else:
            # It may be tried again, then with others beside it.
            answer = Answer(replace(task, is_alone=False), outcome)
            self._settle(self._judgement.judge(route, answer))

    def _finish(
        self, outcome: Outcome, *, at: float | None = None, is_witnessed: bool = False
    ) -> None:
        status = self._verdicts.record(outcome, at=at, is_witnessed=is_witnessed)
        self._dashboard.count(status or outcome.status, outcome.bytes_fetched)
        self._queue.finish(outcome.key)

    def _back_up_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_backup_at and is_backup_due(self._store, now=time.time()):
            self._next_backup_at = now + BACKUP_SECONDS
            self._croppers.seals.append((back_up, BackupTask(self._store)))

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

    def _raise_if_stopped(self, jobs: list[int]) -> None:
        # Clips that were lost are not pending in the ledger.
        left = max(self._verdicts.count_pending(jobs), self._queue.unfinished)
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
        if all(closure.is_suspect for _, closure in closures):
            raise BlockedError(
                f"No route brings videos any more. {reasons.rstrip('.')}. {left} videos are left; "
                "those that failed alike count as not tried, and nothing finished is lost. After "
                "that, run the same command again."
            )
        raise BlockedError(
            f"The source refuses every route that was used ({reasons}). {left} videos are left "
            "and nothing finished is lost. Wait some hours, or give other routes with --proxy "
            "or an account's cookies with --cookies, then run the same command again."
        )
