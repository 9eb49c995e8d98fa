"""The utterances to train on: all rows of a catalogue, or a selection."""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from voxblink2_lib.errors import StoreError, TrainingError
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.store.catalogue import Catalogue, Shard, local_catalogue
from voxblink2_lib.training.remote_shards import (
    CACHE_BYTES,
    RemoteShards,
    is_remote,
    read_remote_catalogue,
)
from voxblink2_lib.training.shared_array import SharedArray
from voxblink2_lib.training.shuffling import Indices

Rows = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Location of a clip.

    Attributes:
        shard: name of the shard's file.
        shard_bytes: size of that file.
        row: index in the shard.
        offset: first byte of the clip in the file.
        size: number of bytes.
        samples: length at 16 kHz.
    """

    shard: str
    shard_bytes: int
    row: int
    offset: int
    size: int
    samples: int


class Corpus:
    """Utterances of a store, in the order of its shards. Made by :meth:`open`.

    Memory does not grow with the corpus: the table of the utterances is memory-mapped. A corpus can
    be pickled and shared by processes.

    Attributes:
        shards: folder of the shards, or the remote shards.
    """

    def __init__(
        self, catalogue: Catalogue, shards: Path | RemoteShards, rows: SharedArray | None = None
    ) -> None:
        self._catalogue = catalogue
        self.shards = shards
        self._selection = rows
        self._rows: Indices | None = None if rows is None else rows.values
        self._ends = list(itertools.accumulate(shard.rows for shard in catalogue.shards))

    @classmethod
    def open(
        cls,
        store: str | Path,
        config: str = "audio",
        *,
        cache_dir: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> Corpus:
        """Open a store.

        Args:
            store: folder of a store, or of sealed shards; or a URL that fsspec supports, such as
                ``s3://bucket/store``, with a catalogue that was uploaded with the shards.
            config: ``"audio"`` or ``"audio-visual"``; of the latter, the audio is read.
            cache_dir: folder for pieces of remote shards; by default in the user's cache.
            cache_bytes: the most that these pieces take.

        Raises:
            TrainingError: there are no shards, or not in this form.
            StoreDamagedError: a shard cannot be read.
        """
        if is_remote(store):
            remote = RemoteShards.at(str(store), config, cache_dir, cache_bytes)
            return cls(read_remote_catalogue(remote), remote)
        path = _local(store)
        if not path.is_dir():
            raise TrainingError(f"There is no folder {path}. Name a store that was materialized.")
        with _as_training_error():
            return cls(*local_catalogue(path, config, progress=show_progress))

    def __len__(self) -> int:
        return len(self._catalogue.table) if self._rows is None else len(self._rows)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # A worker that is spawned maps the file itself: the table may have hundreds of megabytes.
        catalogue = self._catalogue
        if catalogue.path is None:
            return Corpus, (catalogue, self.shards, self._selection)
        return _reopen, (catalogue.path, catalogue.shards, self.shards, self._selection)

    def __repr__(self) -> str:
        hours = self.samples.sum(dtype=np.int64) / SAMPLE_RATE_HZ / 3600
        return f"Corpus({len(self):,} utterances, {len(self.speakers):,} speakers, {hours:,.2f} h)"

    def select(self, rows: npt.ArrayLike) -> Corpus:
        """Return a corpus of a selection of the utterances.

        Args:
            rows: their indices, or a mask, shape (n,).

        Raises:
            TrainingError: an index is out of range, or the selection is empty.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise TrainingError(
                    f"The mask has shape {chosen.shape}; expected is ({len(self)},)."
                )
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if not len(chosen):
            raise TrainingError("Nothing is left of the utterances: the selection is empty.")
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise TrainingError(
                f"Rows {chosen.min()} to {chosen.max()} were requested; expected are 0 to "
                f"{len(self) - 1}."
            )
        rows = self._base(chosen).astype(np.int32)
        return Corpus(self._catalogue, self.shards, SharedArray(rows))

    @functools.cached_property
    def samples(self) -> npt.NDArray[np.int32]:
        """Length of each utterance at 16 kHz, shape (n,)."""
        values: npt.NDArray[np.int32] = self._columns[2]
        return values if self._rows is None else values[self._rows]

    @functools.cached_property
    def speakers(self) -> list[str]:
        """Ids of the speakers, sorted."""
        return self._speakers[0]

    @functools.cached_property
    def speaker(self) -> npt.NDArray[np.int32]:
        """Index of each utterance's speaker in ``speakers``, shape (n,)."""
        return self._speakers[1]

    @functools.cached_property
    def shard(self) -> npt.NDArray[np.int32]:
        """Index of each utterance's shard, shape (n,)."""
        sizes = [shard.rows for shard in self._catalogue.shards]
        shards = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return shards if self._rows is None else shards[self._rows]

    @property
    def shard_bytes(self) -> int:
        """Size of all shards together."""
        return sum(shard.size_bytes for shard in self._catalogue.shards)

    def pieces(self, piece_bytes: int) -> Indices:
        """Return the piece in which each clip begins, numbered through all shards, shape (n,).

        Args:
            piece_bytes: size of all pieces of a shard but the last.
        """
        pieces = [-(-shard.size_bytes // piece_bytes) for shard in self._catalogue.shards]
        first = np.array([0, *itertools.accumulate(pieces)], np.int32)
        offsets = self._columns[0] if self._rows is None else self._columns[0][self._rows]
        numbers = np.empty(len(self), np.int32)
        np.floor_divide(offsets, piece_bytes, out=numbers, casting="unsafe")  # no copy of 64 bits
        if self._rows is not None:
            numbers += first[self.shard]
            return numbers
        for end, shard, before in zip(self._ends, self._catalogue.shards, first, strict=False):
            numbers[end - shard.rows : end] += before
        return numbers

    @property
    def is_in_stored_order(self) -> bool:
        """Whether the rows are in the order of their clips in the shards."""
        return self._rows is None or bool(np.all(self._rows[1:] >= self._rows[:-1]))

    @property
    def stored_rows(self) -> Indices:
        """All rows in the order of their clips in the shards, shape (n,)."""
        if self._rows is None or self.is_in_stored_order:
            return np.arange(len(self), dtype=np.int32)
        return np.argsort(self._rows, kind="stable").astype(np.int32)

    @functools.cached_property
    def by_speaker(self) -> Indices:
        """All rows, those of a speaker together, shape (n,)."""
        if np.all(self.speaker[1:] >= self.speaker[:-1]):
            return np.arange(len(self), dtype=np.int32)
        return np.argsort(self.speaker, kind="stable").astype(np.int32)

    @functools.cached_property
    def identity(self) -> str:
        """A digest of the file and the rows of this corpus; empty if it is of no file."""
        path = self._catalogue.path
        if path is None:
            return ""
        size_and_time = path.stat().st_size, path.stat().st_mtime_ns
        digest = hashlib.sha256(repr((path, size_and_time, self._catalogue.shards)).encode())
        if self._rows is not None:
            digest.update(np.ascontiguousarray(self._rows).tobytes())
        return digest.hexdigest()

    def names(self, rows: npt.ArrayLike | None = None) -> list[str]:
        """Return ``speaker/video/utterance`` of rows; by default of all.

        Args:
            rows: their indices; all by default.
        """
        base = self._base(np.arange(len(self)) if rows is None else np.asarray(rows))
        table = self._catalogue.table.select(["speaker_id", "video_id", "utterance_id"]).take(base)
        columns = (column.to_pylist() for column in table.itercolumns())
        return ["/".join(ids) for ids in zip(*columns, strict=True)]

    def videos(self) -> list[str]:
        """Return ``speaker/video`` of each row."""
        return [name.rpartition("/")[0] for name in self.names()]

    def place(self, row: int) -> Place:
        """Return the location of a clip.

        Args:
            row: index of its utterance.
        """
        base = int(row if self._rows is None else self._rows[row])
        index = bisect.bisect_right(self._ends, base)
        shard = self._catalogue.shards[index]
        first = self._ends[index] - shard.rows
        offset, size, samples = (int(column[base]) for column in self._columns)
        return Place(shard.name, shard.size_bytes, base - first, offset, size, samples)

    @functools.cached_property
    def _columns(self) -> Sequence[Any]:
        return [_numpy(self._catalogue.table[name]) for name in ("offset", "size", "samples")]

    @functools.cached_property
    def _speakers(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        column = _whole(self._catalogue.table["speaker_id"])
        ids = np.array(column.dictionary.to_pylist(), object)
        codes = column.indices.to_numpy()
        if self._rows is not None:
            codes = codes[self._rows]
        used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
        order = np.argsort(ids[used])
        rank = np.zeros(len(ids), np.int32)
        rank[used[order]] = np.arange(len(order), dtype=np.int32)
        return ids[used][order].tolist(), rank[codes]

    def _base(self, rows: Rows) -> Rows:
        return rows if self._rows is None else np.asarray(self._rows[rows], np.int64)


def _reopen(
    path: Path, sealed: tuple[Shard, ...], shards: Path | RemoteShards, rows: SharedArray | None
) -> Corpus:
    """Return the corpus that another process pickled."""
    with _as_training_error():
        return Corpus(Catalogue.reopen(path, sealed), shards, rows)


@contextlib.contextmanager
def _as_training_error() -> Iterator[None]:
    """Turn a :class:`StoreError` into a :class:`TrainingError`."""
    try:
        yield
    except StoreError as error:
        if type(error) is not StoreError:  # a full disk or a damaged shard: as everywhere
            raise
        raise TrainingError(str(error)) from error


def _local(store: str | Path) -> Path:
    """Return a local folder's path; ``file://`` names one as well."""
    if isinstance(store, str) and store.startswith("file://"):
        return Path(fsspec.core.url_to_fs(store)[1])
    return Path(store).expanduser().absolute()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    return np.asarray(_whole(column).to_numpy())
