"""Read shards on a remote file system through a local cache of bounded size.

Shards are divided into chunks of a mebibyte. A chunk is downloaded when a clip in it is read,
and stored as a file; beyond the bound, the least recently used chunks are deleted. All processes
with the same cache folder share it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from filelock import FileLock

from voxblink2_lib.errors import StoreDamagedError, StoreError, TrainingError
from voxblink2_lib.files import atomic_write, short_digest
from voxblink2_lib.published.training_shards import (
    TrainingShards,
    as_url,
    catalogue_name,
    clear_purged_pieces,
    has_published,
    is_url,
    open_place,
    pieces_of,
    training_shards,
)
from voxblink2_lib.store.catalogue import FOLDER, Catalogue

CACHE_BYTES = 8 << 30
CHUNK_BYTES = 1 << 20
_TRIES = 3


def is_remote(store: object) -> bool:
    """Return whether a store is a URL; of a local folder, only if a store is published there."""
    if not (isinstance(store, str) and is_url(store)):
        return False
    return not store.startswith("file://") or has_published(Path(_system(store)[1]))


@dataclass(frozen=True, slots=True)
class RemoteShards:
    """The shards of a remote store.

    Attributes:
        url: of the store.
        config: name of the configuration.
        cache: folder of the chunks of this store.
        cache_bytes: the most that all chunks in it take.
        published: the files of one manifest; ``None`` of a store that was uploaded as it is.
    """

    url: str
    config: str
    cache: Path
    cache_bytes: int
    published: TrainingShards | None = field(default=None, repr=False, compare=False)

    @classmethod
    def at(
        cls, url: str, config: str, cache_dir: str | Path | None, cache_bytes: int
    ) -> RemoteShards:
        """Return the shards of a store, with a cache for them.

        Raises:
            TrainingError: the cache is too small for one chunk, or the store cannot be read.
        """
        if cache_bytes < CHUNK_BYTES:
            raise TrainingError(
                f"cache_bytes is {cache_bytes:,}; expected are at least {CHUNK_BYTES:,}, one chunk."
            )
        url = as_url(url).rstrip("/")
        cache = pieces_of(url, config, Path(cache_dir).absolute() if cache_dir else None)
        try:
            published = training_shards(url, config)
        except StoreError as error:
            raise TrainingError(str(error)) from error
        if published is not None:
            clear_purged_pieces(cache, published)
        return cls(url, config, cache, cache_bytes, published)

    def read(self, shard: str, shard_bytes: int, offset: int, size: int) -> bytes:
        """Return a range of bytes of a shard.

        Args:
            shard: name of its file.
            shard_bytes: size of that file in the catalogue.
            offset: first byte.
            size: number of bytes.

        Raises:
            StoreDamagedError: the shard does not exist, or is shorter.
        """
        first, last = offset // CHUNK_BYTES, (offset + size - 1) // CHUNK_BYTES
        chunks = [self._chunk(shard, shard_bytes, index) for index in range(first, last + 1)]
        start = offset - first * CHUNK_BYTES
        data = b"".join(chunks)[start : start + size]
        if len(data) != size:
            raise StoreDamagedError(
                f"The shard {self._url_of(shard)} ends before byte {offset + size:,}."
            )
        return data

    def _chunk(self, shard: str, shard_bytes: int, index: int) -> bytes:
        # With the size, as a store that was made anew at the same URL has other shards.
        path = self.cache / f"{self._name_of(shard)}.{shard_bytes}.{index:06}"
        size = min(CHUNK_BYTES, shard_bytes - index * CHUNK_BYTES)
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if len(data) == size:  # a crash of the machine may leave a part
                os.utime(path)
                return data
        data = _download(self._url_of(shard), index * CHUNK_BYTES, CHUNK_BYTES)
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / ".lock"):
            self._make_room(len(data))
            atomic_write_unsynced(path, data)
        return data

    def _make_room(self, size: int) -> None:
        """Delete the least recently used chunks until one more fits."""
        chunks = [file for file in os.scandir(self.cache) if "." in file.name[1:]]
        total = sum(chunk.stat().st_size for chunk in chunks) + size
        for chunk in sorted(chunks, key=lambda chunk: chunk.stat().st_mtime_ns):
            if total <= self.cache_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(chunk.path)
            total -= chunk.stat().st_size

    def _url_of(self, shard: str) -> str:
        path = f"shards/{self.config}/{shard}"
        return f"{self.url}/{self.published.names[shard] if self.published else path}"

    def _name_of(self, shard: str) -> str:
        if self.published is None:
            return shard
        return PurePosixPath(self.published.names[shard]).name


def _download(url: str, start: int, size: int) -> bytes:
    """Download a range of bytes."""
    system, path = _system(url)
    try:
        data = _retried(lambda: bytes(system.cat_file(path, start=start, end=start + size)))
    except FileNotFoundError as error:
        raise StoreDamagedError(f"The shard {url} is missing.") from error
    except Exception as error:  # of botocore and aiohttp, many are no OSError
        raise StoreDamagedError(f"{url} cannot be read: {error}") from error
    if len(data) > size:
        raise StoreDamagedError(
            f"{url} cannot be read in parts: {size:,} bytes were requested and {len(data):,} "
            "received. The server must support byte ranges."
        )
    return data


def _retried(download: Callable[[], bytes]) -> bytes:
    """Return the result of the first of a few tries that does not fail."""
    for _ in range(_TRIES - 1):
        try:
            return download()
        except FileNotFoundError:
            raise
        except Exception:  # noqa: S112  # the last try reports it
            continue
    return download()


def atomic_write_unsynced(path: Path, data: bytes) -> None:
    """Write a file that can be downloaded again: not flushed to the disk."""
    half = path.with_name(f".{path.name}")
    half.write_bytes(data)
    half.replace(path)


def read_remote_catalogue(shards: RemoteShards) -> Catalogue:
    """Return the catalogue of a remote store, from a copy beside the chunks.

    Raises:
        TrainingError: there is none, or the store cannot be reached.
    """
    if shards.published is not None:
        return _published_catalogue(shards, shards.published)
    url = f"{shards.url}/{FOLDER}/{shards.config}.arrow"
    try:
        system, path = _system(url)
        version = repr(sorted(_version(system.info(path)).items()))
        copy = shards.cache / FOLDER / f"{short_digest(version.encode())}.arrow"
        if not copy.exists():
            with atomic_write(copy) as file:
                file.write(system.cat_file(path))
        return Catalogue.read(copy)
    except FileNotFoundError as error:
        raise TrainingError(
            f"There is no catalogue at {url}. Corpus.open() on the local store makes it, in "
            f"its folder {FOLDER!r}; upload that folder together with the shards."
        ) from error
    except Exception as error:  # of botocore and aiohttp, many are no OSError
        raise TrainingError(f"The store {shards.url} cannot be opened: {error}") from error


def _published_catalogue(shards: RemoteShards, published: TrainingShards) -> Catalogue:
    file = published.catalogue
    if isinstance(file, Path):
        return Catalogue.read(file)
    copy = shards.cache / FOLDER / catalogue_name(published)
    if not copy.exists():
        size, sha256 = file.size_bytes, file.sha256
        open_place(shards.url).download(file.name, copy, size_bytes=size, sha256=sha256)
    return Catalogue.read(copy)


def _version(info: dict[str, Any]) -> dict[str, str]:
    """Return those values of a remote file that change with its content."""
    return {
        name: str(value)
        for name, value in info.items()
        if name in {"size", "ETag", "LastModified", "Last-Modified", "mtime", "etag", "updated"}
    }


def _system(url: str) -> tuple[Any, str]:
    system, path = fsspec.core.url_to_fs(url)  # some systems take a path, others the whole URL
    return system, path
