"""Measure a store of 2 million videos: opening, planning a job, writing 1,000 answers, its status.

Each runs in a fresh process; time and memory are those of the whole process, also as a ratio to a
Python that only imports what all of them need. The release is synthetic; the ledger is filled by
the library's own planning and then by SQL.

Example:
    python benchmarks/ledger.py
    python benchmarks/ledger.py --quick --json
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, figure, run_benchmark

VIDEOS, QUICK_VIDEOS = 2_000_000, 50_000
VIDEOS_PER_SPEAKER = 18
_MEASURED = """
import re, sys, time
import datasets, pyarrow
from pathlib import Path
from voxblink2_lib.materialize.planning import plan_run, write_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.status import read_status

def nothing(store):
    pass

def first_plan(store, exclude=None):
    request = MaterializeRequest(selection=Selection.of(exclude=exclude))
    with Ledger(store.ledger, "audio") as ledger:
        plan = plan_run(request, store, Index(store.index), ledger)
        write_plan(plan, ledger, ledger.verdicts("youtube"))

def open_ledger(store):
    Ledger(store.ledger, "audio").close()

def next_job(store):
    with Ledger(store.ledger, "audio") as ledger:
        index = Index(store.index)
        verdicts = ledger.verdicts("youtube")
        plan = plan_run(MaterializeRequest(), store, index, ledger, failed=verdicts.due())
        write_plan(plan, ledger, verdicts)
        pending = frozenset(verdicts.pending_videos(ledger.open_jobs()[0]))
        assert len(list(index._find(pending))) == len(pending) > 0
        assert verdicts.count_pending()

def record(store):
    with Ledger(store.ledger, "audio") as ledger:
        verdicts = ledger.verdicts("youtube")
        for job in ledger.open_jobs()[:10]:
            for key in verdicts.pending_videos(job)[:100]:
                bare = Outcome(key, "ambiguous", "Video unavailable", is_explicit=False)
                verdicts.record(bare)
        assert verdicts.other_speakers([key], 5)

def status(store):
    assert read_status(store, "audio").utterances

store = Store(Path(sys.argv[2]))
started = time.perf_counter()
globals()[sys.argv[1]](store, *sys.argv[3:])
taken = time.perf_counter() - started
# Of this program alone: the value of getrusage may be its parent's.
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(taken, int(peak) / 1024)
"""
_FILL = """
update videos set status = case
    when abs(random()) % 100 < 40 then 'done' when abs(random()) % 100 < 50 then 'gone'
    when abs(random()) % 100 < 50 then 'private' else 'transient' end,
    attempts = 1, clips = 5, samples = 480000, bytes_fetched = 1000000,
    updated_at = 1.8e9 + abs(random()) % 1000000
    where job % 10 < 9;
update videos set reason = '[youtube] ' || video_id || ': Video unavailable (' ||
    (abs(random()) % 50) || ')', clips = 0, samples = 0 where status in ('gone', 'private');
update videos set reason = 'HTTP Error 503', next_at = unixepoch() + 86400
    where status = 'transient';
insert into sources (name) values ('youtube');
insert into verdicts select config, speaker_id, video_id, 1, status, reason, 1, next_at, null,
    'direct', updated_at from videos where status not in ('planned', 'done');
insert into attempts select config, speaker_id, video_id, 1, updated_at, status, reason, 'direct',
    bytes_fetched, 1.5, json_object('audio_id', '251-3', 'language', 'de', 'client', 'web',
    'reference_height', 720, 'audio_tracks', 1, 'clipped_samples', max(0, random() % 9 * 100 - 700))
    from videos where status <> 'planned';
update jobs set shard = '', sha256 = '', rows = 0, bytes = 0 where job % 10 < 9;
insert or replace into facts values ('audio.clip_format', '2');
"""


class Taken(NamedTuple):
    """Time and memory of a process."""

    seconds: float
    mebibytes: float


def run(function: str, store: Path, *more: object) -> Taken:
    command = [sys.executable, "-c", _MEASURED, function, str(store), *map(str, more)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Taken(*map(float, done.stdout.split()))


def make_index(folder: Path, videos: int) -> None:
    """Write what planning reads of an index."""
    folder.mkdir(parents=True)
    indices = range(videos)
    table = pa.table(
        {
            "speaker_id": [f"id{index // VIDEOS_PER_SPEAKER:06}" for index in indices],
            "video_id": [f"v{index:010}" for index in indices],
            "first_rows": pa.array([[5 * index] for index in indices], pa.list_(pa.int64())),
            "row_counts": pa.array([[5]] * videos, pa.list_(pa.int64())),
            "digest": pa.array(indices, pa.int64()),
        }
    )
    pq.write_table(table, folder / "videos.parquet", compression="zstd")
    info = {"speakers": videos // VIDEOS_PER_SPEAKER, "videos": videos, "utterances": 5 * videos,
            "boxes": 1, "hours": 1.0, "rejected": 0, "fingerprint": "x", "signature": "y",
            "format": 2}  # fmt: skip
    (folder / "index.json").write_text(json.dumps(info))


def fill(store: Path) -> None:
    """Give most of the planned videos an answer and an attempt."""
    database = sqlite3.connect(store / "ledger.sqlite")
    database.executescript(_FILL)
    database.close()


def measure(folder: Path, quick: bool) -> Iterable[Figure]:
    videos = QUICK_VIDEOS if quick else VIDEOS
    make_index(folder / "index", videos)
    first = run("first_plan", folder)
    fill(folder)
    yield figure("first plan of all videos: seconds", [first.seconds], unit="s")
    yield figure("the same: memory of the process", [first.mebibytes], unit="MB")
    bare = run("nothing", folder)
    yield figure("imports alone: memory of the process", [bare.mebibytes], unit="MB")
    for function in ("open_ledger", "next_job", "record", "status"):
        runs = [run(function, folder) for _ in range(3)]
        seconds = [taken.seconds for taken in runs]
        yield figure(f"{function}: seconds", seconds, unit="s", at_most=5)
        peaks = [taken.mebibytes for taken in runs]
        yield figure(f"{function}: memory of the process", peaks, unit="MB", at_most=500)
        ratios = [peak / bare.mebibytes for peak in peaks]
        yield figure(f"{function}: memory / imports alone", ratios)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
