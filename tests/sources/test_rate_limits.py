"""Rate limits: never more than the budget, whichever process requests and whatever happens."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples

from voxblink2_lib.errors import StoreError
from voxblink2_lib.sources.rate_limits import Budget, Pause, Permit, RateLimiter, shared_file

ROUTE = "direct"
ONE_A_MINUTE, NO_LIMIT = Budget(60), Budget()


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(tmp_path: Path, clock: Clock) -> RateLimiter:
    return RateLimiter(tmp_path / "limits.sqlite", clock=clock)


def acquire(limiter: RateLimiter, budget: Budget = ONE_A_MINUTE, *, route: str = ROUTE) -> Permit:
    permit = limiter.acquire(route, budget)
    assert permit is not None, f"must wait {limiter.seconds_until_permit(route, budget)} s"
    return permit


def wait(limiter: RateLimiter, budget: Budget = ONE_A_MINUTE) -> float:
    """Return how long to wait, while there is no permit."""
    assert limiter.acquire(ROUTE, budget) is None
    return limiter.seconds_until_permit(ROUTE, budget)


# -- the budget ------------------------------------------------------------------------------------


@fewer_examples(2)
@given(
    per_hour=st.sampled_from([60.0, 90.0, 300.0, 1200.0, 3600.0]),
    latencies=st.lists(st.tuples(st.floats(0, 90), st.floats(0, 30)), min_size=8, max_size=24),
    fetches=st.integers(1, 8),
)
def test_no_60_seconds_see_more_than_the_budget_where_requests_arrive(
    per_hour: float,
    latencies: list[tuple[float, float]],
    fetches: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A model of a run: a permit's request arrives after one delay, its answer after another."""
    clock = Clock()
    limiter = RateLimiter(tmp_path_factory.mktemp("limits") / "l.sqlite", clock=clock)
    budget = Budget(per_hour)
    answers: list[tuple[float, Permit]] = []  # when each video in flight is answered
    arrivals: list[float] = []
    for out, back in latencies:
        while True:
            for at, answered in sorted(answers, key=lambda answer: answer[0]):
                if at <= clock.now:
                    limiter.confirm(answered)
                    answers.remove((at, answered))
            is_full = len(answers) >= fetches
            permit = None if is_full else limiter.acquire(ROUTE, budget)
            if permit is not None:
                break
            # Each event at its own moment, as the loop of a run would meet it.
            seconds = math.inf if is_full else limiter.seconds_until_permit(ROUTE, budget)
            assert seconds > 0
            clock.now = min([clock.now + seconds, *(at for at, _ in answers)])
        arrivals.append(clock.now + out)
        answers.append((clock.now + out + back, permit))
    allowed = math.ceil(per_hour / 60)
    arrivals.sort()
    for number, start in enumerate(arrivals):
        within = [at for at in arrivals[number:] if at < start + 60]
        assert len(within) <= allowed


@pytest.mark.parametrize("per_hour", [7200.0, 300.0])
def test_eight_threads_acquire_no_more_than_one(
    per_hour: float, limiter: RateLimiter, clock: Clock
) -> None:
    """All try at each moment at once; each answer arrives at once."""
    taken: list[float] = []
    moments = [clock.now + step / 4 for step in range(120)]
    gate = threading.Barrier(8, action=lambda: setattr(clock, "now", moments.pop(0)))

    def request_all() -> None:
        for _ in range(120):
            gate.wait()
            now = clock.now
            permit = limiter.acquire(ROUTE, Budget(per_hour))
            if permit is not None:
                limiter.confirm(permit)
                taken.append(now)

    threads = [threading.Thread(target=request_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.sort()
    spacing = 3600 / per_hour
    gaps = [after - before for before, after in pairwise(taken)]
    assert min(gaps) >= spacing
    # And no permit is wasted.
    assert len(taken) == math.ceil(30 / spacing)


REQUEST_ALL = """
import sys, time
from pathlib import Path
from voxblink2_lib.sources.rate_limits import Budget, RateLimiter
limiter, budget = RateLimiter(Path(sys.argv[1])), Budget(36_000)
sys.stdin.readline()
count = 0
while count < 6:
    permit = limiter.acquire("direct", budget)
    if permit is None:
        time.sleep(limiter.seconds_until_permit("direct", budget))
    else:
        limiter.confirm(permit)
        count += 1
        print(permit.number)
"""


def test_processes_that_begin_at_once_share_one_file(tmp_path: Path) -> None:
    """They also create it at once."""
    path = tmp_path / "new" / "limits.sqlite"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REQUEST_ALL, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    numbers = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        numbers += out.split()
    assert len({*numbers}) == 24
    times = given_at(path)
    assert min(b - a for a, b in pairwise(times)) >= 0.1


def given_at(path: Path) -> list[float]:
    database = sqlite3.connect(path)
    try:
        rows = database.execute("select given_at from turns order by given_at").fetchall()
    finally:
        database.close()
    return [at for (at,) in rows]


def test_a_file_that_another_process_is_making_just_now(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "limits.sqlite"
    path.touch()
    limiter = RateLimiter(path, clock=clock)
    assert limiter.pause_for(ROUTE) == Pause()
    assert limiter.requests_last_minute(ROUTE) == 0
    assert acquire(limiter).number == 1


def test_permits_keep_their_distance(limiter: RateLimiter, clock: Clock) -> None:
    limiter.confirm(acquire(limiter))
    assert wait(limiter) == 60
    clock.now += 59.5
    assert wait(limiter) == 0.5
    clock.now += 0.5
    acquire(limiter)


def test_sleep_is_a_distance_without_a_budget(limiter: RateLimiter, clock: Clock) -> None:
    budget = Budget(sleep_seconds=5)
    limiter.confirm(acquire(limiter, budget))
    clock.now += 4
    assert wait(limiter, budget) == 1
    clock.now += 1
    assert acquire(limiter, budget).number == 2


def test_without_a_budget_nothing_is_counted_and_no_file_is_made(
    limiter: RateLimiter, tmp_path: Path
) -> None:
    assert acquire(limiter, NO_LIMIT) == Permit(None)
    assert limiter.seconds_until_permit(ROUTE, NO_LIMIT) == 0
    assert limiter.seconds_until_permit(ROUTE, ONE_A_MINUTE) == 0
    limiter.confirm(Permit(None))
    assert limiter.requests_last_minute(ROUTE) == 0
    assert limiter.pause_for(ROUTE) == Pause()
    assert list(tmp_path.glob("limits*")) == []


def test_routes_have_budgets_of_their_own(limiter: RateLimiter) -> None:
    acquire(limiter)
    acquire(limiter, route="other")
    assert wait(limiter) == 60


def test_a_request_that_is_on_its_way_counts_until_its_answer_is_60_seconds_old(
    limiter: RateLimiter, clock: Clock
) -> None:
    slow = acquire(limiter)
    clock.now += 300
    assert wait(limiter) == 1
    limiter.confirm(slow)
    clock.now += 59
    assert 0 < wait(limiter) <= 1
    clock.now += 1
    acquire(limiter)


def test_only_the_first_answer_of_a_permit_counts(limiter: RateLimiter, clock: Clock) -> None:
    permit = acquire(limiter)
    clock.now += 1
    limiter.confirm(permit)
    clock.now += 59
    limiter.confirm(permit)
    clock.now += 1
    acquire(limiter)


def test_requests_of_the_last_minute_are_counted(limiter: RateLimiter, clock: Clock) -> None:
    permit = acquire(limiter, Budget(3600))
    clock.now += 10
    acquire(limiter, Budget(3600))
    assert limiter.requests_last_minute(ROUTE) == 2
    limiter.confirm(permit)
    clock.now += 55
    assert limiter.requests_last_minute(ROUTE) == 2
    clock.now += 5
    assert limiter.requests_last_minute(ROUTE) == 0


@pytest.mark.parametrize("back", [100.0, 86_400.0])
def test_a_clock_that_is_set_back_costs_a_minute_at_most(
    back: float, limiter: RateLimiter, clock: Clock
) -> None:
    limiter.confirm(acquire(limiter))
    clock.now -= back
    assert wait(limiter) <= 60
    clock.now += 60
    acquire(limiter)


def test_what_a_killed_process_had_on_its_way_is_over_in_a_minute(
    tmp_path: Path, clock: Clock
) -> None:
    """Its answers are never confirmed; at 300 an hour, 5 of them fill the budget."""
    script = (
        "import sys, os; from pathlib import Path;"
        "from voxblink2_lib.sources.rate_limits import Budget, RateLimiter;"
        "limiter = RateLimiter(Path(sys.argv[1]), clock=lambda: float(sys.argv[2]));"
        "print(limiter.acquire('direct', Budget(300)).number, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "limits.sqlite"
    for number in range(1, 6):
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(clock.now)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (-9, f"{number}\n"), done.stderr
        clock.now += 12
    limiter = RateLimiter(path, clock=clock)
    for _ in range(61):
        if limiter.acquire(ROUTE, Budget(300)) is not None:
            break
        clock.now += 1
    else:
        pytest.fail("the permits of processes that have ended still count")


# -- pauses ----------------------------------------------------------------------------------------


def test_a_pause_holds_requests_back_in_every_process(
    limiter: RateLimiter, tmp_path: Path, clock: Clock
) -> None:
    limiter.pause(ROUTE, 600, "Too Many Requests", grows=True)
    another = RateLimiter(tmp_path / "limits.sqlite", clock=clock)
    assert another.pause_for(ROUTE) == Pause(clock.now + 600, "Too Many Requests", 1)
    assert wait(another) == 600
    assert wait(another, NO_LIMIT) == 600
    acquire(another, route="other")
    clock.now += 600
    acquire(another)


def pauses(limiter: RateLimiter, clock: Clock, *, grows: bool, count: int) -> Iterator[float]:
    for _ in range(count):
        pause = limiter.pause(ROUTE, 600, "limit", grows=grows)
        yield pause.until - clock.now
        clock.now = pause.until


def test_guessed_pauses_grow_up_to_an_hour(limiter: RateLimiter, clock: Clock) -> None:
    seconds = list(pauses(limiter, clock, grows=True, count=5))
    assert seconds == [600, 1200, 2400, 3600, 3600]
    assert limiter.pause_for(ROUTE).consecutive_pauses == 5


def test_pauses_that_the_source_states_do_not_grow(limiter: RateLimiter, clock: Clock) -> None:
    assert list(pauses(limiter, clock, grows=False, count=3)) == [600, 600, 600]
    assert limiter.pause(ROUTE, 80_000, "limit", grows=True).until == clock.now + 80_000


def test_videos_in_flight_with_the_same_answer_are_one_pause(
    limiter: RateLimiter, clock: Clock
) -> None:
    for _ in range(8):
        pause = limiter.pause(ROUTE, 600, "limit", grows=True)
        clock.now += 1
    assert pause.consecutive_pauses == 1
    assert pause.until == clock.now - 1 + 600


def test_a_shorter_pause_ends_no_longer_one(limiter: RateLimiter, clock: Clock) -> None:
    limiter.pause(ROUTE, 600, "long", grows=False)
    assert limiter.pause(ROUTE, 1, "short", grows=False).until == clock.now + 600


def test_a_video_downloaded_after_a_pause_ends_the_row(limiter: RateLimiter, clock: Clock) -> None:
    list(pauses(limiter, clock, grows=True, count=3))
    limiter.record_success(ROUTE)
    assert limiter.pause_for(ROUTE) == Pause()
    assert list(pauses(limiter, clock, grows=True, count=1)) == [600]


def test_a_video_that_was_in_flight_does_not_end_a_pause(
    limiter: RateLimiter, clock: Clock
) -> None:
    limiter.pause(ROUTE, 600, "limit", grows=True)
    limiter.record_success(ROUTE)
    assert wait(limiter) == 600


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    limiter = RateLimiter(tmp_path / "file" / "limits.sqlite")
    with pytest.raises(StoreError, match=r"cannot be stored: .* Set VOXBLINK2_HOME to a folder"):
        limiter.acquire(ROUTE, ONE_A_MINUTE)
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database, whatever it is " * 100)
    with pytest.raises(StoreError, match="cannot be stored: file is not a database"):
        RateLimiter(tmp_path / "broken.sqlite").pause_for(ROUTE)


# -- the file --------------------------------------------------------------------------------------


def test_all_runs_of_a_user_share_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "elsewhere"))
    assert shared_file() == tmp_path / "elsewhere" / "addresses.sqlite"


def test_reading_neither_waits_for_a_writer_nor_stops_one(limiter: RateLimiter) -> None:
    """A view reads every second, while other processes acquire permits."""
    acquire(limiter)
    limiter.pause(ROUTE, 600, "limit", grows=False)
    with contextlib.closing(sqlite3.connect(limiter._path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("delete from turns")
        assert limiter.requests_last_minute(ROUTE) == 1
        assert limiter.pause_for(ROUTE).reason == "limit"
        assert limiter.seconds_until_permit(ROUTE, ONE_A_MINUTE) == 600
        writer.execute("commit")
    assert limiter.requests_last_minute(ROUTE) == 0


def test_tables_and_columns_are_those_of_the_version_before(limiter: RateLimiter) -> None:
    acquire(limiter)
    with contextlib.closing(sqlite3.connect(limiter._path)) as database:
        assert database.execute("pragma user_version").fetchone() == (1,)
        rows = database.execute("select name, sql from sqlite_master where type = 'table'")
        columns = {
            name: [row[1] for row in database.execute(f"pragma table_info({name})")]
            for name, _ in rows.fetchall()
        }
    assert columns == {
        "turns": ["number", "address", "given_at", "arrived_at", "process"],
        "addresses": ["address", "paused_until", "why", "strikes"],
    }


def test_pauses_of_an_earlier_format_are_kept(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "limits.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("create table turns (number integer primary key)")
        database.execute(
            "create table addresses (address text primary key, paused_until real not null, "
            "why text not null, strikes integer not null) without rowid"
        )
        database.execute("insert into addresses values (?, ?, 'limit', 2)", (ROUTE, clock.now + 60))
    limiter = RateLimiter(path, clock=clock)
    assert limiter.pause_for(ROUTE) == Pause(clock.now + 60, "limit", 2)
    assert wait(limiter) == 60


# -- a clock that was wrong ------------------------------------------------------------------------

DAY = 86_400.0
FUTURE = 4 * 365 * DAY  # a clock that was once in 2030


def test_a_pause_that_a_wrong_clock_left_ends_within_a_day(
    limiter: RateLimiter, clock: Clock
) -> None:
    clock.now += FUTURE
    limiter.pause(ROUTE, 600, "limit", grows=False)
    clock.now -= FUTURE
    until = clock.now + DAY
    assert limiter.pause_for(ROUTE) == Pause(until, "limit", 1)
    assert wait(limiter) == DAY
    clock.now += DAY / 2
    assert limiter.pause_for(ROUTE).until == until, "it does not recede as time passes"
    clock.now = until
    acquire(limiter)


def test_no_pause_is_longer_than_a_day(limiter: RateLimiter, clock: Clock) -> None:
    pause = limiter.pause(ROUTE, 1e300, "limit", grows=True)
    assert pause.until == clock.now + DAY
    assert limiter.pause_for(ROUTE) == pause


@pytest.mark.parametrize("budget", [ONE_A_MINUTE, Budget(sleep_seconds=DAY)])
def test_permits_that_a_wrong_clock_left_cost_no_more_than_the_budget(
    budget: Budget, limiter: RateLimiter, clock: Clock
) -> None:
    clock.now += FUTURE
    limiter.confirm(acquire(limiter, budget))
    clock.now -= FUTURE
    assert limiter.seconds_until_permit(ROUTE, budget) <= budget.spacing_seconds
    assert limiter.requests_last_minute(ROUTE) <= 1
    assert wait(limiter, budget) <= budget.spacing_seconds
    clock.now += budget.spacing_seconds
    acquire(limiter, budget)


# -- pauses of a source ----------------------------------------------------------------------------


def test_pauses_of_a_source_are_listed_and_lifted(limiter: RateLimiter, clock: Clock) -> None:
    for route in ("youtube direct", "youtube gate:1 with a.txt", "youtube2 direct", "a.org direct"):
        limiter.pause(route, 600, "limit", grows=False)
    limiter.pause("youtube old", 1, "over", grows=False)
    clock.now += 2
    pause = Pause(clock.now + 598, "limit", 1)
    assert limiter.pauses("youtube") == {"direct": pause, "gate:1 with a.txt": pause}
    assert limiter.lift_pauses("youtube") == ["direct", "gate:1 with a.txt"]
    assert limiter.pauses("youtube") == {}
    assert limiter.pause_for("youtube direct") == Pause()
    assert limiter.pauses("youtube2") == limiter.pauses("a.org") == {"direct": pause}
    assert limiter.lift_pauses("youtube") == []


def test_without_a_file_there_are_no_pauses(limiter: RateLimiter, tmp_path: Path) -> None:
    assert limiter.pauses("youtube") == {}
    assert limiter.lift_pauses("youtube") == []
    assert list(tmp_path.iterdir()) == []
