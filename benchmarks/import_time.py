"""Measure the cost of ``import voxblink2`` beyond ``import datasets``, in fresh processes in turns.

Example:
    python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

ROUNDS = 10
STATEMENTS = ("import datasets", "import voxblink2")


def seconds_of(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    for statement in STATEMENTS:  # warm the file caches
        seconds_of(statement)
    pairs = [[seconds_of(statement) for statement in STATEMENTS] for _ in range(ROUNDS)]
    differences = [ours - theirs for theirs, ours in pairs]
    ratios = [ours / theirs for theirs, ours in pairs]
    print(", ".join(f"{name} {value}" for name, value in describe(Path.cwd()).items()))
    print(
        f"voxblink2 / datasets: {statistics.median(ratios):.2f} x "
        f"({min(ratios):.2f}-{max(ratios):.2f}); "
        f"difference {statistics.median(differences):.2f} s, target below 1 s"
    )


if __name__ == "__main__":
    main()
