"""Measure encodings of the boxes of an index: bytes per box, and the time to write and to read.

The tracks are synthetic, so no release is needed: a face that wanders, and a detector whose error
differs from frame to frame. That error determines the size, so three strengths are measured.
Everything happens in memory, in turns; times are CPU time, figures medians.

Example:
    python benchmarks/index_boxes.py
    python benchmarks/index_boxes.py --quick --json
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, cpu_seconds_of, figure, run_benchmark

from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.release.index import BOX_COLUMNS
from voxblink2_lib.release.index_writer import BOX_OPTIONS, BOXES_PER_GROUP

# The error of the detector, in pixels; times are reported for the middle one.
JITTERS = (0.4, 1.5, 4.0)
TIMED_JITTER = 1.5
OURS = "ours"


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    tracks: int


# A whole row group, since that is what is encoded and read at once.
FULL = Size(rounds=9, tracks=BOXES_PER_GROUP)
QUICK = Size(rounds=1, tracks=BOXES_PER_GROUP // 16)


# -- Tracks ----------------------------------------------------------------------------------------


def make_tracks(count: int, *, jitter: float) -> pa.Table:
    """Return synthetic tracks in the index's columns; about 150 frames each."""
    rng = np.random.default_rng(0)
    lengths = rng.gamma(2.5, 60, count).clip(40, 700).astype(int)
    starts = rng.integers(0, 60 * FRAMES_PER_SECOND, count)
    frames = [np.arange(first, first + n) for first, n in zip(starts, lengths, strict=True)]
    boxes = [make_boxes(rng, n, jitter) for n in lengths]
    values = np.column_stack([np.concatenate(frames), np.concatenate(boxes)])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(column, field.type.value_type))
        for column, field in zip(values.T, BOX_COLUMNS, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=BOX_COLUMNS)


def make_boxes(rng: np.random.Generator, frames: int, jitter: float) -> npt.NDArray[np.int64]:
    """Return x, y, width, height of a wandering face, shape (n, 4)."""
    width = rng.uniform(60, 300)
    start = np.array([rng.uniform(50, 900), rng.uniform(20, 400), width, 1.25 * width])
    steps = rng.normal(0, (0.6, 0.6, 0.3, 0.3), (frames, 4))
    detected = start + np.cumsum(steps, axis=0) + rng.normal(0, jitter, (frames, 4))
    return np.asarray(np.rint(detected), np.int64)


def entropy_bytes(tracks: pa.Table) -> float:
    """Return the bytes per box of an ideal entropy code of the differences."""
    bits = 0.0
    for column in tracks.columns:
        joined = column.combine_chunks()
        steps = np.diff(joined.flatten())
        within = np.delete(steps, joined.offsets.to_numpy()[1:-1] - 1)
        _, counts = np.unique(within, return_counts=True)
        bits -= float(np.sum(counts * np.log2(counts / counts.sum()))) / counts.sum()
    return bits / 8


# -- Encodings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """A way to store boxes.

    Attributes:
        options: arguments of ``pyarrow.parquet.write_table``.
        differences: store differences of consecutive values, and sum them after reading.
    """

    options: dict[str, Any]
    differences: bool = False

    def write(self, tracks: pa.Table) -> pa.Buffer:
        """Return a Parquet file."""
        sink = pa.BufferOutputStream()
        table = mapped(tracks, differences) if self.differences else tracks
        pq.write_table(table, sink, row_group_size=BOXES_PER_GROUP, **self.options)
        return sink.getvalue()

    def read(self, data: pa.Buffer) -> pa.Table:
        """Return the tracks of a Parquet file."""
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        return mapped(table, sums) if self.differences else table


def differences(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.diff(values, prepend=values.dtype.type(0))  # wraps around, and so do sums


def sums(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.cumsum(values, dtype=values.dtype)


def mapped(table: pa.Table, change: Any) -> pa.Table:
    """Apply a function to the concatenated values of each column of lists."""
    columns = []
    for column in table.columns:
        joined = column.combine_chunks()
        values = change(joined.values.to_numpy())
        columns.append(pa.ListArray.from_arrays(joined.offsets, pa.array(values)))
    return pa.Table.from_arrays(columns, schema=BOX_COLUMNS)


def encodings() -> dict[str, Encoding]:
    """Return the encodings that are compared, ours first."""
    ours = BOX_OPTIONS
    plain = {"compression": "zstd", "use_dictionary": False}
    split = dict.fromkeys(ours["column_encoding"], "BYTE_STREAM_SPLIT")
    return {
        OURS: Encoding(ours),
        "ours without zstd": Encoding({**ours, "compression": "none"}),
        "ours with zstd level 9": Encoding({**ours, "compression_level": 9}),
        "plain, zstd": Encoding(plain),
        "dictionary, zstd": Encoding({"compression": "zstd"}),
        "BYTE_STREAM_SPLIT, zstd": Encoding({**plain, "column_encoding": split}),
        "differences, plain, zstd": Encoding(plain, differences=True),
        "differences, dictionary, zstd": Encoding({"compression": "zstd"}, differences=True),
        "differences, BYTE_STREAM_SPLIT, zstd": Encoding(
            {**plain, "column_encoding": split}, differences=True
        ),
    }


# -- Figures ---------------------------------------------------------------------------------------


def measure_sizes(
    compared: dict[str, Encoding], tracks: pa.Table, jitter: float
) -> Iterator[Figure]:
    boxes = len(tracks["x"].combine_chunks().flatten())
    ours = 0.0
    for name, encoding in compared.items():
        data = encoding.write(tracks)
        if not encoding.read(data).equals(tracks):
            raise RuntimeError(f"the tracks that were read differ from those written: {name}")
        ours = ours or data.size
        yield figure(f"{jitter:g} px: {name}, per box", [data.size / boxes], unit="B")
        if name != OURS:
            yield figure("   size / ours", [data.size / ours])
    entropy = entropy_bytes(tracks)
    yield figure(f"{jitter:g} px: entropy of the differences, per box", [entropy], unit="B")
    yield figure("   size / ours", [entropy * boxes / ours])


def measure_times(compared: dict[str, Encoding], tracks: pa.Table, rounds: int) -> Iterator[Figure]:
    boxes = len(tracks["x"].combine_chunks().flatten())
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for index in range(rounds + 1):
        for name, encoding in compared.items():
            data = encoding.write(tracks)
            writing = cpu_seconds_of(partial(encoding.write, tracks))
            reading = cpu_seconds_of(partial(encoding.read, data))
            if index:  # the first round warms up
                seconds["writing", name].append(writing)
                seconds["reading", name].append(reading)
    for verb in ("writing", "reading"):
        ours = seconds[verb, OURS]
        yield figure(f"{verb}: ours, per box", [1e9 * value / boxes for value in ours], unit="ns")
        for name in compared:
            if name != OURS:
                pairs = zip(seconds[verb, name], ours, strict=True)
                yield figure(f"{verb}: {name} / ours", [its / our for its, our in pairs])


def measure(_: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    compared = encodings()
    for jitter in JITTERS:
        yield from measure_sizes(compared, make_tracks(size.tracks, jitter=jitter), jitter)
    yield from measure_times(compared, make_tracks(size.tracks, jitter=TIMED_JITTER), size.rounds)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
