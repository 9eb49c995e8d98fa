"""Read an index: the annotations of a release as Parquet files.

index/
  utterances.parquet   one row per utterance, in the release's order
  boxes.parquet        row i holds the face boxes of row i of utterances.parquet
  videos.parquet       one row per video, sorted: ranges of its rows, and a digest of them
  rejects.csv          files that could not be read, with the reason
  index.json           counts, signature of the release, and SHA-256 of every file, itself included
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, StoreError, first_line, next_command
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey
from voxblink2_lib.release.index_checksums import checksum_problems

_FORMAT = 2
# Of stores from before version 0.1: without the sizes of annotated frames.
_EARLIER_FORMAT = 1
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
    """Contents of ``index.json``.

    Attributes:
        files: SHA-256 of the other files, by name; an index of an earlier version has none.
        digest: SHA-256 of all that is above.
    """

    speakers: int
    videos: int
    utterances: int
    boxes: int
    hours: float
    rejected: int
    fingerprint: str
    signature: str
    format: int = _FORMAT
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def as_json(self) -> bytes:
        """Return the contents of the file, whose digest is computed anew."""
        unsigned = asdict(replace(self, digest=""))
        digest = hashlib.sha256(json.dumps(unsigned).encode()).hexdigest()
        return json.dumps({**unsigned, "digest": digest}, indent=1).encode()


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
        with self._named_damage("index.json"):
            record = json.loads((folder / "index.json").read_text("utf-8"))
            if record["format"] != _FORMAT:
                raise StoreError(
                    f"The index {folder} cannot be used: it has format "
                    f"{shortened(record['format'])}, not {_FORMAT}. Delete that folder to have it "
                    "made again from the release, or use the version of voxblink2 that made it."
                )
            self.info = IndexInfo(**record)

    @property
    def bytes_a_box(self) -> float:
        """Size of ``boxes.parquet`` over the number of boxes in it."""
        return (self.folder / "boxes.parquet").stat().st_size / self.info.boxes

    def videos(self) -> pa.Table:
        """Return all videos, sorted: columns ``speaker_id``, ``video_id`` and ``digest``."""
        return self._read_videos([*KEY_COLUMNS, "digest"])

    def keys(self) -> Iterator[VideoKey]:
        """Yield the keys of all videos, sorted, in constant memory."""
        path = self.folder / "videos.parquet"
        with self._named_damage(), pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(columns=KEY_COLUMNS, use_threads=False):
                yield from video_keys(pa.table(batch))

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
        with self._named_damage():
            yield from self._annotated(keys, with_tracks=with_tracks)

    def _annotated(
        self, keys: Collection[VideoKey], *, with_tracks: bool
    ) -> Iterator[AnnotatedVideo]:
        for video in self._find(keys):
            yield self._annotated_video(video, with_tracks=with_tracks)

    def annotated_at(self, row: int) -> AnnotatedVideo:
        """Return the video of a row of :meth:`videos`, without its tracks."""
        with self._named_damage():
            video = self._video_table().slice(row, 1).to_pylist()[0]
            return self._annotated_video(video, with_tracks=False)

    def _annotated_video(self, video: dict[str, Any], *, with_tracks: bool) -> AnnotatedVideo:
        rows: dict[str, tuple[Utterance, FaceTrack | None]] = {}
        for first, count in zip(video["first_rows"], video["row_counts"], strict=True):
            for row in self._read(first, count, with_tracks=with_tracks):
                rows.setdefault(row[0].utterance_id, row)
        in_order = [rows[utterance_id] for utterance_id in sorted(rows)]
        return AnnotatedVideo(
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
        return self._read_videos()

    def _read_videos(self, columns: list[str] | None = None) -> pa.Table:
        with self._named_damage():
            return read_videos(self.folder, columns)

    @contextlib.contextmanager
    def _named_damage(self, file: str = "") -> Iterator[None]:
        advice = (
            f"Mend the store with {next_command('repair', store=self.folder.absolute().parent)}."
        )
        damage = f"The index {self.folder / file} is damaged"
        with (
            as_own_error(StoreDamagedError, damage, advice),
            named_system_errors(self.folder / file),
        ):
            yield

    def problems(self, progress: Progress = no_progress) -> Iterator[str]:
        """Yield how its files differ from what was written.

        Args:
            progress: shows the bytes read.
        """
        if not self.info.files:
            yield from self._problems_of_an_earlier_version()
            return
        if (self.folder / "index.json").read_bytes() != self.info.as_json():
            yield f"The file {self.folder / 'index.json'} is damaged: its checksum differs."
        yield from checksum_problems(self.folder, self.info.files, progress)

    def _problems_of_an_earlier_version(self) -> Iterator[str]:
        """Yield the problems that show when all of it is read."""
        for name in ("videos", "utterances", "boxes"):
            path = self.folder / f"{name}.parquet"
            expected = self.info.videos if name == "videos" else self.info.utterances
            try:
                with pq.ParquetFile(path) as file:
                    rows = sum(len(batch) for batch in file.iter_batches())
            except (OSError, ValueError, pa.ArrowException) as error:
                yield f"The file {path} of the index is damaged: {first_line(error)}."
                continue
            if rows != expected:
                yield f"The file {path} of the index has {rows:,} rows, expected are {expected:,}."

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


def is_of_earlier_format(folder: Path) -> bool:
    """Return whether an index has a format from before version 0.1; it has to be made again."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return isinstance(record, dict) and record.get("format") == _EARLIER_FORMAT
    return False


def read_videos(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """Return the videos of an index.

    No threads are used: where the system starts none, Arrow would wait for them for ever.

    Args:
        folder: the index.
        columns: their names; all by default.
    """
    with pq.ParquetFile(folder / "videos.parquet", pre_buffer=False) as file:
        return file.read(columns=columns, use_threads=False)


class _Rows:
    """Reads ranges of rows of a Parquet file whose row groups are of one size."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False)  # uses no threads, see read_videos
        self._columns = columns
        self._size = max(1, self._file.metadata.row_group(0).num_rows)
        # Releases are nearly sorted, so few groups serve many videos in a row.
        self._group = lru_cache(maxsize=16)(self._read_group)

    def _read_group(self, group: int) -> pa.Table:
        return self._file.read_row_group(group, columns=list(self._columns), use_threads=False)

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
        yield from starmap(VideoKey, zip(*columns, strict=True))
