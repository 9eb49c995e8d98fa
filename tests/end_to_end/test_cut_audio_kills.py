"""Runs over an archive in parts, killed at any moment: the same shards, little is read twice."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import archive_builder, cli_process, cut_runs, ledger_tables
from support.killed_archive_run import POINT_BYTES

from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.verify import verify_store

UTTERANCES, PARTS = 3_000, 7
pytestmark = pytest.mark.usefixtures("inline_workers")

# zlib ends a block after some 100 kB; the reader takes 256 KiB of a part at once, and is ahead by
# as much; what is in work is a few blocks of 32 files of 8 kB.
SLACK_BYTES = 1_000_000

_CHOICES = {
    "bytes": (1, 9_000_000),
    "blocks": (1, 40),
    "rows": (1, 400),
    "half": (1, 9),
    "commits": (1, 9),
    "seals": (1, 3),
    "sealed": (1, 3),
}


def moments(count: int) -> list[tuple[str, int]]:
    """Return moments that are spread over a run, the same each time."""
    chosen = random.Random(20_260)
    kinds = itertools.islice(itertools.cycle(_CHOICES), count)
    return [(kind, chosen.randint(*_CHOICES[kind])) for kind in kinds]


def run(archive: Path, store: Path, log: Path, moment: str, number: int) -> int:
    words = [sys.executable, "-m", "support.killed_archive_run", archive, store, log, moment]
    done = subprocess.run(
        [*map(str, words), str(number)],
        capture_output=True,
        text=True,
        timeout=cli_process.DEADLINE_SECONDS,
        env=cli_process.environment({"PYTHONPATH": "tests"}),
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


def repeated(log: Path) -> list[int]:
    """Return how many bytes of the parts each run but the first read again."""
    begins: dict[str, int] = {}
    ends: defaultdict[str, int] = defaultdict(int)
    for line in log.read_text().splitlines():
        process, offset, count = line.split()
        if int(count) > 2:  # the mark of gzip, which each reader looks at
            begins.setdefault(process, int(offset))
            ends[process] = int(offset) + int(count)
    processes = list(begins)
    return [
        max(ends[before] for before in processes[:number]) - begins[process]
        for number, process in enumerate(processes)
        if number
    ]


def assert_killed_runs_end_as_an_undisturbed_one(
    kills: Sequence[tuple[str, int]], *, utterances: int, folder: Path
) -> None:
    archive, log = folder / "parts", folder / "reads.txt"
    paths = archive_builder.write_archive(archive, utterances, PARTS)
    cut_runs.go(archive, folder / "whole")
    codes = [run(archive, folder / "store", log, *kill) for kill in kills]
    while codes[-1]:
        codes.append(run(archive, folder / "store", log, "never", 1))
    assert -signal.SIGKILL in codes
    assert cli_process.shards(folder / "store") == cli_process.shards(folder / "whole")
    assert ledger(folder / "store") == ledger(folder / "whole")
    assert verify_store(Store(folder / "store"), sample=9).problems == ()
    again = repeated(log)
    assert max(again) <= POINT_BYTES + SLACK_BYTES
    assert sum(path.stat().st_size for path in paths) > 3 * max(again) or utterances < UTTERANCES


def ledger(store: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what a ledger says, but for times and attempts."""
    tables = ledger_tables.tables(store / "ledger.sqlite")
    videos = [(*row[:6], *row[8:11]) for row in tables["videos"]]
    return {"jobs": tables["jobs"], "missing": tables["missing"], "videos": videos}


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    kills = [("bytes", 1_400_000)]
    assert_killed_runs_end_as_an_undisturbed_one(kills, utterances=400, folder=tmp_path)


@pytest.mark.slow
def test_twenty_kills_of_a_run_over_three_thousand_utterances(tmp_path: Path) -> None:
    assert_killed_runs_end_as_an_undisturbed_one(
        moments(20), utterances=UTTERANCES, folder=tmp_path
    )
