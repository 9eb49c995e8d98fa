"""What a person sees of a run: lines for given moments, in a terminal and elsewhere."""

from __future__ import annotations

import io
import math
import sys
from types import SimpleNamespace

import pytest

from voxblink2_lib.materialize.dashboard import Dashboard, RouteSnapshot, Snapshot
from voxblink2_lib.progress import clock_text, duration_text


class Clock:
    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """What looks like a terminal."""

    def isatty(self) -> bool:
        return True


QUIET = Snapshot((), 0, None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _bars_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "datasets.utils", raising=False)


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let standard error be a terminal. No fixture: pytest sets it anew before a test's body."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return screen


def address(**changes: object) -> RouteSnapshot:
    view = {
        **{"name": "direct", "in_flight": 2, "used": 1, "a_minute": math.inf},
        **{"paused_until": 0.0, "why": "", "is_closed": False},
    }
    return RouteSnapshot(**{**view, **changes})  # type: ignore[arg-type]


def test_nothing_has_happened_yet(clock: Clock) -> None:
    view = Dashboard(12_345, clock=clock)
    assert view.lines(QUIET) == [
        "0 of 12,345 videos: 0 done, 0 gone or unusable, 0 for later",
        "0.0 videos a minute, 0.00 MB/s",
    ]


def test_videos_are_counted_by_how_they_ended(clock: Clock) -> None:
    view = Dashboard(2000, clock=clock)
    ended = {"done": 1200, "gone": 3, "geo": 2, "private": 1, "not-yet": 1, "media-unusable": 1}
    later = ("transient", "ambiguous", "rate-limited", "blocked", "credentials", "environment")
    for status, count in {**ended, **dict.fromkeys(later, 1)}.items():
        for _ in range(count):
            view.settled(status, 0)
    assert view.lines(QUIET)[0] == (
        "1,214 of 2,000 videos: 1,200 done, 8 gone or unusable, 6 for later"
    )


def test_speed_is_that_of_the_last_ten_minutes(clock: Clock) -> None:
    view = Dashboard(1000, clock=clock)
    for _ in range(300):
        clock.now += 1
        view.settled("done", 2_000_000)
    # 300 in 300 s; 700 are left.
    assert view.lines(QUIET)[1] == "60.0 videos a minute, 2.00 MB/s, about 11 min left"
    clock.now += 450
    # 150 of them are 600 s old or less.
    assert view.lines(QUIET)[1].startswith("15.1 videos a minute, 0.50 MB/s, about 46 min")
    clock.now += 10_000
    assert view.lines(QUIET)[1] == "0.0 videos a minute, 0.00 MB/s"


def test_nothing_is_left(clock: Clock) -> None:
    view = Dashboard(1, clock=clock)
    for _ in range(2):
        view.settled("done", 0)
        assert "left" not in view.lines(QUIET)[1]


def test_no_more_is_expected_than_the_budget_allows(clock: Clock) -> None:
    view = Dashboard(61, clock=clock)
    view.settled("done", 0)
    slow = [address(a_minute=5.0), address(a_minute=5.0), address(a_minute=50.0, is_closed=True)]
    assert view.lines(Snapshot(slow, 0, None))[1].endswith("about 6 min left")
    clock.now += 600
    assert view.lines(Snapshot(slow, 0, None))[1].endswith(
        "0.1 videos a minute, 0.00 MB/s, about 10 h 0 min left"
    )


def test_what_waits(clock: Clock) -> None:
    view = Dashboard(5, clock=clock)
    assert view.lines(Snapshot((), 1200, None))[1] == "1,200 wait to be asked for again"
    at = clock.now + 86_400
    assert view.lines(Snapshot((), 3, at))[1] == (
        f"3 wait to be asked for again, the first at {clock_text(at)}"
    )
    assert view.lines(Snapshot((), 3, clock.now - 1))[1] == "3 wait to be asked for again"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "direct: 2 in flight"),
        ({"a_minute": 5.0}, "direct: 2 in flight, 4 of 5 a minute left"),
        ({"a_minute": 1.5, "used": 2}, "direct: 2 in flight, 0 of 1.5 a minute left"),
        ({"a_minute": 5.0, "used": 9}, "direct: 2 in flight, 0 of 5 a minute left"),
        ({"is_closed": True, "why": "not a bot"}, "direct: closed (not a bot)"),
        (
            {"paused_until": 1e9, "why": "Too Many Requests"},
            f"direct: 2 in flight, paused until {clock_text(1e9)} (Too Many Requests)",
        ),
        ({"is_closed": True, "why": "x" * 121}, f"direct: closed ({'x' * 117}...)"),
        ({"is_closed": True, "why": "x" * 120}, f"direct: closed ({'x' * 120})"),
    ],
)
def test_addresses(changes: dict[str, object], said: str, clock: Clock) -> None:
    lines = Dashboard(1, clock=clock).lines(Snapshot([address(**changes)], 0, None))
    assert lines[-1] == said


def test_elsewhere_a_line_comes_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = []

    def look() -> Snapshot:
        looks.append(clock.now)
        return Snapshot([address()], 0, None)

    with Dashboard(4, clock=clock) as view:
        for _ in range(61):
            view.show(look)
            clock.now += 1
        view.show(look, at_once=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(looks) == 3
    assert [at - 1_000_000_000 for at in looks] == [30, 60, 61]
    assert lines[0] == (
        f"{clock_text(looks[0])}  0 of 4 videos: 0 done, 0 gone or unusable, 0 for later; "
        "0.0 videos a minute, 0.00 MB/s; direct: 2 in flight"
    )


def test_a_terminal_is_drawn_anew_each_second(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal(monkeypatch)
    with Dashboard(4, clock=clock) as view:
        view.settled("done", 0)
        looks = []
        for _ in range(9):
            view.show(lambda: looks.append(clock.now) or QUIET)  # type: ignore[func-returns-value]
            clock.now += 0.5
    assert len(looks) == 4
    drawn = terminal.getvalue()
    assert f"{'█' * 10}{'░' * 30} 25.0 %" in drawn
    assert "1 of 4 videos: 1 done, 0 gone or unusable, 0 for later" in drawn


@pytest.mark.parametrize(
    "words", ["[youtube] abc: said", "[/youtube] closes", "[bold]loud[/bold] :smile:", "[", "\\["]
)
def test_the_words_of_a_source_are_shown_as_they_are(
    words: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal(monkeypatch)
    with Dashboard(4, clock=clock) as view:
        view.show(lambda: Snapshot([address(is_closed=True, why=words)], 0, None), at_once=True)
    assert f"direct: closed ({words})" in terminal.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_who_switched_off_the_bars_of_datasets_sees_nothing(
    is_terminal: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = SimpleNamespace(are_progress_bars_disabled=lambda: True)
    monkeypatch.setitem(sys.modules, "datasets.utils", off)
    screen = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)

    def look() -> Snapshot:
        raise AssertionError("nothing is to be looked up")

    with Dashboard(4, clock=clock) as view:
        clock.now += 100
        view.show(look, at_once=True)
    assert screen.getvalue() == ""


def test_bars_that_are_on_are_shown(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    on = SimpleNamespace(are_progress_bars_disabled=lambda: False)
    monkeypatch.setitem(sys.modules, "datasets.utils", on)
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    with Dashboard(4, clock=clock) as view:
        view.show(lambda: QUIET, at_once=True)
    assert "0 of 4 videos" in screen.getvalue()


def test_the_terminal_is_given_back_after_an_error(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal(monkeypatch)

    def interrupted() -> Snapshot:
        raise KeyboardInterrupt

    view = Dashboard(4, clock=clock)
    with pytest.raises(KeyboardInterrupt), view:
        view.show(interrupted, at_once=True)
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().rindex(shown) > terminal.getvalue().rindex(hidden)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (30 * 86_400 + 3600, "30 d 1 h"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
