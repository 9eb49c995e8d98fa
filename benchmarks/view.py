"""Measure a view of a store of 10 million utterances: finding its rows, and reading them.

Finding them needs the index and the catalogue alone, which are synthetic. Rows are read from some
mapped files: as slices of the mapped files, and by a table of indices, in turns with the
whole store.

Example:
    python benchmarks/view.py
    python benchmarks/view.py --quick --json
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from figures import Figure, figure, run_benchmark, seconds_of
from ledger import VIDEOS_PER_SPEAKER, make_index

from voxblink2_lib.records import SealedShard
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store import view
from voxblink2_lib.store.catalogue import FOLDER, Catalogue, Shard
from voxblink2_lib.store.layout import Store

VIDEOS, QUICK_VIDEOS = 2_000_000, 20_000
ROWS_PER_VIDEO, VIDEOS_PER_SHARD = 5, 1_000
ROUNDS = 3
READ_ROWS, READ_SHARDS = 20_000, 8


def make_store(folder: Path, videos: int) -> tuple[Store, list[SealedShard]]:
    """Write index and catalogue of a store; return it and its shards, which have no files."""
    make_index(folder / "index", videos)
    rows = np.arange(videos * ROWS_PER_VIDEO)
    video = rows // ROWS_PER_VIDEO
    speakers = [f"id{number:06}" for number in range(-(-videos // VIDEOS_PER_SPEAKER))]
    columns = [
        pa.DictionaryArray.from_arrays(
            pa.array(video // VIDEOS_PER_SPEAKER, pa.int32()), pa.array(speakers)
        ),
        pa.array([f"v{number:010}" for number in range(videos)]).take(pa.array(video)),
        pa.array([f"{number:05}" for number in range(ROWS_PER_VIDEO)]).take(
            pa.array(rows % ROWS_PER_VIDEO)
        ),
        *(pa.array(rows % 9, kind) for kind in (pa.int32(), pa.int64(), pa.int32())),
    ]
    names = ["speaker_id", "video_id", "utterance_id", "samples", "offset", "size"]
    size = VIDEOS_PER_SHARD * ROWS_PER_VIDEO
    shards = [
        Shard(f"audio-{number:05}.arrow", 1, size) for number in range(videos // VIDEOS_PER_SHARD)
    ]
    (folder / FOLDER).mkdir()
    table = pa.Table.from_arrays(columns, names=names)
    Catalogue(table, tuple(shards)).write(folder / FOLDER / "audio.arrow")
    sealed = [
        SealedShard(number, shard.name, hashlib.sha256(b"x").hexdigest(), shard.rows, 1)
        for number, shard in enumerate(shards)
    ]
    return Store(folder), sealed


def selections(videos: int) -> dict[str, Selection]:
    speakers = videos // VIDEOS_PER_SPEAKER
    named = frozenset(f"id{number:06}" for number in range(0, speakers, 100))
    half = frozenset(f"v{number:010}" for number in range(0, videos, 2))
    return {
        "half of the speakers": Selection(max_speakers=speakers // 2),
        "every 100th speaker": Selection(speakers=named),
        "without every second video": Selection(exclude=half),
    }


def found(store: Store, shards: list[SealedShard], selection: Selection) -> float:
    view._view.cache_clear()
    return seconds_of(lambda: view.view_of(store, "audio", shards, selection))


def read(rows: Any) -> float:
    """Return the rows per second that a program gets in random order."""
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    return len(order) / seconds_of(lambda: [rows[row] for row in order])


def make_rows(folder: Path) -> Any:
    """Return a dataset of mapped files with a column of 10 kB."""
    folder.mkdir()
    parts = []
    for number in range(READ_SHARDS):
        path = folder / f"{number}.arrow"
        count = READ_ROWS // READ_SHARDS
        batch = pa.record_batch({"sound": [b"x" * 10_000] * 250, "row": list(range(250))})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
            for _ in range(count // 250):
                writer.write_batch(batch)
        parts.append(datasets.Dataset.from_file(str(path)))
    return datasets.concatenate_datasets(parts)


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    videos = QUICK_VIDEOS if quick else VIDEOS
    store, shards = make_store(folder / "store", videos)
    for name, selection in selections(videos).items():
        seconds = [found(store, shards, selection) for _ in range(ROUNDS)]
        yield figure(f"rows of {name}", seconds, unit="s", at_most=5)
    whole = make_rows(folder / "read")
    every_other = whole.select(range(0, len(whole), 2))
    slices = datasets.concatenate_datasets(
        [whole.select(range(start, start + 625)) for start in range(0, len(whole), 1250)]
    )
    rates = [(read(whole), read(slices), read(every_other)) for _ in range(ROUNDS)]
    yield figure("rows per second: whole store", [rate for rate, _, _ in rates], unit="")
    yield figure("slices / whole store", [sliced / rate for rate, sliced, _ in rates])
    yield figure("indices / whole store", [indexed / rate for rate, _, indexed in rates])


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
