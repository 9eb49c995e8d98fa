"""What each outgoing address may still ask for: one SQLite file for all runs on a machine.

Sources count by address, whoever asks from it. So every run of a user on a machine takes its
turns from the same file, and a run that was killed does not forget what it has used up.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import HOME_VARIABLE, home_folder

_WINDOW_SECONDS = 60.0
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


@dataclass(frozen=True, slots=True)
class Pause:
    """An address that must rest.

    Attributes:
        until: Unix time.
        why: the source's own words.
        strikes: pauses in a row, without a video that came in between.
    """

    until: float = 0.0
    why: str = ""
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """The permission to ask for one video. ``number`` is ``None`` where nothing is counted."""

    number: int | None = None


class RateLimiter:
    """Budgets and pauses of outgoing addresses, shared by all processes of a user.

    Args:
        path: the SQLite file; ``None`` means the one under ``VOXBLINK2_HOME`` or the user's
            cache folder.
        clock: Unix time in seconds.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path or home_folder() / "addresses.sqlite"
        self._clock = clock

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened anew each time: turns are seconds apart, and threads share nothing.
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=30, isolation_level=None)
            ) as database:
                database.execute("pragma synchronous = off")
                database.execute("begin immediate")
                # In the same transaction: another process may be making the file just now.
                if database.execute("pragma user_version").fetchone() != (_FORMAT,):
                    for statement in _SCHEMA:
                        database.execute(statement)
                yield database
                database.execute("commit")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The budgets of addresses in {self._path} cannot be kept: {error}. Set "
                f"{HOME_VARIABLE} to a folder that can be written to."
            ) from error

    def take(self, address: str, *, per_hour: float, sleep_seconds: float = 0) -> Permit | float:
        """Take a turn, or learn when to ask again.

        In any 60 seconds at most ``per_hour / 60`` videos (rounded up) are asked for, as counted
        where the requests arrive: a turn counts until 60 seconds after its first answer came.

        Args:
            address: name of the address.
            per_hour: videos an hour; infinity for no limit.
            sleep_seconds: least time between two turns.

        Returns:
            The turn, or after how many seconds to ask again.
        """
        pause = self.pause_of(address)
        now = self._clock()
        if pause.until > now:
            return pause.until - now
        spacing = max(3600 / per_hour, sleep_seconds)
        if not spacing:
            return Permit()
        most = math.inf if math.isinf(per_hour) else math.ceil(per_hour / 60)
        with self._transaction() as database:
            _tidy(database, now)
            (last,) = database.execute(
                "select max(given_at) from turns where address = ?", (address,)
            ).fetchone()
            if last is not None and now < last + spacing:
                return float(last + spacing - now)
            open_since = now - _WINDOW_SECONDS
            recent = database.execute(
                "select count(*), min(coalesce(arrived_at, ?)) from turns "
                "where address = ? and coalesce(arrived_at, ?) > ?",
                (now, address, now, open_since),
            ).fetchone()
            if recent[0] >= most:
                return float(max(0.05, min(1.0, recent[1] - open_since)))
            number = database.execute(
                "insert into turns (address, given_at, process) values (?, ?, ?)",
                (address, now, os.getpid()),
            ).lastrowid
            return Permit(number)

    def arrived(self, turn: Permit) -> None:
        """Note that the source has answered the first request of a turn."""
        if turn.number is None:
            return
        with self._transaction() as database:
            database.execute(
                "update turns set arrived_at = ? where number = ? and arrived_at is null",
                (self._clock(), turn.number),
            )

    def used(self, address: str) -> int:
        """Return how many turns were taken in the last 60 seconds."""
        if not self._path.exists():
            return 0
        with self._transaction() as database:
            (count,) = database.execute(
                "select count(*) from turns where address = ? and "
                "coalesce(arrived_at, given_at) > ?",
                (address, self._clock() - _WINDOW_SECONDS),
            ).fetchone()
            return int(count)

    def pause(self, address: str, seconds: float, why: str, *, grows: bool) -> Pause:
        """Let an address rest.

        Args:
            address: name of the address.
            seconds: for how long.
            why: the source's own words.
            grows: twice as long for each pause in a row, up to an hour.
        """
        before = self.pause_of(address)
        now = self._clock()
        # Videos that were in flight together are told the same: that is one strike.
        strikes = before.strikes + (before.until <= now)
        if grows:
            seconds = max(seconds, min(3600.0, seconds * 2 ** (strikes - 1)))
        pause = Pause(max(before.until, now + seconds), why, strikes)
        with self._transaction() as database:
            database.execute(
                "insert or replace into addresses values (?, ?, ?, ?)",
                (address, pause.until, why, strikes),
            )
        return pause

    def works(self, address: str) -> None:
        """Note that a video came by an address: it has no strikes any more.

        A video that was on its way when the source asked to wait does not end the pause.
        """
        pause = self.pause_of(address)
        if pause.strikes and pause.until <= self._clock():
            with self._transaction() as database:
                database.execute("delete from addresses where address = ?", (address,))

    def pause_of(self, address: str) -> Pause:
        """Return the last pause of an address, which may be over."""
        if not self._path.exists():
            return Pause()
        with self._transaction() as database:
            row = database.execute(
                "select paused_until, why, strikes from addresses where address = ?", (address,)
            ).fetchone()
        return Pause(*row) if row else Pause()


def _tidy(database: sqlite3.Connection, now: float) -> None:
    """Forget what is long over, and put right what would never end by itself."""
    database.execute("delete from turns where given_at < ?", (now - 3600,))
    # A clock that was set back leaves times in the future: they count as now.
    database.execute(
        "update turns set given_at = min(given_at, ?), arrived_at = min(arrived_at, ?) "
        "where given_at > ? or arrived_at > ?",
        (now, now, now, now),
    )
    # Whoever was killed will never tell that an answer came: it came by now, or never will.
    waiting = database.execute("select distinct process from turns where arrived_at is null")
    for (process,) in waiting.fetchall():
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
