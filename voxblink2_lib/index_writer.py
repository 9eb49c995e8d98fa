"""Write the files of an index as annotations come, a row group at a time."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.annotation import Annotation, read_annotation
from voxblink2_lib.resources import AnnotationFile

# Neighbouring boxes differ little: as differences in few bits they take about 3 bytes instead of
# 8, and are quicker to write and to read. benchmarks/index_boxes.py compares what there is.
_BOX_ENCODING = "DELTA_BINARY_PACKED"
UTTERANCES_PER_GROUP = 65_536
BOXES_PER_GROUP = 8_192

UTTERANCE_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("utterance_id", pa.string()),
        ("first_frame", pa.int32()),
        ("last_frame", pa.int32()),
        ("header_start_seconds", pa.float64()),
        ("header_duration_seconds", pa.float64()),
        ("header_width", pa.int16()),
        ("header_height", pa.int16()),
    ]
)
BOX_COLUMNS = pa.schema(
    [
        ("frame", pa.list_(pa.int32())),
        *((name, pa.list_(pa.int16())) for name in ("x", "y", "width", "height")),
    ]
)
_STRETCHES = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("first_row", pa.int64()),
        ("rows", pa.int32()),
        ("digest", pa.int64()),
    ]
)


def _wrapped(number: int) -> int:
    """Bring a sum of digests back to 64 bits with a sign, as Arrow's sums do."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class IndexWriter:
    """Writes utterances and boxes as they come, and notes where each video's rows are."""

    def __init__(self, folder: Path) -> None:
        self._tables = {
            "utterances": _Table(
                folder / "utterances.parquet", UTTERANCE_COLUMNS, UTTERANCES_PER_GROUP
            ),
            "boxes": _Table(
                folder / "boxes.parquet",
                BOX_COLUMNS,
                BOXES_PER_GROUP,
                use_dictionary=False,
                column_encoding={f"{one}.list.element": _BOX_ENCODING for one in BOX_COLUMNS.names},
            ),
        }
        self._rejects_file = open(  # noqa: SIM115  # closed in __exit__
            folder / "rejects.csv", "w", newline="", encoding="utf-8"
        )
        self._rejects = csv.writer(self._rejects_file)
        self._rejects.writerow(["path", "reason"])
        self.rejected = 0
        self.rows = 0
        self.frames = 0
        self.boxes = 0
        self._stretches: list[pa.RecordBatch] = []
        self._pending: list[tuple[str, str, int, int, int]] = []
        self._key: tuple[str, str] | None = None
        self._names: set[str] = set()
        self._first_row = 0
        self._digest = 0

    def take(self, file: AnnotationFile) -> None:
        """Write what a file says, or why it cannot be read."""
        try:
            if file.problem:
                raise ValueError(file.problem)
            self._add(read_annotation(file.path, file.data))
        except ValueError as error:
            self._rejects.writerow([file.path.encode(errors="replace").decode(), str(error)])
            self.rejected += 1

    def _add(self, annotation: Annotation) -> None:
        utterance = annotation.utterance
        key = (utterance.speaker_id, utterance.video_id)
        if key != self._key:
            self._close_stretch()
            self._key = key
        if utterance.utterance_id in self._names:
            raise ValueError("the release has this utterance twice; the first is kept")
        self._names.add(utterance.utterance_id)
        self._digest = _wrapped(self._digest + annotation.digest())
        times = (annotation.start_seconds, annotation.duration_seconds)
        size = annotation.picture_size or (None, None)
        self._tables["utterances"].append(
            (
                *key,
                utterance.utterance_id,
                utterance.first_frame,
                utterance.last_frame,
                *times,
                *size,
            )
        )
        self._tables["boxes"].append((annotation.frames, *annotation.boxes.T))
        self.rows += 1
        self.boxes += len(annotation.frames)
        self.frames += utterance.last_frame + 1 - utterance.first_frame

    def stretches(self) -> pa.Table:
        """Return where the rows of each video are; a video may stand in several places."""
        self._flush_stretches()
        return pa.Table.from_batches(self._stretches, schema=_STRETCHES)

    def _close_stretch(self) -> None:
        if self._key is not None:
            rows = self.rows - self._first_row
            self._pending.append((*self._key, self._first_row, rows, self._digest))
            if len(self._pending) >= UTTERANCES_PER_GROUP:
                self._flush_stretches()
        self._key, self._names, self._first_row, self._digest = None, set(), self.rows, 0

    def _flush_stretches(self) -> None:
        self._stretches.append(_batch(self._pending, _STRETCHES))
        self._pending = []

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_stretch()
        for table in self._tables.values():
            table.close()
        self._rejects_file.close()


class _Table:
    """A Parquet file written a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_group: int, **options: Any) -> None:
        self._schema = schema
        self._rows_per_group = rows_per_group
        self._rows: list[tuple[Any, ...]] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", **options)

    def append(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._rows_per_group:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_batch(_batch(self._rows, self._schema))
        self._rows = []


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    arrays = [pa.array(list(values), one.type) for values, one in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
