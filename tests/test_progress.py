"""Bars get the numbers and notes of a task, and fit to a terminal, a notebook, or a log."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.notebook_run import run_cells
from support.recorded_progress import RecordedProgress
from support.terminal_file import terminal

from voxblink2_lib import progress

TIME = r"\d\d:\d\d:\d\d"


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


@pytest.fixture(autouse=True)
def _bars_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "datasets.utils", raising=False)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """The bars that are made from here on."""
    made: list[Bar] = []

    def make(**options: Any) -> Bar:
        made.append(Bar(**options))
        return made[-1]

    monkeypatch.setattr("tqdm.tqdm", make)
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state of every task is shown, however short it is."""
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_SECONDS", dict.fromkeys(progress._SECONDS, 0.0))


def test_a_bar_counts_and_shows_notes(bars: list[Bar]) -> None:
    with progress.show_progress("Embedding", unit="utterance", total=9, done=4) as advance:
        advance(2)
        advance(3, note="1.00 h")
    (bar,) = bars
    expected = {"desc": "Embedding", "unit": "utterance", "total": 9, "initial": 4}
    assert expected.items() <= bar.options.items()
    assert bar.calls == [2, "1.00 h", 3, "closed"]


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.1), (False, 30.0)])
def test_a_log_gets_few_lines(
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


def test_nothing_to_do_is_not_shown(bars: list[Bar]) -> None:
    with progress.show_progress("Verifying", unit="shard", total=0) as advance:
        advance(0, note="done")
    assert bars == []


def test_tracked_items_count_when_the_next_is_wanted() -> None:
    record = RecordedProgress()
    items = progress.tracked({"a": 1, "b": 2}, record, "Verifying", unit="shard")
    assert next(items) == "a"
    assert record.tasks[0].counts == []
    assert list(items) == ["b"]
    (task,) = record.tasks
    assert (task.task, task.unit, task.total, task.counts) == ("Verifying", "shard", 2, [1, 1])


# -- A log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "written"), [(0.5, ""), (20.0, "100%")])
def test_a_log_gets_the_last_line_of_a_task_that_took_long(
    seconds: float,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments = iter([100.0, 100.0 + seconds])
    clock = SimpleNamespace(
        monotonic=lambda: next(moments), time=lambda: 4e9, localtime=lambda *_: (2096,) * 3,
        strftime=lambda *_: "12:00:00",
    )  # fmt: skip
    monkeypatch.setattr(progress, "time", clock)
    with progress.show_progress("Embedding", unit="utterance", total=3) as advance:
        advance(3)
    assert written in (output := capsys.readouterr().err)
    assert bool(output) == bool(written)


@pytest.mark.usefixtures("at_once")
def test_a_log_has_lines_without_control_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "log", "w+") as log:
        monkeypatch.setattr(sys, "stderr", log)
        with (
            progress.show_progress("Embedding\x1b[31m", unit="utterance", total=4) as outer,
            progress.show_progress("Hashing", unit="B", total=3_000_000) as inner,
        ):
            outer(1, note="two\rlines")
            inner(1_500_000)
            inner(1_500_000)
            outer(3)
        log.seek(0)
        text = log.read()
    assert text.replace("\n", "").isprintable()
    lines = text.splitlines()
    hashing = rf"{TIME}  Hashing:  50% 1.50M/3.00M \[00:00<00:00, .*B/s\]"
    assert any(re.fullmatch(hashing, line) for line in lines), text
    embedding = rf"{TIME}  Embedding\\x1b\[31m:  25% 1/4 \[00:00<00:.*utterance/s, two\\rlines\]"
    assert any(re.fullmatch(embedding, line) for line in lines), text
    assert all(re.match(rf"{TIME}  \w", line) for line in lines)
    assert "Embedding\\x1b[31m: 100% 4/4" in lines[-1]


# -- A terminal ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_a_terminal_has_one_line_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as screen:
        with progress.show_progress("Verifying", unit="shard", total=2) as advance:
            advance(1)
            half = screen()
            advance(1)
        whole = screen()
    assert re.search(r"\rVerifying:  50%\|.+\| 1/2 \[00:00<00:00, .*shard/s\]", half)
    assert "\n" not in half
    assert re.search(r"\rVerifying: 100%\|.+\| 2/2 \[00:00<00:00, .*shard/s\] *\n$", whole)


def test_a_short_task_leaves_no_trace_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as screen:
        with progress.show_progress("Verifying", unit="shard", total=2) as advance:
            advance(2)
        assert screen() == ""


# -- A notebook ------------------------------------------------------------------------------------

_AT_ONCE = """
from voxblink2_lib import progress
progress._DELAY_SECONDS, progress._SECONDS = 0.0, dict.fromkeys(progress._SECONDS, 0.0)
"""
_TASK = """
with progress.show_progress("Embedding", unit="utterance", total=3) as advance:
    for number in range(3):
        advance(1, note=f"note {number}")
"""
_RUN = """
from voxblink2_lib.materialize.dashboard import Dashboard, Snapshot
with Dashboard(4) as view:
    for status in ("done", "gone"):
        view.count(status, 1_000_000)
        view.show(lambda: Snapshot((), 0, None, ["<b> & co"]), at_once=True)
"""
_WITHOUT_WIDGETS = "import sys\nsys.modules['ipywidgets'] = None"


def test_a_notebook_shows_widgets(tmp_path: Path) -> None:
    outputs, states = run_cells([_AT_ONCE, _TASK, _RUN], tmp_path)
    assert outputs[0] == []
    (bar,) = outputs[1]
    assert "application/vnd.jupyter.widget-view+json" in bar["data"]
    models = [state["state"] for state in states.values()]
    (shown,) = [model for model in models if model.get("_model_name") == "FloatProgressModel"]
    assert (shown["value"], shown["max"], shown["bar_style"]) == (3.0, 3.0, "success")
    texts = [model["value"] for model in models if model.get("_model_name") == "HTMLModel"]
    right, left = sorted(html.unescape(text).replace("\u2007", " ") for text in texts)
    assert left == "Embedding: 100%"
    assert re.fullmatch(r" ?3/3 \[00:00<00:00, .*utterance/s, note 2\]", right), right
    check_run(outputs[2])


def check_run(outputs: Any) -> None:
    """Check that the view of a run is one output in its last state."""
    (shown,) = outputs
    assert shown["output_type"] == "display_data"
    assert '<progress value="2" max="4"' in shown["data"]["text/html"]
    assert "&lt;b&gt; &amp; co" in shown["data"]["text/html"]
    assert "50.0 %\n2 of 4 videos: 1 done, 1 unavailable" in shown["data"]["text/plain"]
    assert "left" in shown["data"]["text/plain"]


def test_a_notebook_without_widgets_shows_text_and_no_warning(tmp_path: Path) -> None:
    cells = [_WITHOUT_WIDGETS, "import voxblink2", _AT_ONCE, _TASK, _RUN]
    outputs, states = run_cells(cells, tmp_path)
    assert outputs[:3] == [[], [], []]
    assert not states
    assert {(output["output_type"], output["name"]) for output in outputs[3]} == {
        ("stream", "stderr")
    }
    text = "".join(output["text"] for output in outputs[3])
    assert re.search(r"Embedding: 100%\|.+\| 3/3 \[00:00<00:00, .*note 2\]", text)
    check_run(outputs[4])
