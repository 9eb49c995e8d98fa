"""From annotation files to an index of Parquet files, in one pass and bounded memory.

index/
  utterances.parquet   one row an utterance, in the release's order
  boxes.parquet        row i holds the face boxes of row i of utterances.parquet
  videos.parquet       one row a video, sorted: where its rows are, and a digest of them
  rejects.csv          files that could not be read, and why
  index.json           counts, and what the release looked like
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.annotation import Annotation, read_annotation
from voxblink2_lib.errors import ReleaseError, StoreError, StoreMismatchError
from voxblink2_lib.files import atomic_write, full_disk_named
from voxblink2_lib.records import Utterance, VideoKey
from voxblink2_lib.resources import AnnotationFile, Release

_FORMAT = 1
_UTTERANCES_PER_GROUP = 65_536
_BOXES_PER_GROUP = 8_192

_UTTERANCES = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("utterance_id", pa.string()),
        ("first_frame", pa.int32()),
        ("last_frame", pa.int32()),
        ("header_start_seconds", pa.float64()),
        ("header_duration_seconds", pa.float64()),
    ]
)
_BOXES = pa.schema(
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
        ("digest", pa.uint64()),
    ]
)


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What ``index.json`` says."""

    speakers: int
    videos: int
    utterances: int
    hours: float
    rejected: int
    fingerprint: str
    signature: str
    format: int = _FORMAT


class Index:
    """An index on disk.

    Args:
        folder: the folder that :func:`build_index` filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            said = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.info = IndexInfo(**said)
            if self.info.format != _FORMAT:
                raise ValueError(f"it has format {self.info.format}, not {_FORMAT}")
        except (OSError, TypeError, ValueError) as error:
            raise StoreError(
                f"The index {folder} cannot be used: {error}. Delete that folder to have it made "
                "again from the release, or use the version of voxblink2 that made it."
            ) from error

    def videos(self) -> pa.Table:
        """Return all videos, sorted: columns ``speaker_id`` and ``video_id``."""
        return self._places().select(["speaker_id", "video_id"])

    def utterances(
        self, keys: Collection[VideoKey]
    ) -> Iterator[tuple[VideoKey, tuple[Utterance, ...]]]:
        """Yield videos with their utterances, both sorted by their ids.

        Args:
            keys: which videos; those that the index does not have are left out.
        """
        if not keys:
            return
        places = self._places()
        for column, values in zip(
            ("speaker_id", "video_id"), zip(*keys, strict=True), strict=False
        ):
            places = places.filter(pc.is_in(places[column], pa.array(sorted(set(values)))))
        for place in places.to_pylist():
            key = VideoKey(place["speaker_id"], place["video_id"])
            if key not in keys:
                continue
            found: dict[str, Utterance] = {}
            for first, count in zip(place["first_rows"], place["row_counts"], strict=True):
                for utterance in self._read(first, count):
                    found.setdefault(utterance.utterance_id, utterance)
            yield key, tuple(found[name] for name in sorted(found))

    @lru_cache(maxsize=1)  # noqa: B019  # one index lives as long as its run
    def _places(self) -> pa.Table:
        return pq.read_table(self.folder / "videos.parquet")

    @lru_cache(maxsize=16)  # noqa: B019  # as above
    def _group(self, group: int) -> pa.Table:
        return self._file().read_row_group(group, columns=_UTTERANCES.names[:5])

    @lru_cache(maxsize=1)  # noqa: B019  # as above
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.folder / "utterances.parquet")

    def _read(self, first: int, count: int) -> Iterator[Utterance]:
        while count:
            group, offset = divmod(first, _UTTERANCES_PER_GROUP)
            part = self._group(group).slice(offset, count)
            for row in part.to_pylist():
                yield Utterance(**row)
            first, count = first + len(part), count - len(part)


def open_index(
    release: Release, folder: Path, *, progress: Callable[[], object] = lambda: None
) -> Index:
    """Return the index of a release, made now if there is none or the release has changed.

    Args:
        release: where the release is.
        folder: where the index lies or will lie.
        progress: called once a file that is read.

    Raises:
        ReleaseError: see :func:`build_index`.
        StoreMismatchError: the release no longer says what the index says.
    """
    old = Index(folder) if (folder / "index.json").exists() else None
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
        shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Index(folder)


def build_index(
    release: Release, folder: Path, *, progress: Callable[[], object] = lambda: None
) -> Index:
    """Read a whole release into an index. A folder that is there already is replaced.

    Args:
        release: where the release is.
        folder: where to put the index.
        progress: called once a file that is read.

    Returns:
        The new index.

    Raises:
        ReleaseError: the release is damaged, or no file of it could be read. Nothing is left.
        StoreFullError: the disk is full. Nothing is left.
    """
    signature = release.signature(progress=progress)
    shutil.rmtree(folder, ignore_errors=True)
    with full_disk_named(folder):
        try:
            folder.mkdir(parents=True)
            with _Writer(folder) as writer:
                for file in release.annotations():
                    progress()
                    writer.take(file)
            _finish(writer, folder, release, signature)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Index(folder)


class _Writer:
    """Writes utterances and boxes as they come, and notes where each video's rows are."""

    def __init__(self, folder: Path) -> None:
        self._tables = {
            "utterances": _Table(folder / "utterances.parquet", _UTTERANCES, _UTTERANCES_PER_GROUP),
            "boxes": _Table(folder / "boxes.parquet", _BOXES, _BOXES_PER_GROUP),
        }
        self._rejects_file = open(  # noqa: SIM115  # closed in __exit__
            folder / "rejects.csv", "w", newline="", encoding="utf-8"
        )
        self._rejects = csv.writer(self._rejects_file)
        self._rejects.writerow(["path", "reason"])
        self.rejected = 0
        self.rows = 0
        self.frames = 0
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
        self._digest = (self._digest + annotation.digest()) % (1 << 64)
        times = (annotation.start_seconds, annotation.duration_seconds)
        self._tables["utterances"].append(
            (*key, utterance.utterance_id, utterance.first_frame, utterance.last_frame, *times)
        )
        self._tables["boxes"].append((annotation.frames, *annotation.boxes.T))
        self.rows += 1
        self.frames += utterance.last_frame + 1 - utterance.first_frame

    def stretches(self) -> pa.Table:
        self._flush_stretches()
        return pa.Table.from_batches(self._stretches, schema=_STRETCHES)

    def _close_stretch(self) -> None:
        if self._key is not None:
            rows = self.rows - self._first_row
            self._pending.append((*self._key, self._first_row, rows, self._digest))
            if len(self._pending) >= _UTTERANCES_PER_GROUP:
                self._flush_stretches()
        self._key, self._names, self._first_row, self._digest = None, set(), self.rows, 0

    def _flush_stretches(self) -> None:
        self._stretches.append(_batch(self._pending, _STRETCHES))
        self._pending = []

    def __enter__(self) -> _Writer:
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

    def __init__(self, path: Path, schema: pa.Schema, rows_per_group: int) -> None:
        self._schema = schema
        self._rows_per_group = rows_per_group
        self._rows: list[tuple[Any, ...]] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

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


def _finish(writer: _Writer, folder: Path, release: Release, signature: str) -> None:
    """Sort the videos, settle the ones that stand in two places, write the summary."""
    if not writer.rows:
        why = (
            f" ({writer.rejected} files were rejected; {_first_reject(folder)})"
            if writer.rejected
            else ""
        )
        raise ReleaseError(f"The release {release.path} has no usable annotation{why}.")
    videos = (
        writer.stretches()
        .group_by(["speaker_id", "video_id"], use_threads=False)
        .aggregate([("first_row", "list"), ("rows", "list"), ("digest", "sum")])
        .rename_columns(["speaker_id", "video_id", "first_rows", "row_counts", "digest"])
        .sort_by([("speaker_id", "ascending"), ("video_id", "ascending")])
    )
    pq.write_table(videos, folder / "videos.parquet", compression="zstd")
    info = IndexInfo(
        speakers=pc.count_distinct(videos["speaker_id"]).as_py(),
        videos=len(videos),
        utterances=writer.rows,
        hours=round(writer.frames / 25 / 3600, 4),
        rejected=writer.rejected,
        fingerprint=_fingerprint(videos),
        signature=signature,
    )
    with atomic_write(folder / "index.json") as file:
        file.write(json.dumps(asdict(info), indent=1).encode())


def _first_reject(folder: Path) -> str:
    with open(folder / "rejects.csv", newline="", encoding="utf-8") as file:
        _, (path, reason) = itertools.islice(csv.reader(file), 2)
    return f"the first, {path}: {reason}"


def _fingerprint(videos: pa.Table) -> str:
    digest = hashlib.sha256()
    for batch in videos.select(["speaker_id", "video_id", "digest"]).to_batches():
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digest.update("".join(f"{one} {two} {three}\n" for one, two, three in rows).encode())
    return digest.hexdigest()


def check_growth(old: Index, new: Index) -> None:
    """Refuse a release that says other things than the one a store was made from.

    New videos are fine; a video that was there must be there still, and say the same.

    Raises:
        StoreMismatchError: names the first difference.
    """
    if old.info.fingerprint == new.info.fingerprint:
        return
    keys = ["speaker_id", "video_id", "digest"]
    before = pq.read_table(old.folder / "videos.parquet", columns=keys)
    after = pq.read_table(new.folder / "videos.parquet", columns=keys)
    lost = before.join(after, keys=keys, join_type="left anti").sort_by(
        [("speaker_id", "ascending"), ("video_id", "ascending")]
    )
    if len(lost):
        first = lost.slice(0, 1).to_pylist()[0]
        raise StoreMismatchError(
            f"This release is not the one that the store was made from: {len(lost)} of its "
            f"{len(before)} videos are gone or annotated otherwise, the first is "
            f"{first['speaker_id']}/{first['video_id']}. Mixing them would give a wrong corpus. "
            "Use the old release, or another store."
        )
