"""State of each route in one run: available, paused or closed, and what is in flight on it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from voxblink2_lib.errors import UnreachableError
from voxblink2_lib.materialize.breaker import Breaker
from voxblink2_lib.materialize.dashboard import RouteSnapshot
from voxblink2_lib.materialize.tasks import FetchResult, VideoTask
from voxblink2_lib.outcomes import POLICIES, Outcome
from voxblink2_lib.records import VideoKey
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.probe import probe_server
from voxblink2_lib.sources.rate_limits import Budget, Permit, RateLimiter

# So many videos without any answer mean that the network or a proxy may be down.
_UNANSWERED_LIMIT = 8

# Videos at once on one route: so many may be lost to a route that is down.
_MAX_IN_FLIGHT = 4 * _UNANSWERED_LIMIT

# For a limit of the rate where neither the source nor a pattern states a time.
_DEFAULT_PAUSE_SECONDS = 60.0


class Closure(NamedTuple):
    """Why a route is not used any more in this run.

    Attributes:
        reason: the original message; of a suspect route, what its failures look like.
        is_unanswered: the source does not answer on it; otherwise the source refuses it.
        is_suspect: all videos failed alike on it, whatever the words.
    """

    reason: str
    is_unanswered: bool = False
    is_suspect: bool = False


class Answer(NamedTuple):
    """A failure of a video, until it is known what follows from it.

    Attributes:
        task: the video.
        outcome: the failure.
        position: how many answers were held back on its route when it was requested.
        wait_seconds: the source requests to wait so long before another try.
        warnings: what yt-dlp warned of.
        at: when it was held back (Unix time); ``None`` if it was not.
        is_witnessed: when it was held back, another video had come by its route since the first
            such answer.
    """

    task: VideoTask
    outcome: Outcome
    position: int = 0
    wait_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    at: float | None = None
    is_witnessed: bool = False


class RouteRecord(NamedTuple):
    """What a job leaves to the next one on the same machine, see :class:`RouteState`.

    Attributes:
        limit: of its breaker.
        has_brought: a video came by it.
    """

    closure: Closure | None
    refusals: int
    has_worked: bool
    limit: int
    has_brought: bool


@dataclass(slots=True, eq=False)
class RouteState:
    """One route in this run.

    Attributes:
        source: the source, by this route.
        closure: why it is not used any more; ``None`` while it is open.
        refusals: failures in a row that close the route if there are too many.
        has_worked: the source has answered normally since the last pause.
        breaker: what is known of the route where the source's words are not clear.
    """

    source: SourceSpec
    closure: Closure | None = None
    refusals: int = 0
    has_worked: bool = False
    breaker: Breaker[Answer] = field(default_factory=Breaker)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.source.route.name

    @property
    def key(self) -> str:
        """Its name for the rate limiter."""
        return f"{self.source.host} {self.name}"

    @property
    def record(self) -> RouteRecord:
        """What is left to the next job."""
        breaker = self.breaker
        kept = (self.closure, self.refusals, self.has_worked)
        return RouteRecord(*kept, breaker.limit, breaker.has_worked)

    def resume(self, record: RouteRecord) -> None:
        """Begin where the job before has ended."""
        self.closure, self.refusals, self.has_worked = record[:3]
        self.breaker = Breaker(record.limit, record.has_brought)

    def close(self, reason: str, *, is_unanswered: bool = False, is_suspect: bool = False) -> None:
        """Use this route no more; the first reason counts."""
        if self.closure is None:
            self.closure = Closure(reason, is_unanswered, is_suspect)


@dataclass(slots=True, eq=False)
class InFlight:
    """A video that was sent to be downloaded, until it is known what follows from the result.

    Attributes:
        task: the video.
        route: on which it is downloaded.
        permit: the permission to request it.
        position: how many answers were held back on the route when it was sent.
        sent_at: when that was (Unix time).
        unanswered: the result, where no answer arrived: whether the video or the route is at fault
            is not known yet.
    """

    task: VideoTask
    route: RouteState
    permit: Permit
    position: int = 0
    sent_at: float = 0.0
    unanswered: FetchResult | None = None


class Routes:
    """All routes of a run.

    Args:
        source: the source with its options.
        rate_limiter: budgets and pauses of all runs on this machine.
        remembered: what earlier jobs have learned, by the names of routes.
    """

    def __init__(
        self,
        source: SourceSpec,
        rate_limiter: RateLimiter,
        remembered: Mapping[str, RouteRecord] = MappingProxyType({}),
    ) -> None:
        self._limiter = rate_limiter
        options = source.options
        per_hour = options.per_hour(is_youtube=source.kind == "youtube")
        self._budget = Budget(per_hour, options.sleep)
        self._routes = [RouteState(replace(source, route=route)) for route in options.routes()]
        self._in_flight: dict[VideoKey, InFlight] = {}
        for route in self._routes:
            if record := remembered.get(route.name):
                route.resume(record)

    def records(self) -> dict[str, RouteRecord]:
        """Return what later jobs need to know, by the names of routes."""
        return {route.name: route.record for route in self._routes}

    @property
    def all(self) -> Sequence[RouteState]:
        """The routes, open or closed."""
        return tuple(self._routes)

    @property
    def open(self) -> list[RouteState]:
        """The routes that are not closed."""
        return [route for route in self._routes if route.closure is None]

    @property
    def videos_per_hour(self) -> float:
        """How many videos may be requested in an hour on all open routes."""
        return self._budget.per_hour * len(self.open)

    # -- permits ------------------------------------------------------------------------------

    def acquire(self, task: VideoTask) -> InFlight | None:
        """Assign a video to the least busy route with a permit; ``None`` if there is none."""
        for route in self._usable():
            permit = self._limiter.acquire(route.key, self._budget)
            if permit is not None:
                flight = InFlight(task, route, permit, route.breaker.position, time.time())
                self._in_flight[task.key] = flight
                return flight
        return None

    def acquire_canary(self, route: RouteState) -> Permit | None:
        """Return a permit for a canary; ``None`` if the route has none now."""
        return self._limiter.acquire(route.key, self._budget)

    def seconds_until_permit(self) -> float | None:
        """Return when a route may have a permit; ``None`` if a result must arrive before."""
        return self._seconds_until_permit(
            [*self._usable(), *(route for route in self.open if route.breaker.has_canary)]
        )

    def seconds_until_canary(self) -> float | None:
        """Return when a canary may have a permit; ``None`` if none waits for one."""
        return self._seconds_until_permit(
            [route for route in self.open if route.breaker.has_canary]
        )

    def _seconds_until_permit(self, routes: Sequence[RouteState]) -> float | None:
        return min(
            (self._limiter.seconds_until_permit(route.key, self._budget) for route in routes),
            default=None,
        )

    def _usable(self) -> Iterator[RouteState]:
        for route in sorted(self.open, key=self.busy):
            if route.breaker.is_in_question:
                continue
            busy, unanswered = self.busy(route), len(self.unanswered(route))
            # After a pause, one video alone tests whether the route works again.
            is_full = busy and (
                busy + unanswered >= _MAX_IN_FLIGHT
                or (not route.has_worked and self._limiter.pause_for(route.key).consecutive_pauses)
            )
            if not is_full:
                yield route

    def busy(self, route: RouteState) -> int:
        """Return how many downloads are running on a route."""
        return sum(
            flight.route is route and flight.unanswered is None
            for flight in self._in_flight.values()
        )

    # -- results ------------------------------------------------------------------------------

    def record(self, result: FetchResult) -> InFlight:
        """Update a route by a result; one without an answer stays in flight."""
        flight = self._in_flight[result.key]
        if result.is_unanswered:
            flight.unanswered = result
        else:
            del self._in_flight[result.key]
            self.record_answer(flight.route, result)
        return flight

    def named(self, name: str) -> RouteState | None:
        """Return a route of this run by its name."""
        return next((route for route in self._routes if route.name == name), None)

    def record_answer(self, route: RouteState, result: FetchResult) -> None:
        """Pause or close a route where the source says so."""
        failure, action = result.failure, result.action
        # A video that was in flight when the source limited the route says nothing about later.
        is_paused = self._limiter.pause_for(route.key).until > time.time()
        if failure is None:
            route.refusals = 0
            route.has_worked |= not is_paused
            self._limiter.record_success(route.key)
            return
        policy = POLICIES[failure.status]
        route.refusals = route.refusals + 1 if policy.closes_after else 0
        if action.closes_route or (policy.closes_after and route.refusals >= policy.closes_after):
            route.close(failure.reason)
        elif policy.scope == "route" and policy.closes_after is None:
            route.has_worked = False
            seconds = action.pause_seconds or _DEFAULT_PAUSE_SECONDS
            self._limiter.pause(route.key, seconds, failure.reason, grows=action.pause_grows)
        else:
            route.has_worked |= not is_paused

    def is_healthy(self, route: RouteState) -> bool:
        """Return whether a route worked until now: then a limit may be about one video alone."""
        return self._limiter.pause_for(route.key).consecutive_pauses <= 1

    # -- no answer ----------------------------------------------------------------------------

    def unanswered(self, route: RouteState) -> list[InFlight]:
        """Return the videos of a route that got no answer."""
        return [
            flight
            for flight in self._in_flight.values()
            if flight.route is route and flight.unanswered is not None
        ]

    def is_suspect(self, route: RouteState) -> bool:
        """Return whether so many videos got no answer that the route may be at fault."""
        return route.closure is not None or len(self.unanswered(route)) >= _UNANSWERED_LIMIT

    def unanswered_route(self) -> RouteState | None:
        """Return a route with videos that got no answer, if there is one; it may be closed."""
        return next((route for route in self._routes if self.unanswered(route)), None)

    def probe(self, route: RouteState) -> bool:
        """Return whether the source answers on an open route; close the route if not."""
        try:
            probe_server(route.source.front_page, proxy=route.source.route.proxy)
        except UnreachableError as error:
            route.close(str(error), is_unanswered=True)
            return False
        return True

    def pop_unanswered(self, route: RouteState) -> list[InFlight]:
        """Return the videos of a route that got no answer, which are not in flight any more."""
        flights = self.unanswered(route)
        for flight in flights:
            del self._in_flight[flight.task.key]
        return flights

    # -- reports ------------------------------------------------------------------------------

    def closures(self) -> list[tuple[str, Closure]]:
        """Return the closed routes by their names, and why they are closed."""
        return [(route.name, route.closure) for route in self._routes if route.closure is not None]

    def snapshots(self) -> list[RouteSnapshot]:
        """Describe every route."""
        return [self._snapshot(route) for route in self._routes]

    def _snapshot(self, route: RouteState) -> RouteSnapshot:
        pause = self._limiter.pause_for(route.key)
        is_paused = pause.until > time.time()
        has_limit = not math.isinf(self._budget.per_hour)
        reason = pause.reason if is_paused else ""
        return RouteSnapshot(
            name=route.name,
            in_flight=self.busy(route),
            requests_last_minute=self._limiter.requests_last_minute(route.key) if has_limit else 0,
            per_minute=self._budget.per_hour / 60,
            paused_until=pause.until if is_paused else None,
            reason=route.closure.reason if route.closure else reason,
            is_closed=route.closure is not None,
            next_permit_at=time.time()
            + self._limiter.seconds_until_permit(route.key, self._budget),
            held=len(route.breaker.held),
            is_in_question=route.breaker.is_in_question,
        )
