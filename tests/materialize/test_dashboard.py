"""The view of a run: lines for given snapshots, in a terminal and elsewhere."""

from __future__ import annotations

import io
import math
import sys
from types import SimpleNamespace

import pytest
from support.terminal_file import terminal

from voxblink2_lib.materialize.dashboard import Dashboard, RouteSnapshot, Snapshot
from voxblink2_lib.progress import clock_text, duration_text


class Clock:
    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A text file that claims to be a terminal."""

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


def route(**changes: object) -> RouteSnapshot:
    fields = {
        **{"name": "direct", "in_flight": 2, "requests_last_minute": 1, "per_minute": math.inf},
        **{"paused_until": None, "reason": "", "is_closed": False},
    }
    return RouteSnapshot(**{**fields, **changes})  # type: ignore[arg-type]


def test_nothing_has_happened_yet(clock: Clock) -> None:
    view = Dashboard(12_345, clock=clock)
    assert view.lines(QUIET) == [
        "0 of 12,345 videos: 0 done, 0 unavailable, 0 to retry later",
        "0.0 videos/min, 0.00 MB/s",
    ]


def test_videos_are_counted_by_how_they_ended(clock: Clock) -> None:
    view = Dashboard(2000, clock=clock)
    ended = {"done": 1200, "gone": 3, "geo": 2, "private": 1, "not-yet": 1, "media-unusable": 1}
    later = ("transient", "ambiguous", "rate-limited", "blocked", "credentials", "environment")
    for status, count in {**ended, **dict.fromkeys(later, 1)}.items():
        for _ in range(count):
            view.count(status, 0)
    assert view.lines(QUIET)[0] == (
        "1,214 of 2,000 videos: 1,200 done, 8 unavailable, 6 to retry later"
    )


def test_speed_is_that_of_the_last_ten_minutes(clock: Clock) -> None:
    view = Dashboard(1000, clock=clock)
    for _ in range(300):
        clock.now += 1
        view.count("done", 2_000_000)
    # 300 in 300 s; 700 are left.
    assert view.lines(QUIET)[1] == "60.0 videos/min, 2.00 MB/s, about 11 min left"
    clock.now += 450
    # 150 of them are 600 s old or less.
    assert view.lines(QUIET)[1].startswith("15.1 videos/min, 0.50 MB/s, about 46 min")
    clock.now += 10_000
    assert view.lines(QUIET)[1] == "0.0 videos/min, 0.00 MB/s"


def test_nothing_is_left(clock: Clock) -> None:
    view = Dashboard(1, clock=clock)
    for _ in range(2):
        view.count("done", 0)
        assert "left" not in view.lines(QUIET)[1]


def test_no_more_is_expected_than_the_budget_allows(clock: Clock) -> None:
    view = Dashboard(61, clock=clock)
    view.count("done", 0)
    slow = [route(per_minute=5.0), route(per_minute=5.0), route(per_minute=50.0, is_closed=True)]
    assert view.lines(Snapshot(slow, 0, None))[1].endswith("about 6 min left")
    clock.now += 600
    assert view.lines(Snapshot(slow, 0, None))[1].endswith(
        "0.1 videos/min, 0.00 MB/s, about 10 h 0 min left"
    )


def test_videos_that_wait(clock: Clock) -> None:
    view = Dashboard(5, clock=clock)
    assert view.lines(Snapshot((), 1200, None))[1] == "1,200 wait for a retry"
    at = clock.now + 86_400
    assert view.lines(Snapshot((), 3, at))[1] == (
        f"3 wait for a retry, the first at {clock_text(at)}"
    )
    assert view.lines(Snapshot((), 3, clock.now - 1))[1] == "3 wait for a retry"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "direct: 2 in flight"),
        ({"per_minute": 5.0}, "direct: 2 in flight, 4 of 5 requests left this minute"),
        (
            {"per_minute": 1.5, "requests_last_minute": 2},
            "direct: 2 in flight, 0 of 1.5 requests left this minute",
        ),
        (
            {"per_minute": 5.0, "requests_last_minute": 9},
            "direct: 2 in flight, 0 of 5 requests left this minute",
        ),
        ({"is_closed": True, "reason": "not a bot"}, "direct: closed (not a bot)"),
        (
            {"paused_until": 1e9, "reason": "Too Many Requests"},
            f"direct: 2 in flight, paused until {clock_text(1e9)} (Too Many Requests)",
        ),
        ({"is_closed": True, "reason": "x" * 121}, f"direct: closed ({'x' * 117}...)"),
        ({"is_closed": True, "reason": "x" * 120}, f"direct: closed ({'x' * 120})"),
    ],
)
def test_routes(changes: dict[str, object], line: str, clock: Clock) -> None:
    lines = Dashboard(1, clock=clock).lines(Snapshot([route(**changes)], 0, None))
    assert lines[-1] == line


def test_elsewhere_a_line_is_written_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    times = []

    def snapshot() -> Snapshot:
        times.append(clock.now)
        return Snapshot([route()], 0, None)

    with Dashboard(4, clock=clock) as view:
        for _ in range(61):
            view.show(snapshot)
            clock.now += 1
        view.show(snapshot, at_once=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(times) == 3
    assert [at - 1_000_000_000 for at in times] == [30, 60, 61]
    assert lines[0] == (
        f"{clock_text(times[0])}  0 of 4 videos: 0 done, 0 unavailable, 0 to retry later; "
        "0.0 videos/min, 0.00 MB/s; direct: 2 in flight"
    )


def test_a_terminal_is_drawn_anew_each_second(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal(monkeypatch)
    with Dashboard(4, clock=clock) as view:
        view.count("done", 0)
        times = []
        for _ in range(9):
            view.show(lambda: times.append(clock.now) or QUIET)  # type: ignore[func-returns-value]
            clock.now += 0.5
    assert len(times) == 4
    drawn = terminal.getvalue()
    assert f"{'█' * 10}{'░' * 30} 25.0 %" in drawn
    assert "1 of 4 videos: 1 done, 0 unavailable, 0 to retry later" in drawn


@pytest.mark.parametrize(
    "message", ["[youtube] abc: text", "[/youtube] closes", "[bold]loud[/bold] :smile:", "[", "\\["]
)
def test_the_message_of_a_source_is_shown_as_it_is(
    message: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal(monkeypatch)
    with Dashboard(4, clock=clock) as view:
        view.show(lambda: Snapshot([route(is_closed=True, reason=message)], 0, None), at_once=True)
    assert f"direct: closed ({message})" in terminal.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_without_the_bars_of_datasets_nothing_is_shown(
    is_terminal: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = SimpleNamespace(are_progress_bars_disabled=lambda: True)
    monkeypatch.setitem(sys.modules, "datasets.utils", off)
    screen = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)

    def snapshot() -> Snapshot:
        raise AssertionError("nothing is to be looked up")

    with Dashboard(4, clock=clock) as view:
        clock.now += 100
        view.show(snapshot, at_once=True)
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
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().rindex(show) > terminal.getvalue().rindex(hide)


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


def test_what_is_held_back_is_shown_and_what_is_done_about_it() -> None:
    assert route(held=3).line(0.0) == "direct: 2 in flight, 3 failed alike, not written yet"
    assert route(held=12, is_in_question=True, in_flight=0).line(0.0) == (
        "direct: 0 in flight, 12 failed alike, not written yet, requests videos that are known to "
        "come"
    )


def test_calls_that_take_long_are_shown_last(clock: Clock) -> None:
    slow = ["worker 2 on id000001/abcdefghijk for 5 minutes"]
    lines = Dashboard(1, clock=clock).lines(Snapshot([route()], 0, None, slow))
    assert lines[-2:] == ["direct: 2 in flight", *slow]


def test_a_budget_of_a_video_a_day_says_when_the_next_one_is(clock: Clock) -> None:
    """Not that a request is left this minute, and no more."""
    at = clock.now + 86_000
    slow = route(per_minute=1 / 1440, requests_last_minute=0, next_permit_at=at)
    lines = Dashboard(10, clock=clock).lines(Snapshot([slow], 0, None))
    assert lines[-1].endswith(f"requests left this minute, next request at {clock_text(at)}")
    soon = route(next_permit_at=clock.now + 59)
    assert soon.line(clock.now) == "direct: 2 in flight"
    paused = route(paused_until=at, reason="limit", next_permit_at=at)
    assert paused.line(clock.now) == f"direct: 2 in flight, paused until {clock_text(at)} (limit)"


def test_a_run_that_only_seals_shows_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Dashboard(0, clock=clock) as view:
        view.show(lambda: QUIET, at_once=True)
    with Dashboard(1, clock=clock) as view:
        view.show(lambda: QUIET, at_once=True)
    assert capsys.readouterr().err.count("videos") == 2  # counted, and per minute


def test_a_real_terminal_is_drawn_again_in_place(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as screen:
        with Dashboard(4, clock=clock) as view:
            for status in ("done", "gone"):
                view.count(status, 0)
                view.show(lambda: QUIET, at_once=True)
            drawn = screen()
        whole = screen()
    up_one_line = "\x1b[1A"
    first, last = (drawn.index(f"{count} of 4 videos") for count in (1, 2))
    assert up_one_line in drawn[first:last]
    assert "50.0 %" in drawn[last - 80 :]
    assert whole.endswith("\x1b[?25h")
