"""The nodes of a Ray cluster: the only file that knows Ray.

Secrets are in the first argument of a job's task, which is small: Ray sends it within the request
and keeps it in memory. Nothing that a job prints reaches the logs of Ray.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from voxblink2_lib.cluster.budgets import NodeBudget, RemoteRateLimiter
from voxblink2_lib.cluster.records import (
    ClusterRun,
    JobResult,
    JobWork,
    Node,
    NodeLostError,
    Report,
)
from voxblink2_lib.cluster.versions import versions_here
from voxblink2_lib.errors import DependencyError, StoppedError, first_line
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redact, secrets_in, secrets_in_cookies
from voxblink2_lib.sources.rate_limits import RateLimiter, shared_file

_ANSWER_SECONDS, _DESCRIBE_SECONDS = 10.0, 120.0
# Nodes come and go.
_LOOK_SECONDS = 5.0
# Of an actor: it uses no core, and is started again as often as it dies, as long as its node lives.
_LASTING = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to a cluster; a connection that was there before is used, and stays.

    Args:
        address: of the cluster; ``auto`` for the one of this machine, ``local`` for one that is
            started on it and ended here.

    Raises:
        StoppedError: there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_answers(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
        with _command_line_kept_back(), _handler_of_sigterm_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=False,
                logging_level=logging.ERROR,
            )
    except (OSError, ValueError, RuntimeError) as error:
        where = "on this machine" if address == "auto" else f"at {visible(address)}"
        raise StoppedError(
            f"There is no Ray cluster {where} ({visible(redact(first_line(error))).rstrip('.')}). "
            "Nothing was changed. Start one with 'ray start --head', or name another with "
            "--address HOST:PORT."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Try to connect to a host and port: Ray would wait for minutes.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()


@contextlib.contextmanager
def _command_line_kept_back() -> Iterator[None]:
    """Keep Ray from telling the cluster the driver's command line, which may have secrets."""
    module: Any = importlib.import_module("ray._private.utils")
    before = module.get_entrypoint_name
    module.get_entrypoint_name = lambda: "voxblink2"
    try:
        yield
    finally:
        module.get_entrypoint_name = before


@contextlib.contextmanager
def _handler_of_sigterm_kept() -> Iterator[None]:
    """Keep what the program does at SIGTERM; Ray would end it at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _on_node(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


class _NodeActor:
    """What a node keeps from job to job, and what it has to say of itself."""

    def __init__(self) -> None:
        _drop_output()
        self._budget = NodeBudget(RateLimiter(shared_file()))

    def describe(self) -> tuple[str, str]:
        """Return the name of the machine, and its versions."""
        return socket.gethostname(), versions_here()

    def limit(self, method: str, values: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Return what a method of the rate limiter returns."""
        return self._budget.limit(method, *values, **options)

    def records(self) -> Any:
        """Return what jobs have learned of the routes."""
        return self._budget.records()

    def learn(self, records: Any) -> None:
        """Add what a job has learned of the routes."""
        self._budget.learn(records)


class _Board:
    """Where jobs report to, and learn that they are to stop."""

    def __init__(self) -> None:
        self._reports: list[tuple[str, Report]] = []
        self._is_stopping = False

    def report(self, node_id: str, report: Report) -> bool:
        """Take a report; return whether the job is to stop."""
        self._reports.append((node_id, report))
        return self._is_stopping

    def take(self) -> list[tuple[str, Report]]:
        """Return the reports since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def stop(self) -> None:
        """Have all jobs stop."""
        self._is_stopping = True


class _Surroundings(NamedTuple):
    """Where a job is done, and the handles of the actors that it needs."""

    node_id: str
    cores: int
    budget: Any
    board: Any


@ray.remote(max_retries=0)
def _job_task(run: ClusterRun, work: JobWork, here: _Surroundings) -> JobResult | str:
    """Do a job; return what this library did not expect, without secrets, as a text."""
    _drop_output()
    # The actors, whose processes load this file too, have no use for it.
    from voxblink2_lib.cluster.job import run_job

    def limit(method: str, *values: Any, **options: Any) -> Any:
        return ray.get(here.budget.limit.remote(method, values, options))

    def report(report: Report) -> bool:
        complete = report._replace(messages=tuple(messages))
        messages.clear()
        return bool(ray.get(here.board.report.remote(here.node_id, complete)))

    secrets = _secrets_of(run)
    messages: list[str] = []
    with _messages_kept(messages, secrets), tempfile.TemporaryDirectory() as folder:
        try:
            result, records = run_job(
                run,
                work,
                cores=here.cores,
                rate_limiter=RemoteRateLimiter(limit, Path(folder)),
                remembered=ray.get(here.budget.records.remote()),
                report=report,
            )
            ray.get(here.budget.learn.remote(records))
        except Exception:
            return redact(traceback.format_exc(), secrets)
    if result.problem is None:
        return result
    problem = result.problem._replace(message=redact(result.problem.message, secrets))
    return result._replace(problem=problem)


def _secrets_of(run: ClusterRun) -> frozenset[str]:
    options = run.source.options
    texts = [run.url, run.source.place, *options.proxy, *options.extractor_args]
    cookies = [secrets_in_cookies(Path(file).expanduser()) for file in options.cookies]
    return secrets_in(*texts, options.yt_dlp or "").union(*cookies)


def _drop_output() -> None:
    """Send what this process and its own print to nowhere: Ray would write it to its logs."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Keeper(logging.Handler):
    def __init__(self, messages: list[str], secrets: frozenset[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages, self._secrets = messages, secrets

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message for the next report."""
        self._messages.append(redact(record.getMessage(), self._secrets))


@contextlib.contextmanager
def _messages_kept(messages: list[str], secrets: frozenset[str]) -> Iterator[None]:
    """Keep messages of this library for the driver, and let nobody else have them."""
    logger, handler = logging.getLogger("voxblink2_lib"), _Keeper(messages, secrets)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


class RayNodes:
    """The nodes of the cluster that this process is connected to.

    Args:
        run: what all jobs have in common.
        shares_budget: one budget for all nodes, as behind one address. Otherwise each has its own.
    """

    def __init__(self, run: ClusterRun, *, shares_budget: bool) -> None:
        self._run = run
        here = _on_node(ray.get_runtime_context().get_node_id())
        # Its types are for decorators alone.
        remote: Any = ray.remote
        actor = remote(**_LASTING)
        self._board: Any = actor(_Board).options(scheduling_strategy=here).remote()
        self._node_actor: Any = actor(_NodeActor)
        self._shared: Any = None
        if shares_budget:
            self._shared = self._node_actor.options(scheduling_strategy=here).remote()
        # Handles, which end with this process: another run on the cluster has its own.
        self._actors: dict[str, Any] = {}
        self._nodes: dict[str, Node] = {}
        self._running: dict[Any, Node] = {}
        self._looked_at = 0.0

    def present(self) -> Sequence[Node]:
        """Return the nodes that are alive and have a core, as of some seconds ago."""
        now = time.monotonic()
        if self._running and now - self._looked_at < _LOOK_SECONDS:
            return [*self._nodes.values()]
        self._looked_at = now
        nodes: Any = ray.nodes  # without types
        entries = [entry for entry in nodes() if entry["Alive"]]
        cores = {entry["NodeID"]: int(entry["Resources"].get("CPU", 0)) for entry in entries}
        new = [name for name, count in cores.items() if count and name not in self._actors]
        answers = {node_id: self._meet(node_id) for node_id in new}
        for node_id, answer in answers.items():
            with contextlib.suppress(ray.exceptions.RayError):  # it died just now
                host, versions = ray.get(answer, timeout=_DESCRIBE_SECONDS)
                name = f"{host}-{node_id[:6]}"
                self._nodes[node_id] = Node(node_id, name, cores[node_id], versions)
        for node_id in self._actors.keys() - cores.keys():
            del self._actors[node_id]
            self._nodes.pop(node_id, None)
        return [*self._nodes.values()]

    def _meet(self, node_id: str) -> Any:
        """Start the actor of a node, and have it describe itself."""
        actor = self._node_actor.options(scheduling_strategy=_on_node(node_id)).remote()
        self._actors[node_id] = actor
        return actor.describe.remote()

    def start(self, node: Node, work: JobWork) -> None:
        """Begin a job on a node."""
        budget = self._shared or self._actors[node.id]
        cores = self._run.on(node.cores).worker_count
        task = _job_task.options(
            num_cpus=cores, scheduling_strategy=_on_node(node.id), name=f"job {work.known.job}"
        )
        here = _Surroundings(node.id, cores, budget, self._board)
        reference = task.remote(self._run, work, here)
        self._running[reference] = node

    def results(
        self, *, timeout_seconds: float
    ) -> Sequence[tuple[Node, JobResult | NodeLostError]]:
        """Return the results that have arrived, after waiting for the first of them."""
        ready, _ = (
            ray.wait([*self._running], timeout=timeout_seconds) if self._running else ([], [])
        )
        results = [(self._running.pop(reference), _result_of(reference)) for reference in ready]
        if any(isinstance(result, NodeLostError) for _, result in results):
            self._looked_at = 0.0
        return results

    def reports(self) -> Sequence[tuple[Node, Report]]:
        """Return what was reported since the last call."""
        reports: list[tuple[str, Report]] = ray.get(self._board.take.remote())
        return [(self._nodes[node], report) for node, report in reports if node in self._nodes]

    def stop(self) -> None:
        """Make all jobs save what they have, and end."""
        ray.get(self._board.stop.remote())


def _result_of(reference: Any) -> JobResult | NodeLostError:
    try:
        result: JobResult | str = ray.get(reference)
    except ray.exceptions.RayError as error:
        return NodeLostError(first_line(error).partition(". ")[0].rstrip("."))
    if isinstance(result, str):
        raise DependencyError(f"A job ended with a defect of voxblink2 on its node:\n{result}")
    return result
