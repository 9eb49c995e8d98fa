"""State of routes: which one has a permit, and what a result means for the route it came by."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from voxblink2_lib.errors import UnreachableError
from voxblink2_lib.materialize.routes import Closure, InFlight, Routes, RouteState
from voxblink2_lib.materialize.tasks import FetchResult, VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import NO_ACTION, Outcome, RouteAction, Status
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.sources.rate_limits import RateLimiter
from voxblink2_lib.store.schema import arrow_schema

TWO_PROXIES = FetchOptions(proxy=("http://10.0.0.1:8080", "http://10.0.0.2:8080"))
SITE = "http://media.example.org/{video_id}"


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    return RateLimiter(tmp_path / "limits.sqlite")


@pytest.fixture
def routes(limiter: RateLimiter) -> Routes:
    """Two routes without a budget."""
    return Routes(SourceSpec("url", SITE, TWO_PROXIES), limiter)


@pytest.fixture
def direct(limiter: RateLimiter) -> Routes:
    """One route without a budget."""
    return Routes(SourceSpec("url", SITE), limiter)


def task(number: int) -> VideoTask:
    return VideoTask(
        key=VideoKey("id000001", f"video{number:06}"),
        utterances=(),
        digest=0,
        source=SourceSpec("url", SITE),
        part=Path("part"),
        tmp=Path("tmp"),
        schema=arrow_schema("audio"),
        options=ClipOptions(),
        staged=Path("staged"),
    )


def send(routes: Routes, count: int) -> list[InFlight]:
    flights = [routes.acquire(task(number)) for number in range(count)]
    return [flight for flight in flights if flight is not None]


def failed(flight: InFlight, status: Status, action: RouteAction = NO_ACTION) -> FetchResult:
    key = flight.task.key
    return FetchResult(key, Outcome(key, status, f"the message of {status}"), action=action)


def unanswered(flight: InFlight) -> FetchResult:
    key = flight.task.key
    return FetchResult(key, Outcome(key, "transient", "timed out"), is_unanswered=True)


def names(states: list[RouteState]) -> list[str]:
    return [state.name for state in states]


# -- permits ---------------------------------------------------------------------------------------


def test_the_least_busy_route_is_next(routes: Routes) -> None:
    assert [flight.route.name for flight in send(routes, 4)] == [
        *("10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.1:8080", "10.0.0.2:8080"),
    ]
    routes.record(FetchResult(task(1).key))
    flight = routes.acquire(task(10))
    assert flight is not None
    assert flight.route.name == "10.0.0.2:8080"


def test_a_spent_budget_is_waited_for(limiter: RateLimiter) -> None:
    routes = Routes(SourceSpec("url", SITE, FetchOptions(budget=60)), limiter)
    assert routes.videos_per_hour == 60
    assert len(send(routes, 3)) == 1
    seconds = routes.seconds_until_permit()
    assert seconds is not None
    assert 50 < seconds <= 60


def test_without_an_open_route_there_is_nothing_to_wait_for(direct: Routes) -> None:
    (flight,) = send(direct, 1)
    direct.record(failed(flight, "blocked"))
    assert direct.open == []
    assert direct.acquire(task(2)) is None
    assert direct.seconds_until_permit() is None


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "action"),
    [("blocked", NO_ACTION), ("credentials", RouteAction(closes_route=True))],
)
def test_a_refused_route_is_closed(status: Status, action: RouteAction, routes: Routes) -> None:
    first, second = send(routes, 2)
    routes.record(failed(first, status, action))
    assert names(routes.open) == [second.route.name]
    assert routes.closures() == [(first.route.name, Closure(f"the message of {status}"))]
    # The first reason counts.
    first.route.close("another")
    assert first.route.closure == Closure(f"the message of {status}")


def test_eight_refusals_in_a_row_close_a_route(direct: Routes) -> None:
    flights = send(direct, 17)
    for flight in flights[:7]:
        direct.record(failed(flight, "credentials"))
    direct.record(failed(flights[7], "gone"))
    for flight in flights[8:15]:
        direct.record(failed(flight, "credentials"))
    assert direct.closures() == []
    direct.record(failed(flights[15], "credentials"))
    assert direct.closures() == [("direct", Closure("the message of credentials"))]


def test_a_limited_route_is_paused(direct: Routes, limiter: RateLimiter) -> None:
    (flight,) = send(direct, 1)
    now = time.time()
    direct.record(failed(flight, "rate-limited", RouteAction(600.0, pause_grows=True)))
    pause = limiter.pause_for(flight.route.key)
    assert (pause.reason, pause.consecutive_pauses) == ("the message of rate-limited", 1)
    assert now + 600 <= pause.until < now + 700
    assert direct.acquire(task(2)) is None
    seconds = direct.seconds_until_permit()
    assert seconds is not None
    assert 500 < seconds <= 600
    (view,) = direct.snapshots()
    assert (view.paused_until, view.reason) == (pause.until, "the message of rate-limited")
    assert (view.is_closed, view.in_flight) == (False, 0)


def test_a_limit_without_a_time_pauses_for_a_minute(direct: Routes, limiter: RateLimiter) -> None:
    (flight,) = send(direct, 1)
    direct.record(failed(flight, "rate-limited"))
    assert 50 < limiter.pause_for(flight.route.key).until - time.time() <= 60


def test_after_a_pause_one_video_tests_the_route(tmp_path: Path) -> None:
    early = RateLimiter(tmp_path / "limits.sqlite", clock=lambda: time.time() - 1000)
    source = SourceSpec("url", SITE)
    early.pause(f"{source.host} direct", 60, "limit", grows=False)
    routes = Routes(source, RateLimiter(tmp_path / "limits.sqlite"))
    (flight,) = send(routes, 3)
    assert routes.seconds_until_permit() is None, "a result must arrive before"
    assert routes.is_healthy(flight.route)
    routes.record(FetchResult(flight.task.key))
    assert len(send(routes, 3)) == 3


# -- no answer -------------------------------------------------------------------------------------


def test_videos_without_an_answer_stay_in_flight_until_they_are_judged(direct: Routes) -> None:
    flights = send(direct, 8)
    for flight in flights[:7]:
        direct.record(unanswered(flight))
    (route,) = direct.open
    assert not direct.is_suspect(route)
    assert direct.unanswered_route() is route
    direct.record(unanswered(flights[7]))
    assert direct.is_suspect(route)
    assert direct.snapshots()[0].in_flight == 0
    assert direct.pop_unanswered(route) == flights
    assert direct.unanswered(route) == []
    assert direct.unanswered_route() is None


def test_too_many_videos_without_an_answer_wait_for_one_another(direct: Routes) -> None:
    assert len(send(direct, 40)) == 32
    assert direct.seconds_until_permit() is None


def test_a_route_on_which_nothing_answers_is_closed(
    direct: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, *, proxy: str | None) -> None:
        assert (url, proxy) == ("http://media.example.org/", None)
        raise UnreachableError("connection refused")

    (route,) = direct.open
    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.routes.probe_server", lambda *_, **__: None)
        assert direct.probe(route)
    assert direct.open == [route]
    monkeypatch.setattr("voxblink2_lib.materialize.routes.probe_server", unreachable)
    assert not direct.probe(route)
    assert direct.closures() == [("direct", Closure("connection refused", is_unanswered=True))]
    assert direct.is_suspect(route)
    assert direct.snapshots()[0].reason == "connection refused"
