"""Read shards on a remote file system through a local cache of bounded size.

Shards are divided into pieces of a mebibyte. A piece is downloaded when a clip in it is read,
and stored as a file; beyond the bound, the least recently used pieces are deleted. All processes
with the same cache folder share it::

    <cache>/audio-00000.arrow.1300234567.1b2c….000017    shard, its size, its version, number
    <cache>/catalogue/, versions/                        what the store was opened with
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import fsspec

from voxblink2_lib.errors import StoreDamagedError, TrainingError
from voxblink2_lib.files import short_digest
from voxblink2_lib.published.remote_errors import store_errors
from voxblink2_lib.published.training_shards import as_url, has_published, is_url, pieces_of
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.store.catalogue import Catalogue
from voxblink2_lib.training import patient_downloads
from voxblink2_lib.training.byte_ranges import OtherVersionError, connect, read_range
from voxblink2_lib.training.patient_downloads import PatientDownloads
from voxblink2_lib.training.piece_cache import PieceCache
from voxblink2_lib.training.piece_claims import PieceClaims
from voxblink2_lib.training.pinned_versions import ChangedError, PinnedVersions
from voxblink2_lib.training.remote_opening import OpenedStore, open_remote

CACHE_BYTES = 8 << 30
PIECE_BYTES = 1 << 20
# Neighbours are downloaded by one request.
_PIECES_AT_ONCE = 8


def is_remote(store: object) -> bool:
    """Return whether a store is a URL; of a local folder, only if a store is published there."""
    if not (isinstance(store, str) and is_url(store)):
        return False
    return not store.startswith("file://") or has_published(Path(fsspec.core.url_to_fs(store)[1]))


class ShardRange(NamedTuple):
    """A range of bytes of a shard.

    Attributes:
        shard: name of its file.
        shard_bytes: size of that file in the catalogue.
        offset: first byte.
        size: number of bytes.
    """

    shard: str
    shard_bytes: int
    offset: int
    size: int


class _Piece(NamedTuple):
    """A piece of a shard: the bytes from ``number * PIECE_BYTES`` on."""

    shard: str
    shard_bytes: int
    number: int

    @property
    def start(self) -> int:
        return self.number * PIECE_BYTES

    @property
    def size(self) -> int:
        return min(PIECE_BYTES, self.shard_bytes - self.start)

    @property
    def key(self) -> str:
        """Its name, whatever the version of the shard is."""
        return f"{self.shard}.{self.shard_bytes}.{self.number}"


@dataclass(frozen=True, slots=True)
class RemoteShards:
    """The shards of a remote store. Made by :meth:`at`.

    Attributes:
        url: of the store.
        config: name of the configuration.
        cache: folder of the pieces of this store.
        cache_bytes: the most that all pieces in it take.
        opened: names of its files, and its catalogue.
        versions: of the shards that were read since it was opened.
    """

    url: str
    config: str
    cache: Path
    cache_bytes: int
    opened: OpenedStore = field(repr=False, compare=False)
    versions: PinnedVersions = field(repr=False, compare=False)
    _pieces: PieceCache = field(repr=False, compare=False)
    _claims: PieceClaims = field(repr=False, compare=False)

    @classmethod
    def at(
        cls, url: str, config: str, cache_dir: str | Path | None, cache_bytes: int
    ) -> RemoteShards:
        """Return the shards of a store, with a cache for them.

        Raises:
            TrainingError: the cache is too small for one piece, or the store cannot be read.
        """
        if cache_bytes < PIECE_BYTES:
            raise TrainingError(
                f"cache_bytes is {cache_bytes:,}; expected are at least {PIECE_BYTES:,}, one piece."
            )
        url = as_url(url).rstrip("/")
        cache = pieces_of(url, config, Path(cache_dir).absolute() if cache_dir else None)
        opened = open_remote(url, config, cache)
        versions = PinnedVersions.opened(cache, opened.catalogue.stem)
        pieces = PieceCache(cache, cache_bytes)
        return cls(url, config, cache, cache_bytes, opened, versions, pieces, PieceClaims(cache))

    def read(self, shard: str, shard_bytes: int, offset: int, size: int) -> bytes:
        """Return a range of bytes of a shard. Its arguments are those of :class:`ShardRange`.

        Raises:
            StoreDamagedError: the shard does not exist, is shorter, or was changed since the store
                was opened.
            StoreDiskError: its server does not answer, or answers with errors, until the deadline.
            StoreError: its server refuses.
        """
        wanted = ShardRange(shard, shard_bytes, offset, size)
        if offset + size > shard_bytes:
            raise self._ends_before(shard, offset + size)
        pieces = list(_pieces_of(wanted))
        downloaded = self._provide(pieces)
        return b"".join(self._part(piece, wanted, downloaded) for piece in pieces)

    def prefetch(self, ranges: Iterable[ShardRange]) -> None:
        """Download what is missing of some ranges, at the same time.

        Raises:
            StoreDamagedError, StoreDiskError, StoreError: see :meth:`read`.
        """
        pieces = (piece for each in ranges for piece in _pieces_of(each) if piece.size > 0)
        self._provide(list(dict.fromkeys(pieces)))

    def _part(self, piece: _Piece, wanted: ShardRange, downloaded: dict[_Piece, bytes]) -> bytes:
        """Return what a piece has of a range."""
        start = max(0, wanted.offset - piece.start)
        stop = min(piece.size, wanted.offset + wanted.size - piece.start)
        while piece not in downloaded:
            data = self._pieces.read(self._name_of(piece), piece.size, start, stop)
            if data is not None:
                return data
            downloaded |= self._provide([piece])  # it was removed meanwhile
        return downloaded[piece][start:stop]

    # -- Pieces that are missing -------------------------------------------------------------------

    def _provide(self, pieces: Sequence[_Piece]) -> dict[_Piece, bytes]:
        """Download the pieces that are missing; return those that this process downloaded."""
        downloaded: dict[_Piece, bytes] = {}
        missing = [piece for piece in pieces if not self._has(piece)]
        while missing:
            claimed = [piece for piece in missing if self._claims.take(piece.key)]
            if not claimed:  # others download them; this process has no claim while it waits
                seconds = patient_downloads.DEADLINE_SECONDS
                self._claims.wait(missing[0].key, seconds)
                claimed = missing[:1]
            try:
                # What another process had was perhaps downloaded until its claim was released.
                downloaded |= self._download([each for each in claimed if not self._has(each)])
            finally:
                for piece in claimed:
                    self._claims.release(piece.key)
            missing = [each for each in missing if each not in downloaded and not self._has(each)]
        return downloaded

    def _has(self, piece: _Piece) -> bool:
        try:
            is_read = self.versions.of(piece.shard) is not None
        except ChangedError as error:
            raise self._changed(piece.shard) from error
        return is_read and self._pieces.has(self._name_of(piece), piece.size)

    def _download(self, pieces: Sequence[_Piece]) -> dict[_Piece, bytes]:
        runs = list(_runs_of(pieces))
        if not runs:
            return {}
        with store_errors(self._url_of(runs[0][0].shard), "read", noun="shard"):
            # Threads share what is connected once, by this process.
            systems = {run[0].shard: connect(self._url_of(run[0].shard)) for run in runs}
            tasks = [partial(self._download_run, run, *systems[run[0].shard]) for run in runs]
            seconds = patient_downloads.DEADLINE_SECONDS
            results = PatientDownloads(self.url, tasks, seconds).run()
        return {piece: data for result in results for piece, data in result.items()}

    def _download_run(
        self, run: Sequence[_Piece], system: object, path: str
    ) -> dict[_Piece, bytes]:
        """Download neighbouring pieces by one request, and store them."""
        shard, start, end = run[0].shard, run[0].start, run[-1].start + run[-1].size
        try:
            data, version = read_range(system, path, start, end - start, self.versions.of(shard))
            self.versions.pin(shard, version)
        except OtherVersionError as error:
            self.versions.mark_changed(shard)
            raise self._changed(shard) from error
        except ChangedError as error:
            raise self._changed(shard) from error
        except FileNotFoundError as error:
            raise StoreDamagedError(f"The shard {self._place_of(shard)} is missing.") from error
        self._check_size(shard, len(data), start, end)
        cut = {each: data[each.start - start : each.start - start + each.size] for each in run}
        for piece, part in cut.items():
            self._pieces.keep(self._name_of(piece), part)
        return cut

    def _check_size(self, shard: str, received: int, start: int, end: int) -> None:
        if received > end - start:
            raise StoreDamagedError(
                f"{self._place_of(shard)} cannot be read in parts: {end - start:,} bytes were "
                f"requested and {received:,} received. The server must support byte ranges."
            )
        if received < end - start:
            raise self._ends_before(shard, end)

    # -- Names and messages ------------------------------------------------------------------------

    def _name_of(self, piece: _Piece) -> str:
        """Return the name of a piece of a shard whose version is known."""
        version = short_digest((self.versions.of(piece.shard) or "").encode())
        shard = PurePosixPath(self._path_of(piece.shard)).name
        return f"{shard}.{piece.shard_bytes}.{version}.{piece.number:06}"

    def _path_of(self, shard: str) -> str:
        names = self.opened.names
        return f"shards/{self.config}/{shard}" if names is None else names[shard]

    def _url_of(self, shard: str) -> str:
        return f"{self.url}/{self._path_of(shard)}"

    def _place_of(self, shard: str) -> str:
        """Return the URL of a shard without secrets."""
        return redacted_source(self._url_of(shard))

    def _changed(self, shard: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"The shard {self._place_of(shard)} was changed since the store was opened: its server "
            "has another version of it now. Open the store again; if its catalogue was not "
            "uploaded with its shards, upload both."
        )

    def _ends_before(self, shard: str, end: int) -> StoreDamagedError:
        return StoreDamagedError(f"The shard {self._place_of(shard)} ends before byte {end:,}.")


def _pieces_of(wanted: ShardRange) -> Iterator[_Piece]:
    """Yield the pieces that a range touches."""
    first, end = wanted.offset // PIECE_BYTES, wanted.offset + wanted.size
    for number in range(first, -(-end // PIECE_BYTES)):
        yield _Piece(wanted.shard, wanted.shard_bytes, number)


def _runs_of(pieces: Iterable[_Piece]) -> Iterator[Sequence[_Piece]]:
    """Yield neighbouring pieces together, a few at most."""
    for _, group in itertools.groupby(
        enumerate(sorted(pieces)), lambda placed: (placed[1].shard, placed[1].number - placed[0])
    ):
        run = [piece for _, piece in group]
        yield from (run[at : at + _PIECES_AT_ONCE] for at in range(0, len(run), _PIECES_AT_ONCE))


def read_remote_catalogue(shards: RemoteShards) -> Catalogue:
    """Return the catalogue of a remote store.

    Raises:
        TrainingError: it is none.
    """
    try:
        return Catalogue.read(shards.opened.catalogue)
    except StoreDamagedError as error:
        raise TrainingError(f"The store {shards.url} cannot be opened: {error}") from error
