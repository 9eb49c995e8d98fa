"""Which failures are written at once, and which wait until more is known of their route."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from voxblink2_lib.materialize.breaker import OTHER_SPEAKERS, is_wordless
from voxblink2_lib.materialize.diagnosis import diagnose
from voxblink2_lib.materialize.routes import Answer, InFlight, Routes, RouteState
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask
from voxblink2_lib.materialize.video_queue import RunContext, VideoQueue
from voxblink2_lib.outcomes import POLICIES, RUN_TRIES, Outcome
from voxblink2_lib.records import VideoKey

# Enough to see that media come, and not a page of a network.
_CANARY_SECONDS = 1.0

# "Me at the zoo", the first video of YouTube.
_YOUTUBE_CANARY = "jNQXAC9IVRw"

# Of those that came before, some may have gone since.
_KNOWN_VIDEOS = 2

# Another route may bring videos all the time: after so many canaries no more of them are asked for.
_MOST_CANARIES = 20

# Videos that were asked for in vain come last in the next run; of so many it is remembered.
_MAX_REMEMBERED = 1000
ASKED_IN_VAIN = "asked_in_vain"

_log = logging.getLogger(__name__)


def asked_in_vain(context: RunContext) -> list[VideoKey]:
    """Return the videos that earlier runs asked for when they closed a route."""
    return [VideoKey(*key) for key in json.loads(context.ledger.setting(ASKED_IN_VAIN) or "[]")]


class _Request(NamedTuple):
    """When media that came were requested (Unix time), by which route, and its position then."""

    at: float
    position: int
    route: str


class Judgement:
    """Holds failures back until it is clear whether the video or the route is at fault.

    Args:
        context: what the run works on.
        routes: the routes of the run.
        queue: takes videos back that count as not tried.
    """

    def __init__(self, context: RunContext, routes: Routes, queue: VideoQueue) -> None:
        self._context = context
        self._verdicts = context.verdicts
        self._routes = routes
        self._queue = queue
        # When the canary was requested that is on its way, by the names of routes.
        self._asked_at: dict[str, float] = {}
        self._arrivals: dict[VideoKey, _Request] = {}

    # -- Videos ------------------------------------------------------------------------------------

    def record_fetched(self, flight: InFlight) -> None:
        """Note that the media of a video have come; what they are worth is seen by cropping."""
        self._arrivals[flight.task.key] = _Request(
            flight.sent_at, flight.position, flight.route.name
        )

    def forget(self, key: VideoKey) -> None:
        """Note that media will not be cropped by fault of this machine, and say nothing."""
        if request := self._arrivals.pop(key, None):
            route = self._routes.named(request.route)
            assert route is not None  # for mypy: it was requested by a route of this run
            self.conclude(route)

    def record_success(self, route: RouteState, key: VideoKey) -> list[Answer]:
        """Return what is written now that a video was cropped."""
        arrival = self._arrivals.pop(key, None)
        if arrival is None:
            return []  # downloaded by an earlier run, it says nothing of today
        self._verdicts.record_witness(key, route.name, at=arrival.at)
        answers = route.breaker.record_success(arrival.position)
        self.conclude(route)
        return answers

    def judge(self, route: RouteState, answer: Answer) -> list[Answer]:
        """Return what is written now that a video failed, perhaps this failure itself."""
        breaker = route.breaker
        self._arrivals.pop(answer.task.key, None)
        self.conclude(route)
        if not is_wordless(answer.outcome):
            is_known = self._verdicts.witness(route.name) is not None
            released = [] if is_known else breaker.record_words(answer.position)
            return self._checked(route, [*released, answer])
        if route.closure is not None:
            self._take_back([answer])
            return []
        is_witnessed = self._verdicts.is_witnessed(answer.outcome)
        breaker.hold(answer._replace(at=time.time(), is_witnessed=is_witnessed))
        if breaker.needs_canaries:
            self._question(route)
        return []

    def settle_idle(self) -> tuple[list[Answer], bool]:
        """Return what is written when nothing else is left, and whether there is more to do now."""
        answers: list[Answer] = []
        has_more = False
        self._arrivals.clear()  # nothing is being cropped
        for route in self._routes.all:
            breaker, was_open = route.breaker, route.closure is None
            self.conclude(route)
            # Its videos are for the other routes now.
            has_more |= was_open and route.closure is not None
            if route.closure is None and not breaker.is_in_question:
                answers += self._checked(route, breaker.release())
            if route.closure is not None:
                taken_back = breaker.release()
                self._take_back(taken_back)
                has_more |= bool(taken_back)
            has_more |= breaker.is_in_question
        return answers, has_more

    def _checked(self, route: RouteState, answers: Sequence[Answer]) -> list[Answer]:
        """Return answers to write; what would be final may wait for a video that is known."""
        breaker = route.breaker
        if self._verdicts.witness(route.name) is None:
            return [*answers]
        finals = [
            answer
            for answer in answers
            if not (breaker.has_worked and answer.outcome.is_explicit)
            and self._verdicts.would_be_final(answer.outcome, is_witnessed=answer.is_witnessed)
        ]
        for answer in finals:
            breaker.hold_final(answer)
        if breaker.needs_canaries:
            self._question(route)
        return [answer for answer in answers if answer not in finals]

    # -- Canaries ----------------------------------------------------------------------------------

    def _question(self, route: RouteState) -> None:
        route.breaker.ask(self._canaries(route))
        self.conclude(route)

    def conclude(self, route: RouteState) -> None:
        """Close a route in question once no canary has come and nothing else may tell."""
        breaker = route.breaker
        is_answered = breaker.is_in_question and not breaker.canaries
        if not is_answered or route.closure is not None or route.name in self._asked_at:
            return
        is_waiting = any(request.route == route.name for request in self._arrivals.values())
        if is_waiting or self._routes.busy(route):
            return  # what is on its way, or waits to be cropped, may turn out to be good
        came_since = [key for key in self._known(route) if key not in breaker.asked]
        if not came_since or len(breaker.asked) >= _MOST_CANARIES:
            self._close(route)
            return
        for key in came_since:
            breaker.ask_later(key)

    def _known(self, route: RouteState) -> list[VideoKey]:
        """Return videos that came before: the last one on a route first."""
        witness = self._verdicts.witness(route.name)
        return [*([witness] if witness else []), *self._verdicts.last_done(_KNOWN_VIDEOS)]

    def _canaries(self, route: RouteState) -> list[VideoKey]:
        """Return what came before on a route, videos of other speakers, and what the user named."""
        source = route.source
        known = [answer.task.key for answer in (*route.breaker.held, *route.breaker.finals)]
        known += asked_in_vain(self._context)
        others = self._verdicts.other_speakers(known, OTHER_SPEAKERS)
        named = source.options.canary or ((_YOUTUBE_CANARY,) if source.kind == "youtube" else ())
        return list(
            dict.fromkeys([*self._known(route), *others, *(VideoKey("", name) for name in named)])
        )

    def next_canary(self) -> FetchTask | None:
        """Return the download of a canary that can start now."""
        for number, route in enumerate(self._routes.all):
            if route.closure is not None or not route.breaker.has_canary:
                continue
            permit = self._routes.acquire_canary(route)
            key = route.breaker.next_canary() if permit else None
            if permit is None or key is None:
                continue
            self._asked_at[route.name] = time.time()
            store = self._context.store
            return FetchTask(
                key=key,
                needed_seconds=_CANARY_SECONDS,
                source=route.source,
                with_video=self._context.request.with_faces,
                target=store.tmp / f"canary-{number}-{key.video_id}",
                tmp=store.tmp,
                permit=permit,
                rate_limiter=self._context.rate_limiter,
            )
        return None

    def record_canary(self, task: FetchTask, result: FetchResult) -> list[Answer]:
        """Return what is written now that a canary came; close its route if none comes."""
        route = self._routes.named(task.source.route.name)
        assert route is not None  # for mypy: canaries are sent by routes of this run
        asked_at = self._asked_at.pop(route.name)
        breaker, failure = route.breaker, result.failure
        if failure is None:
            self._verdicts.record_witness(task.key, route.name, at=asked_at)
        answers = breaker.record_canary(has_come=failure is None)
        if result.is_unanswered:
            self._routes.probe(route)
        else:
            self._routes.record_answer(route, result)
        if _is_limited(failure) and breaker.asked.count(task.key) < RUN_TRIES:
            breaker.ask_later(task.key)
        if route.closure is not None:
            self._take_back(breaker.release())
        elif breaker.needs_canaries:
            self._question(route)
        self.conclude(route)
        return answers

    def _close(self, route: RouteState) -> None:
        """Close a route by which no video comes; what failed on it counts as not tried."""
        breaker = route.breaker
        canaries = breaker.asked
        answers = breaker.release()
        warnings = [warning for answer in answers for warning in answer.warnings]
        text = diagnose(
            [answer.outcome for answer in answers], warnings=warnings, canaries=len(canaries)
        )
        route.close(text, is_suspect=True)
        _log.warning("The route %s is closed for this run: %s", route.name, text)
        self._remember(canaries)
        self._take_back(answers)

    def _take_back(self, answers: Sequence[Answer]) -> None:
        """Count answers as not given; another route may bring their videos, or the next run."""
        self._remember([answer.task.key for answer in answers])
        for answer in answers:
            self._queue.requeue(answer.task)

    def _remember(self, keys: Sequence[VideoKey]) -> None:
        if keys:
            remembered = dict.fromkeys([*keys, *asked_in_vain(self._context)])
            text = json.dumps([*remembered][:_MAX_REMEMBERED])
            self._context.ledger.set_setting(ASKED_IN_VAIN, text)


def _is_limited(failure: Outcome | None) -> bool:
    """Return whether a failure pauses its route, and says nothing of videos."""
    if failure is None:
        return False
    policy = POLICIES[failure.status]
    return policy.scope == "route" and policy.closes_after is None
