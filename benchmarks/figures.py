"""Figures of a benchmark: medians of rounds with their targets, printed as a table."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from machine import describe


class Figure(NamedTuple):
    """One line of the result: the median of the rounds, and its target, if any."""

    name: str
    unit: str
    median: float
    minimum: float
    maximum: float
    target: str
    is_met: bool | None


def figure(
    name: str, values: list[float], *, unit: str = "x", at_least: float = 0, at_most: float = 0
) -> Figure:
    median = statistics.median(values)
    target, is_met = "", None
    if at_least:
        target, is_met = f"at least {at_least:g}", median >= at_least
    elif at_most:
        target, is_met = f"at most {at_most:g}", median <= at_most
    return Figure(name, unit, median, min(values), max(values), target, is_met)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds_of(work: Callable[[], object]) -> float:
    """CPU time of this process: wall time of milliseconds mostly measures other processes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def children_cpu_seconds_of(work: Callable[[], object]) -> float:
    """CPU time of the processes that the work starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def format_figure(item: Figure) -> str:
    spread = f"{item.minimum:.2f}-{item.maximum:.2f}" if item.minimum < item.maximum else ""
    is_met = {None: "", True: "yes", False: "NO"}[item.is_met]
    return (
        f"{item.name:60} {item.median:8.2f} {item.unit:2} {spread:>14}  {item.target:14} {is_met}"
    )


def run_benchmark(docstring: str | None, measure: Callable[[Path, bool], Iterable[Figure]]) -> None:
    """Measure in a temporary folder and print a table, or JSON.

    Args:
        docstring: of the benchmark; the part after "Example:" ends the help.
        measure: yields figures, given the folder and whether to use little data.
    """
    description, _, example = (docstring or "").partition("Example:")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"example:{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="little data, to test that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        machine = describe(Path(folder))
        if args.json:
            figures = [item._asdict() for item in measure(Path(folder), args.quick)]
            print(json.dumps({"machine": machine, "figures": figures}))
            return
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(f"{'figure':60} {'median':>8} {'':2} {'min-max':>14}  {'target':14} met")
        for item in measure(Path(folder), args.quick):
            print(format_figure(item), flush=True)
