"""Find the clips of a video: in sealed shards, or in the parts of a job that is being made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.errors import StoreDamagedError, first_line
from voxblink2_lib.records import UtteranceKey, VideoKey, check_ids
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.ledger_search import JobPlace
from voxblink2_lib.store.open_shard import ROWS, WAITING
from voxblink2_lib.store.shard_check import check_columns, shard_batches
from voxblink2_lib.store.shard_names import is_shard_name

_TIMES = ["utterance_id", "start_seconds", "end_seconds"]
# A run may put a shard's rows into a fuller one between two looks.
_LOOKS = 2


@dataclass(frozen=True, slots=True)
class ClipTimes:
    """A clip, and where in its video it is from; ``None`` if that is not known."""

    utterance_id: str
    start_seconds: float | None
    end_seconds: float | None


@dataclass(frozen=True, slots=True, eq=False)
class StoredClip:
    """A row of a shard.

    Attributes:
        key: its utterance.
        audio: FLAC, WAV or Opus.
        audio_name: the name of the audio as a file.
        start_seconds: its time in the video; ``None`` if it is not known.
        end_seconds: likewise.
        source: kind of the source.
        shard: the file that it is in.
        video: the face as MP4; ``None`` in the configuration ``audio``.
        boxes: x, y, width and height of each frame of the face, shape (n, 4).
        boxes_fit: no box of the video has its centre outside the video frame; ``None`` if unknown.
        boxes_evidence: what is known of the frame size that the boxes are pixels of.
    """

    key: UtteranceKey
    audio: bytes
    audio_name: str
    start_seconds: float | None
    end_seconds: float | None
    source: str
    shard: Path
    video: bytes | None = None
    boxes: npt.NDArray[np.int16] | None = None
    boxes_fit: bool | None = None
    boxes_evidence: str | None = None


class Clips:
    """The clips of a store's configuration.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: QuietLedger) -> None:
        self._ledger = ledger
        self._store, self._config = ledger.store, ledger.config

    def find(self, key: UtteranceKey) -> StoredClip | None:
        """Return the clip of an utterance; ``None`` if the store has none.

        Raises:
            StoreDamagedError: a file of the store is damaged.
            ValueError: an id is malformed.
        """
        check_ids(*key)
        for path, row in self._rows(VideoKey(*key[:2])):
            if row["utterance_id"][0].as_py() == key.utterance_id:
                return _clip(path, row)
        return None

    def of_video(self, key: VideoKey) -> list[ClipTimes]:
        """Return which clips of a video there are, sorted by their ids.

        Raises:
            StoreDamagedError: a file of the store is damaged.
            ValueError: an id is malformed.
        """
        check_ids(*key, "0")
        rows = (row.select(_TIMES).to_pylist()[0] for _, row in self._rows(key))
        clips = {row["utterance_id"]: ClipTimes(**row) for row in rows}
        return [clips[utterance_id] for utterance_id in sorted(clips)]

    def _rows(self, key: VideoKey) -> Iterator[tuple[Path, pa.RecordBatch]]:
        """Yield each row of a video, and the file that it is in. Media are not copied."""
        for left in reversed(range(_LOOKS)):
            places = self._ledger.read(lambda ledger: ledger.search.places(key))
            try:
                for place in places:
                    yield from self._rows_in(place, key)
                return
            except FileNotFoundError as error:
                if not left:
                    raise StoreDamagedError(
                        f"A shard that the ledger names is missing: {first_line(error)}."
                    ) from error

    def _rows_in(self, place: JobPlace, key: VideoKey) -> Iterator[tuple[Path, pa.RecordBatch]]:
        if place.shard:
            path = self._shard(place.shard)
            yield from ((path, row) for row in rows_of_video(path, key))
        elif place.shard is None:
            for path in self._part_files(place.job, key):
                yield from ((path, row) for row in _written_rows(path, key))

    def _shard(self, name: str) -> Path:
        if not is_shard_name(name) or "/" in name:
            raise StoreDamagedError(
                f"The ledger {self._store.ledger} names a shard {name!r}, which is no shard's name."
            )
        return self._store.shards(self._config) / name

    def _part_files(self, job: int, key: VideoKey) -> Iterator[Path]:
        """Yield the files of an open job in which a video may be."""
        yield self._store.part(self._config, job, key)
        folder = self._store.job_parts(self._config, job)
        yield folder / ROWS
        yield from sorted(folder.glob(WAITING))


def _written_rows(path: Path, key: VideoKey) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a video in a file that is being written, as far as it has come."""
    try:
        yield from rows_of_video(path, key)
    except (FileNotFoundError, StoreDamagedError):
        return


def rows_of_video(path: Path, key: VideoKey) -> Iterator[pa.RecordBatch]:
    """Yield each row of a video in a shard or a part, which is checked.

    Raises:
        FileNotFoundError: there is no such file.
        StoreDamagedError: it is damaged.
    """
    stream = open_stream(path)
    check_columns(path, stream.schema)
    for batch in shard_batches(stream):
        is_same = pc.and_(
            pc.equal(batch["speaker_id"], key.speaker_id), pc.equal(batch["video_id"], key.video_id)
        )
        for row in np.flatnonzero(is_same.to_numpy(zero_copy_only=False)).tolist():
            yield batch.slice(row, 1)


def _clip(path: Path, batch: pa.RecordBatch) -> StoredClip:
    row: dict[str, Any] = batch.to_pylist()[0]
    key = UtteranceKey(row["speaker_id"], row["video_id"], row["utterance_id"])
    video = row.get("video")
    return StoredClip(
        key=key,
        audio=row["audio"]["bytes"],
        audio_name=row["audio"]["path"] or key.name,
        start_seconds=row["start_seconds"],
        end_seconds=row["end_seconds"],
        source=row.get("source") or "",
        shard=path,
        video=video["bytes"] if video else None,
        boxes=np.array(row["boxes"], np.int16).reshape(-1, 4) if video else None,
        boxes_fit=row.get("boxes_fit"),
        boxes_evidence=row.get("boxes_evidence"),
    )
