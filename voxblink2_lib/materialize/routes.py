"""The outgoing addresses of one run: whose turn it is, which rest, which are closed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from voxblink2_lib.errors import UnreachableError
from voxblink2_lib.materialize.dashboard import RouteSnapshot
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.sources.probe import probe_server
from voxblink2_lib.sources.rate_limits import Permit, RateLimiter

# So many videos in a row without any answer mean that the network or a proxy is gone, and so
# many that want a log-in that the cookies are: not the videos.
SILENCE_LIMIT = 8
_REFUSAL_LIMIT = 8


@dataclass(slots=True, eq=False)
class RouteState:
    """One outgoing address in this run.

    Attributes:
        source: the source, by this address.
        in_flight: videos that are being fetched.
        unanswered: what got no answer, until it is known whether it was the video.
        has_worked: an answer came that was none of this sort, since the last pause.
        closed: why nothing more is asked for; empty while it is open.
        is_silent: it is closed since nothing answers, and not since it is refused.
    """

    source: SourceSpec
    in_flight: int = 0
    unanswered: list[tuple[FetchTask, FetchResult]] = field(default_factory=list)
    refusals: int = 0
    has_worked: bool = False
    closed: str = ""
    is_silent: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.source.route.name

    @property
    def key(self) -> str:
        """What it is called in the book of addresses."""
        return f"{self.source.host} {self.name}"


class Routes:
    """All outgoing addresses of a run.

    Args:
        source: the source with its options.
        book: budgets and pauses of this machine.
    """

    def __init__(self, source: SourceSpec, book: RateLimiter) -> None:
        self._book = book
        self._options = source.options
        self.per_hour = self._options.per_hour(is_youtube=source.kind == "youtube")
        self._lanes = [RouteState(replace(source, route=route)) for route in self._options.routes()]

    @property
    def open(self) -> list[RouteState]:
        """The lanes that are not closed."""
        return [lane for lane in self._lanes if not lane.closed]

    @property
    def closed(self) -> list[RouteState]:
        """The lanes that are closed."""
        return [lane for lane in self._lanes if lane.closed]

    @property
    def videos_an_hour(self) -> float:
        """What the open lanes may ask for in an hour."""
        return self.per_hour * len(self.open)

    def take(self) -> tuple[RouteState, Permit] | float:
        """Take a turn on the open lane with the least to do, or say when to ask again."""
        wait = math.inf
        for lane in sorted(self.open, key=lambda one: one.in_flight):
            # After a pause, or a silence, one video tries whether it works again.
            if lane.in_flight and (
                len(lane.unanswered) + lane.in_flight >= SILENCE_LIMIT * 4
                or (not lane.has_worked and self._book.pause_of(lane.key).strikes)
            ):
                continue
            turn = self._book.take(
                lane.key, per_hour=self.per_hour, sleep_seconds=self._options.sleep
            )
            if isinstance(turn, Permit):
                lane.in_flight += 1
                return lane, turn
            wait = min(wait, turn)
        return wait

    def answered(self, lane: RouteState, result: FetchResult) -> None:
        """Learn from what came of a video what it says about its lane."""
        lane.refusals = lane.refusals + 1 if _is_refused(result) else 0
        failure = result.failure
        # What was on its way when the source asked to wait says nothing of the time after.
        rests = self._book.pause_of(lane.key).until > time.time()
        if failure is None:
            lane.has_worked = lane.has_worked or not rests
            self._book.works(lane.key)
        elif result.closes_route or failure.status == "blocked" or lane.refusals >= _REFUSAL_LIMIT:
            lane.closed = lane.closed or failure.reason
        elif failure.status == "rate-limited":
            lane.has_worked = False
            self._book.pause(
                lane.key, result.pause_seconds or 60.0, failure.reason, grows=result.pause_grows
            )
        else:
            lane.has_worked = lane.has_worked or not rests

    def is_healthy(self, lane: RouteState) -> bool:
        """Say whether a lane worked until now: then a limit may be about one video alone."""
        return self._book.pause_of(lane.key).strikes <= 1

    def answers(self, lane: RouteState) -> bool:
        """Ask the source's front page by an open lane; close it if there is no answer either."""
        try:
            probe_server(lane.source.front_page, proxy=lane.source.route.proxy)
        except UnreachableError as error:
            lane.closed = str(error)
            lane.is_silent = True
            return False
        return True

    def states(self) -> list[RouteSnapshot]:
        """Describe every lane."""
        now = time.time()
        states = []
        for lane in self._lanes:
            pause = self._book.pause_of(lane.key)
            rests = pause.until if pause.until > now else 0.0
            states.append(
                RouteSnapshot(
                    name=lane.name,
                    in_flight=lane.in_flight,
                    used=0 if math.isinf(self.per_hour) else self._book.used(lane.key),
                    a_minute=self.per_hour / 60,
                    paused_until=rests,
                    why=lane.closed or (pause.why if rests else ""),
                    is_closed=bool(lane.closed),
                )
            )
        return states


def _is_refused(result: FetchResult) -> bool:
    return result.failure is not None and result.failure.status == "credentials"
