"""Measure looking at a store of 10 million utterances: opening, pages, searches.

The store is synthetic, with 2 million videos: a ledger, an index and transcripts. Each figure is
the time of a fresh process, imports left out, whose memory and CPU time are measured as well.
Beside each search there is one that scans the whole index with Arrow's data sets.

Example:
    python benchmarks/browse.py
    python benchmarks/browse.py --quick --json
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ledger
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, figure, run_benchmark

from voxblink2_lib.release.index import UTTERANCE_COLUMNS
from voxblink2_lib.release.speaker_index import (
    CONTENT,
    INFO,
    SPEAKER_COLUMNS,
    SPEAKERS,
    TRANSCRIPT_COLUMNS,
    TRANSCRIPTS,
    SpeakerInfo,
)

UTTERANCES_PER_VIDEO = 5
WORDS = 18
# Different transcripts, of which each utterance has one.
TEXTS = 200_000
VIDEOS_AT_ONCE = 13_107
ROUNDS = 3
_MEASURED = """
import re, sys, time
from pathlib import Path
import pyarrow.compute as pc
import pyarrow.dataset as pads
from voxblink2_lib.browse.query import Cursor, Query
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.browse.search import Search
from voxblink2_lib.store.layout import Store

folder, kind, words = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
options = {kind: words} if kind != "statuses" else {"statuses": [words] if words else []}

def ours():
    search, query = Search(QuietLedger(Store(folder), "audio")), Query.of(**options)
    page = search.page(query)
    first = time.perf_counter() - started
    rows, cursor = len(page.rows), page.cursor
    while cursor is not None and rows < 25:
        page = search.page(query, cursor=cursor, most=25 - rows)
        rows, cursor = rows + len(page.rows), page.cursor
    whole, used = time.perf_counter() - started, time.process_time() - before
    again = time.perf_counter()
    search.page(query, cursor=Cursor())
    return first, whole, time.perf_counter() - again, used

def theirs():
    name = "transcripts.parquet" if kind == "text" else "utterances.parquet"
    data = pads.dataset(folder / "index" / name)
    if kind == "text":
        wanted = pc.match_substring(pads.field("transcript"), words, ignore_case=True)
    else:
        column = "video_id" if len(words) == 11 else "speaker_id"
        wanted = pads.field(column) == words if words else None
    data.to_table(filter=wanted, columns=["speaker_id", "video_id", "utterance_id"])
    return (time.perf_counter() - started,) * 4

started, before = time.perf_counter(), time.process_time()
taken = (ours if sys.argv[4] == "ours" else theirs)()
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(*taken, int(peak) / 1024)
"""
# What a process prints: its name, its unit, and whether it has a target.
_COLUMNS = (
    ("first answer", "s", True),
    ("a full page, or all", "s", False),
    ("the first answer once more", "s", False),
    ("CPU time of a full page, or all", "s", False),
    ("memory of the process", "MB", False),
)
RARE, COMMON, ABSENT = "zyzzyva", "word1", "qqqqq"


def make_index(folder: Path, videos: int) -> None:
    """Write the utterances and the transcripts beside the videos of benchmarks/ledger.py."""
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{number}" for number in range(20_000)])
    words = vocabulary[rng.zipf(1.3, (TEXTS, WORDS)) % len(vocabulary)]
    texts = pa.array([" ".join(row) for row in words])
    schema = TRANSCRIPT_COLUMNS.with_metadata({CONTENT: "x"})
    with (
        pq.ParquetWriter(
            folder / "utterances.parquet", UTTERANCE_COLUMNS, compression="zstd"
        ) as utterances,
        pq.ParquetWriter(folder / TRANSCRIPTS, schema, compression="zstd") as transcripts,
    ):
        for first in range(0, videos, VIDEOS_AT_ONCE):
            rows = _utterances(range(first, min(first + VIDEOS_AT_ONCE, videos)))
            utterances.write_table(rows, 65_536)
            is_last = first + VIDEOS_AT_ONCE >= videos
            said = _said(rows, texts, rng, is_last=is_last)
            transcripts.write_table(said.cast(schema), 2_048)
    _write_speakers(folder, videos)


def _said(rows: pa.Table, texts: pa.Array, rng: np.random.Generator, *, is_last: bool) -> pa.Table:
    """Return the transcripts of utterances; the very last one has a word that no other has."""
    chosen = texts.take(pa.array(rng.integers(len(texts), size=len(rows))))
    if is_last:
        chosen = pa.concat_arrays([chosen[:-1], pa.array([f"{chosen[-1].as_py()} {RARE}"])])
    ids = rows.select(["speaker_id", "video_id", "utterance_id"])
    language = pa.array(["en"]).take(pa.array(np.zeros(len(rows), np.int64)))
    return ids.append_column("transcript", chosen).append_column("language", language)


def _write_speakers(folder: Path, videos: int) -> None:
    count = -(-videos // ledger.VIDEOS_PER_SPEAKER)
    utterances = ledger.VIDEOS_PER_SPEAKER * UTTERANCES_PER_VIDEO
    first = np.arange(count) * utterances
    total = videos * UTTERANCES_PER_VIDEO
    columns = {
        "speaker_id": [f"id{number:06}" for number in range(count)],
        "first_transcript": first,
        "transcripts": np.minimum(utterances, total - first),
    }
    table = pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(count, field.type)
            for field in SPEAKER_COLUMNS
        },
        schema=SPEAKER_COLUMNS.with_metadata({CONTENT: "x"}),
    )
    pq.write_table(table, folder / SPEAKERS, compression="zstd")
    info = SpeakerInfo(
        speakers=count,
        listed_videos=0,
        transcripts=total,
        unmatched=0,
        signature="y",
        annotations="x",
        content="x",
        problems=(),
        files={SPEAKERS: "", TRANSCRIPTS: ""},
    )
    (folder / INFO).write_bytes(info.as_json())


def _utterances(videos: range) -> pa.Table:
    video = np.repeat(np.arange(videos.start, videos.stop), UTTERANCES_PER_VIDEO)
    number = np.tile(np.arange(UTTERANCES_PER_VIDEO), len(videos))
    speaker = video // ledger.VIDEOS_PER_SPEAKER
    columns = {
        "speaker_id": [f"id{each:06}" for each in speaker.tolist()],
        "video_id": [f"v{each:010}" for each in video.tolist()],
        "utterance_id": [f"{each:05}" for each in number.tolist()],
        "first_frame": 200 * number,
        "last_frame": 200 * number + 150,
    }
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(len(video), field.type)
            for field in UTTERANCE_COLUMNS
        }
    )


def run(folder: Path, kind: str, words: str, whose: str) -> list[float]:
    command = [sys.executable, "-c", _MEASURED, str(folder), kind, words, whose]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    videos = ledger.QUICK_VIDEOS if quick else ledger.VIDEOS
    ledger.make_index(folder / "index", videos)
    ledger.run("first_plan", folder)
    ledger.fill(folder)
    info = json.loads((folder / "index" / "index.json").read_text())
    assert info["utterances"] == UTTERANCES_PER_VIDEO * videos
    make_index(folder / "index", videos)
    middle = videos // 2
    searches = {
        "first page": ("ids", "", 2.0),
        "by speaker": ("ids", f"id{middle // ledger.VIDEOS_PER_SPEAKER:06}", 1.0),
        "by video": ("ids", f"v{middle:010}", 1.0),
        "by a frequent outcome": ("statuses", "done", 1.0),
        "by an outcome that no video has": ("statuses", "credentials", 1.0),
        "by a word of the reason": ("reason", "unavailable", 1.0),
        "by a word of the reason that none has": ("reason", ABSENT, 0),
        "by a frequent word that is said": ("text", COMMON, 1.0),
        "by a word that is said once": ("text", RARE, 0),
    }
    for name, (kind, words, target) in searches.items():
        ours = [run(folder, kind, words, "ours") for _ in range(ROUNDS)]
        for place, (what, unit, most) in enumerate(_COLUMNS):
            values = [row[place] for row in ours]
            yield figure(f"{name}: {what}", values, unit=unit, at_most=most and target)
        if kind in {"ids", "text"} and words:
            theirs = [run(folder, kind, words, "theirs")[0] for _ in range(ROUNDS)]
            ratios = [row[1] / other for row, other in zip(ours, theirs, strict=True)]
            yield figure(f"{name}: a full page / a scan with Arrow", ratios)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
