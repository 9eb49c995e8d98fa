"""Permits of an actor, asked for by jobs and confirmed by processes that know no cluster."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from support.clocks import SteppingClock

from voxblink2_lib.cluster.budgets import NodeBudget, RemoteRateLimiter
from voxblink2_lib.materialize.routes import Closure, RouteRecord
from voxblink2_lib.sources.rate_limits import Budget, Permit, RateLimiter

ROUTE = "media.example.org direct"
BUDGET = Budget(per_hour=3600)  # 60 in any minute, a second apart


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


def limiter_of(actor: NodeBudget, folder: Path) -> RemoteRateLimiter:
    folder.mkdir()
    return RemoteRateLimiter(actor.limit, folder)


def actor_of(tmp_path: Path, clock: SteppingClock) -> NodeBudget:
    return NodeBudget(RateLimiter(tmp_path / "limits.sqlite", clock=clock))


def test_jobs_that_share_a_budget_share_its_permits(tmp_path: Path, clock: SteppingClock) -> None:
    actor = actor_of(tmp_path, clock)
    first, second = limiter_of(actor, tmp_path / "a"), limiter_of(actor, tmp_path / "b")
    granted = 0
    for _ in range(120):
        granted += sum(limiter.acquire(ROUTE, BUDGET) is not None for limiter in (first, second))
        clock.sleep(0.5)
    assert granted == 60
    # The first was given a minute ago.
    assert first.requests_last_minute(ROUTE) == second.requests_last_minute(ROUTE) == 59


def test_a_pause_holds_for_all_that_share(tmp_path: Path, clock: SteppingClock) -> None:
    actor = actor_of(tmp_path, clock)
    first, second = limiter_of(actor, tmp_path / "a"), limiter_of(actor, tmp_path / "b")
    first.pause(ROUTE, 30, "HTTP Error 429", grows=True)
    assert second.acquire(ROUTE, BUDGET) is None
    assert second.seconds_until_permit(ROUTE, BUDGET) == 30
    assert second.pause_for(ROUTE).reason == "HTTP Error 429"
    clock.sleep(31)
    second.record_success(ROUTE)
    assert first.pause_for(ROUTE).consecutive_pauses == 0


def test_an_answer_to_another_process_reaches_the_actor(
    tmp_path: Path, clock: SteppingClock
) -> None:
    actor = actor_of(tmp_path, clock)
    limiter = limiter_of(actor, tmp_path / "a")
    permit = limiter.acquire(ROUTE, BUDGET)
    assert permit is not None
    clock.sleep(50)
    # As the task of a download takes it to its process.
    pickle.loads(pickle.dumps(limiter)).confirm(permit)
    assert limiter.requests_last_minute(ROUTE) == 1
    clock.sleep(50)  # less than a minute after the answer, more after the request
    assert limiter.requests_last_minute(ROUTE) == 1
    clock.sleep(20)
    assert limiter.requests_last_minute(ROUTE) == 0
    assert not [*(tmp_path / "a").iterdir()]


def test_an_answer_after_the_end_of_the_job_is_dropped(
    tmp_path: Path, clock: SteppingClock
) -> None:
    limiter = limiter_of(actor_of(tmp_path, clock), tmp_path / "a")
    elsewhere = pickle.loads(pickle.dumps(limiter))
    (tmp_path / "a").rmdir()
    elsewhere.confirm(Permit(1))
    elsewhere.confirm(Permit())


def test_permits_outlive_the_actor(tmp_path: Path, clock: SteppingClock) -> None:
    first = limiter_of(actor_of(tmp_path, clock), tmp_path / "a")
    assert first.acquire(ROUTE, BUDGET)
    restarted = limiter_of(actor_of(tmp_path, clock), tmp_path / "b")
    assert restarted.acquire(ROUTE, BUDGET) is None
    assert restarted.requests_last_minute(ROUTE) == 1


def test_a_route_that_a_job_has_closed_stays_closed(tmp_path: Path, clock: SteppingClock) -> None:
    actor = actor_of(tmp_path, clock)
    closed = RouteRecord(Closure("Sign in"), 3, True, 24, True)
    actor.learn({"direct": closed})
    actor.learn({"direct": RouteRecord(None, 0, True, 12, True), "proxy": closed})
    assert actor.records() == {"direct": closed, "proxy": closed}
