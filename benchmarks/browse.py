"""Measure looking at a store of 10 million utterances: opening, pages, searches.

The store is synthetic, with 2 million videos: a ledger, an index and transcripts. Each figure is
the CPU time of a fresh process, imports left out, whose memory is measured as well. Beside each
search there is one that scans the whole index with Arrow's data sets.

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
from voxblink2_lib.release.speaker_facts import SpeakerFacts
from voxblink2_lib.release.speaker_index import INFO, SpeakerInfo
from voxblink2_lib.release.speaker_writer import Speaker, SpeakerWriter
from voxblink2_lib.release.transcripts import Transcript

UTTERANCES_PER_VIDEO = 5
WORDS = 18
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
    first = time.process_time() - started
    rows, cursor = len(page.rows), page.cursor
    while cursor is not None and rows < 25:
        page = search.page(query, cursor=cursor, most=25 - rows)
        rows, cursor = rows + len(page.rows), page.cursor
    whole = time.process_time() - started
    again = time.process_time()
    search.page(query, cursor=Cursor())
    return first, whole, time.process_time() - again

def theirs():
    name = "transcripts.parquet" if kind == "text" else "utterances.parquet"
    data = pads.dataset(folder / "index" / name)
    if kind == "text":
        wanted = pc.match_substring(pads.field("transcript"), words, ignore_case=True)
    else:
        column = "video_id" if len(words) == 11 else "speaker_id"
        wanted = pads.field(column) == words if words else None
    data.to_table(filter=wanted, columns=["speaker_id", "video_id", "utterance_id"])
    return (time.process_time() - started,) * 3

started = time.process_time()
taken = (ours if sys.argv[4] == "ours" else theirs)()
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(*taken, int(peak) / 1024)
"""
# What a process prints: its name, its unit, and whether it has a target.
_COLUMNS = (
    ("first answer", "s", True),
    ("a full page, or all", "s", False),
    ("the first answer once more", "s", False),
    ("memory of the process", "MB", False),
)
RARE, COMMON, ABSENT = "zyzzyva", "word1", "qqqqq"


def make_index(folder: Path, videos: int) -> None:
    """Write the utterances and the transcripts beside the videos of benchmarks/ledger.py."""
    options = {"compression": "zstd"}
    with pq.ParquetWriter(folder / "utterances.parquet", UTTERANCE_COLUMNS, **options) as writer:
        for first in range(0, videos, 13_107):
            writer.write_table(_utterances(range(first, min(first + 13_107, videos))), 65_536)
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{number}" for number in range(20_000)])
    speakers = -(-videos // ledger.VIDEOS_PER_SPEAKER)
    with SpeakerWriter(folder) as texts:
        for speaker in range(speakers):
            first = speaker * ledger.VIDEOS_PER_SPEAKER
            of_speaker = range(first, min(first + ledger.VIDEOS_PER_SPEAKER, videos))
            texts.add(_speaker(speaker, of_speaker, rng, vocabulary, speakers), {})
    info = SpeakerInfo(
        speakers=speakers,
        listed_videos=0,
        transcripts=texts.transcripts,
        unmatched=0,
        signature="y",
        annotations="x",
        content=texts.content,
        problems=(),
        files={"speakers.parquet": "", "transcripts.parquet": ""},
    )
    (folder / INFO).write_bytes(info.as_json())


def _utterances(videos: range) -> pa.Table:
    rows = [(video, n) for video in videos for n in range(UTTERANCES_PER_VIDEO)]
    count = len(rows)
    per_speaker = ledger.VIDEOS_PER_SPEAKER
    columns = {
        "speaker_id": [f"id{video // per_speaker:06}" for video, _ in rows],
        "video_id": [f"v{video:010}" for video, _ in rows],
        "utterance_id": [f"{n:05}" for _, n in rows],
        "first_frame": [200 * n for _, n in rows],
        "last_frame": [200 * n + 150 for _, n in rows],
        "header_start_seconds": [None] * count,
        "header_duration_seconds": [None] * count,
        "header_width": [1280] * count,
        "header_height": [720] * count,
    }
    return pa.table(
        {field.name: pa.array(columns[field.name], field.type) for field in UTTERANCE_COLUMNS}
    )


def _speaker(
    number: int,
    videos: range,
    rng: np.random.Generator,
    vocabulary: np.ndarray,  # type: ignore[type-arg]  # of texts
    speakers: int,
) -> Speaker:
    keys = [(f"v{video:010}", f"{n:05}") for video in videos for n in range(UTTERANCES_PER_VIDEO)]
    words = vocabulary[rng.zipf(1.3, (len(keys), WORDS)) % len(vocabulary)]
    texts = [" ".join(row) for row in words]
    if number == speakers - 1:
        texts[-1] += f" {RARE}"
    entries = [
        Transcript(video_id=video, utterance_id=utterance, text=text, language="en")
        for (video, utterance), text in zip(keys, texts, strict=True)
    ]
    return Speaker(f"id{number:06}", SpeakerFacts(), None, None, None, None, None, entries)


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
