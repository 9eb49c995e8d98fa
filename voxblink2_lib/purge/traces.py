"""Where ids that were purged still are: in files of any kind, and in the caches of ``datasets``."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, UsageError, VoxBlink2Error
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import UtteranceKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.provenance import provenance_of
from voxblink2_lib.store.purged_rows import has_purged_rows

_PIECE_BYTES = 16 << 20
# Longer than any name, so that none is cut in two at the end of a piece.
_OVERLAP_BYTES = 256
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_WIDE = b"i\0\0\0d\0\0\0"
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Trace:
    """A file that still has something of what was purged, or was made from what had it.

    Attributes:
        path: the file.
        ids: some of the ids that it has, sorted.
        count: how many ids it has; 0 of one that was only made from such shards.
        shards: how many shards, of those that it says it was made from, had something of it.
    """

    path: str
    ids: tuple[str, ...]
    count: int
    shards: int = 0


def traces_in(
    paths: Iterable[Path], tombstones: Tombstones, *, progress: Progress = no_progress
) -> list[Trace]:
    """Look for what was purged in exports, embeddings and other files, their names included.

    Exports and embeddings also say of which shards they are: of those that were rewritten?

    Args:
        paths: files, or folders of files.
        tombstones: what was purged.
        progress: counts files.

    Raises:
        UsageError: there is no such file, or nothing to look at.
        StoreError: a file cannot be read.
    """
    files = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path} to look for purged ids in.")
        files += [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))
    if not files:
        raise UsageError(f"There is no file in {', '.join(map(str, paths))}: nothing was checked.")
    found = []
    with progress("Looking for purged ids", unit="file", total=len(files)) as advance:
        for path in files:
            ids, origin = ids_in(path, tombstones), provenance_of(path)
            shards = len(origin.shards & tombstones.shards) if origin else 0
            if ids or shards:
                found.append(Trace(str(path), tuple(sorted(ids)[:_LISTED]), len(ids), shards))
            advance(1)
    return found


def ids_in(path: Path, tombstones: Tombstones) -> set[str]:
    """Return the ids of what was purged that a file has in its contents or its path.

    Args:
        path: Parquet, a tar, any of that in gzip, or anything that has ids as they are: text, JSON,
            NumPy arrays, Arrow.
        tombstones: what was purged.

    Raises:
        StoreDamagedError: the file cannot be read.
    """
    # Of folders as of exports: <speaker>/<video>/<utterance>.flac.
    ids = set(tombstones.names_in("/".join(path.absolute().parts[-3:]).encode()))
    with as_own_error(StoreDamagedError, f"The file {path} cannot be checked"):
        for data in _pieces(path):
            ids.update(tombstones.names_in(data))
            if _WIDE in data:  # texts of four bytes a character, as NumPy has them
                ids.update(tombstones.names_in(data.replace(b"\0", b"")))
    return ids


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        beginning = file.read(4)
        file.seek(0)
        if beginning == b"PAR1":
            yield from _parquet_texts(path)
        elif beginning.startswith(_GZIP):
            with gzip.open(file) as unpacked:
                yield from _overlapping(iter(partial(unpacked.read, _PIECE_BYTES), b""))
        elif beginning == _ZIP:  # of NumPy arrays, or of PyTorch
            with zipfile.ZipFile(file) as members:
                for name in members.namelist():
                    with members.open(name) as member:
                        yield from _overlapping(iter(partial(member.read, _PIECE_BYTES), b""))
        else:
            yield from _overlapping(iter(partial(file.read, _PIECE_BYTES), b""))


def _overlapping(blocks: Iterable[bytes]) -> Iterator[bytes]:
    tail = b""
    for block in blocks:
        yield tail + block
        tail = block[-_OVERLAP_BYTES:]


def _parquet_texts(path: Path) -> Iterator[bytes]:
    """Yield the texts of a Parquet file; ids in three columns as one name."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        check_parquet_size(path, file.metadata)
        yield from chain.from_iterable((file.metadata.metadata or {}).items())
        schema = file.schema_arrow
        names = [field.name for field in schema if _has_text(field.type)]
        for batch in file.iter_batches(columns=names, use_threads=False):
            if set(UtteranceKey._fields) <= set(batch.schema.names):
                keys = (batch[name].cast(pa.string()).to_pylist() for name in UtteranceKey._fields)
                yield "\n".join("/".join(map(str, key)) for key in zip(*keys, strict=True)).encode()
            for column in batch.columns:
                yield "\n".join(map(str, column.to_pylist())).encode()


def _has_text(kind: pa.DataType) -> bool:
    if kind.num_fields:
        return any(_has_text(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)) or bool(
        pa.types.is_dictionary(kind) and _has_text(kind.value_type)
    )


def caches_with(tombstones: Tombstones, *, progress: Progress = no_progress) -> list[Path]:
    """Return what in Hugging Face's caches still has something of what was purged.

    That is folders of ``datasets``, which loads do not use any more, since another selection of
    shards has another folder; and files of embeddings that were made without a name of their own.

    Args:
        tombstones: what was purged.
        progress: counts files.
    """
    from datasets import config
    from huggingface_hub import constants

    files = sorted((Path(config.HF_DATASETS_CACHE) / "voxblink2").rglob("*.arrow"))
    folders = set()
    with progress("Looking through caches", unit="file", total=len(files)) as advance:
        for path in files:
            if path.parent not in folders and _has_purged_rows(path, tombstones):
                folders.add(path.parent)
            advance(1)
    embeddings = Path(constants.HF_ASSETS_CACHE) / "voxblink2" / "embeddings"
    return [
        *sorted(folders),
        *(path for path in sorted(embeddings.glob("*.parquet")) if ids_in(path, tombstones)),
    ]


def _has_purged_rows(path: Path, tombstones: Tombstones) -> bool:
    try:
        return has_purged_rows(path, tombstones)
    except VoxBlink2Error:  # it is no shard, or one that nobody reads any more
        return False
