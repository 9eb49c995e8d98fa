"""Measure commands over a store of 2 million videos, and a plan that excludes 1 million of them.

Each runs in a process of its own; memory is the highest of that process and of those that it
starts. The release is synthetic, as in benchmarks/ledger.py.

Example:
    python benchmarks/memory.py
    python benchmarks/memory.py --quick --json
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, figure, run_benchmark
from ledger import QUICK_VIDEOS, VIDEOS, VIDEOS_PER_SPEAKER, Taken, fill, make_index, run

UTTERANCES_PER_VIDEO = 5
VIDEOS_PER_GROUP = 13_000  # utterances.parquet has 65,536 rows in a group
_COMMAND = """
import re, resource, sys, time
from pathlib import Path
from voxblink2_lib.cli import main

started = time.perf_counter()
assert main(sys.argv[1:]) in {0, 1}  # doctor finds that there is no release
taken = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(taken, int(peak) / 1024, children / 1024, file=sys.stderr)
"""


def run_command(*words: object) -> tuple[Taken, float]:
    """Return time and memory of a command, and the memory of the largest process it started."""
    command = [sys.executable, "-c", _COMMAND, *map(str, words)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seconds, own, children = map(float, done.stderr.splitlines()[-1].split())
    return Taken(seconds, own), children


def make_utterances(folder: Path, videos: int) -> None:
    """Write what the report reads of an index."""
    schema = pa.schema([("speaker_id", pa.string()), ("video_id", pa.string()),
                        ("first_frame", pa.int32()), ("last_frame", pa.int32())])  # fmt: skip
    chooser = np.random.default_rng(0)
    with pq.ParquetWriter(folder / "utterances.parquet", schema, compression="zstd") as writer:
        for start in range(0, videos, VIDEOS_PER_GROUP):
            rows = np.arange(start, min(start + VIDEOS_PER_GROUP, videos)).repeat(
                UTTERANCES_PER_VIDEO
            )
            first = chooser.integers(0, 1_000, len(rows), dtype=np.int32)
            columns = [
                pa.array([f"id{row // VIDEOS_PER_SPEAKER:06}" for row in rows]),
                pa.array([f"v{row:010}" for row in rows]),
                pa.array(first),
                pa.array(first + chooser.integers(50, 250, len(rows), dtype=np.int32)),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def measure(folder: Path, quick: bool) -> Iterable[Figure]:
    videos = QUICK_VIDEOS if quick else VIDEOS
    store, media = folder / "store", folder / "media"
    (media / "id000000").mkdir(parents=True)
    (media / "id000000" / f"v{0:010}.mp4").write_bytes(b"")
    make_index(store / "index", videos)
    make_utterances(store / "index", videos)
    exclude = folder / "exclude.txt"
    exclude.write_text("".join(f"v{2 * index:010}\n" for index in range(videos // 2)))
    plan = run("first_plan", store, exclude)
    yield figure(f"first plan, {videos // 2:,} excluded: seconds", [plan.seconds], unit="s",
                 at_most=15)  # fmt: skip
    yield figure("the same: memory of the process", [plan.mebibytes], unit="MB")
    (store / "ledger.sqlite").unlink()
    run("first_plan", store)
    fill(store)
    for command, *words in (
        ("status",),
        ("status", "--missing"),
        ("report", "--out", folder / "report.html"),
        ("doctor", "--source", media),
    ):
        for more in ((), ("--json",)):
            name = " ".join((command, *(["--missing"] if "--missing" in words else []), *more))
            taken, children = run_command(command, *words, "--store", store, *more)
            yield figure(f"{name}: seconds", [taken.seconds], unit="s")
            yield figure(f"{name}: memory", [taken.mebibytes], unit="MB", at_most=300)
            if children:
                yield figure(f"{name}: memory of what it starts", [children], unit="MB")


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
