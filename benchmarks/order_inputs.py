"""The catalogue of a corpus of VoxBlink2's shape, and a toy of the embeddings of its voices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from voxblink2_lib.store.catalogue import Catalogue, Shard

ROWS_PER_SHARD = 5_000
UTTERANCES = 89  # of a speaker, on average
VIDEO = 5  # utterances of a video
BYTES_PER_SAMPLE = 1.3  # FLAC


def write_catalogue(path: Path, speakers: int) -> None:
    """Write the catalogue of so many speakers, in order, in shards that do not exist."""
    generator = np.random.default_rng(0)
    counts = np.maximum(1, generator.poisson(UTTERANCES, speakers))
    rows = int(counts.sum())
    samples = generator.integers(32_000, 160_000, rows).astype(np.int32)
    size = (samples * BYTES_PER_SAMPLE).astype(np.int32)
    ends = np.cumsum(size, dtype=np.int64)
    first = np.arange(0, rows, ROWS_PER_SHARD)
    shard_rows = np.diff([*first, rows])
    begin = ends - size
    shard_bytes = np.diff([*begin[first], ends[-1]])
    nothing = pa.array([""]).take(pa.array(np.zeros(rows, np.int32)))
    codes = pa.array(np.repeat(np.arange(speakers, dtype=np.int32), counts))
    names = pa.array([f"id{speaker:06}" for speaker in range(speakers)])
    columns = {
        "speaker_id": pa.DictionaryArray.from_arrays(codes, names),
        "video_id": nothing,
        "utterance_id": nothing,
        "samples": samples,
        "offset": begin - np.repeat(begin[first], shard_rows),
        "size": size,
    }
    shards = tuple(
        Shard(f"audio-{number:05}.arrow", int(size_bytes), int(count))
        for number, (size_bytes, count) in enumerate(zip(shard_bytes, shard_rows, strict=True))
    )
    Catalogue(pa.table(columns), shards).write(path)


def windowed_rows(
    rows: int, generator: np.random.Generator, *, block: int = 64, window: int = 1 << 16
) -> npt.NDArray[np.int64]:
    """Return the order of versions before this: shuffled blocks, and windows of them shuffled."""
    blocks = generator.permutation(-(-rows // block))
    order = (blocks[:, None] * block + np.arange(block)).ravel()
    order = order[order < rows]
    for start in range(0, rows, window):
        generator.shuffle(order[start : start + window])
    return order
