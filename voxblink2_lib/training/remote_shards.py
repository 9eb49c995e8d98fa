"""Shards on a remote file system, through a local cache of bounded size.

Shards are cut into pieces of a few mebibytes. A piece is fetched when a clip in it is asked for and
kept as a file; when they grow beyond the bound, those used longest ago go. All processes that
name the same folder share it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from voxblink2_lib.errors import StoreDamagedError, TrainingError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.store.catalogue import FOLDER, Catalogue

CACHE_BYTES = 8 << 30
PIECE_BYTES = 4 << 20
_TRIES = 3


def is_remote(store: object) -> bool:
    """Say whether a store is an address, not a folder."""
    return isinstance(store, str) and "://" in store and not store.startswith("file://")


@dataclass(frozen=True, slots=True)
class RemoteShards:
    """The shards of a remote store.

    Attributes:
        url: of the store.
        config: name of the configuration.
        cache: folder of the pieces of this store.
        cache_bytes: the most that all pieces in it take.
    """

    url: str
    config: str
    cache: Path
    cache_bytes: int

    @classmethod
    def at(
        cls, url: str, config: str, cache_dir: str | Path | None, cache_bytes: int
    ) -> RemoteShards:
        """Name the shards of a store and the folder of their cache.

        Raises:
            TrainingError: the cache would not hold one piece.
        """
        if cache_bytes < PIECE_BYTES:
            raise TrainingError(
                f"cache_bytes is {cache_bytes:,}; expected are at least {PIECE_BYTES:,}, one piece."
            )
        base = home_folder() / "pieces" if cache_dir is None else Path(cache_dir).absolute()
        tag = short_digest(url.rstrip("/").encode())
        return cls(url.rstrip("/"), config, base / f"{tag}-{config}", cache_bytes)

    def read(self, shard: str, shard_bytes: int, offset: int, size: int) -> bytes:
        """Return a range of bytes of a shard.

        Args:
            shard: name of its file.
            shard_bytes: size of that file, as the catalogue knows it.
            offset: first byte.
            size: number of bytes.

        Raises:
            StoreDamagedError: the shard is not there, or shorter.
        """
        first, last = offset // PIECE_BYTES, (offset + size - 1) // PIECE_BYTES
        pieces = [self._piece(shard, shard_bytes, number) for number in range(first, last + 1)]
        start = offset - first * PIECE_BYTES
        found = b"".join(pieces)[start : start + size]
        if len(found) != size:
            raise StoreDamagedError(
                f"The shard {self._address(shard)} ends before byte {offset + size:,}."
            )
        return found

    def _piece(self, shard: str, shard_bytes: int, number: int) -> bytes:
        # With the size, for a store that was made anew at the same address has other shards.
        path = self.cache / f"{shard}.{shard_bytes}.{number:06}"
        whole = min(PIECE_BYTES, shard_bytes - number * PIECE_BYTES)
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if len(data) == whole:  # a crash of the machine may leave a part
                os.utime(path)
                return data
        data = self._fetched(self._address(shard), number * PIECE_BYTES, PIECE_BYTES)
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / ".lock"):
            self._make_room(len(data))
            atomic_write_unsynced(path, data)
        return data

    def _make_room(self, size: int) -> None:
        """Delete the pieces used longest ago until one more fits."""
        pieces = [(one.stat(), one.path) for one in os.scandir(self.cache) if "." in one.name[1:]]
        total = sum(about.st_size for about, _ in pieces) + size
        for about, path in sorted(pieces, key=lambda one: one[0].st_mtime_ns):
            if total <= self.cache_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= about.st_size

    def _address(self, shard: str) -> str:
        return f"{self.url}/shards/{self.config}/{shard}"

    def _fetched(self, address: str, start: int, size: int) -> bytes:
        """Fetch a range; a connection that breaks is tried again."""
        system, path = _system(address)
        for tries_left in reversed(range(_TRIES)):
            try:
                data = bytes(system.cat_file(path, start=start, end=start + size))
            except FileNotFoundError as error:
                raise StoreDamagedError(f"The shard {address} is gone.") from error
            except Exception as error:  # of botocore and aiohttp, many are no OSError
                if not tries_left:
                    raise StoreDamagedError(f"{address} cannot be read: {error}") from error
                continue
            if len(data) > size:
                raise StoreDamagedError(
                    f"{address} cannot be read in parts: {size:,} bytes were asked for and "
                    f"{len(data):,} came. The server must know ranges."
                )
            return data
        raise AssertionError("unreachable")


def atomic_write_unsynced(path: Path, data: bytes) -> None:
    """Write a file that can be fetched again: not flushed to the disk."""
    half = path.with_name(f".{path.name}")
    half.write_bytes(data)
    half.replace(path)


def read_remote_catalogue(shards: RemoteShards) -> Catalogue:
    """Return the catalogue of a remote store; a copy of it is kept beside the pieces.

    Raises:
        TrainingError: there is none, or the address cannot be reached.
    """
    address = f"{shards.url}/{FOLDER}/{shards.config}.arrow"
    try:
        system, path = _system(address)
        about = system.info(path)
        tag = short_digest(repr(sorted(_version(about).items())).encode())
        copy = shards.cache / FOLDER / f"{tag}.arrow"
        if not copy.exists():
            with atomic_write(copy) as file:
                file.write(system.cat_file(path))
        return Catalogue.read(copy)
    except FileNotFoundError as error:
        raise TrainingError(
            f"There is no catalogue at {address}. Corpus.open() on the local store makes it, in "
            f"its folder {FOLDER!r}; upload that folder together with the shards."
        ) from error
    except Exception as error:  # of botocore and aiohttp, many are no OSError
        raise TrainingError(f"The store {shards.url} cannot be opened: {error}") from error


def _version(about: dict[str, Any]) -> dict[str, str]:
    """Return what changes when a remote file does."""
    return {
        name: str(value)
        for name, value in about.items()
        if name in {"size", "ETag", "LastModified", "Last-Modified", "mtime", "etag", "updated"}
    }


def _system(address: str) -> tuple[Any, str]:
    system, path = fsspec.core.url_to_fs(address)  # some take a path, some the whole address
    return system, path
