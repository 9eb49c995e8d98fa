"""Byte range of each clip: one table over all sealed shards, made once and memory-mapped.

Shards are uncompressed Arrow streams, so a clip is a range of bytes of a file. The catalogue has
that range for every row: reading a clip needs no Arrow, and opening a store of thousands of shards
opens one file.

STORE/catalogue/<config>.arrow    an Arrow file; in the user's cache if the store is read-only
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.files import atomic_write, home_folder, named_system_errors, short_digest
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.store.arrow_stream import read_plain_file
from voxblink2_lib.store.checksums import checksum_file, write_checksum
from voxblink2_lib.store.clip_length import samples_in
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.lock import lock_if_possible
from voxblink2_lib.store.shard_check import is_cut_audio, open_shard, shard_batches
from voxblink2_lib.store.shard_names import is_shard_name, shard_order

FOLDER = "catalogue"
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

# Size in bytes of each shard in a folder, by file name, in order.
ShardSizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shard:
    """A sealed shard in the catalogue.

    Attributes:
        name: of its file.
        size_bytes: of its file. Sealed shards never change: another size means another shard.
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
        path: the file it was read from.
    """

    table: pa.Table
    shards: tuple[Shard, ...]
    path: Path | None = None

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Memory-map a catalogue, which may come with a foreign store: it is checked each time.

        Raises:
            StoreDamagedError: the file does not exist or is no catalogue.
        """
        advice = repair_advice(path)
        with as_own_error(StoreDamagedError, f"The catalogue {path} cannot be read", advice):
            table = read_plain_file(path, _SCHEMA)
            shards = tuple(Shard(*row) for row in json.loads(table.schema.metadata[_SHARDS]))
            rows = [shard.rows for shard in shards]
            if min(rows, default=0) < 0 or sum(rows) != len(table):
                raise ValueError("it has another number of rows than its shards")
        return cls(table, shards, path)

    @classmethod
    def reopen(cls, path: Path, shards: tuple[Shard, ...]) -> Catalogue:
        """Memory-map a catalogue that another process has open, with the same shards.

        Raises:
            StoreError: the file cannot be read or has other shards now.
        """
        try:
            catalogue = cls.read(path)
        except StoreDamagedError as error:
            raise StoreError(str(error)) from error
        if catalogue.shards[: len(shards)] != shards:
            raise StoreError(
                f"The catalogue {path} has other shards than when the store was opened. "
                "Open it again."
            )
        # It may have grown meanwhile.
        rows = sum(shard.rows for shard in shards)
        return cls(catalogue.table.slice(0, rows), shards, path)

    def tables(self) -> Iterator[tuple[tuple[str, int], pa.Table]]:
        """Yield name and size of each shard, and its rows."""
        rows, start = self.table.replace_schema_metadata(None), 0
        for shard in self.shards:
            yield (shard.name, shard.size_bytes), rows.slice(start, shard.rows)
            start += shard.rows

    def write(self, path: Path) -> None:
        """Write it atomically, with a checksum beside it."""
        shards = json.dumps([[shard.name, shard.size_bytes, shard.rows] for shard in self.shards])
        schema = _SCHEMA.with_metadata({_SHARDS: shards.encode()})
        # One batch, so that its columns can be used in place.
        rows = self.table.unify_dictionaries().combine_chunks().replace_schema_metadata(None)
        rows = _without_unused_ids(rows)
        checksum_file(path).unlink(missing_ok=True)
        with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
            for batch in rows.to_batches():
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        write_checksum(path)


def _without_unused_ids(rows: pa.Table) -> pa.Table:
    """Return rows whose dictionary has no speaker of shards that the catalogue has no more."""
    ids = rows["speaker_id"].combine_chunks()
    if pc.count_distinct(ids.indices).as_py() == len(ids.dictionary):
        return rows
    used = ids.cast(pa.string()).dictionary_encode()
    return rows.set_column(0, _SCHEMA.field(0), used)


def keep_shards(path: Path, sizes: ShardSizes) -> None:
    """Take all shards but some out of a catalogue.

    Args:
        path: of the catalogue; one that cannot be read is removed.
        sizes: size in bytes of each shard that is kept, by its name.
    """
    catalogue = _read(path)
    tables = dict(catalogue.tables()) if catalogue else {}
    kept = {place: rows for place, rows in tables.items() if sizes.get(place[0]) == place[1]}
    if not kept:
        for file in (checksum_file(path), path):
            file.unlink(missing_ok=True)
        return
    shards = tuple(Shard(*place, len(rows)) for place, rows in kept.items())
    Catalogue(pa.concat_tables(kept.values()), shards).write(path)


def local_catalogue(
    store: Path, config: str, *, progress: Progress = no_progress
) -> tuple[Catalogue, Path]:
    """Return the catalogue of a local store or folder of shards, and the folder of the shards.

    It is made if missing, and made anew if there are other shards; known ones are not read again.

    Raises:
        StoreError: there are no shards, or they are not of this package.
        StoreDamagedError: a shard cannot be read.
    """
    folder = store / "shards" / config
    if not folder.is_dir():
        folder = store
    sizes = _shard_sizes(store, folder, config)
    if not sizes:
        raise StoreError(
            f"There are no shards in {store}: expected is a store with shards/{config}/*.arrow, as "
            "load_dataset('voxblink2', ...) and the command materialize make, or a folder of them."
        )
    path = catalogue_file(store, folder, config)
    catalogue = _read_current(path, sizes)
    if catalogue is not None:
        return catalogue, folder
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_if_possible(path.with_suffix(".lock")):  # of several ranks, one makes it
        catalogue = _read_current(path, sizes)
        if catalogue is None:
            _updated(_read(path), folder, sizes, progress).write(path)
            catalogue = Catalogue.read(path)
    return catalogue, folder


def catalogue_of(store: Path, config: str, sizes: ShardSizes) -> Catalogue:
    """Return the catalogue of some sealed shards of a local store, and write nothing.

    Args:
        store: the store.
        config: the configuration.
        sizes: size in bytes of each shard by its name, in order. Those that the store's catalogue
            lacks are scanned.

    Raises:
        StoreError: a shard is not of this package.
        StoreDamagedError: a shard cannot be read.
    """
    folder = store / "shards" / config
    path = catalogue_file(store, folder, config)
    return _read_current(path, sizes) or _updated(_read(path), folder, sizes, no_progress)


def update_catalogue(
    path: Path, folder: Path, sizes: ShardSizes, *, others: Sequence[Path] = ()
) -> None:
    """Make a catalogue that has just some shards, of the one before and those that it lacks.

    Args:
        path: of the catalogue.
        folder: of the shards; those in a catalogue need not be there.
        sizes: size in bytes of each shard by its name, in order.
        others: catalogues of other shards, which are not here.

    Raises:
        StoreDamagedError: a shard cannot be read.
    """
    if _read_current(path, sizes) is None:
        _updated(_read(path), folder, sizes, no_progress, others=others).write(path)


def _shard_sizes(store: Path, folder: Path, config: str) -> ShardSizes:
    """Return the shards of a folder that has at least one moment of rest."""
    sealed = None
    while True:
        before, sealed = sealed, _sealed_names(store, folder, config)
        sizes = dict(_sizes(folder, sealed))
        # A run may have removed a shard since the ledger was read, as its rows are in another.
        if sealed is None or sealed == before or sealed <= sizes.keys():
            return sizes


def _sealed_names(store: Path, folder: Path, config: str) -> set[str] | None:
    """Return the names of the shards in the ledger of a store; ``None`` if there is no ledger."""
    ledger_file = Store(store).ledger
    if folder == store or not ledger_file.exists():
        return None
    with Ledger(ledger_file, config, readonly=True) as ledger:
        return {shard.name for shard in ledger.shards()}


def _sizes(folder: Path, sealed: set[str] | None) -> Iterator[tuple[str, int]]:
    """Yield name and size of shards, in order.

    Left out is what a run, perhaps a killed one, has not sealed yet or has superseded: its rows
    would be there twice.
    """
    for path in sorted(folder.glob("*.arrow"), key=lambda path: shard_order(path.name)):
        if sealed is None or path.name in sealed or not is_shard_name(path.name):
            with contextlib.suppress(FileNotFoundError):
                yield path.name, path.stat().st_size


def catalogue_file(store: Path, folder: Path, config: str) -> Path:
    """Return the catalogue of a folder of shards: in the store, if that can be written to."""
    beside = store / FOLDER if folder != store else folder / f".{FOLDER}"
    if os.access(beside if beside.exists() else store, os.W_OK):
        return beside / f"{config}.arrow"
    tag = short_digest(os.fsencode(folder.resolve()))
    return home_folder() / FOLDER / f"{tag}-{config}.arrow"


def _read_current(path: Path, sizes: ShardSizes) -> Catalogue | None:
    """Return the catalogue if it has exactly the shards of the folder, in order."""
    catalogue = _read(path)
    if catalogue is None:
        return None
    shards = [(shard.name, shard.size_bytes) for shard in catalogue.shards]
    return catalogue if shards == list(sizes.items()) else None


def _read(path: Path) -> Catalogue | None:
    try:
        return Catalogue.read(path)
    except StoreDamagedError:  # it is made anew
        return None


def _updated(
    catalogue: Catalogue | None,
    folder: Path,
    sizes: ShardSizes,
    progress: Progress,
    *,
    others: Sequence[Path] = (),
) -> Catalogue:
    """Return a catalogue of the shards; those that the present ones lack are scanned."""
    present = [catalogue, *map(_read, others)]
    tables = dict(place for each in present if each for place in each.tables())
    new = [place for place in sizes.items() if place not in tables]
    with (
        named_system_errors(folder),
        progress("Scanning shards", unit="shard", total=len(new)) as advance,
        ThreadPoolExecutor(_SCANS_AT_ONCE) as threads,
    ):
        scans = threads.map(_scan_shard, [folder / name for name, _ in new])
        for place, rows in zip(new, scans, strict=True):
            tables[place] = rows
            advance(1)
    rows_of_all = pa.concat_tables(tables[place] for place in sizes.items())
    return Catalogue(
        rows_of_all, tuple(Shard(*place, len(tables[place])) for place in sizes.items())
    )


def _scan_shard(path: Path) -> pa.Table:
    """Return the rows of one shard, which is checked; the bytes of the clips are not read."""
    stream = open_shard(path)
    return _rows_of(pa.Table.from_batches(shard_batches(stream), stream.schema), stream.whole)


def _rows_of(rows: pa.Table, whole: pa.Buffer) -> pa.Table:
    chunks = [chunk for chunk in rows["audio"].chunks if len(chunk)]
    ranges = [(np.zeros(0, np.int64), np.zeros(0, np.int32))]
    ranges += [_ranges_of(chunk.field("bytes"), whole) for chunk in chunks]
    samples = _lengths(rows)
    columns = [
        rows["speaker_id"].combine_chunks().dictionary_encode(),
        rows["video_id"].combine_chunks(),
        rows["utterance_id"].combine_chunks(),
        pa.array(samples.astype(np.int32)),
        pa.array(np.concatenate([offset for offset, _ in ranges])),
        pa.array(np.concatenate([size for _, size in ranges])),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _lengths(rows: pa.Table) -> npt.NDArray[np.float64]:
    """Return the number of samples of each clip, by its times or, of cut audio, by its header."""
    seconds = pc.subtract(rows["end_seconds"], rows["start_seconds"])
    samples: npt.NDArray[np.float64] = np.rint(seconds.to_numpy() * SAMPLE_RATE_HZ)
    if len(cut := np.flatnonzero(is_cut_audio(rows))):
        clips = pc.struct_field(rows["audio"], "bytes")
        samples[cut] = [samples_in(clips[row].as_buffer()) for row in cut.tolist()]
    return samples


def _ranges_of(clips: pa.Array, whole: pa.Buffer) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return first byte in the file and number of bytes of each clip of a batch."""
    _, ends, data = clips.buffers()
    bounds = np.frombuffer(ends, np.int32)[clips.offset : clips.offset + len(clips) + 1]
    start = data.address - whole.address if data else 0
    return start + bounds[:-1].astype(np.int64), np.diff(bounds)
