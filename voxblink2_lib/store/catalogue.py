"""Where each clip lies: one table over all sealed shards, made once and memory-mapped.

Shards are uncompressed Arrow streams, so a clip is a range of bytes of a file. The catalogue keeps
that range for every row; reading a clip needs no Arrow any more, and opening a store of thousands
of shards opens one file.

STORE/catalogue/<config>.arrow    an Arrow file; in the user's cache where a store is read-only
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from voxblink2_lib.errors import StoreDamagedError, TrainingError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ

FOLDER = "catalogue"
_IDS = ("speaker_id", "video_id", "utterance_id")
_NEEDED = ("audio", *_IDS, "start_seconds", "end_seconds")
_SHARDS = b"voxblink2_shards"
_SCHEMA = pa.schema(
    [
        ("speaker_id", pa.dictionary(pa.int32(), pa.string())),
        ("video_id", pa.string()),
        ("utterance_id", pa.string()),
        ("samples", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int32()),
    ]
)

_SCANS_AT_ONCE = 8

# What reading a file raises that is no catalogue, or none of this version.
_NO_CATALOGUE = (OSError, ValueError, KeyError, TypeError)

# What a stream of Arrow ends with: one that was cut between two batches lacks it.
_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Shard:
    """A sealed shard as the catalogue knows it.

    Attributes:
        name: of its file.
        size_bytes: of its file; sealed shards never change, so another size is another shard.
        rows: number of utterances.
    """

    name: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All utterances of some shards, in the order of the shards and of their rows.

    Attributes:
        table: columns ``speaker_id`` (dictionary), ``video_id``, ``utterance_id``, ``samples``,
            and ``offset`` and ``size``, the range of bytes of the clip in its shard.
        shards: in order; the first ``shards[0].rows`` rows are those of the first one.
        path: of the file it was read from.
    """

    table: pa.Table
    shards: tuple[Shard, ...]
    path: Path | None = None

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Memory-map a catalogue.

        Raises:
            OSError, ValueError, KeyError, TypeError: it is not there, or not one.
        """
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        known = json.loads(table.schema.metadata[_SHARDS])
        return cls(table, tuple(Shard(*one) for one in known), path)

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is spawned maps the file, too: the table may have hundreds of megabytes.
        return (
            (Catalogue, (self.table, self.shards))
            if self.path is None
            else (_mapped_again, (self.path, self.shards))
        )

    def write(self, path: Path) -> None:
        """Write it, so that it is whole or not there."""
        known = json.dumps([[one.name, one.size_bytes, one.rows] for one in self.shards])
        schema = _SCHEMA.with_metadata({_SHARDS: known.encode()})
        # One batch: its columns can then be used as they lie in the file.
        rows = self.table.unify_dictionaries().combine_chunks().replace_schema_metadata(None)
        with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
            for batch in rows.to_batches():
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _mapped_again(path: Path, shards: tuple[Shard, ...]) -> Catalogue:
    """Return the catalogue that another process had mapped."""
    try:
        found = Catalogue.read(path)
    except _NO_CATALOGUE as error:
        raise TrainingError(f"The catalogue {path} cannot be read: {error}") from error
    if found.shards[: len(shards)] != shards:
        raise TrainingError(
            f"The catalogue {path} has other shards than when the store was opened. Open it again."
        )
    # It may have grown meanwhile.
    return Catalogue(found.table.slice(0, sum(one.rows for one in shards)), shards, path)


def local_catalogue(store: Path, config: str) -> tuple[Catalogue, Path]:
    """Return the catalogue of a local store or folder of shards, and the folder of the shards.

    It is made, or grows by the shards that are new, when it is not up to date.

    Raises:
        TrainingError: there are no shards, or they are not of this package.
        StoreDamagedError: a shard cannot be read.
    """
    folder = store / "shards" / config
    if not folder.is_dir():
        folder = store
    found = {one.name: one.stat().st_size for one in sorted(folder.glob("*.arrow"))}
    if not found:
        raise TrainingError(
            f"There are no shards in {store}: expected is a store with shards/{config}/*.arrow, as "
            "load_dataset('voxblink2', ...) and 'voxblink2 materialize' make, or a folder of them."
        )
    path = _place(store, folder, config)
    known = _read_current(path, found)
    if known is not None:
        return known, folder
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # of several ranks, one makes it
        known = _read_current(path, found)
        if known is None:
            _made(folder, found, _read_part(path, found)).write(path)
            known = Catalogue.read(path)
    return known, folder


def _place(store: Path, folder: Path, config: str) -> Path:
    beside = store / FOLDER if folder != store else folder / f".{FOLDER}"
    if os.access(beside if beside.exists() else store, os.W_OK):
        return beside / f"{config}.arrow"
    tag = short_digest(os.fsencode(folder.resolve()))
    return home_folder() / FOLDER / f"{tag}-{config}.arrow"


def _read_current(path: Path, found: Mapping[str, int]) -> Catalogue | None:
    """Return the catalogue if it knows just the shards that are there."""
    known = _read_part(path, found)
    return known if known is not None and len(known.shards) == len(found) else None


def _read_part(path: Path, found: Mapping[str, int]) -> Catalogue | None:
    """Return the catalogue if all that it knows is there, and comes first by name."""
    try:
        known = Catalogue.read(path)
    except _NO_CATALOGUE:
        return None
    first = list(found.items())[: len(known.shards)]
    return known if first == [(one.name, one.size_bytes) for one in known.shards] else None


def _made(folder: Path, found: Mapping[str, int], known: Catalogue | None) -> Catalogue:
    """Scan the shards that are not known yet."""
    shards = list(known.shards) if known else []
    tables = [known.table.replace_schema_metadata(None)] if known else []
    new = list(found.items())[len(shards) :]
    with (
        show_progress("Looking at shards", unit="shard", total=len(new)) as seen,
        ThreadPoolExecutor(_SCANS_AT_ONCE) as threads,
    ):
        for (name, size), rows in zip(
            new, threads.map(_scanned, [folder / name for name, _ in new]), strict=True
        ):
            shards.append(Shard(name, size, len(rows)))
            tables.append(rows)
            seen(1)
    return Catalogue(pa.concat_tables(tables), tuple(shards))


def _scanned(path: Path) -> pa.Table:
    """Return the rows of one shard; the bytes of the clips are not touched."""
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
            stream = pa.ipc.open_stream(pa.BufferReader(whole))
            missing = [name for name in _NEEDED if name not in stream.schema.names]
            if missing:
                raise TrainingError(
                    f"{path} is no shard of this package: it has no column {', '.join(missing)}; "
                    f"it has {', '.join(stream.schema.names)}."
                )
            rows = stream.read_all()
            if whole.slice(whole.size - len(_END)).to_pybytes() != _END:
                raise pa.ArrowInvalid("it is cut short")
            return _rows_of(rows, whole)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreDamagedError(
            f"The shard {path} is damaged ({error}). 'voxblink2 verify' looks at all of them."
        ) from error


def _rows_of(rows: pa.Table, whole: pa.Buffer) -> pa.Table:
    ranges = [_ranges_of(chunk.field("bytes"), whole) for chunk in rows["audio"].chunks]
    seconds = pc.subtract(rows["end_seconds"], rows["start_seconds"])
    samples = np.rint(seconds.to_numpy() * SAMPLE_RATE_HZ)
    columns = [
        rows["speaker_id"].combine_chunks().dictionary_encode(),
        rows["video_id"].combine_chunks(),
        rows["utterance_id"].combine_chunks(),
        pa.array(samples.astype(np.int32)),
        pa.array(np.concatenate([offset for offset, _ in ranges])),
        pa.array(np.concatenate([size for _, size in ranges])),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _ranges_of(clips: pa.Array, whole: pa.Buffer) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return first byte in the file and number of bytes of each clip of a batch."""
    _, ends, data = clips.buffers()
    bounds = np.frombuffer(ends, np.int32)[clips.offset : clips.offset + len(clips) + 1]
    start = data.address - whole.address if data else 0
    return start + bounds[:-1].astype(np.int64), np.diff(bounds)
