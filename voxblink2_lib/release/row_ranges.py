"""The row ranges of videos, collected from utterances in the order of their rows."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import KEY_COLUMNS

_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in KEY_COLUMNS),
        ("first_row", pa.int64()),
        ("rows", pa.int32()),
        ("digest", pa.int64()),
    ]
)
_FLUSHED_RANGES = 65_536


@dataclass(slots=True)
class _Range:
    """Rows of one video that follow each other."""

    speaker_id: str
    video_id: str
    first_row: int
    rows: int = 0
    digest: int = 0
    utterance_ids: set[str] = field(default_factory=set)


class RowRanges:
    """Collects row ranges; those that have ended are in a file.

    Args:
        path: the file.
        state: where to go on, as :meth:`flush` returned it; by default a new file is begun.
    """

    def __init__(self, path: Path, state: dict[str, Any] | None = None) -> None:
        self._path = path
        self._ended: list[tuple[Any, ...]] = []
        self._rows = 0
        self._last: _Range | None = None
        if state is None:
            path.write_bytes(b"")
            return
        os.truncate(path, state["size_bytes"])
        self._rows = state["rows"]
        if last := state["last"]:
            self._last = _Range(**{**last, "utterance_ids": set(last["utterance_ids"])})

    def known(self, rows: pa.RecordBatch) -> list[int]:
        """Return which of the next rows are utterances that the present range has already.

        Args:
            rows: the next rows, with the columns of the utterances.
        """
        if self._last is None or not len(rows):
            return []
        key = (self._last.speaker_id, self._last.video_id)
        starts = _starts(rows)
        if tuple(rows[name][0].as_py() for name in KEY_COLUMNS) != key:
            return []
        end = starts[1] if len(starts) > 1 else len(rows)
        utterance_ids = rows["utterance_id"].slice(0, end).to_pylist()
        return [i for i, name in enumerate(utterance_ids) if name in self._last.utterance_ids]

    def add(self, rows: pa.RecordBatch) -> None:
        """Count the next rows: columns of utterances, and ``digest``."""
        starts = _starts(rows)
        ends = [*starts[1:].tolist(), len(rows)]
        digests = np.add.reduceat(rows["digest"].to_numpy(), starts).tolist()
        keys = zip(*(rows[name].take(starts).to_pylist() for name in KEY_COLUMNS), strict=True)
        for start, end, digest, key in zip(starts.tolist(), ends, digests, keys, strict=True):
            if self._last is None or key != (self._last.speaker_id, self._last.video_id):
                self._end_range()
                self._last = _Range(*VideoKey(*key), self._rows + start)
            self._last.rows += end - start
            self._last.digest = _wrapped(self._last.digest + digest)
        assert self._last is not None
        self._last.utterance_ids.update(rows["utterance_id"].slice(int(starts[-1])).to_pylist())
        self._rows += len(rows)

    def _end_range(self) -> None:
        if (last := self._last) is not None:
            self._ended.append(
                (last.speaker_id, last.video_id, last.first_row, last.rows, last.digest)
            )
            if len(self._ended) >= _FLUSHED_RANGES:
                self._write()

    def _write(self) -> None:
        columns = list(zip(*self._ended, strict=True)) or [()] * len(_COLUMNS)
        arrays = [
            pa.array(values, column.type) for values, column in zip(columns, _COLUMNS, strict=True)
        ]
        with open(self._path, "ab") as file, pa.ipc.new_stream(file, _COLUMNS) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_COLUMNS))
        self._ended = []

    def flush(self) -> dict[str, Any]:
        """Flush what is collected to the disk, and return the rest as a JSON object."""
        self._write()
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())
        last = self._last and {
            **asdict(self._last),
            "utterance_ids": sorted(self._last.utterance_ids),
        }
        return {"size_bytes": self._path.stat().st_size, "rows": self._rows, "last": last}

    def by_video(self) -> pa.Table:
        """Return the videos, sorted, when all rows are counted.

        Returns:
            Columns of the key, ``first_rows`` and ``row_counts`` (lists, in the order of the rows),
            and ``digest``, the sum over all rows.
        """
        ranges = self._all()
        order = [(name, "ascending") for name in (*KEY_COLUMNS, "first_row")]
        ranges = ranges.take(pc.sort_indices(ranges, sort_keys=order)).combine_chunks()
        (batch,) = ranges.to_batches() or [pa.RecordBatch.from_pylist([], schema=_COLUMNS)]
        starts = _starts(batch)
        offsets = pa.array(np.append(starts, len(batch)), pa.int32())
        return pa.table(
            {
                **{name: batch[name].take(pa.array(starts)) for name in KEY_COLUMNS},
                "first_rows": pa.ListArray.from_arrays(offsets, batch["first_row"]),
                "row_counts": pa.ListArray.from_arrays(offsets, batch["rows"]),
                "digest": np.add.reduceat(batch["digest"].to_numpy(), starts),
            }
        )

    def _all(self) -> pa.Table:
        """Return all ranges in the order of the rows. A video may have several."""
        self._end_range()
        self._last = None
        self._write()
        batches: list[pa.RecordBatch] = []
        with open(self._path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            while file.tell() < end:
                batches += pa.ipc.open_stream(file)
        return pa.Table.from_batches(batches, schema=_COLUMNS)


def _starts(rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return where another video begins than that of the row before, the first row included."""
    is_first = np.zeros(len(rows), np.bool_)
    is_first[0] = True
    for name in KEY_COLUMNS:
        changes = pc.not_equal(rows[name].slice(1), rows[name].slice(0, len(rows) - 1))
        is_first[1:] |= changes.to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_first)


def _wrapped(number: int) -> int:
    """Wrap a sum of digests to a signed 64-bit integer, as Arrow's sums do."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
