"""The rows of a shard that are exported, one after another, with their clips in place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import SAMPLE_RATE_HZ, UtteranceKey, check_ids
from voxblink2_lib.store.clip_length import samples_in
from voxblink2_lib.store.shard_check import open_shard, shard_batches
from voxblink2_lib.store.view import Ranges, rows_in

if TYPE_CHECKING:
    # It loads ``datasets``, which a worker does without where there is nothing to join.
    from voxblink2_lib.store.joined_columns import JoinedColumns

# How a clip begins. Its name in the shard is not used: whoever made the shard may write any.
_EXTENSIONS = {b"fLaC": "flac", b"RIFF": "wav", b"OggS": "opus"}
_MEDIA = frozenset({"audio", "video"})
_FACES = frozenset({"video", "boxes", "boxes_fit", "boxes_evidence"})


class ExportRow(NamedTuple):
    """One utterance.

    Attributes:
        key: its ids, which are fit for a path.
        audio: the clip as it is stored: FLAC, WAV or Opus. It lies in the mapped shard.
        extension: of a file with such a clip: ``"flac"``, ``"wav"`` or ``"opus"``.
        samples: length of the clip at 16 kHz.
        about: the other columns, without media; of the face only what the format carries. Empty
            if the format has none of them.
        video: the face as MP4, where the format carries it and the store has it.
    """

    key: UtteranceKey
    audio: pa.Buffer
    extension: str
    samples: int
    about: dict[str, Any]
    video: pa.Buffer | None = None

    @property
    def name(self) -> str:
        """``speaker/video/utterance``."""
        return self.key.name

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.samples / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class UnitRows:
    """The rows of one shard that are exported.

    Attributes:
        shard: the shard.
        ranges: which of its rows, at least one, see :mod:`voxblink2_lib.store.view`.
        faces: columns about the face that are taken along, if the shard has them.
        with_about: whether rows have the columns beside ids and media.
        columns: what is joined to the rows; ``None`` if nothing is.
        metadata: of the tables' schema.
    """

    shard: Path
    ranges: Ranges
    faces: frozenset[str] = frozenset()
    with_about: bool = True
    columns: JoinedColumns | None = None
    metadata: Mapping[bytes, bytes] | None = None

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows as tables of some megabytes.

        Raises:
            StoreDamagedError: the shard is damaged or gone, or an id is none.
        """
        joiner = None if self.columns is None else self.columns.open()
        for table in rows_in(shard_batches(open_shard(self.shard)), self.ranges):
            left_out = _FACES.intersection(table.column_names) - self.faces
            taken = table.drop_columns(sorted(left_out))
            joined = taken if joiner is None else joiner.join(taken)
            yield joined.replace_schema_metadata(self.metadata)

    def names(self) -> list[str]:
        """Return ``speaker/video/utterance`` of each row, without a look at the clips."""
        tables = rows_in(shard_batches(open_shard(self.shard)), self.ranges)
        ids = ([table[name].to_pylist() for name in UtteranceKey._fields] for table in tables)
        return [UtteranceKey(*key).name for columns in ids for key in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[ExportRow]:
        """Yield the rows.

        Raises:
            StoreDamagedError: see :meth:`tables`; or a clip is no audio.
        """
        for table in self.tables():
            with as_own_error(StoreDamagedError, f"The shard {self.shard} cannot be exported"):
                rows = list(_rows(table, with_about=self.with_about))
            yield from rows


def _rows(table: pa.Table, *, with_about: bool) -> Iterator[ExportRow]:
    media = [name for name in table.column_names if name in _MEDIA]
    about = table.drop_columns(media).to_pylist() if with_about else [{}] * len(table)
    ids = (table[name].to_pylist() for name in UtteranceKey._fields)
    audio = _clips(table["audio"])
    video = _clips(table["video"]) if "video" in media else [None] * len(table)
    for key, clip, face, values in zip(zip(*ids, strict=True), audio, video, about, strict=True):
        check_ids(*key)
        extension, samples = extension_of(clip), samples_in(memoryview(clip))
        yield ExportRow(UtteranceKey(*key), clip, extension, samples, values, face)


def _clips(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """Yield the bytes of each clip in place: the scalars of an array would be copies."""
    for chunk in column.chunks:
        clips = chunk.field("bytes")
        _, ends, data = clips.buffers()
        bounds = np.frombuffer(ends, np.int32)[clips.offset : clips.offset + len(clips) + 1]
        for start, stop in itertools.pairwise(bounds.tolist()):
            yield data.slice(start, stop - start)


def extension_of(clip: pa.Buffer) -> str:
    """Return the extension of a file with an encoded clip.

    Raises:
        ValueError: it is none of the formats of a store.
    """
    beginning = clip.slice(0, min(4, clip.size)).to_pybytes()
    if beginning not in _EXTENSIONS:
        raise ValueError(f"a clip begins with {beginning!r}: that is no FLAC, WAV or Opus")
    return _EXTENSIONS[beginning]
