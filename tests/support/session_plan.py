"""What takes long begins first, and what takes too long is an error.

Durations of files are kept in ``tests/durations.json``; ``make durations`` writes them anew. A
file that is not listed there runs after those that are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest

_DURATIONS = Path(__file__).parents[1] / "durations.json"
# Tests that may take longer than the budget, with the reason.
_KILLS = "starts the real program again after each kill"
EXCEPTIONS: dict[str, str] = {
    "tests/end_to_end/test_storm.py::test_kills_in_a_storm[5 kills]": _KILLS,
    "tests/end_to_end/test_examples.py::"
    "test_a_training_that_is_killed_and_interrupted_ends_with_the_same_weights": _KILLS,
    "tests/end_to_end/test_audio_visual.py::"
    "test_killed_runs_end_in_the_shards_of_an_undisturbed_one": _KILLS,
    "tests/embedding/test_run.py::"
    "test_killed_and_interrupted_runs_end_in_the_file_of_an_undisturbed_one": _KILLS,
    "tests/cluster/test_ray.py::test_a_node_is_killed_and_no_secret_is_in_the_logs_of_ray": (
        "a node starts its own processes, and a dead one is noticed after seconds"
    ),
    "tests/end_to_end/test_recipe_stages.py::"
    "test_the_second_stage_is_better_on_its_corpus_than_the_first[0]": (
        "trains a model in two stages until their error rates differ"
    ),
    "tests/cli/test_cli.py::test_demo_runs_the_whole_way_behind_a_proxy_too": (
        "what README promises first, as a user runs it"
    ),
}


def add_options(parser: pytest.Parser) -> None:
    """Declare the options of this file."""
    group = parser.getgroup("durations")
    group.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="fail if the call of a test takes longer than this",
    )
    group.addoption(
        "--write-durations",
        action="store_true",
        help=f"write how long each file takes to {_DURATIONS.name}",
    )


def longest_first(items: list[pytest.Item]) -> None:
    """Order files by their recorded durations; a file's own tests keep their order.

    Two processes that take the next file whenever they are done then end at about the same time.
    """
    durations = json.loads(_DURATIONS.read_text()) if _DURATIONS.exists() else {}
    items.sort(key=lambda item: -durations.get(_file_of(item.nodeid), 0))


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Stopwatch:
    """Adds up how long files take, and notes which tests exceed the budget.

    Registered where the reports of all processes arrive.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._budget_seconds: float | None = config.getoption("--budget")
        self._writes: bool = config.getoption("--write-durations")
        self._seconds: dict[str, float] = defaultdict(float)
        self._slow: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one phase of a test."""
        self._seconds[_file_of(report.nodeid)] += report.duration
        if (
            report.when == "call"
            and self._budget_seconds is not None
            and report.duration > self._budget_seconds
            and report.nodeid not in EXCEPTIONS
        ):
            self._slow.append(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Let the session fail where a test exceeds the budget."""
        if self._slow and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
        if self._writes:
            seconds = {file: round(sum_) for file, sum_ in self._seconds.items() if sum_ >= 0.5}
            ordered = dict(sorted(seconds.items(), key=lambda entry: (-entry[1], entry[0])))
            _DURATIONS.write_text(json.dumps(ordered, indent=2) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that exceed the budget."""
        if not self._slow:
            return
        terminalreporter.section(f"slower than {self._budget_seconds:g} s", red=True)
        for report in self._slow:
            terminalreporter.line(f"{report.duration:.1f} s  {report.nodeid}")
        terminalreporter.line("On a slow machine: make test BUDGET=60")
