"""Budgets, pauses and what is known of routes: kept by one actor for each node, or for all.

A job asks the actor for permits. Downloads run in processes that know no cluster: that the source
has answered one of them is noted in a file on the node, and passed on with the next request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voxblink2_lib.materialize.routes import RouteRecord
from voxblink2_lib.sources.rate_limits import Budget, Pause, Permit, RateLimiter

# Calls a method of the actor's rate limiter.
Call = Callable[..., Any]


class NodeBudget:
    """What an actor keeps: it outlives the jobs of its node.

    Args:
        limiter: whose file outlives the actor too.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self._records: dict[str, RouteRecord] = {}

    def limit(self, method: str, *values: Any, **options: Any) -> Any:
        """Return what a method of the rate limiter returns."""
        return getattr(self._limiter, method)(*values, **options)

    def records(self) -> dict[str, RouteRecord]:
        """Return what jobs have learned of the routes, by their names."""
        return dict(self._records)

    def learn(self, records: Mapping[str, RouteRecord]) -> None:
        """Add what a job has learned; a route that was closed stays closed for this run."""
        for name, record in records.items():
            before = self._records.get(name)
            if before is None or before.closure is None:
                self._records[name] = record


class _Noted(RateLimiter):
    """What processes of downloads have of a rate limiter that is elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def confirm(self, permit: Permit) -> None:
        """Note that the source has answered the first request of a permit."""
        # Its job may have ended, and the folder is gone.
        if permit.number is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / str(permit.number)).touch()


class RemoteRateLimiter(RateLimiter):
    """The rate limiter of an actor.

    Args:
        call: calls a method of it there.
        folder: an empty folder on this node.
    """

    def __init__(self, call: Call, folder: Path) -> None:
        self._call = call
        self._folder = folder

    def __reduce__(self) -> Any:
        return _Noted, (self._folder,)

    def _ask(self, method: str, *values: Any, **options: Any) -> Any:
        for path in self._folder.iterdir():
            self._call("confirm", Permit(int(path.name)))
            path.unlink(missing_ok=True)
        return self._call(method, *values, **options)

    def acquire(self, route: str, budget: Budget) -> Permit | None:
        """Return a permit, see :meth:`RateLimiter.acquire`."""
        permit: Permit | None = self._ask("acquire", route, budget)
        return permit

    def seconds_until_permit(self, route: str, budget: Budget) -> float:
        """Return after how many seconds to try again."""
        return float(self._ask("seconds_until_permit", route, budget))

    def confirm(self, permit: Permit) -> None:
        """Record that the source has answered the first request of a permit."""
        self._ask("confirm", permit)

    def requests_last_minute(self, route: str) -> int:
        """Return how many permits the last 60 seconds have seen."""
        return int(self._ask("requests_last_minute", route))

    def pause(self, route: str, seconds: float, reason: str, *, grows: bool) -> Pause:
        """Pause a route, see :meth:`RateLimiter.pause`."""
        pause: Pause = self._ask("pause", route, seconds, reason, grows=grows)
        return pause

    def record_success(self, route: str) -> None:
        """Record that a video was downloaded on a route."""
        self._ask("record_success", route)

    def pause_for(self, route: str) -> Pause:
        """Return the last pause of a route, which may be over."""
        pause: Pause = self._ask("pause_for", route)
        return pause
