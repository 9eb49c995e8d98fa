"""Budget and pauses of each route: one SQLite file for all runs on a machine.

Sources count requests by IP address, whichever program sends them. So all runs of a user on a
machine take their permits from the same file, and a run that was killed has still used its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import HOME_VARIABLE, home_folder
from voxblink2_lib.outcomes import MAX_PAUSE_SECONDS

_PERIOD_SECONDS = 60.0
_MAX_GROWN_PAUSE_SECONDS = 3600.0
_FORMAT = 1
_SCHEMA = (
    "drop table if exists turns",  # of another format
    "create table turns ("
    "number integer primary key, address text not null, given_at real not null, "
    "arrived_at real, "  # null: its first request may still be on its way
    "process integer not null)",
    "create index turns_by_address on turns (address, given_at)",
    "create table if not exists addresses ("
    "address text primary key, paused_until real not null, why text not null, "
    "strikes integer not null) without rowid",  # pauses since it last worked
    f"pragma user_version = {_FORMAT}",
)


def shared_file() -> Path:
    """Return the file that all runs of a user share, below ``VOXBLINK2_HOME`` or the cache."""
    return home_folder() / "addresses.sqlite"


@dataclass(frozen=True, slots=True)
class Budget:
    """How many videos may be requested on each route.

    Attributes:
        per_hour: videos an hour; infinity for no limit.
        sleep_seconds: least time between two permits.
    """

    per_hour: float = math.inf
    sleep_seconds: float = 0.0

    @property
    def spacing_seconds(self) -> float:
        """Least time between two permits, so that a budget is not spent at once."""
        return max(3600 / self.per_hour, self.sleep_seconds)

    @property
    def per_period(self) -> float:
        """How many permits 60 seconds may see."""
        return math.inf if math.isinf(self.per_hour) else math.ceil(self.per_hour / 60)


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which a route must not be used.

    Attributes:
        until: Unix time.
        reason: the original message of the source.
        consecutive_pauses: pauses in a row, without a video that was downloaded in between.
    """

    until: float = 0.0
    reason: str = ""
    consecutive_pauses: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """The permission to request one video. ``number`` is ``None`` where nothing is counted."""

    number: int | None = None


class RateLimiter:
    """Budgets and pauses of routes, shared by all processes of a user.

    Args:
        path: the SQLite file.
        clock: Unix time in seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    @contextlib.contextmanager
    def _transaction(self, kind: Literal["deferred", "immediate"]) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened anew each time: permits are seconds apart, and threads share nothing.
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=30, isolation_level=None)
            ) as database:
                database.execute("pragma synchronous = off")
                database.execute(f"begin {kind}")
                if not _is_current(database):
                    _create_tables(database)
                yield database
                database.execute("commit")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The rate limits in {self._path} cannot be stored: {error}. Set "
                f"{HOME_VARIABLE} to a folder that can be written to."
            ) from error

    # -- permits ------------------------------------------------------------------------------

    def acquire(self, route: str, budget: Budget) -> Permit | None:
        """Return a permit, or ``None`` while the route is paused or its budget is spent.

        In any 60 seconds at most ``per_hour / 60`` videos (rounded up) are requested, as counted
        where the requests arrive: a permit counts until 60 seconds after its first answer.

        Args:
            route: name of the route.
            budget: what it may request.
        """
        if self.pause_for(route).until > self._clock():
            return None
        if not budget.spacing_seconds:
            return Permit()
        with self._transaction("immediate") as database:
            # Now that no other process writes: its permits would else lie in the future.
            now = self._clock()
            _tidy(database, now)
            if _seconds_until_budget(database, route, budget, now):
                return None
            number = database.execute(
                "insert into turns (address, given_at, process) values (?, ?, ?)",
                (route, now, os.getpid()),
            ).lastrowid
            return Permit(number)

    def seconds_until_permit(self, route: str, budget: Budget) -> float:
        """Return after how many seconds to try again; 0 if a permit may be acquired now."""
        now = self._clock()
        paused_seconds = self.pause_for(route).until - now
        if paused_seconds > 0:
            return paused_seconds
        if not budget.spacing_seconds or not self._path.exists():
            return 0.0
        with self._transaction("deferred") as database:
            return _seconds_until_budget(database, route, budget, now)

    def confirm(self, permit: Permit) -> None:
        """Record that the source has answered the first request of a permit."""
        if permit.number is None:
            return
        with self._transaction("immediate") as database:
            database.execute(
                "update turns set arrived_at = ? where number = ? and arrived_at is null",
                (self._clock(), permit.number),
            )

    def requests_last_minute(self, route: str) -> int:
        """Return how many permits the last 60 seconds have seen."""
        if not self._path.exists():
            return 0
        with self._transaction("deferred") as database:
            (count,) = database.execute(
                "select count(*) from turns where address = ? and "
                "coalesce(arrived_at, given_at) > ?",
                (route, self._clock() - _PERIOD_SECONDS),
            ).fetchone()
            return int(count)

    # -- pauses -------------------------------------------------------------------------------

    def pause(self, route: str, seconds: float, reason: str, *, grows: bool) -> Pause:
        """Pause a route.

        Args:
            route: name of the route.
            seconds: for how long; a day at most.
            reason: the original message of the source.
            grows: twice as long for each pause in a row, up to an hour.
        """
        before = self.pause_for(route)
        now = self._clock()
        seconds = min(seconds, MAX_PAUSE_SECONDS)
        # Videos that were in flight together get the same answer: that is one pause.
        in_a_row = before.consecutive_pauses + (before.until <= now)
        if grows:
            seconds = max(seconds, min(_MAX_GROWN_PAUSE_SECONDS, seconds * 2 ** (in_a_row - 1)))
        pause = Pause(max(before.until, now + seconds), reason, in_a_row)
        with self._transaction("immediate") as database:
            database.execute(
                "insert or replace into addresses values (?, ?, ?, ?)",
                (route, pause.until, reason, in_a_row),
            )
        return pause

    def record_success(self, route: str) -> None:
        """Record that a video was downloaded on a route: its pauses in a row are over.

        A video that was in flight when the source limited the route does not end the pause.
        """
        pause = self.pause_for(route)
        if pause.consecutive_pauses and pause.until <= self._clock():
            with self._transaction("immediate") as database:
                database.execute("delete from addresses where address = ?", (route,))

    def pause_for(self, route: str) -> Pause:
        """Return the last pause of a route, which may be over."""
        if not self._path.exists():
            return Pause()
        with self._transaction("deferred") as database:
            row = database.execute(
                "select paused_until, why, strikes from addresses where address = ?", (route,)
            ).fetchone()
        pause = Pause(*row) if row else Pause()
        return self._bounded(route, pause)

    def _bounded(self, route: str, pause: Pause) -> Pause:
        """Return a pause that ends within a day, as all do unless the clock was wrong."""
        latest = self._clock() + MAX_PAUSE_SECONDS
        if pause.until <= latest:
            return pause
        # Stored, so that it ends: a day from now is always a day from now.
        with self._transaction("immediate") as database:
            database.execute(
                "update addresses set paused_until = ? where address = ?", (latest, route)
            )
        return replace(pause, until=latest)

    def pauses(self, host: str) -> dict[str, Pause]:
        """Return the pauses of a source that are not over, by the names of its routes.

        Args:
            host: of the source; the names of its routes begin with it and a space.
        """
        now = self._clock()
        pauses = {route: self.pause_for(route) for route in self._paused_routes(host)}
        return {
            route.removeprefix(f"{host} "): pause
            for route, pause in pauses.items()
            if pause.until > now
        }

    def lift_pauses(self, host: str) -> list[str]:
        """End the pauses of a source, for all runs on this machine; return its routes' names."""
        routes = list(self.pauses(host))
        if routes:
            with self._transaction("immediate") as database:
                database.executemany(
                    "delete from addresses where address = ?",
                    [(f"{host} {route}",) for route in routes],
                )
        return routes

    def _paused_routes(self, host: str) -> list[str]:
        if not self._path.exists():
            return []
        with self._transaction("deferred") as database:
            rows = database.execute("select address from addresses order by address").fetchall()
        return [route for (route,) in rows if route.startswith(f"{host} ")]


def _is_current(database: sqlite3.Connection) -> bool:
    return bool(database.execute("pragma user_version").fetchone() == (_FORMAT,))


def _create_tables(database: sqlite3.Connection) -> None:
    # A reader has no right to write, and another process may be creating the tables just now.
    database.execute("rollback")
    database.execute("begin immediate")
    if not _is_current(database):
        for statement in _SCHEMA:
            database.execute(statement)


def _seconds_until_budget(
    database: sqlite3.Connection, route: str, budget: Budget, now: float
) -> float:
    (last,) = database.execute(
        "select max(given_at) from turns where address = ?", (route,)
    ).fetchone()
    if last is not None and now < last + budget.spacing_seconds:
        # A clock that was set back leaves times in the future: they count as now.
        return float(min(last, now) + budget.spacing_seconds - now)
    period_start = now - _PERIOD_SECONDS
    count, first = database.execute(
        "select count(*), min(coalesce(arrived_at, ?)) from turns "
        "where address = ? and coalesce(arrived_at, ?) > ?",
        (now, route, now, period_start),
    ).fetchone()
    if count < budget.per_period:
        return 0.0
    # One whose answer is still awaited ends no sooner than it is confirmed: look again soon.
    return float(max(0.05, min(1.0, first - period_start)))


def _tidy(database: sqlite3.Connection, now: float) -> None:
    """Forget what is long over, and correct what would never end by itself."""
    database.execute("delete from turns where given_at < ?", (now - 3600,))
    # A clock that was set back leaves times in the future: they count as now.
    database.execute(
        "update turns set given_at = min(given_at, ?), arrived_at = min(arrived_at, ?) "
        "where given_at > ? or arrived_at > ?",
        (now, now, now, now),
    )
    # A killed process confirms nothing any more: its answers have arrived by now, or never will.
    processes = database.execute("select distinct process from turns where arrived_at is null")
    for (process,) in processes.fetchall():
        if not _is_alive(process):
            database.execute(
                "update turns set arrived_at = ? where arrived_at is null and process = ?",
                (now, process),
            )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
