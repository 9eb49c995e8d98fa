"""The book of addresses: never more than the budget, whoever asks and whatever happens."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxblink2_lib.errors import StoreError
from voxblink2_lib.sources.rate_limits import Pause, Permit, RateLimiter

HOME = "direct"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> RateLimiter:
    return RateLimiter(tmp_path / "book.sqlite", clock=clock)


def turn(book: RateLimiter, **options: float) -> Permit:
    taken = book.take(HOME, **{"per_hour": 60.0, **options})
    assert isinstance(taken, Permit), f"asked to wait for {taken} s"
    return taken


def wait(book: RateLimiter, **options: float) -> float:
    taken = book.take(HOME, **{"per_hour": 60.0, **options})
    assert isinstance(taken, float)
    return taken


# -- the budget -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
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
    """A model of a run: a turn's request arrives after one delay, its answer after another."""
    clock = Clock()
    book = RateLimiter(tmp_path_factory.mktemp("book") / "b.sqlite", clock=clock)
    answers: list[tuple[float, Permit]] = []  # when each video in flight is answered
    arrivals: list[float] = []
    for there, back in latencies:
        while True:
            for at, one in sorted(answers, key=lambda answer: answer[0]):
                if at <= clock.now:
                    book.arrived(one)
                    answers.remove((at, one))
            is_full = len(answers) >= fetches
            taken = math.inf if is_full else book.take(HOME, per_hour=per_hour)
            if isinstance(taken, Permit):
                break
            # Each event at its own moment, as the loop of a run would meet it.
            clock.now = min([clock.now + taken, *(at for at, _ in answers)])
        arrivals.append(clock.now + there)
        answers.append((clock.now + there + back, taken))
    allowed = math.ceil(per_hour / 60)
    arrivals.sort()
    for number, start in enumerate(arrivals):
        within = [at for at in arrivals[number:] if at < start + 60]
        assert len(within) <= allowed


@pytest.mark.parametrize("per_hour", [7200.0, 300.0])
def test_eight_threads_take_no_more_than_one(
    per_hour: float, book: RateLimiter, clock: Clock
) -> None:
    """All ask at each moment at once; each answer comes at once."""
    taken: list[float] = []
    moments = [clock.now + step / 4 for step in range(120)]
    gate = threading.Barrier(8, action=lambda: setattr(clock, "now", moments.pop(0)))

    def ask() -> None:
        for _ in range(120):
            gate.wait()
            now = clock.now
            one = book.take(HOME, per_hour=per_hour)
            if isinstance(one, Permit):
                book.arrived(one)
                taken.append(now)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.sort()
    spacing = 3600 / per_hour
    gaps = [after - before for before, after in pairwise(taken)]
    assert min(gaps) >= spacing
    # And no turn is wasted.
    assert len(taken) == math.ceil(30 / spacing)


ASK = """
import sys, time
from pathlib import Path
from voxblink2_lib.addresses import RateLimiter, Turn
book = RateLimiter(Path(sys.argv[1]))
sys.stdin.readline()
taken = 0
while taken < 6:
    one = book.take("direct", per_hour=36_000)
    if isinstance(one, Turn):
        book.arrived(one)
        taken += 1
        print(one.number)
    else:
        time.sleep(one)
"""


def test_processes_that_begin_at_once_share_one_book(tmp_path: Path) -> None:
    """They also make its file at once."""
    path = tmp_path / "new" / "book.sqlite"
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for asker in askers:
        assert asker.stdin
        asker.stdin.write("\n")
        asker.stdin.flush()
    numbers = []
    for asker in askers:
        out, err = asker.communicate(timeout=60)
        assert asker.returncode == 0, err
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
    path = tmp_path / "book.sqlite"
    path.touch()
    book = RateLimiter(path, clock=clock)
    assert book.pause_of(HOME) == Pause()
    assert book.used(HOME) == 0
    assert turn(book).number == 1


def test_turns_keep_their_distance(book: RateLimiter, clock: Clock) -> None:
    book.arrived(turn(book))
    assert wait(book) == 60
    clock.now += 59.5
    assert wait(book) == 0.5
    clock.now += 0.5
    turn(book)


def test_sleep_is_a_distance_without_a_budget(book: RateLimiter, clock: Clock) -> None:
    book.arrived(turn(book, per_hour=math.inf, sleep_seconds=5))
    clock.now += 4
    assert wait(book, per_hour=math.inf, sleep_seconds=5) == 1
    clock.now += 1
    assert turn(book, per_hour=math.inf, sleep_seconds=5).number == 2


def test_without_a_budget_nothing_is_counted_and_no_file_is_made(
    book: RateLimiter, tmp_path: Path
) -> None:
    assert turn(book, per_hour=math.inf) == Permit(None)
    book.arrived(Permit(None))
    assert book.used(HOME) == 0
    assert book.pause_of(HOME) == Pause()
    assert list(tmp_path.glob("book*")) == []


def test_addresses_have_budgets_of_their_own(book: RateLimiter) -> None:
    turn(book)
    assert isinstance(book.take("other", per_hour=60), Permit)
    assert wait(book) == 60


def test_a_request_that_is_on_its_way_counts_until_its_answer_is_60_seconds_old(
    book: RateLimiter, clock: Clock
) -> None:
    slow = turn(book)
    clock.now += 300
    assert wait(book) == 1
    book.arrived(slow)
    clock.now += 59
    assert 0 < wait(book) <= 1
    clock.now += 1
    turn(book)


def test_only_the_first_answer_of_a_turn_counts(book: RateLimiter, clock: Clock) -> None:
    one = turn(book)
    clock.now += 1
    book.arrived(one)
    clock.now += 59
    book.arrived(one)
    clock.now += 1
    turn(book)


def test_used_counts_a_minute(book: RateLimiter, clock: Clock) -> None:
    one = turn(book, per_hour=3600)
    clock.now += 10
    turn(book, per_hour=3600)
    assert book.used(HOME) == 2
    book.arrived(one)
    clock.now += 55
    assert book.used(HOME) == 2
    clock.now += 5
    assert book.used(HOME) == 0


@pytest.mark.parametrize("back", [100.0, 86_400.0])
def test_a_clock_that_is_set_back_costs_a_minute_at_most(
    back: float, book: RateLimiter, clock: Clock
) -> None:
    book.arrived(turn(book))
    clock.now -= back
    assert wait(book) <= 60
    clock.now += 60
    turn(book)


def test_what_a_killed_process_had_on_its_way_is_over_in_a_minute(
    tmp_path: Path, clock: Clock
) -> None:
    """Nobody will ever say that its answers came; at 300 an hour, 5 of them fill the budget."""
    take = (
        "import sys, os; from pathlib import Path;"
        "from voxblink2_lib.sources.rate_limits import RateLimiter;"
        "book = RateLimiter(Path(sys.argv[1]), clock=lambda: float(sys.argv[2]));"
        "print(book.take('direct', per_hour=300).number, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "book.sqlite"
    for number in range(1, 6):
        done = subprocess.run(
            [sys.executable, "-c", take, str(path), str(clock.now)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (-9, f"{number}\n"), done.stderr
        clock.now += 12
    book = RateLimiter(path, clock=clock)
    for _ in range(61):
        if isinstance(book.take(HOME, per_hour=300), Permit):
            break
        clock.now += 1
    else:
        pytest.fail("the turns of processes that are gone still count")


# -- pauses -----------------------------------------------------------------------------------


def test_a_pause_holds_turns_back_in_every_process(
    book: RateLimiter, tmp_path: Path, clock: Clock
) -> None:
    book.pause(HOME, 600, "Too Many Requests", grows=True)
    another = RateLimiter(tmp_path / "book.sqlite", clock=clock)
    assert another.pause_of(HOME) == Pause(clock.now + 600, "Too Many Requests", 1)
    assert wait(another) == 600
    assert wait(another, per_hour=math.inf) == 600
    assert isinstance(another.take("other", per_hour=60), Permit)
    clock.now += 600
    turn(another)


def pauses(book: RateLimiter, clock: Clock, *, grows: bool, count: int) -> Iterator[float]:
    for _ in range(count):
        pause = book.pause(HOME, 600, "limit", grows=grows)
        yield pause.until - clock.now
        clock.now = pause.until


def test_guessed_pauses_grow_up_to_an_hour(book: RateLimiter, clock: Clock) -> None:
    seconds = list(pauses(book, clock, grows=True, count=5))
    assert seconds == [600, 1200, 2400, 3600, 3600]
    assert book.pause_of(HOME).strikes == 5


def test_pauses_that_were_asked_for_do_not_grow(book: RateLimiter, clock: Clock) -> None:
    assert list(pauses(book, clock, grows=False, count=3)) == [600, 600, 600]
    assert book.pause(HOME, 80_000, "limit", grows=True).until == clock.now + 80_000


def test_videos_in_flight_that_are_told_the_same_are_one_strike(
    book: RateLimiter, clock: Clock
) -> None:
    for _ in range(8):
        pause = book.pause(HOME, 600, "limit", grows=True)
        clock.now += 1
    assert pause.strikes == 1
    assert pause.until == clock.now - 1 + 600


def test_a_shorter_pause_ends_no_longer_one(book: RateLimiter, clock: Clock) -> None:
    book.pause(HOME, 600, "long", grows=False)
    assert book.pause(HOME, 1, "short", grows=False).until == clock.now + 600


def test_a_video_that_comes_after_a_pause_wipes_the_slate(book: RateLimiter, clock: Clock) -> None:
    list(pauses(book, clock, grows=True, count=3))
    book.works(HOME)
    assert book.pause_of(HOME) == Pause()
    assert list(pauses(book, clock, grows=True, count=1)) == [600]


def test_a_video_that_was_on_its_way_does_not_end_a_pause(book: RateLimiter, clock: Clock) -> None:
    book.pause(HOME, 600, "limit", grows=True)
    book.works(HOME)
    assert wait(book) == 600


def test_a_book_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    book = RateLimiter(tmp_path / "file" / "book.sqlite")
    with pytest.raises(StoreError, match=r"cannot be kept: .* Set VOXBLINK2_HOME to a folder"):
        book.take(HOME, per_hour=60)
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database, whatever it is " * 100)
    with pytest.raises(StoreError, match="cannot be kept: file is not a database"):
        RateLimiter(tmp_path / "broken.sqlite").pause_of(HOME)
