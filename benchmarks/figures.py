"""Figures of a benchmark: medians of rounds, with what is wanted of them, told as a table."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from machine import describe


class Figure(NamedTuple):
    """One line of the result: a median of rounds, and what is wanted of it, if anything."""

    name: str
    unit: str
    median: float
    least: float
    most: float
    wanted: str
    holds: bool | None


def figure(
    name: str, values: list[float], *, unit: str = "x", at_least: float = 0, at_most: float = 0
) -> Figure:
    median = statistics.median(values)
    wanted, holds = "", None
    if at_least:
        wanted, holds = f"at least {at_least:g}", median >= at_least
    elif at_most:
        wanted, holds = f"at most {at_most:g}", median <= at_most
    return Figure(name, unit, median, min(values), max(values), wanted, holds)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def line(one: Figure) -> str:
    spread = f"{one.least:.2f}-{one.most:.2f}" if one.least < one.most else ""
    holds = {None: "", True: "yes", False: "NO"}[one.holds]
    return f"{one.name:60} {one.median:8.2f} {one.unit:2} {spread:>14}  {one.wanted:14} {holds}"


def tell(said: str | None, measure: Callable[[Path, bool], Iterable[Figure]]) -> None:
    """Measure in a temporary folder and print a table, or JSON.

    Args:
        said: the benchmark's docstring; what follows "Example:" ends the help.
        measure: gets the folder, and whether to be quick.
    """
    says, _, example = (said or "").partition("Example:")
    parser = argparse.ArgumentParser(
        description=says,
        epilog=f"example:{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="little data, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as named:
        machine = describe(Path(named))
        if args.json:
            figures = [one._asdict() for one in measure(Path(named), args.quick)]
            print(json.dumps({"machine": machine, "figures": figures}))
            return
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(f"{'figure':60} {'median':>8} {'':2} {'least-most':>14}  {'wanted':14} holds")
        for one in measure(Path(named), args.quick):
            print(line(one), flush=True)
