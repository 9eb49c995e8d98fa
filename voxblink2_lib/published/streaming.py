"""Read the rows of a published shard as they arrive; nothing of it is kept on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from voxblink2_lib.archive.remote_reader import RemoteReader, RemoteReadError
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.published.manifest import PublishedFile
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import FileGoneError
from voxblink2_lib.published.remote_errors import store_errors
from voxblink2_lib.published.scratch import last_manifest
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.store.arrow_stream import ArrowStream, damaged, read_batches, read_schema
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.shard_check import check_columns, open_shard

# Columns and their metadata have a few thousand.
_SCHEMA_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class StreamedShard:
    """A shard at a URL.

    Attributes:
        url: with its secrets.
        file: what the manifest says of it.
        schema: its columns.
    """

    url: str = field(repr=False)
    file: PublishedFile
    schema: pa.Schema

    @property
    def path(self) -> str:
        """Its URL without secrets."""
        return redacted_source(self.url)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches, each of them valid; after the last one, all of it was checked.

        Raises:
            StoreDamagedError: a batch is not valid, or the shard is not what the manifest names.
            StoreDiskError: its server does not send it.
        """
        try:
            with _Hashing(RemoteReader(self.url, self.file.size_bytes)) as reader:
                file = pa.PythonFile(io.BufferedReader(reader, 1 << 16), mode="r")
                yield from read_batches(file, self.schema, self.path)
                if file.read(1) or reader.sha256 != self.file.sha256:
                    raise damaged(self.path, f"its SHA-256 is not {self.file.sha256}")
        except RemoteReadError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileGoneError(f"The shard {self.path} is missing.") from error
            with store_errors(self.url, "read"):
                raise (error.__cause__ or error) from error


class _Hashing(io.RawIOBase):
    """Reads on, and hashes what it reads."""

    def __init__(self, reader: RemoteReader) -> None:
        self._reader = reader
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes."""
        size = self._reader.readinto(buffer)
        self._digest.update(memoryview(buffer)[:size])
        return size

    @property
    def sha256(self) -> str:
        """Digest of everything read so far."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        super().close()


def opened_shard(
    url: str | None, store: Store, config: str, name: str
) -> ArrowStream | StreamedShard:
    """Open a shard: of a copy of a published store that has it not, the one at the URL.

    Args:
        url: of the published store, with its secrets; not used for any other store.
        store: the store, or a copy of a published one.
        config: the configuration.
        name: of the shard.

    Raises:
        StoreDamagedError: the shard is gone, or is none.
        StoreError, StoreDiskError: it cannot be read.
    """
    path = store.shards(config) / name
    if url is None or not store.url or path.exists():
        return open_shard(path)
    return streamed_shard(url, store, config, name)


def streamed_shard(url: str, store: Store, config: str, name: str) -> StreamedShard:
    """Return a shard of a published store, of which only the columns are read.

    Args:
        url: of the published store, with its secrets.
        store: a copy of it.
        config: the configuration.
        name: of the shard.

    Raises:
        StoreDamagedError: the shard is gone, or is none.
        StoreError, StoreDiskError: it cannot be read.
    """
    place, manifest = open_place(url), last_manifest(store)
    file = manifest.shards(config).get(name) if manifest else None
    if file is None:
        raise StoreDamagedError(f"The store {place} has no shard {name} in its manifest.")
    beginning = place.read_block(file.name, 0, min(_SCHEMA_BYTES, file.size_bytes))
    shard_url = place.url_of(file.name)
    schema = read_schema(pa.py_buffer(beginning), redacted_source(shard_url))
    check_columns(redacted_source(shard_url), schema)
    return StreamedShard(shard_url, file, schema)
