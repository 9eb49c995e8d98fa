"""Measure reading lists of 10 million trials in the forms that people have.

Times are CPU time of the process, all threads included, over that of splitting the lines in Python.
Memory is the peak over that before, in a process of its own, over the arrays and names that come
out. A benchmark is evidence, not a gate: it exits with 0 whether or not the targets are met.

Example:
    python benchmarks/lists.py
    python benchmarks/lists.py --quick
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, cpu_seconds_of, figure, run_benchmark
from machine import peak_memory_bytes

from voxblink2_lib.scoring.trial_lists import read_trials

TRIALS, QUICK_TRIALS = 10_000_000, 1_000_000
UTTERANCES = 200_000
MOST_TIME, MOST_MEMORY = 1.2, 2.0

FORMS: dict[str, tuple[str, str]] = {
    "label enrol test": ("", "{label} {enrol} {test}\n"),
    "enrol TAB test TAB label": ("", "{enrol}\t{test}\t{label}\n"),
    "CSV with header": ("label,enrol,test\n", "{label},{enrol},{test}\n"),
    "SRE key, five columns": (
        "modelid\tsegmentid\tside\ttargettype\tphone\n",
        "{enrol}\t{test}\ta\t{label}\t\n",
    ),
    "CSV in quotes, CRLF": ("label;enrol;test\r\n", '"{label}";"{enrol}";"{test}"\r\n'),
    "runs of spaces": ("", "{label}  {enrol}  {test}\n"),
}


def write_list(path: Path, trials: int, header: str, template: str) -> None:
    generator = np.random.default_rng(5)
    names = [f"id{row % 9000:05}/abcdefghijk/{row:06}.wav" for row in range(UTTERANCES)]
    enrolment, test = generator.integers(UTTERANCES, size=(2, trials)).tolist()
    with open(path, "w", encoding="utf-8", newline="") as lines:
        lines.write(header)
        for left, right in zip(enrolment, test, strict=True):
            words = {"label": (left ^ right) & 1, "enrol": names[left], "test": names[right]}
            lines.write(template.format_map(words))


def split_lines(file: Path) -> int:
    with open(file, encoding="utf-8") as lines:
        return len([line.split() for line in lines])


def read(file: Path) -> None:
    read_trials(file)


def memory_share(file: Path) -> float:
    """Return the peak memory of reading over what comes out of it."""
    read_trials(file.with_name("warm"))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_memory_bytes(None)
    trials = read_trials(file)
    assert trials.labels is not None
    arrays = trials.enrolment.nbytes + trials.test.nbytes + trials.labels.nbytes
    names = sys.getsizeof(trials.names) + sum(map(sys.getsizeof, trials.names))
    return (peak_memory_bytes(None) - before) / (arrays + names)


def in_process(work: Callable[..., Any], *arguments: object) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    trials = QUICK_TRIALS if quick else TRIALS
    write_list(folder / "warm", 1000, *FORMS["label enrol test"])
    for form, (header, template) in FORMS.items():
        file = folder / "trials"
        write_list(file, trials, header, template)
        ratios = [
            in_process(cpu_seconds_of, partial(read, file))
            / in_process(cpu_seconds_of, partial(split_lines, file))
            for _ in range(3)
        ]
        yield figure(f"{trials:,} trials, {form}: reading / splitting", ratios, at_most=MOST_TIME)
        share = in_process(memory_share, file)
        yield figure("   peak memory / arrays and names", [share], at_most=MOST_MEMORY)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
