"""The loop of a run with scripted workers: what follows from each result of a video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from voxblink2_lib.errors import BlockedError, DependencyError, StoppedError, UnreachableError
from voxblink2_lib.materialize.planning import plan_run, write_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.tasks import BackupTask, FetchResult, FetchTask, SealTask
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.outcomes import NO_ACTION, RUN_TRIES, Outcome, RouteAction, Status
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources import parse_source
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool

BAD = VideoKey("id990001", "demoHarbour")
GOOD = VideoKey("id990001", "demo_Garden")
DEATH = WorkerDiedError("the worker process died of SIGKILL", signal_number=9)
CRASH = WorkerDiedError("the worker process died of SIGSEGV", signal_number=11)


class Script:
    """What workers return: results of downloads in order, the last one again and again."""

    def __init__(self) -> None:
        self.downloads: dict[VideoKey, list[FetchResult | WorkerDiedError]] = {}
        self.cropping: dict[VideoKey, Outcome | WorkerDiedError] = {}
        self.sealing: WorkerDiedError | None = None
        self.fetched: Counter[VideoKey] = Counter()
        self.cropped: list[tuple[VideoKey, bool]] = []

    def result_of(self, task: Any) -> Any:
        if isinstance(task, BackupTask):
            return None
        if isinstance(task, SealTask):
            return self.sealing or SealedShard(task.job, "", "", 0, 0)
        if isinstance(task, FetchTask):
            results = self.downloads.get(task.key) or [FetchResult(task.key)]
            self.fetched[task.key] += 1
            return results[min(self.fetched[task.key], len(results)) - 1]
        self.cropped.append((task.key, task.is_alone))
        return self.cropping.get(task.key) or Outcome(task.key, "done", clips=1)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Workers that return what a test writes down, and no waits."""
    chosen = Script()

    class ScriptedPool(WorkerPool):
        """Returns scripted results at once."""

        def __init__(self, size: int, **options: Any) -> None:
            super().__init__(size, **options)
            self._calls: list[Call] = []

        @property
        def busy(self) -> int:
            return len(self._calls)

        def submit(self, call: Call) -> None:
            self._calls.append(call)

        def results(self) -> Iterator[tuple[Call, Any]]:
            calls, self._calls = self._calls, []
            yield from ((call, chosen.result_of(call[1])) for call in calls)

    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", ScriptedPool)
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.0)
    return chosen


@pytest.fixture
def context(tmp_path: Path) -> Iterator[RunContext]:
    """A store that has planned two videos of a remote source."""
    request = MaterializeRequest(data_dir="demo", selection=Selection.of(speakers=["id990001"]))
    store = Store(tmp_path / "store")
    index = open_index(open_release("demo"), store.index)
    with Ledger(store.ledger, "audio") as ledger:
        plan = plan_run(request, store, index, ledger)
        source = parse_source("http://media.example.org/{video_id}")
        verdicts = ledger.verdicts(source.named)
        write_plan(plan, ledger, verdicts)
        limiter = RateLimiter(tmp_path / "limits.sqlite")
        yield RunContext(request, store, index, source, ledger, verdicts, plan.options, limiter)


def failed(status: Status, action: RouteAction = NO_ACTION, **fields: Any) -> FetchResult:
    outcome = Outcome(BAD, status, f"the message of {status}", route="direct")
    return FetchResult(BAD, outcome, action=action, **fields)


def run(context: RunContext) -> None:
    Scheduler(context).run(context.ledger.open_jobs())


def statuses(context: RunContext) -> dict[VideoKey, str]:
    ledger = context.ledger
    return dict(entry for job in range(2) for entry in ledger.job_videos(job))


# -- faults of a video -----------------------------------------------------------------------------


def test_videos_are_downloaded_cropped_and_sealed(script: Script, context: RunContext) -> None:
    run(context)
    assert statuses(context) == {BAD: "done", GOOD: "done"}
    assert script.fetched == {BAD: 1, GOOD: 1}
    assert context.ledger.open_jobs() == []


@pytest.mark.parametrize("failures", range(1, RUN_TRIES))
def test_temporary_failures_are_repeated(
    failures: int, script: Script, context: RunContext
) -> None:
    script.downloads[BAD] = [*[failed("transient")] * failures, FetchResult(BAD)]
    run(context)
    assert statuses(context) == {BAD: "done", GOOD: "done"}
    assert script.fetched == {BAD: failures + 1, GOOD: 1}


@pytest.mark.parametrize(
    ("status", "action", "tries"),
    [
        ("transient", NO_ACTION, RUN_TRIES),
        ("transient", RouteAction(61.0), 1),  # too long for this run
        ("gone", NO_ACTION, 1),
        ("ambiguous", NO_ACTION, 1),
        ("not-yet", NO_ACTION, 1),
        ("credentials", NO_ACTION, 1),  # of one video alone
    ],
)
def test_a_video_that_fails_again_and_again_is_finished(
    status: Status, action: RouteAction, tries: int, script: Script, context: RunContext
) -> None:
    script.downloads[BAD] = [failed(status, action)]
    run(context)
    assert statuses(context) == {BAD: status, GOOD: "done"}
    assert script.fetched == {BAD: tries, GOOD: 1}
    assert context.ledger.open_jobs() == []


def test_a_process_that_dies_downloading_is_a_temporary_failure(
    script: Script, context: RunContext
) -> None:
    script.downloads[BAD] = [CRASH]
    run(context)
    assert statuses(context) == {BAD: "transient", GOOD: "done"}
    assert script.fetched == {BAD: RUN_TRIES, GOOD: 1}


@pytest.mark.parametrize(
    ("death", "status", "reason"),
    [
        (
            DEATH,
            "transient",
            r"the worker process died of SIGKILL twice, the second time while nothing else was "
            r"cropped\. The (machine|container) had .* of memory, .* of it available",
        ),
        (
            CRASH,
            "media-unusable",
            "the worker process died of SIGSEGV twice, the second time while nothing else was "
            "cropped",
        ),
    ],
)
def test_a_process_that_dies_cropping_is_no_verdict_before_the_video_was_tried_alone(
    death: WorkerDiedError, status: str, reason: str, script: Script, context: RunContext
) -> None:
    script.cropping[BAD] = death
    run(context)
    assert statuses(context) == {BAD: status, GOOD: "done"}
    assert script.fetched == {BAD: 1, GOOD: 1}
    assert sorted(script.cropped) == [(BAD, False), (BAD, True), (GOOD, False)]
    (missing,) = context.ledger.statistics.missing()
    assert re.fullmatch(reason, missing.reason)


def test_a_worker_that_dies_while_it_seals_stops_the_run(
    script: Script, context: RunContext
) -> None:
    script.sealing = DEATH
    with pytest.raises(StoppedError, match=r"^Sealing .*audio-00000\.arrow failed: the worker"):
        run(context)


# -- faults of a route -----------------------------------------------------------------------------


@pytest.mark.parametrize(("pauses", "tries"), [(1, RUN_TRIES), (2, 8)])
def test_a_video_that_alone_is_limited_does_not_go_round_for_ever(
    pauses: int,
    tries: int,
    script: Script,
    context: RunContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fewer tries are enough where the route has worked until now."""
    limiter = context.rate_limiter
    early = RateLimiter(limiter._path, clock=lambda: 0.0)
    for _ in range(pauses):
        pause = early.pause("media.example.org direct", 1.0, "limit", grows=False)
        early = RateLimiter(limiter._path, clock=lambda until=pause.until: until)  # type: ignore[misc]
    monkeypatch.setattr(RateLimiter, "pause", lambda *_, **__: None)
    monkeypatch.setattr(RateLimiter, "record_success", lambda *_: None)
    script.downloads[BAD] = [failed("rate-limited", RouteAction(600.0, pause_grows=True))]
    run(context)
    assert statuses(context) == {BAD: "rate-limited", GOOD: "done"}
    assert script.fetched == {BAD: tries, GOOD: 1}


@pytest.mark.parametrize(
    ("status", "action"),
    [("blocked", NO_ACTION), ("credentials", RouteAction(closes_route=True))],
)
def test_videos_of_a_refused_route_are_left_to_the_next_run(
    status: Status, action: RouteAction, script: Script, context: RunContext
) -> None:
    script.downloads[BAD] = [failed(status, action)]
    message = (
        rf"^The source refuses every route that was used \(direct: the message of {status}\)\. "
        r"\d videos are left and nothing finished is lost\. Wait some hours, or give other routes "
    )
    with pytest.raises(BlockedError, match=message):
        run(context)
    assert statuses(context)[BAD] == status
    assert BAD in {key for job in range(2) for key in context.verdicts.pending_videos(job)}
    assert script.fetched[BAD] == 1


def test_a_fault_of_the_machine_stops_the_run(script: Script, context: RunContext) -> None:
    script.downloads[BAD] = [failed("environment")]
    message = r"lacks something that downloading needs: the message of environment\. .* doctor"
    with pytest.raises(DependencyError, match=message):
        run(context)
    assert statuses(context)[BAD] == "environment"
    assert BAD in {key for job in range(2) for key in context.verdicts.pending_videos(job)}


# -- no answer -------------------------------------------------------------------------------------


def probes(monkeypatch: pytest.MonkeyPatch, error: UnreachableError | None) -> list[str]:
    """Let every probe succeed, or fail with an error; return the URLs that were probed."""
    urls: list[str] = []

    def probe(url: str, **_: object) -> None:
        urls.append(url)
        if error is not None:
            raise error

    monkeypatch.setattr("voxblink2_lib.materialize.routes.probe_server", probe)
    return urls


def test_without_an_answer_on_a_route_that_works_the_video_is_at_fault(
    script: Script, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = probes(monkeypatch, None)
    script.downloads[BAD] = [failed("transient", is_unanswered=True)]
    run(context)
    assert statuses(context) == {BAD: "transient", GOOD: "done"}
    assert script.fetched == {BAD: RUN_TRIES, GOOD: 1}
    assert set(urls) == {"http://media.example.org/"}


def test_without_an_answer_to_a_probe_no_video_is_counted_as_tried(
    script: Script, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = probes(monkeypatch, UnreachableError("connection refused"))
    for key in (BAD, GOOD):
        outcome = Outcome(key, "transient", "timed out")
        script.downloads[key] = [FetchResult(key, outcome, is_unanswered=True)]
    message = r"^The source does not answer: connection refused\. 2 videos are left and nothing "
    with pytest.raises(StoppedError, match=message):
        run(context)
    assert statuses(context) == {BAD: "planned", GOOD: "planned"}
    assert len(urls) == 1
