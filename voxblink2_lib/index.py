"""From annotation files to an index of Parquet files, in one pass and bounded memory.

index/
  utterances.parquet   one row an utterance, in the release's order
  boxes.parquet        row i holds the face boxes of row i of utterances.parquet
  videos.parquet       one row a video, sorted: where its rows are, and a digest of them
  rejects.csv          files that could not be read, and why
  index.json           counts, and what the release looked like
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import (
    ReleaseError,
    StoreDamagedError,
    StoreError,
    StoreMismatchError,
)
from voxblink2_lib.files import atomic_write, full_disk_named
from voxblink2_lib.index_writer import BOX_COLUMNS, UTTERANCE_COLUMNS, IndexWriter
from voxblink2_lib.records import FRAMES_PER_SECOND, Utterance, VideoKey
from voxblink2_lib.resources import Release
from voxblink2_lib.tracks import FaceTrack

_FORMAT = 2
_ROW_COLUMNS = (*UTTERANCE_COLUMNS.names[:5], "header_width", "header_height")


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What ``index.json`` says."""

    speakers: int
    videos: int
    utterances: int
    boxes: int
    hours: float
    rejected: int
    fingerprint: str
    signature: str
    format: int = _FORMAT


class AnnotatedVideo(NamedTuple):
    """What the release says about one video.

    Attributes:
        key: the video.
        utterances: sorted by their ids.
        digest: 64-bit hash of all that is annotated.
        tracks: the face of each utterance; ``None`` if not asked for.
    """

    key: VideoKey
    utterances: tuple[Utterance, ...]
    digest: int
    tracks: tuple[FaceTrack, ...] | None


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

    @property
    def bytes_a_box(self) -> float:
        """Size of ``boxes.parquet`` over the number of boxes in it."""
        return (self.folder / "boxes.parquet").stat().st_size / self.info.boxes

    def videos(self) -> pa.Table:
        """Return all videos, sorted: columns ``speaker_id``, ``video_id`` and ``digest``."""
        return self._places().select(["speaker_id", "video_id", "digest"])

    def utterances(
        self, keys: Collection[VideoKey]
    ) -> Iterator[tuple[VideoKey, tuple[Utterance, ...]]]:
        """Yield videos with their utterances, both sorted by their ids.

        Args:
            keys: which videos; those that the index does not have are left out.
        """
        for video in self.annotated(keys):
            yield video.key, video.utterances

    def annotated(
        self, keys: Collection[VideoKey], *, with_tracks: bool = False
    ) -> Iterator[AnnotatedVideo]:
        """Yield what :meth:`utterances` does, with all else that is annotated.

        Args:
            keys: as there.
            with_tracks: read the face boxes as well.
        """
        for place in self._find(keys):
            found: dict[str, tuple[Utterance, FaceTrack | None]] = {}
            for first, count in zip(place["first_rows"], place["row_counts"], strict=True):
                for row in self._read(first, count, with_tracks=with_tracks):
                    found.setdefault(row[0].utterance_id, row)
            in_order = [found[name] for name in sorted(found)]
            yield AnnotatedVideo(
                key=VideoKey(place["speaker_id"], place["video_id"]),
                utterances=tuple(utterance for utterance, _ in in_order),
                digest=place["digest"],
                tracks=tuple(track for _, track in in_order if track) if with_tracks else None,
            )

    def _find(self, keys: Collection[VideoKey]) -> Iterator[dict[str, Any]]:
        if not keys:
            return
        places = self._places()
        for column, values in zip(("speaker_id", "video_id"), zip(*keys, strict=True), strict=True):
            places = places.filter(pc.is_in(places[column], pa.array(sorted(set(values)))))
        # The speaker of one key with the video of another is none of the keys.
        for place in places.to_pylist():
            if (place["speaker_id"], place["video_id"]) in keys:
                yield place

    @lru_cache(maxsize=1)  # noqa: B019  # one index lives as long as its run
    def _places(self) -> pa.Table:
        with self._named_damage():
            return pq.read_table(self.folder / "videos.parquet")

    @contextlib.contextmanager
    def _named_damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreDamagedError(
                f"The index {self.folder} is damaged: {error}. Delete that folder and run "
                "'voxblink2 index' to have it made again from the release."
            ) from error

    def _read(
        self, first: int, count: int, *, with_tracks: bool
    ) -> Iterator[tuple[Utterance, FaceTrack | None]]:
        utterances = (
            row
            for part in self._rows("utterances", _ROW_COLUMNS).slices(first, count)
            for row in part.to_pylist()
        )
        if not with_tracks:
            yield from ((Utterance(*list(row.values())[:5]), None) for row in utterances)
            return
        boxes = self._rows("boxes", tuple(BOX_COLUMNS.names)).slices(first, count)
        for row, track in zip(utterances, _tracks(boxes), strict=True):
            *about, width, height = row.values()
            utterance = Utterance(*about)
            size = None if width is None else (width, height)
            yield utterance, FaceTrack(utterance, *track, picture_size=size)

    @lru_cache(maxsize=2)  # noqa: B019  # as above
    def _rows(self, name: str, columns: tuple[str, ...]) -> _Rows:
        with self._named_damage():
            return _Rows(self.folder / f"{name}.parquet", columns)


class _Rows:
    """Reads ranges of rows of a Parquet file whose row groups are of one size."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._file = pq.ParquetFile(path)
        self._columns = columns
        self._size = max(1, self._file.metadata.row_group(0).num_rows)
        # Releases are nearly sorted, so few groups serve many videos in a row.
        self._group = lru_cache(maxsize=16)(self._read_group)

    def _read_group(self, group: int) -> pa.Table:
        return self._file.read_row_group(group, columns=list(self._columns))

    def slices(self, first: int, count: int) -> Iterator[pa.Table]:
        """Yield tables that together hold a range of rows."""
        while count:
            group, offset = divmod(first, self._size)
            part = self._group(group).slice(offset, count)
            yield part
            first, count = first + len(part), count - len(part)


def _tracks(tables: Iterator[pa.Table]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield frames, shape (n,), and boxes, shape (n, 4), of every row."""
    for table in tables:
        for batch in table.to_batches():
            columns = [
                np.split(column.flatten().to_numpy(), np.cumsum(column.value_lengths())[:-1])
                for column in batch.columns
            ]
            for frames, *box in zip(*columns, strict=True):
                yield frames, np.stack(box, axis=1)


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
            with IndexWriter(folder) as writer:
                for file in release.annotations():
                    progress()
                    writer.take(file)
            _finish(writer, folder, release, signature)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Index(folder)


def _finish(writer: IndexWriter, folder: Path, release: Release, signature: str) -> None:
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
        boxes=writer.boxes,
        hours=round(writer.frames / FRAMES_PER_SECOND / 3600, 4),
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
