"""A run whose workers answer by a script at once, on days that pass when a test says so.

The loop, the ledger and the rate limits are real; nothing is downloaded or cropped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import plain_corpus
from voxblink2_lib.materialize.gathering import Gathering
from voxblink2_lib.materialize.pipeline import fetch_canary
from voxblink2_lib.materialize.planning import plan_run, write_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.tasks import (
    BackupTask,
    FetchResult,
    FetchTask,
    SealTask,
    VideoTask,
)
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.outcomes import NO_ACTION, Outcome, RouteAction, Status
from voxblink2_lib.records import ConfigName, SealedShard, VideoKey
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.sources import parse_source
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.clip_format import record_format
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.workers.pool import Call, WorkerPool

BARE = "Video unavailable"
TEMPLATE = "http://media.example.org/{video_id}"
DAY = 24 * 3600.0


def failed(
    task: FetchTask,
    status: Status = "ambiguous",
    words: str = BARE,
    *,
    is_explicit: bool = False,
    action: RouteAction = NO_ACTION,
) -> FetchResult:
    """Return that a video did not come."""
    route = task.source.route.name
    outcome = Outcome(task.key, status, words, route=route, is_explicit=is_explicit)
    return FetchResult(task.key, outcome, action=action)


def came(task: FetchTask) -> FetchResult:
    """Return that the media of a video came."""
    return FetchResult(task.key)


class ScriptedSource:
    """What a source answers, and how long it takes.

    Attributes:
        answer: called with each download when it is requested.
        delays: rounds of the loop after which the answer of a video arrives; else one.
        cropping: called with each video that came; its clips are cropped by default.
        requests: what was requested, in order: route, video, and whether it was a canary.
        days: added to the clock.
        slept: seconds that the loop slept, which took no time.
    """

    def __init__(self) -> None:
        self.answer: Callable[[FetchTask], FetchResult] = came
        self.delays: dict[VideoKey, int] = {}
        self.cropping: Callable[[VideoTask, str], Outcome] = cropped
        self.requests: list[tuple[str, VideoKey, bool]] = []
        self.days = 0.0
        self.slept = 0.0
        self.routes: dict[VideoKey, str] = {}

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.slept += seconds
        self.days += seconds / DAY

    @property
    def canaries(self) -> list[VideoKey]:
        """Return the canaries that were requested."""
        return [key for _, key, is_canary in self.requests if is_canary]

    @property
    def videos(self) -> Counter[VideoKey]:
        """Return how often each video was requested for itself."""
        return Counter(key for _, key, is_canary in self.requests if not is_canary)

    def result_of(self, call: Call) -> Any:
        """Return what a worker returns."""
        function, task = call
        if isinstance(task, BackupTask):
            return None
        if isinstance(task, SealTask):
            return SealedShard(task.job, "", "", 0, 0)
        if isinstance(task, FetchTask):
            route = task.source.route.name
            self.requests.append((route, task.key, function is fetch_canary))
            self.routes[task.key] = route
            return self.answer(task)
        return self.cropping(task, self.routes[task.key])


def cropped(task: VideoTask, route: str) -> Outcome:
    """Return that the clips of a video were cropped."""
    return Outcome(task.key, "done", clips=1, route=route, digest=task.digest)


def install(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    """Let runs of this process have workers that follow a script, and no waits."""
    script = ScriptedSource()

    class ScriptedPool(WorkerPool):
        """Answers when a call is submitted, and returns that some rounds later."""

        def __init__(self, size: int, **options: Any) -> None:
            super().__init__(size, **options)
            self._calls: list[tuple[int, Call, Any]] = []

        @property
        def busy(self) -> int:
            return len(self._calls)

        def submit(self, call: Call) -> None:
            rounds = script.delays.get(call[1].key, 1) if hasattr(call[1], "key") else 1
            self._calls.append((rounds, call, script.result_of(call)))

        def results(self) -> Iterator[tuple[Call, Any]]:
            calls = [(rounds - 1, call, result) for rounds, call, result in self._calls]
            self._calls = [entry for entry in calls if entry[0] > 0]
            yield from ((call, result) for rounds, call, result in calls if rounds <= 0)

    # No parts are written, so nothing can be gathered from them.
    monkeypatch.setattr(Gathering, "has", lambda *_: False)
    monkeypatch.setattr(Gathering, "_write_all", lambda _: None)
    real, monotonic = time.time, time.monotonic
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", ScriptedPool)
    monkeypatch.setattr("voxblink2_lib.materialize.video_queue._RETRY_SECONDS", 0.0)
    monkeypatch.setattr(time, "time", lambda: real() + script.days * DAY)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + script.days * DAY)
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.time.sleep", script.sleep)
    return script


def release(folder: Path, count: int, *, per_speaker: int = 10) -> Path:
    """Write a release of so many videos."""
    return plain_corpus.make_release(folder, plain_corpus.video_ids(count), per_speaker=per_speaker)


@contextmanager
def opened(
    folder: Path,
    data_dir: Path,
    source: str = TEMPLATE,
    config: ConfigName = "audio",
    **options: Any,
) -> Iterator[RunContext]:
    """Plan a run as ``materialize`` does, also what is due again; yield what it works on."""
    request = MaterializeRequest(data_dir=str(data_dir), config=config)
    store = Store(folder / "store")
    index = open_index(open_release(str(data_dir)), store.index)
    with Ledger(store.ledger, config) as ledger:
        spec = parse_source(source, FetchOptions(**options))
        verdicts = ledger.verdicts(spec.named)
        plan = plan_run(request, store, index, ledger, failed=verdicts.due())
        write_plan(plan, ledger, verdicts)
        record_format(ledger, "decoders of a script")
        limiter = RateLimiter(folder / "limits.sqlite", clock=time.time)
        yield RunContext(request, store, index, spec, ledger, verdicts, plan.options, limiter)


def run(folder: Path, data_dir: Path, source: str = TEMPLATE, **options: Any) -> None:
    """Do all open jobs of a store."""
    with opened(folder, data_dir, source, **options) as context:
        Scheduler(context).run(context.ledger.open_jobs())


def statuses(folder: Path) -> dict[str, str]:
    """Return the class of each video that users see."""
    with Ledger(Store(folder / "store").ledger, "audio", readonly=True) as ledger:
        return {
            video_id: status
            for _, video_id, status, *_ in zip(
                *ledger.planned_videos().to_pydict().values(), strict=True
            )
        }


def finals(folder: Path, source: str = TEMPLATE) -> dict[str, str]:
    """Return the class of each video that is never asked for again by itself."""
    shown = statuses(folder)
    with Ledger(Store(folder / "store").ledger, "audio", readonly=True) as ledger:
        named = parse_source(source, FetchOptions()).named
        rows = ledger.verdicts(named)._database.query(
            "select video_id, w.status from verdicts w join sources s on s.id = w.source "
            "where w.next_at is null and s.name = ?",
            named,
        )
    return {video: status for video, status in rows if shown[video] != "done"}
