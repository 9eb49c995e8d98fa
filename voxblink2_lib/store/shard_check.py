"""Check that a shard holds what a shard may hold, whoever wrote it, before its rows are used.

:mod:`~voxblink2_lib.store.arrow_stream` makes sure that the values can be read at all. Here, the
columns are compared with those of this package, and the rows with what its readers rely on: above
all, audio and video are bytes in the shard. ``datasets`` would open a path instead of them, any
file of the user's or a URL.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import (
    StoreDamagedError,
    StoreError,
    StoreFullError,
)
from voxblink2_lib.files import atomic_write, named_system_errors
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import CUT_AUDIO, SAMPLE_RATE_HZ
from voxblink2_lib.store.arrow_stream import ArrowStream, BatchStream, damaged, open_stream
from voxblink2_lib.store.shards import gone_message

_MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_BOX = pa.list_(pa.int16(), 4)

# Type of each column that a shard may have, of any configuration: store.schema.FEATURES without
# ``datasets``, which takes a second to import.
COLUMNS: Mapping[str, pa.DataType] = {
    "audio": _MEDIA,
    "video": _MEDIA,
    "speaker_id": pa.string(),
    "video_id": pa.string(),
    "utterance_id": pa.string(),
    "start_seconds": pa.float64(),
    "end_seconds": pa.float64(),
    "source": pa.string(),
    "boxes": pa.list_(_BOX),
    "boxes_fit": pa.bool_(),
    "boxes_evidence": pa.string(),
}
_IDS = ("speaker_id", "video_id", "utterance_id")
_TIMES = ("start_seconds", "end_seconds")
_NEEDED = ("audio", *_IDS, *_TIMES)
_FACES = ("video", "boxes", "boxes_fit")

# As records.UTTERANCE_ID; the other ids are shorter.
_LONGEST_ID = 64
_LONGEST_SECONDS = (2**31 - 1) / SAMPLE_RATE_HZ
_LISTED = 8
_CHECKS_AT_ONCE = 8


class _Stamp(NamedTuple):
    """What shows that a file is the one that was checked."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int


def open_shard(path: Path) -> ArrowStream:
    """Open a shard and check its columns.

    Raises:
        StoreError: it has columns that no shard has, or lacks some.
        StoreDamagedError: it is gone, or no Arrow stream.
    """
    try:
        stream = open_stream(path)
    except FileNotFoundError as error:
        raise StoreDamagedError(gone_message(path)) from error
    check_columns(path, stream.schema)
    return stream


def check_columns(path: Path | str, schema: pa.Schema) -> None:
    """Make sure that columns are those of a shard.

    Raises:
        StoreError: some are not, or are missing.
    """
    names = schema.names
    needed = _NEEDED + _FACES * ("video" in names)
    types = {field.name: field.type for field in schema}
    problems = {
        "has no column": [name for name in needed if name not in names],
        "has a column that no shard has:": [name for name in names if name not in COLUMNS],
        "has a column of another type:": [
            name for name, kind in types.items() if COLUMNS.get(name, kind) != kind
        ],
        "has a column twice:": [] if len(types) == len(names) else ["see its columns"],
    }
    for problem, columns in problems.items():
        if columns:
            raise StoreError(
                f"{path} is no shard of this package: it {problem} {_listed(columns)}; it has "
                f"{_listed(names)}."
            )


def _listed(names: list[str]) -> str:
    listed = ", ".join(shortened(name, quoted=False) for name in names[:_LISTED])
    return listed + (f", ... ({len(names):,})" if len(names) > _LISTED else "")


def shard_batches(stream: BatchStream) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a shard, whose rows are as its readers need them.

    Raises:
        StoreDamagedError: a batch is damaged or a row is not one of a shard; names it.
    """
    first = 0
    for batch in stream.batches():
        for column, wrong, problem in _row_checks(batch):
            if wrong.any():
                place = f"row {first + int(wrong.argmax())}: the column {column}"
                raise damaged(stream.path, f"{place} {problem}")
        yield batch
        first += batch.num_rows


def _row_checks(batch: pa.RecordBatch) -> Iterator[tuple[str, npt.NDArray[np.bool_], str]]:
    """Yield columns, which of their rows are wrong, and the problem that these have."""
    names = set(batch.schema.names)
    for name in names.difference(_TIMES):
        yield name, _nulls(batch[name]), "is null"
    for name in names & {"audio", "video"}:
        no_bytes = _nulls(batch[name].field("bytes"))
        yield name, no_bytes, "has no bytes; a path in it is never opened"
    for name in _IDS:
        lengths = pc.binary_length(batch[name]).to_numpy(zero_copy_only=False)
        yield name, lengths > _LONGEST_ID, "is no id: it is too long"
    start, end = (batch[name].to_numpy(zero_copy_only=False) for name in _TIMES)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        seconds = end - start
    is_time = np.isfinite(start) & (seconds >= 0) & (seconds <= _LONGEST_SECONDS)
    if any(batch[name].null_count for name in _TIMES):
        is_null = [np.asarray(batch[name].is_null()) for name in _TIMES]
        # Who cut audio for us may not say from where.
        is_time |= is_null[0] & is_null[1] & is_cut_audio(batch)
    yield "end_seconds", ~is_time, "is no time after the start"


def is_cut_audio(rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows somebody else cut: their times may be unknown, or not quite theirs."""
    if "source" not in rows.schema.names:
        return np.zeros(len(rows), np.bool_)
    return np.asarray(pc.equal(rows["source"], CUT_AUDIO))


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values are null: nothing in the usual case that none is."""
    if not column.null_count:
        return np.zeros(0, np.bool_)
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False))


def check_features(path: Path) -> None:
    """Check what ``datasets`` reads in a shard beside Arrow's columns: how it shows their values.

    Raises:
        StoreError: that is not of this package.
        StoreDamagedError: the shard is damaged.
    """
    from datasets import Features

    from voxblink2_lib.store.schema import shard_features

    schema = open_shard(path).schema
    with as_own_error(StoreError, f"{path}: its columns cannot be read by datasets"):
        features = Features.from_arrow_schema(schema)
    if features != shard_features(schema):
        raise StoreError(
            f"{path} is no shard of this package: datasets would read its columns as "
            f"{shortened(str(features), quoted=False)}."
        )


def _check_shard(path: Path) -> None:
    """Read all of a shard but for the bytes of its clips."""
    check_features(path)
    for _ in shard_batches(open_shard(path)):
        pass


class CheckedShards:
    """Shards that were checked, remembered in a file, so that each is read for it only once.

    A shard is known by its file's number, size and time of the last change, which a second name (a
    link in a cache) shares with the first.

    Args:
        memory: the file. It is not written where the disk does not let it.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known = _read_stamps(memory)

    def check(self, shards: Iterable[Path], *, progress: Progress = no_progress) -> None:
        """Check those shards that are new or have changed.

        Args:
            shards: all of them.
            progress: counts those that are checked.

        Raises:
            StoreError: one is no shard of this package.
            StoreDamagedError: one is damaged.
        """
        new = [(path, stamp) for path in shards if (stamp := _stamp(path)) not in self._known]
        if not new:
            return
        with (
            named_system_errors(new[0][0]),
            progress("Checking shards", unit="shard", total=len(new)) as advance,
            ThreadPoolExecutor(_CHECKS_AT_ONCE) as threads,
        ):
            for _ in threads.map(_check_shard, [path for path, _ in new]):
                advance(1)
        self._known |= {stamp for _, stamp in new}
        with contextlib.suppress(OSError, StoreFullError), atomic_write(self._memory) as file:
            file.write(json.dumps(sorted(self._known)).encode())


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise StoreDamagedError(gone_message(path)) from error
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _read_stamps(memory: Path) -> set[_Stamp]:
    try:
        return {_Stamp(*numbers) for numbers in json.loads(memory.read_bytes())}
    except (OSError, ValueError, TypeError):  # none yet, or a half: the shards are checked again
        return set()
