"""Days on which nothing is as it seems, with a scripted source: what is written, and what is asked.

A video is alive or dead; a source may say so in clear words or not, and may be wrong about all.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import scripted_source
from support.scripted_source import (
    BARE,
    DAY,
    ScriptedSource,
    came,
    failed,
    finals,
    opened,
    release,
    run,
    statuses,
)

from voxblink2_lib.errors import BlockedError
from voxblink2_lib.materialize.routes import Answer, RouteState
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask
from voxblink2_lib.materialize.video_queue import RunContext
from voxblink2_lib.outcomes import RUN_TRIES, Outcome, RouteAction
from voxblink2_lib.records import VideoKey
from voxblink2_lib.workers import pool

REMOVED = "removed by the uploader"
PROXIES = ("http://10.0.0.1:8080", "http://10.0.0.2:8080")
NAMED = "jNQXAC9IVRw"
FIRST, SECOND = "10.0.0.1:8080", "10.0.0.2:8080"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    return scripted_source.install(monkeypatch)


def number(task: FetchTask) -> int:
    return int(task.key.video_id[5:]) if task.key.video_id.startswith("video") else -1


def job_keys(context: RunContext, job: int) -> list[VideoKey]:
    return [key for key, _ in context.ledger.job_videos(job)]


# -- Nothing is buried -----------------------------------------------------------------------------


def run_through(folder: Path, data: Path, **options: Any) -> str:
    """Run; return why the run ended early, if it did."""
    try:
        run(folder, data, **options)
    except BlockedError as error:
        return str(error)
    return ""


def write_bad_answers(folder: Path, data: Path) -> None:
    """Write that all videos were unavailable yesterday, on a route that has worked since."""
    with opened(folder, data) as context:
        for job in context.ledger.open_jobs():
            for key, _ in context.ledger.job_videos(job):
                bare = Outcome(key, "ambiguous", BARE, route="direct", is_explicit=False)
                context.verdicts.record(bare, at=time.time() - DAY)
        other = VideoKey("id999999", NAMED)
        context.verdicts.record_witness(other, "direct", at=time.time() - DAY / 2)


def storm_after(script: ScriptedSource, count: int) -> Callable[[FetchTask], FetchResult]:
    """Return a source that is bad after so many requests.

    As one that has flagged an account it says of removed videos, every fourth, that they are.
    """

    def answer(task: FetchTask) -> FetchResult:
        if number(task) % 4 == 3:
            return failed(task, "gone", REMOVED, is_explicit=True)
        return came(task) if len(script.requests) <= count else failed(task)

    return answer


@pytest.mark.parametrize("fetches", [1, 8])
def test_clear_words_of_some_bury_no_others_and_hide_no_storm(
    fetches: int, script: ScriptedSource, tmp_path: Path
) -> None:
    data = release(tmp_path / "release", 100)
    write_bad_answers(tmp_path, data)
    script.answer = storm_after(script, 20)
    message = run_through(tmp_path, data, fetches=fetches)
    assert "12 videos in a row failed alike" in message or fetches > 1
    assert len(script.requests) <= 20 + 30
    assert set(finals(tmp_path)) <= {f"video{n:06}" for n in range(100) if n % 4 == 3}
    script.answer = storm_after(script, 1000)
    run(tmp_path, data, fetches=fetches)
    assert statuses(tmp_path) == {
        f"video{n:06}": "gone" if n % 4 == 3 else "done" for n in range(100)
    }


def test_the_last_videos_of_a_run_are_not_buried_by_a_storm_that_began_after_a_success(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """Too few are left to put the route in question."""
    data = release(tmp_path / "release", 20)
    write_bad_answers(tmp_path, data)
    script.answer = storm_after(script, 10)
    message = run_through(tmp_path, data, fetches=1)
    assert "7 videos in a row failed alike" in message
    assert set(finals(tmp_path)) <= {f"video{n:06}" for n in range(20) if n % 4 == 3}


def test_a_canary_that_was_asked_before_the_storm_is_no_evidence_for_it(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """The storm begins while it is on its way, with others that fail when it has come."""
    data = release(tmp_path / "release", 40)
    write_bad_answers(tmp_path, data)
    dead = 12

    def answer(task: FetchTask) -> FetchResult:
        if script.canaries and not in_storm:
            in_storm.append(task.key)
            return came(task)
        return failed(task)

    in_storm: list[VideoKey] = []
    script.answer = answer
    with opened(tmp_path, data) as context:
        keys = [key for job in context.ledger.open_jobs() for key in job_keys(context, job)]
    # Two of four are requested while the canary is, and answered after it.
    script.delays = dict.fromkeys(keys[dead : dead + 3], 4)
    run_through(tmp_path, data, fetches=4)
    assert set(finals(tmp_path)) <= {key.video_id for key in keys[: dead + 1]}


def test_a_success_after_two_bad_answers_is_no_success_between_them(
    script: ScriptedSource, tmp_path: Path
) -> None:
    data = release(tmp_path / "release", 3)
    script.answer = failed
    run_through(tmp_path, data, fetches=1)
    assert statuses(tmp_path) == {f"video{n:06}": "ambiguous" for n in range(3)}
    script.days += 1.01
    script.answer = lambda task: came(task) if number(task) == 2 else failed(task)
    run_through(tmp_path, data, fetches=1)
    assert statuses(tmp_path)["video000002"] == "done"
    assert finals(tmp_path) == {}


def test_what_was_requested_before_the_first_answer_is_no_success_after_it(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """Media that were on their way when the storm began arrive in the middle of it."""
    data = release(tmp_path / "release", 6)
    with opened(tmp_path, data, fetches=2) as context:
        slow, *others = (key for key, _ in context.ledger.job_videos(0))
        assert others == []
    script.delays[slow] = 8
    script.answer = lambda task: came(task) if task.key == slow else failed(task)
    run_through(tmp_path, data, fetches=2)
    script.days += 1.01
    with opened(tmp_path, data) as context:
        for job in context.ledger.open_jobs():
            for key, _ in context.ledger.job_videos(job):
                bare = Outcome(key, "ambiguous", BARE, route="direct", is_explicit=False)
                assert context.verdicts.record(bare) == "ambiguous"


def test_the_first_final_verdict_of_a_new_route_waits_for_a_known_video_too(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """A proxy, and a network before it, that finds nothing."""
    data = release(tmp_path / "release", 9)
    script.answer = lambda task: failed(task, "transient") if number(task) > 3 else came(task)
    run(tmp_path, data, fetches=2)
    script.days += 1
    script.answer = lambda task: failed(task, "gone", "HTTP Error 404", is_explicit=True)
    message = run_through(tmp_path, data, fetches=2, proxy=PROXIES[:1])
    assert "videos in a row failed alike" in message
    assert finals(tmp_path) == {}


def test_the_canary_of_a_corpus_with_faces_has_a_picture(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """A source that refuses videos alone has not worked because sound came."""
    data = release(tmp_path / "release", 30)
    with_video: list[bool] = []

    def answer(task: FetchTask) -> FetchResult:
        with_video.append(task.with_video)
        return failed(task)

    script.answer = answer
    run_through(tmp_path, data, config="audio-visual", fetches=1, canary=(NAMED,))
    assert script.canaries
    assert all(with_video)


# -- Nothing is lost, and nothing waits for ever ---------------------------------------------------


def test_what_a_refused_route_held_back_comes_by_another_route(
    script: ScriptedSource, tmp_path: Path
) -> None:
    data = release(tmp_path / "release", 12)

    def answer(task: FetchTask) -> FetchResult:
        if task.source.route.name == SECOND:
            return came(task)
        if len([None for route, _, _ in script.requests if route == FIRST]) < 4:
            return failed(task)
        return failed(task, "blocked", "not a bot", action=RouteAction(closes_route=True))

    script.answer = answer
    run(tmp_path, data, fetches=2, proxy=PROXIES)
    assert set(statuses(tmp_path).values()) == {"done"}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count how often the loop goes round."""
    counted: list[None] = []
    step = Scheduler._step

    def count(scheduler: Scheduler) -> bool:
        counted.append(None)
        assert len(counted) < 2000, "spins"
        return step(scheduler)

    monkeypatch.setattr(Scheduler, "_step", count)
    return counted


def test_clips_that_are_lost_and_do_not_come_again_are_work_that_is_left(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """Else the run would begin again and again."""
    data = release(tmp_path / "release", 15, per_speaker=15)
    with opened(tmp_path, data) as context:
        for job in context.ledger.open_jobs():
            for key in job_keys(context, job):
                context.verdicts.record(Outcome(key, "done", clips=1, route="direct"))
    script.answer = failed
    message = run_through(tmp_path, data, fetches=2)
    assert re.search(r"\d+ videos are left", message)
    assert set(statuses(tmp_path).values()) == {"done"}


def test_a_canary_without_a_permit_is_waited_for(
    script: ScriptedSource, steps: list[None], tmp_path: Path
) -> None:
    """Nothing else is left to do, and the route is paused."""
    data = release(tmp_path / "release", 13)
    with opened(tmp_path, data, fetches=1) as context:

        def answer(task: FetchTask) -> FetchResult:
            if number(task) == 0:
                return came(task)
            if number(task) == 12:
                limiter = context.rate_limiter
                limiter.pause("media.example.org direct", 90.0, "a limit", grows=False)
            return failed(task)

        script.answer = answer
        Scheduler(context).run(context.ledger.open_jobs())
    assert script.slept >= 85
    assert len(steps) < 250
    assert list(statuses(tmp_path).values()) == ["done", *["ambiguous"] * 12]


def test_the_loop_sleeps_while_a_canary_is_on_its_way(
    script: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are left to ask, and a permit is to be had."""
    data = release(tmp_path / "release", 40)
    timeouts: list[float] = []

    def record(pools: Any, *, timeout_seconds: float) -> Any:
        if script.canaries:
            timeouts.append(timeout_seconds)
        return pool.collect(pools, timeout_seconds=timeout_seconds)

    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.collect", record)
    script.answer = failed
    with pytest.raises(BlockedError, match="12 videos in a row failed alike"):
        run(tmp_path, data, fetches=1)
    assert script.canaries
    assert min(timeouts) > 0.5


def test_a_canary_that_comes_lets_the_run_go_on_at_once(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """While it was on its way, the other route was paused for an hour."""
    data = release(tmp_path / "release", 60)

    def answer(task: FetchTask) -> FetchResult:
        if task.source.route.name == SECOND:
            return failed(task, "rate-limited", "a limit", action=RouteAction(3600.0))
        return came(task) if number(task) < 0 else failed(task)

    script.answer = answer
    run(tmp_path, data, fetches=2, proxy=PROXIES, canary=(NAMED,))
    assert set(statuses(tmp_path).values()) == {"ambiguous"}
    assert script.slept < 60


@pytest.mark.parametrize("last", ["download", "canary"])
def test_a_route_in_question_is_closed_though_its_last_download_gets_no_answer(
    last: str, script: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when all else is done: what failed on it comes by the other route meanwhile."""
    data = release(tmp_path / "release", 400)
    silent = VideoKey("id000001", "video000010")
    script.delays[silent] = 50 if last == "download" else 8
    closed_after: list[int] = []
    close = RouteState.close

    def record(route: RouteState, reason: str, **details: bool) -> None:
        closed_after.append(len(script.requests))
        close(route, reason, **details)

    def answer(task: FetchTask) -> FetchResult:
        if task.source.route.name == SECOND:
            return came(task)
        if task.key == silent:
            return replace(failed(task, "transient", "timed out"), is_unanswered=True)
        return failed(task)

    monkeypatch.setattr(RouteState, "close", record)
    script.answer = answer
    run(tmp_path, data, fetches=4, proxy=PROXIES)
    assert set(statuses(tmp_path).values()) == {"done"}
    assert (FIRST, silent, False) in script.requests
    assert len(closed_after) == 1
    assert closed_after[0] < 300
    assert len(script.canaries) <= 30


def test_a_canary_that_is_limited_says_nothing_and_is_asked_again(
    script: ScriptedSource, tmp_path: Path
) -> None:
    data = release(tmp_path / "release", 40)

    def answer(task: FetchTask) -> FetchResult:
        if number(task) >= 0:
            return failed(task)
        if script.canaries.count(task.key) == 1:
            return failed(task, "rate-limited", "a limit", action=RouteAction(5.0))
        return came(task)

    script.answer = answer
    run(tmp_path, data, fetches=1, canary=(NAMED,))
    assert set(statuses(tmp_path).values()) == {"ambiguous"}


def test_a_canary_that_is_always_limited_does_not_go_round_for_ever(
    script: ScriptedSource, tmp_path: Path
) -> None:
    data = release(tmp_path / "release", 40, per_speaker=40)

    def answer(task: FetchTask) -> FetchResult:
        if number(task) >= 0:
            return failed(task)
        return failed(task, "rate-limited", "a limit", action=RouteAction(5.0))

    script.answer = answer
    message = run_through(tmp_path, data, fetches=1, canary=(NAMED,))
    assert "12 videos in a row failed alike" in message
    assert len(script.canaries) == RUN_TRIES


# -- A corpus that is mostly dead ------------------------------------------------------------------


THREE = (*PROXIES, "http://10.0.0.3:8080")
SHORT = {(10, 8, 1), (20, 8, 1), (100, 8, 3), (300, 1, 1)}


@pytest.mark.parametrize(
    ("step", "fetches", "routes"),
    [
        pytest.param(*case, marks=() if case in SHORT else pytest.mark.slow)
        for case in itertools.product([10, 20, 100, 300], [1, 8], [1, 3])
    ],
)
def test_a_corpus_that_is_mostly_dead_is_gone_through(
    *,
    step: int,
    fetches: int,
    routes: int,
    script: ScriptedSource,
    mostly_dead: Path,
    tmp_path: Path,
) -> None:
    """One video in so many is alive, the first of them is."""
    script.answer = lambda task: failed(task) if number(task) % step else came(task)
    run(tmp_path, mostly_dead, fetches=fetches, proxy=THREE if routes == 3 else ())
    assert statuses(tmp_path) == {
        f"video{n:06}": "ambiguous" if n % step else "done" for n in range(2000)
    }
    assert len(script.canaries) <= 0.01 * 2000 + 10
    assert set(script.videos.values()) == {1}


def test_a_dead_corpus_is_gone_through_with_a_canary_that_the_user_names(
    script: ScriptedSource, mostly_dead: Path, tmp_path: Path
) -> None:
    """Nine of ten, the first 300 among them, with a fresh ledger."""

    def is_alive(task: FetchTask) -> bool:
        return number(task) < 0 or (number(task) % 10 == 0 and 300 <= number(task) < 1900)

    script.answer = lambda task: came(task) if is_alive(task) else failed(task)
    run(tmp_path, mostly_dead, fetches=8, canary=(NAMED,))
    assert Counter(statuses(tmp_path).values()) == {"done": 160, "ambiguous": 1840}
    assert len(script.canaries) <= 0.02 * 2000 + 10


@pytest.fixture(scope="session")
def mostly_dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 2,000 videos."""
    return release(tmp_path_factory.mktemp("dead") / "release", 2000)


def test_a_route_is_not_closed_while_media_wait_that_may_be_good(
    script: ScriptedSource, tmp_path: Path
) -> None:
    """All canaries fail before the first video is cropped, on a source that never worked before."""
    with opened(tmp_path / "store", release(tmp_path / "release", 40)) as context:
        scheduler = Scheduler(context)
        routes, judgement = scheduler._routes, scheduler._judgement
        (route,) = routes.all
        scheduler._queue.add_jobs(context.ledger.open_jobs())
        tasks = [scheduler._queue.next_task() for _ in range(14)]
        slow, *others = [flight for task in tasks if task and (flight := routes.acquire(task))]
        for flight in others:
            outcome = Outcome(flight.task.key, "ambiguous", BARE, is_explicit=False)
            routes.record(FetchResult(flight.task.key, outcome))
            judgement.judge(route, Answer(flight.task, outcome, flight.position))
        asked = 0
        while canary := judgement.next_canary():
            asked += 1
            judgement.record_canary(canary, failed(canary))
        assert (asked > 0, route.closure) == (True, None), "a video is still on its way"
        routes.record(FetchResult(slow.task.key))
        judgement.record_fetched(slow)
        judgement.conclude(route)
        assert route.closure is None, "it waits to be cropped"
        # It is cropped: no evidence for what failed since, but known to come.
        context.verdicts.record(Outcome(slow.task.key, "done", clips=1, route="direct"))
        judgement.record_success(route, slow.task.key)
        again = judgement.next_canary()
        assert again is not None
        assert again.key == slow.task.key
        assert len(judgement.record_canary(again, came(again))) == len(others)
        assert route.closure is None
