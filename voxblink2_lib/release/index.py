"""Read an index: the annotations of a release as Parquet files.

index/
  utterances.parquet   one row per utterance, in the release's order
  boxes.parquet        row i holds the face boxes of row i of utterances.parquet
  videos.parquet       one row per video, sorted: ranges of its rows, and a digest of them
  rejects.csv          files that could not be read, with the reason
  index.json           counts, and signature of the release
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, StoreError, next_command
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey

_FORMAT = 2
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

_ROW_COLUMNS = (*UTTERANCE_COLUMNS.names[:5], "header_width", "header_height")
KEY_COLUMNS = ["speaker_id", "video_id"]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """Contents of ``index.json``."""

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
    """Annotations of one video.

    Attributes:
        key: the video.
        utterances: sorted by their ids.
        digest: 64-bit hash of all annotations.
        tracks: the face track of each utterance; ``None`` if not requested.
    """

    key: VideoKey
    utterances: tuple[Utterance, ...]
    digest: int
    tracks: tuple[FaceTrack, ...] | None


class Index:
    """An index on disk.

    Args:
        folder: the folder that ``build_index`` filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            record = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.info = IndexInfo(**record)
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
        return self._video_table().select(["speaker_id", "video_id", "digest"])

    def utterances(
        self, keys: Collection[VideoKey]
    ) -> Iterator[tuple[VideoKey, tuple[Utterance, ...]]]:
        """Yield videos with their utterances, both sorted by their ids.

        Args:
            keys: which videos; those that are not in the index are left out.
        """
        for video in self.annotated(keys):
            yield video.key, video.utterances

    def annotated(
        self, keys: Collection[VideoKey], *, with_tracks: bool = False
    ) -> Iterator[AnnotatedVideo]:
        """Yield videos with all their annotations, as :meth:`utterances` does.

        Args:
            keys: which videos; those that are not in the index are left out.
            with_tracks: read the face boxes as well.
        """
        for video in self._find(keys):
            rows: dict[str, tuple[Utterance, FaceTrack | None]] = {}
            for first, count in zip(video["first_rows"], video["row_counts"], strict=True):
                for row in self._read(first, count, with_tracks=with_tracks):
                    rows.setdefault(row[0].utterance_id, row)
            in_order = [rows[utterance_id] for utterance_id in sorted(rows)]
            yield AnnotatedVideo(
                key=VideoKey(video["speaker_id"], video["video_id"]),
                utterances=tuple(utterance for utterance, _ in in_order),
                digest=video["digest"],
                tracks=tuple(track for _, track in in_order if track) if with_tracks else None,
            )

    def _find(self, keys: Collection[VideoKey]) -> Iterator[dict[str, Any]]:
        if not keys:
            return
        videos = self._video_table()
        for column, ids in zip(KEY_COLUMNS, zip(*keys, strict=True), strict=True):
            videos = videos.filter(pc.is_in(videos[column], pa.array(sorted(set(ids)))))
        # The speaker of one key with the video of another is none of the keys.
        for video in videos.to_pylist():
            if (video["speaker_id"], video["video_id"]) in keys:
                yield video

    @lru_cache(maxsize=1)  # noqa: B019  # an index lives as long as its run
    def _video_table(self) -> pa.Table:
        with self._named_damage():
            return pq.read_table(self.folder / "videos.parquet")

    @contextlib.contextmanager
    def _named_damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreDamagedError(
                f"The index {self.folder} is damaged: {error}. Delete that folder and run "
                f"{next_command('index', store=self.folder.absolute().parent)} to make it again "
                "from the release."
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
            yield utterance, FaceTrack(utterance, *track, frame_size=size)

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


class VideoKeys(Sequence[VideoKey]):
    """The keys of a table of videos, made on access: there may be millions.

    Args:
        videos: columns ``speaker_id`` and ``video_id``.
    """

    def __init__(self, videos: pa.Table) -> None:
        self._videos = videos

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, index: int) -> VideoKey: ...
    @overload
    def __getitem__(self, index: slice) -> list[VideoKey]: ...
    def __getitem__(self, index: int | slice) -> VideoKey | list[VideoKey]:
        if isinstance(index, int):
            # Through a range, so that an index beyond the end is an IndexError, which ends a loop.
            return next(video_keys(self._videos.slice(range(len(self))[index], 1)))
        start, stop, _ = index.indices(len(self))
        return list(video_keys(self._videos.slice(start, stop - start)))


def video_keys(videos: pa.Table) -> Iterator[VideoKey]:
    """Yield the keys of a table of videos."""
    for batch in videos.select(KEY_COLUMNS).to_batches():
        columns = (column.to_pylist() for column in batch.columns)
        yield from map(VideoKey._make, zip(*columns, strict=True))
