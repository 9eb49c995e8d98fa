"""The loop of the driver: which node does which job, and what follows from the results."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from voxblink2_lib import errors
from voxblink2_lib.cluster.checkpoints import Checkpoints
from voxblink2_lib.cluster.commit import commit_open, commit_sealed
from voxblink2_lib.cluster.records import (
    AnnotatedVideos,
    JobResult,
    JobWork,
    Node,
    NodeLostError,
    Nodes,
    Problem,
    Report,
)
from voxblink2_lib.errors import BlockedError, DependencyError, StoppedError, VoxBlink2Error
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.dashboard import Dashboard, RouteSnapshot, Snapshot
from voxblink2_lib.materialize.interruption import Interruption
from voxblink2_lib.materialize.judgement import ASKED_IN_VAIN
from voxblink2_lib.materialize.routes import Routes
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published.place import Place

_STEP_SECONDS = 1.0
# So long jobs may take to save what they have, after Ctrl-C.
_STOP_SECONDS = 60.0
# A job whose process dies so often is at fault itself.
_MOST_LOSSES = 3
_log = logging.getLogger(__name__)


class Driver:
    """A run over open jobs of a store at a URL, on the nodes of a cluster.

    Args:
        context: what it works on.
        place: where the store is published.
        nodes: who does the work.
        versions: what a node needs to have, so that its clips are those of the store.
        shares_budget: the nodes have one budget together.
    """

    def __init__(
        self,
        context: RunContext,
        place: Place,
        nodes: Nodes,
        *,
        versions: str,
        shares_budget: bool = False,
    ) -> None:
        self._context, self._place, self._nodes = context, place, nodes
        self._ledger, self._store = context.ledger, context.store
        self._versions, self._shares_budget = versions, shares_budget
        self._rated_nodes = 0
        self._outcomes = context.ledger.outcomes
        self._waiting: deque[int] = deque()
        self._running: dict[str, JobWork] = {}
        self._losses: Counter[int] = Counter()
        # Nodes that are not used any more in this run, and why.
        self._problems: dict[Node, Problem] = {}
        self._reports: dict[int, tuple[Node, Report]] = {}
        # How many videos of each job are not counted yet: those of a lost node come again.
        self._uncounted: Counter[int] = Counter()

    def run(self, jobs: Sequence[int]) -> None:
        """Do all that is left in these jobs.

        Raises:
            StoppedError, BlockedError, DependencyError: work is left, and no node can go on.
            KeyboardInterrupt: the user has stopped it; what was finished has left the nodes.
        """
        verdicts, reopened = self._context.verdicts, set(self._ledger.reopened.jobs())
        self._waiting.extend(
            job for job in jobs if job not in reopened and verdicts.pending_videos(job)
        )
        total = verdicts.count_pending(list(self._waiting))
        here = [job for job in jobs if job not in set(self._waiting)]
        retried = [*set(self._waiting).intersection(self._ledger.recovered.retry_jobs())]
        try:
            with Dashboard(total) as dashboard, Interruption() as interruption:
                self._dashboard, self._interruption = dashboard, interruption
                try:
                    while self._waiting or self._running:
                        self._step()
                finally:
                    self._dashboard.show(self._snapshot, at_once=True)
        except StoppedError:
            self._run_here(here, retried)
            raise
        self._run_here(here, retried)

    def _run_here(self, jobs: Sequence[int], retried: Sequence[int]) -> None:
        """Seal what needs no node, and gather what came back."""
        answered = [job for job in retried if not self._context.verdicts.pending_videos(job)]
        Scheduler(self._context).run(sorted([*jobs, *answered]))

    def _step(self) -> None:
        if self._interruption.is_requested:
            self._end()
        self._hand_out()
        for node, result in self._nodes.results(timeout_seconds=_STEP_SECONDS):
            self._handle(node, result)
        self._read_reports()
        self._dashboard.show(self._snapshot)

    def _end(self) -> None:
        """Have all jobs save what they have, and end the run."""
        _log.warning("Stopping: what is finished leaves the nodes. Ctrl-C again does not wait.")
        self._nodes.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._running and time.monotonic() < deadline:
            for node, result in self._nodes.results(timeout_seconds=_STEP_SECONDS):
                self._handle(node, result)
        raise KeyboardInterrupt

    # -- Handing out -------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        usable = [node for node in self._nodes.present() if self._is_usable(node)]
        if not usable and not self._running:
            raise self._no_node_left()
        self._note_rate(len(usable))
        for node in usable:
            if self._waiting and node.id not in self._running:
                work = self._work(self._waiting.popleft())
                self._running[node.id] = work
                self._nodes.start(node, work)

    def _note_rate(self, nodes: int) -> None:
        """Write how many videos may be requested in an hour."""
        if nodes != self._rated_nodes:
            self._rated_nodes = nodes
            budgets = 1 if self._shares_budget else nodes
            routes = Routes(self._context.source, self._context.rate_limiter)
            self._ledger.set_setting("videos_an_hour", str(routes.videos_per_hour * budgets))

    def _is_usable(self, node: Node) -> bool:
        if node in self._problems:
            return False
        if node.versions == self._versions:
            return True
        message = (
            f"The node {visible(node.name)} is not used: it has {visible(node.versions)}; the "
            f"clips of this store are made with {self._versions}, and others would differ by "
            "rounding. Install these versions there."
        )
        _log.warning("%s", message)
        self._problems[node] = Problem(DependencyError.__name__, message)
        return False

    def _work(self, number: int) -> JobWork:
        """Return a job with all that a node needs; what is here of it goes where nodes find it."""
        context, ledger = self._context, self._ledger
        known = self._outcomes.read(number)
        assert known is not None  # for mypy: an open job is in the ledger
        # Of all settings, which may have a million ids, the only one that a node needs.
        known = replace(known, settings={ASKED_IN_VAIN: ledger.setting(ASKED_IN_VAIN) or "[]"})
        pending = set(context.verdicts.pending_videos(number))
        keys = pending | {video.key for video in known.videos if video.row.status == "done"}
        index = context.index
        with_tracks = context.request.with_faces
        videos = AnnotatedVideos(index.annotated(keys, with_tracks=with_tracks) if index else ())
        self._uncounted.setdefault(number, len(pending))
        if any(self._store.job_parts(ledger.config, number).glob("*.arrow")):
            with Checkpoints(self._place, self._store, ledger, number) as checkpoints:
                checkpoints.save()
        return JobWork(known, videos, number not in ledger.recovered.retry_jobs())

    # -- Results -----------------------------------------------------------------------------------

    def _handle(self, node: Node, result: JobResult | NodeLostError) -> None:
        work = self._running.pop(node.id)
        number = work.known.job
        self._reports.pop(number, None)
        if isinstance(result, NodeLostError):
            self._handle_loss(node, number, result)
        elif result.problem is not None:
            self._waiting.appendleft(number)
            if not self._interruption.is_requested:
                _log.warning(
                    "The node %s is not used any more in this run: %s",
                    *(visible(node.name), result.problem.message),
                )
                self._problems[node] = result.problem
        elif work.is_sealed_there:
            commit_sealed(self._store, self._ledger, result)
        else:
            commit_open(self._place, self._store, self._ledger, work, result)

    def _handle_loss(self, node: Node, number: int, loss: NodeLostError) -> None:
        self._losses[number] += 1
        self._waiting.appendleft(number)
        if self._losses[number] >= _MOST_LOSSES:
            raise StoppedError(
                f"Job {number} was lost {self._losses[number]} times, the last time on the node "
                f"{visible(node.name)}: {visible(str(loss))}. What had left the nodes is kept; run "
                "the same command again. If it happens again, they may be short of memory."
            )
        _log.warning(
            "The node %s was lost (%s). Its job begins again with what had left it.",
            *(visible(node.name), visible(str(loss))),
        )

    def _no_node_left(self) -> VoxBlink2Error:
        left = f"{len(self._waiting)} jobs are left and nothing that had left a node is lost."
        if not self._problems:
            return StoppedError(
                f"The cluster has no node with a core. {left} Start nodes with ray start, then run "
                "the same command again."
            )
        texts = [f"{visible(node.name)}: {why.message}" for node, why in self._problems.items()]
        kinds = {why.kind for why in self._problems.values()}
        kind = kinds.pop() if len(kinds) == 1 else StoppedError.__name__
        error: type[VoxBlink2Error] = getattr(errors, kind, StoppedError)
        if not issubclass(error, (StoppedError, DependencyError)):
            error = StoppedError
        advice = "" if error is BlockedError else "Then run the same command again."
        return error(f"No node can go on. {left} {' '.join(texts)} {advice}".rstrip())

    # -- Progress ----------------------------------------------------------------------------------

    def _read_reports(self) -> None:
        for node, report in self._nodes.reports():
            for message in report.messages:
                _log.warning("%s: %s", visible(node.name), message)
            self._reports[report.job] = node, report
            for status, size_bytes in report.counts[: self._uncounted[report.job]]:
                self._dashboard.count(status, size_bytes)
            self._uncounted[report.job] -= min(len(report.counts), self._uncounted[report.job])

    def _snapshot(self) -> Snapshot:
        routes: list[RouteSnapshot] = []
        slow_calls: list[str] = []
        for number, (node, report) in self._reports.items():
            if any(work.known.job == number for work in self._running.values()):
                routes += (_named(route, node) for route in report.routes)
                slow_calls += (f"{node.name}: {line}" for line in report.slow_calls)
        return Snapshot(routes, *self._ledger.waiting(), slow_calls)


def _named(route: RouteSnapshot, node: Node) -> RouteSnapshot:
    return replace(route, name=f"{node.name} {route.name}")
