"""Bars get the numbers and notes of a task."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from voxblink2_lib import progress


class Bar:
    """Records what a bar is given."""

    def __init__(self, **options: Any) -> None:
        self.options, self.calls = options, list[object]()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("closed")

    def update(self, count: int) -> None:
        self.calls.append(count)

    def set_postfix_str(self, note: str, *, refresh: bool) -> None:
        assert not refresh
        self.calls.append(note)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that are made from here on."""
    made: list[Bar] = []

    def make(**options: Any) -> Bar:
        made.append(Bar(**options))
        return made[-1]

    monkeypatch.setattr("tqdm.tqdm", make)
    monkeypatch.delitem(sys.modules, "datasets.utils", raising=False)
    return made


def test_a_bar_counts_and_shows_notes(bars: list[Bar]) -> None:
    with progress.show_progress("Embedding", unit="utterance", total=9, done=4) as advance:
        advance(2)
        advance(3, note="1.00 h")
    (bar,) = bars
    expected = {"desc": "Embedding", "unit": "utterance", "total": 9, "initial": 4}
    assert expected.items() <= bar.options.items()
    assert bar.calls == [2, "1.00 h", 3, "closed"]


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.1), (False, 30.0)])
def test_a_log_file_gets_few_lines(
    is_terminal: bool, seconds: float, bars: list[Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: is_terminal))
    with progress.show_progress("Verifying", unit="shard"):
        pass
    assert bars[0].options["mininterval"] == seconds


def test_the_bars_of_datasets_are_used_where_they_are_loaded(
    bars: list[Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet: Callable[..., Bar] = Bar
    monkeypatch.setitem(sys.modules, "datasets.utils", SimpleNamespace(tqdm=quiet))
    with progress.show_progress("Verifying", unit="shard"):
        pass
    assert bars == []


def test_no_progress_shows_nothing(bars: list[Bar]) -> None:
    with progress.no_progress("Verifying", unit="shard", total=2, done=1) as advance:
        advance(1)
        advance(1, note="done")
    assert bars == []


@pytest.mark.parametrize(("seconds", "written"), [(0.5, ""), (20.0, "100%")])
def test_a_log_file_gets_the_last_line_of_a_task_that_took_long(
    seconds: float,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments = iter([100.0, 100.0 + seconds])
    clock = SimpleNamespace(monotonic=lambda: next(moments), time=lambda: sys.float_info.max)
    monkeypatch.setattr(progress, "time", clock)
    with progress.show_progress("Embedding", unit="utterance", total=3) as advance:
        advance(3)
    assert written in (output := capsys.readouterr().err)
    assert bool(output) == bool(written)
