"""Nodes of a cluster without a cluster: jobs run in this process, and may be killed half-way."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.inline_pool import InlinePool
from voxblink2_lib.cluster.driver import Driver
from voxblink2_lib.cluster.job import run_job
from voxblink2_lib.cluster.records import (
    ClusterRun,
    JobResult,
    JobWork,
    Node,
    NodeLostError,
    Report,
)
from voxblink2_lib.cluster.versions import versions_here
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.routes import RouteRecord
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.layout import Store


class KilledError(BaseException):
    """What a node dies of in a test: nothing of ours handles it."""


def node(name: str, versions: str | None = None) -> Node:
    """Return a node of this machine."""
    return Node(name, name, 2, versions_here() if versions is None else versions)


def _do_nothing(node: Node, work: JobWork) -> None:
    del node, work


class InlineNodes:
    """Runs each job when its result is waited for.

    Args:
        run: what all jobs have in common.
        nodes: those that are alive.
        limits: file of budgets.
        before: called before each job, with its node and work; it may raise ``KilledError``.
    """

    def __init__(
        self,
        run: ClusterRun,
        nodes: Sequence[Node],
        limits: Path,
        before: Callable[[Node, JobWork], None] = _do_nothing,
    ) -> None:
        self._run, self._limits, self._before = run, limits, before
        self.alive = list(nodes)
        self.done: list[tuple[str, int]] = []
        self._started: list[tuple[Node, JobWork]] = []
        self._reports: list[tuple[Node, Report]] = []
        self._records: dict[str, dict[str, RouteRecord]] = {}
        self.is_stopping = False

    def present(self) -> Sequence[Node]:
        return tuple(self.alive)

    def start(self, node: Node, work: JobWork) -> None:
        assert node in self.alive
        self._started.append((node, work))

    def results(
        self, *, timeout_seconds: float
    ) -> Sequence[tuple[Node, JobResult | NodeLostError]]:
        del timeout_seconds
        if not self._started:
            return []
        node, work = self._started.pop(0)
        try:
            self._before(node, work)
            return [(node, self._do(node, work))]
        except KilledError:
            self.alive.remove(node)
            return [(node, NodeLostError("the node died"))]

    def _do(self, node: Node, work: JobWork) -> JobResult:
        def report(report: Report) -> bool:
            self._reports.append((node, pickle.loads(pickle.dumps(report))))
            return self.is_stopping

        run, work = pickle.loads(pickle.dumps((self._run, work)))
        result, records = run_job(
            run,
            work,
            cores=node.cores,
            rate_limiter=RateLimiter(self._limits),
            remembered=self._records.get(node.id, {}),
            report=report,
        )
        self._records[node.id] = records
        self.done.append((node.id, work.known.job))
        returned: JobResult = pickle.loads(pickle.dumps(result))
        return returned

    def reports(self) -> Sequence[tuple[Node, Report]]:
        reports, self._reports = self._reports, []
        return reports

    def stop(self) -> None:
        self.is_stopping = True


class InlineCluster:
    """An engine whose nodes are in this process.

    Args:
        request: what is made.
        folder: an empty one.
        nodes: those that are alive.
        options: of :class:`InlineNodes`.
    """

    def __init__(
        self, request: MaterializeRequest, folder: Path, nodes: Sequence[Node], **options: Any
    ) -> None:
        self.request = request
        self._folder, self._nodes, self._options = folder, nodes, options
        self.used: list[InlineNodes] = []

    def __call__(self, context: RunContext, jobs: list[int]) -> None:
        run = ClusterRun.of(self.request, context.source, context.options)
        nodes = InlineNodes(run, self._nodes, self._folder / "limits.sqlite", **self._options)
        self.used.append(nodes)
        Driver(context, open_place(run.url), nodes, versions=versions_here()).run(jobs)

    def materialize(self, pool: type[InlinePool] = InlinePool) -> Store:
        """Run it to its end."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", pool)
            return materialize(self.request, retry=True, wait=False, engine=self)
