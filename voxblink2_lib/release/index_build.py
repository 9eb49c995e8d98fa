"""Build an index from annotation files, in one pass and bounded memory, a row group at a time."""

from __future__ import annotations

import csv
import hashlib
import itertools
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import ReleaseError, StoreMismatchError
from voxblink2_lib.files import atomic_write, named_system_errors, sha256_of
from voxblink2_lib.foreign_text import csv_cell
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import FRAMES_PER_SECOND, Utterance, VideoKey
from voxblink2_lib.release.annotation import Annotation, read_annotation
from voxblink2_lib.release.index import (
    BOX_COLUMNS,
    KEY_COLUMNS,
    UTTERANCE_COLUMNS,
    Index,
    IndexInfo,
    is_of_earlier_format,
    read_videos,
)
from voxblink2_lib.release.location import AnnotationFile, Release
from voxblink2_lib.release.speaker_index import keep_speakers

# Neighbouring boxes differ little: as differences in few bits they take about 3 bytes instead of
# 8, and are faster to write and to read. benchmarks/index_boxes.py compares the encodings.
_BOX_ENCODING = "DELTA_BINARY_PACKED"
UTTERANCES_PER_GROUP = 65_536
BOXES_PER_GROUP = 8_192
_RANGE_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("first_row", pa.int64()),
        ("rows", pa.int32()),
        ("digest", pa.int64()),
    ]
)


_BY_KEY = [(name, "ascending") for name in KEY_COLUMNS]


def _wrapped(number: int) -> int:
    """Wrap a sum of digests to a signed 64-bit integer, as Arrow's sums do."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class IndexWriter:
    """Writes utterances and boxes as they are read, and collects each video's row ranges."""

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
                column_encoding={
                    f"{name}.list.element": _BOX_ENCODING for name in BOX_COLUMNS.names
                },
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
        self._ranges = _RowRanges()

    def take(self, file: AnnotationFile) -> None:
        """Write the annotation of a file, or the reason why it cannot be read."""
        try:
            if file.problem:
                raise ValueError(file.problem)
            self._add(read_annotation(file.path, file.data))
        except ValueError as error:
            self._rejects.writerow([csv_cell(file.path), csv_cell(str(error))])
            self.rejected += 1

    def _add(self, annotation: Annotation) -> None:
        utterance = annotation.utterance
        self._ranges.add(utterance, annotation.digest())
        times = (annotation.start_seconds, annotation.duration_seconds)
        size = annotation.frame_size or (None, None)
        self._tables["utterances"].append(
            (
                utterance.speaker_id,
                utterance.video_id,
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

    def ranges(self) -> pa.Table:
        """Return the row ranges of each video; a video may have several."""
        return self._ranges.table()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for table in self._tables.values():
            table.close()
        self._rejects_file.close()


class _RowRanges:
    """Collects the row ranges of videos from utterances in the order of their rows."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._pending: list[tuple[str, str, int, int, int]] = []
        self._rows = 0
        self._begin_range(None)

    def _begin_range(self, key: VideoKey | None) -> None:
        self._key = key
        self._names: set[str] = set()
        self._first_row = self._rows
        self._digest = 0

    def add(self, utterance: Utterance, digest: int) -> None:
        """Count the next row.

        Raises:
            ValueError: the utterance is in the range already. It is not counted.
        """
        key = VideoKey(utterance.speaker_id, utterance.video_id)
        if key != self._key:
            self._end_range()
            self._begin_range(key)
        if utterance.utterance_id in self._names:
            raise ValueError("the release has this utterance twice; the first is kept")
        self._names.add(utterance.utterance_id)
        self._digest = _wrapped(self._digest + digest)
        self._rows += 1

    def _end_range(self) -> None:
        if self._key is not None:
            rows = self._rows - self._first_row
            self._pending.append((*self._key, self._first_row, rows, self._digest))
            if len(self._pending) >= UTTERANCES_PER_GROUP:
                self._flush()

    def _flush(self) -> None:
        self._batches.append(_batch(self._pending, _RANGE_COLUMNS))
        self._pending = []

    def table(self) -> pa.Table:
        """Return the ranges, when all rows are counted."""
        self._end_range()
        self._begin_range(None)
        self._flush()
        return pa.Table.from_batches(self._batches, schema=_RANGE_COLUMNS)


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
    arrays = [
        pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_index(release: Release, folder: Path, *, progress: Progress = no_progress) -> Index:
    """Return the index of a release, built now if there is none or the release has changed.

    Args:
        release: where the release is.
        folder: folder of the index.
        progress: counts files.

    Raises:
        ReleaseError: see :func:`build_index`.
        StoreMismatchError: the release contradicts the index.
    """
    # The earlier format is not compared: nothing is added to the clips of stores of that time.
    is_known = (folder / "index.json").exists() and not is_of_earlier_format(folder)
    old = Index(folder) if is_known else None
    if old is not None and old.info.signature == release.signature(progress=progress):
        return old
    fresh = folder.with_name(f"{folder.name}.new")
    new = build_index(release, fresh, progress=progress)
    try:
        if old is not None:
            check_growth(old, new)
        # Renamed first, so that a kill never leaves half an index under its name.
        stale = folder.with_name(f"{folder.name}.old")
        shutil.rmtree(stale, ignore_errors=True)
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)
        keep_speakers(stale, folder)
        shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Index(folder)


def build_index(release: Release, folder: Path, *, progress: Progress = no_progress) -> Index:
    """Read a whole release into an index. An existing folder is replaced.

    Args:
        release: where the release is.
        folder: where to put the index.
        progress: counts files.

    Returns:
        The new index.

    Raises:
        ReleaseError: the release is damaged, or no file of it could be read. Nothing is left.
        StoreFullError: the disk is full. Nothing is left.
    """
    signature = release.signature(progress=progress)
    shutil.rmtree(folder, ignore_errors=True)
    with named_system_errors(folder):
        try:
            folder.mkdir(parents=True)
            with (
                IndexWriter(folder) as writer,
                progress("Reading annotations", unit="file") as advance,
            ):
                for file in release.annotations():
                    advance(1)
                    writer.take(file)
            _finish(writer, folder, release, signature)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Index(folder)


def _finish(writer: IndexWriter, folder: Path, release: Release, signature: str) -> None:
    """Sort the videos, join the row ranges of each, write the summary."""
    if not writer.rows:
        rejects = ""
        if writer.rejected:
            rejects = f" ({writer.rejected} files were rejected; {_first_reject(folder)})"
        raise ReleaseError(f"The release {release.path} has no usable annotation{rejects}.")
    videos = (
        writer.ranges()
        .group_by(KEY_COLUMNS, use_threads=False)
        .aggregate([("first_row", "list"), ("rows", "list"), ("digest", "sum")])
        .rename_columns([*KEY_COLUMNS, "first_rows", "row_counts", "digest"])
        .sort_by(_BY_KEY)
    )
    pq.write_table(videos, folder / "videos.parquet", compression="zstd")
    info = IndexInfo(
        speakers=pc.count_distinct(videos["speaker_id"]).as_py(),
        videos=len(videos),
        utterances=writer.rows,
        boxes=writer.boxes,
        hours=round(writer.frames / FRAMES_PER_SECOND / 3600, 4),
        rejected=writer.rejected,
        fingerprint=_fingerprint(videos),
        signature=signature,
        files={path.name: sha256_of(path) for path in sorted(folder.iterdir())},
    )
    with atomic_write(folder / "index.json") as file:
        file.write(info.as_json())


def _first_reject(folder: Path) -> str:
    with open(folder / "rejects.csv", newline="", encoding="utf-8") as file:
        _, (path, reason) = itertools.islice(csv.reader(file), 2)
    return f"the first, {path}: {reason}"


def _fingerprint(videos: pa.Table) -> str:
    digest = hashlib.sha256()
    for batch in videos.select([*KEY_COLUMNS, "digest"]).to_batches():
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        lines = (f"{speaker} {video} {content}\n" for speaker, video, content in rows)
        digest.update("".join(lines).encode())
    return digest.hexdigest()


def check_growth(old: Index, new: Index) -> None:
    """Refuse a release that contradicts the one a store was made from.

    New videos are fine; earlier videos must still exist, with the same annotations.

    Raises:
        StoreMismatchError: with the first difference.
    """
    if old.info.fingerprint == new.info.fingerprint:
        return
    keys = [*KEY_COLUMNS, "digest"]
    before = read_videos(old.folder, keys)
    after = read_videos(new.folder, keys)
    lost = before.join(after, keys=keys, join_type="left anti", use_threads=False).sort_by(_BY_KEY)
    if len(lost):
        first = lost.slice(0, 1).to_pylist()[0]
        raise StoreMismatchError(
            f"This release is not the one that the store was made from: {len(lost)} of its "
            f"{len(before)} videos are missing or annotated otherwise, the first is "
            f"{first['speaker_id']}/{first['video_id']}. Mixing them would give a wrong corpus. "
            "Use the old release, or another store."
        )
