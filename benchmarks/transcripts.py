"""Measure how transcripts are indexed, and joined to the rows of a load.

Speakers are synthetic, with 90 utterances each, as the corpus has on average. Indexing is compared
with what any reader must do: unpack the archive, parse its JSON, write the texts as Parquet.
Joining the rows of a shard is compared with checking them, which a load does anyway. CPU time of
this process.

Example:
    python benchmarks/transcripts.py
    python benchmarks/transcripts.py --quick --json
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, cpu_seconds_of, figure, run_benchmark

from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_index_build import update_speakers
from voxblink2_lib.store.joined_columns import JoinedColumns, RowOptions
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shard_check import open_shard, shard_batches

SPEAKERS, QUICK_SPEAKERS = 2000, 40
VIDEOS, UTTERANCES, WORDS = 15, 6, 18
CORPUS_UTTERANCES = 9.9e6
ROUNDS = 5
SHARD_SPEAKERS = 14

Ids = tuple[str, str, str]


def speaker_ids(speaker: int) -> list[Ids]:
    """Return the utterances of a speaker."""
    return [
        (f"id{speaker:06}", f"v{speaker:06}{video:04}", f"{utterance:05}")
        for video in range(VIDEOS)
        for utterance in range(UTTERANCES)
    ]


def make_release(folder: Path, speakers: int) -> Path:
    """Write a release with an archive of transcripts, and one annotation."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    meta = folder / "meta" / "id000000" / "v0000000000"
    meta.mkdir(parents=True)
    (meta / "00000.txt").write_text("FRAME X Y W H\n0 1 1 9 9\n")
    with tarfile.open(folder / "asr_res.tar.gz", "w:gz") as archive:
        for speaker in range(speakers):
            ids = speaker_ids(speaker)
            texts = (" ".join(row) for row in words[rng.zipf(1.3, (len(ids), WORDS)) % 5000])
            entries = {
                "/".join(name): {"text": text, "language": "en"}
                for name, text in zip(ids, texts, strict=True)
            }
            data = json.dumps(entries).encode()
            member = tarfile.TarInfo(f"asr_res/id{speaker:06}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return folder


def read_plainly(release: Path, target: Path) -> None:
    """Do what any reader must: unpack, parse, write."""
    with (
        tarfile.open(release / "asr_res.tar.gz") as archive,
        pq.ParquetWriter(
            target, pa.schema({"name": pa.string(), "text": pa.string()}), compression="zstd"
        ) as writer,
    ):
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            entries = json.load(file)
            texts = [entry["text"] for entry in entries.values()]
            writer.write_table(pa.table({"name": list(entries), "text": texts}))


def make_shard(path: Path, speakers: range) -> int:
    """Write a shard of all utterances of some speakers, a batch for each; return its rows."""
    schema = arrow_schema("audio")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for speaker in speakers:
            rows = [
                {
                    "audio": {"bytes": b"x" * 1000, "path": None},
                    **dict(zip(("speaker_id", "video_id", "utterance_id"), ids, strict=True)),
                    **{"start_seconds": 0.0, "end_seconds": 1.0, "source": "url"},
                }
                for ids in speaker_ids(speaker)
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    return len(speakers) * VIDEOS * UTTERANCES


def check(shards: list[Path]) -> None:
    for shard in shards:
        for _ in shard_batches(open_shard(shard)):
            pass


def measure_index(folder: Path, release: Path, index: Index, utterances: int) -> Iterator[Figure]:
    ours, plain = [], []
    module = "voxblink2_lib.release.speaker_index_build._is_current"
    for _ in range(ROUNDS):
        with patch(module, return_value=False):
            ours.append(cpu_seconds_of(lambda: update_speakers(open_release(release), index)))
        plain.append(cpu_seconds_of(lambda: read_plainly(release, folder / "plain.parquet")))
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    yield figure("index transcripts / unpack, parse and write them", ratios, at_most=5)
    minutes = [seconds / utterances * CORPUS_UTTERANCES / 60 for seconds in ours]
    yield figure("the same for 9.9 million utterances", minutes, unit="min")


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    speakers = QUICK_SPEAKERS if quick else SPEAKERS
    release = make_release(folder / "release", speakers)
    index = build_index(open_release(release), folder / "store" / "index")
    utterances = speakers * VIDEOS * UTTERANCES
    yield from measure_index(folder, release, index, utterances)
    shards, rows = [], 0
    for first in range(0, speakers, SHARD_SPEAKERS):
        shards.append(folder / f"{first}.arrow")
        rows += make_shard(shards[-1], range(first, min(first + SHARD_SPEAKERS, speakers)))
    columns = JoinedColumns.of(index.folder, RowOptions())
    nothing = JoinedColumns(options=RowOptions())
    joined, null, checked = [], [], []
    for _ in range(ROUNDS):
        checked.append(cpu_seconds_of(lambda: check(shards)))
        joined.append(cpu_seconds_of(lambda: columns.write(shards, shards)))
        null.append(cpu_seconds_of(lambda: nothing.write(shards, shards)))
    for name, seconds in (("join transcripts", joined), ("join nulls", null)):
        ratios = [one / other for one, other in zip(seconds, checked, strict=True)]
        yield figure(f"{name} to shards / check these", ratios, at_most=4)
    minutes = [seconds / rows * CORPUS_UTTERANCES / 60 for seconds in joined]
    yield figure("join transcripts to 9.9 million rows", minutes, unit="min")


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
