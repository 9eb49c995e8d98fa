"""Columns that are joined to those of shards when they are read: transcripts, speakers' facts.

They come from the store's index, by the ids of each row, so that a release that gains them later
changes no shard. For ``load_dataset`` they are written beside the links to the shards, one Arrow
stream for each shard, row by row the same, and mapped like these:

    voxblink2-train-00000-of-00002.arrow      a link to a sealed shard
    voxblink2-train-00000-of-00002.joined     its further columns

The name does not end in ``.arrow``: ``datasets`` takes any ``cache-*.arrow`` for one of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import check_options, option, options_of, switch
from voxblink2_lib.release.speaker_index import (
    FACT_COLUMNS,
    SPEAKERS,
    TRANSCRIPTS,
    SpeakerIndex,
    SpeakerInfo,
    read_speaker_info,
)
from voxblink2_lib.store.schema import JOINED_FEATURES, SPEAKER_FEATURES
from voxblink2_lib.store.shard_check import open_shard, shard_batches

_SUFFIX = ".joined"
_IDS = ("speaker_id", "video_id", "utterance_id")
# Changes with what is written into the cache.
_FORMAT = b"joined 1\n"


@dataclass(frozen=True, slots=True)
class RowOptions:
    """What the rows of a dataset have besides what is in the shards, and how they are split.

    Raises:
        SelectionError: a value is not allowed.
    """

    with_speaker_info: bool = switch(
        "further columns: speaker_gender, speaker_language, speaker_location and speaker_tags"
    )

    validation: str | None = option(
        None,
        "file that the command split wrote: its speakers make the split validation, and the "
        "others train",
        default="only train",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        check_options(self, SelectionError)

    @classmethod
    def of(cls, given: object) -> RowOptions:
        """Return the options that an object has as attributes; ``None`` means left out."""
        values = {name: getattr(given, name) for name in options_of(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True)
class JoinedColumns:
    """The columns to join, of one state of an index.

    Attributes:
        folder: the index; ``None`` if there is none.
        options: which columns.
        info: what the index knew when this was made; ``None`` if nothing.
    """

    folder: Path | None = None
    options: RowOptions = field(default_factory=RowOptions)
    info: SpeakerInfo | None = None

    @classmethod
    def of(cls, folder: Path | None, options: RowOptions) -> JoinedColumns:
        """Return the columns as an index has them now.

        Raises:
            StoreDamagedError: the index is damaged.
        """
        return cls(folder, options, None if folder is None else read_speaker_info(folder))

    @property
    def features(self) -> Features:
        """The columns and their types, the same whatever an index knows."""
        about_speakers = SPEAKER_FEATURES if self.options.with_speaker_info else {}
        return Features({**JOINED_FEATURES, **about_speakers})

    @property
    def signature(self) -> bytes:
        """Bytes that are the same for the same columns with the same content."""
        names = [TRANSCRIPTS, SPEAKERS] if self.options.with_speaker_info else [TRANSCRIPTS]
        files = [self.info.files[name] if self.info else "" for name in names]
        return hashlib.sha256(_FORMAT + " ".join(files).encode()).digest()

    def check(self) -> None:
        """Check that the index is as it was when this was made.

        Raises:
            StoreError: a run has changed it meanwhile.
        """
        if self.of(self.folder, self.options).signature != self.signature:
            raise StoreError(
                f"A run has changed the transcripts in {self.folder} meanwhile. Load again."
            )

    def open(self) -> ColumnJoiner:
        """Return what joins the columns: once opened, the same for the life of the process."""
        if self.folder is None or self.info is None:
            return ColumnJoiner(None, self.features)
        try:
            index = _opened(self.folder, self.info.digest) or SpeakerIndex(self.folder)
        except FileNotFoundError:  # a run replaces it just now
            index = None
        return ColumnJoiner(index, self.features)

    def write(
        self, shards: Sequence[Path], links: Sequence[Path], *, progress: Progress = no_progress
    ) -> None:
        """Write the columns of some shards beside the links to these.

        Args:
            shards: the shards.
            links: their names in the cache.
            progress: counts shards.

        Raises:
            StoreError: a run has changed the index meanwhile.
            StoreDamagedError: a shard or the index is damaged.
        """
        joiner = self.open()
        with progress("Joining transcripts", unit="shard", total=len(shards)) as advance:
            for shard, link in zip(shards, links, strict=True):
                _write(joiner.columns_of(_ids_of(shard)), joined_file(link))
                advance(1)
        self.check()


@lru_cache(maxsize=2)  # a stream opens it for each shard
def _opened(folder: Path, digest: str) -> SpeakerIndex | None:
    """Return an index in the state of some digest; ``None`` if it has another by now."""
    index = SpeakerIndex(folder)
    return index if index.info.digest == digest else None


def _ids_of(shard: Path) -> pa.Table:
    stream = open_shard(shard)
    schema = pa.schema([stream.schema.field(name) for name in _IDS])
    batches = (batch.select(list(_IDS)) for batch in shard_batches(stream))
    return pa.Table.from_batches(batches, schema)


def _write(columns: pa.Table, path: Path) -> None:
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, columns.schema) as writer,
    ):
        writer.write_table(columns)


def joined_file(link: Path) -> Path:
    """Return the file with the further columns of a shard that is linked into a cache."""
    return link.with_suffix(_SUFFIX)


class ColumnJoiner:
    """Looks up the further columns of rows.

    Args:
        index: where they are; ``None`` gives nulls.
        features: which columns.
    """

    def __init__(self, index: SpeakerIndex | None, features: Features) -> None:
        self._index = index
        self._schema = pa.schema(list(features.arrow_schema))
        self._facts: pa.Table | None = None
        if index is not None and len(features) > len(JOINED_FEATURES):
            self._facts = index.facts

    def join(self, rows: pa.Table) -> pa.Table:
        """Return rows of shards with their further columns."""
        for kind, column in zip(self._schema, self.columns_of(rows).columns, strict=True):
            rows = rows.append_column(kind, column)
        return rows

    def columns_of(self, rows: pa.Table) -> pa.Table:
        """Return the further columns of rows of shards, each in one piece.

        Args:
            rows: with the three ids.
        """
        columns = [*self._transcripts_of(rows), *self._facts_of(rows)]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _transcripts_of(self, rows: pa.Table) -> list[pa.Array]:
        index, names = self._index, self._schema.names[: len(JOINED_FEATURES)]
        speakers = sorted(pc.unique(rows["speaker_id"]).to_pylist()) if index else []
        parts = (
            [part for speaker in speakers for part in index.transcripts(speaker)] if index else []
        )
        if not parts:
            return [pa.nulls(len(rows), pa.string()) for _ in names]
        known = pa.concat_tables(parts)
        places = pc.index_in(_names(rows), value_set=_names(known))
        return [_taken(known[name], places) for name in names]

    def _facts_of(self, rows: pa.Table) -> list[pa.Array]:
        if self._facts is None:
            kinds = list(self._schema)[len(JOINED_FEATURES) :]
            return [pa.nulls(len(rows), kind.type) for kind in kinds]
        known = self._facts["speaker_id"]
        places = pc.index_in(_plain(rows["speaker_id"]), value_set=_plain(known))
        return [_taken(self._facts[name], places) for name in FACT_COLUMNS]


def _names(rows: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(*(_plain(rows[name]) for name in _IDS), "/")


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    chunks: Sequence[pa.Array] = column.chunks
    return pa.concat_arrays(chunks) if chunks else pa.array([], column.type)


def _taken(column: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """Return the values at some places, null where the place is."""
    return _plain(column.take(places))
