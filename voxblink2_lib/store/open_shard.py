"""A shard that is being written, row after row, and goes on after a kill where it was committed.

::

    parts/<config>/<job>/rows.arrow       the shard, as far as it has come: whole batches
    parts/<config>/<job>/waiting.<n>.arrow    rows that are too few for a batch, when n rows were
                                              committed; of the last commit and the one before

What was written after the last commit is cut off. A kill between the files and the ledger leaves
the rows that wait of both. The bytes are those of a shard that is sealed
from part files with the same rows (:func:`~voxblink2_lib.store.shards.seal_shard`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import HashingWriter, WriteBehind, atomic_write, sha256_of, sync_folder
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.arrow_stream import END_OF_STREAM, open_stream
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.row_batches import RowBatches
from voxblink2_lib.store.row_digests import row_digests, row_names
from voxblink2_lib.store.shards import read_batches

ROWS, WAITING = "rows.arrow", "waiting.*.arrow"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardState:
    """What was committed of a shard.

    Attributes:
        size_bytes: of the file, up to the end of a batch, or of all.
        sha256: of these bytes.
        rows: number of all rows, those that wait included.
        waiting_sha256: of the file with the rows that wait.
        is_finished: nothing is added any more.
    """

    size_bytes: int = 0
    sha256: str = ""
    rows: int = 0
    waiting_sha256: str = ""
    is_finished: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return asdict(self)


def waiting_file(folder: Path, rows: int) -> Path:
    """Return the file of the rows that wait when so many rows were committed."""
    return folder / WAITING.replace("*", str(rows))


class OpenShard:
    """Writes the rows of one job. A context manager, which closes the file and keeps it.

    Args:
        folder: that of the parts of the job.
        schema: columns of the rows.
        state: what was committed; nothing by default.

    Attributes:
        digests: of each row by its utterance's name, in order.

    Raises:
        StoreDamagedError: the files are not as they were committed.
    """

    def __init__(self, folder: Path, schema: pa.Schema, state: ShardState | None = None) -> None:
        self._folder = folder
        self._schema = schema
        self._batches = RowBatches(schema)
        self.digests: dict[str, bytes] = {}
        # That of the last commit.
        self._waiting: Path | None = None
        folder.mkdir(parents=True, exist_ok=True)
        state = state or ShardState()
        try:
            self._file: BinaryIO = open(  # noqa: SIM115  # see __exit__
                folder / ROWS, "r+b" if state.size_bytes else "wb"
            )
        except FileNotFoundError as error:
            raise self._damaged() from error
        self._to_disk = WriteBehind(self._file)
        self._sink = _Sink(self._file)
        self._writer = pa.ipc.new_stream(self._sink, schema)
        try:
            columns = memoryview(schema.serialize())
            if state.size_bytes:
                self._go_on(state)
            else:
                self._sink.write(columns)
            # The writer begins with them at its first batch.
            self._sink.left_out_bytes = len(columns)
            self._put_back(state)
        except BaseException:
            self.__exit__()
            raise

    def _go_on(self, state: ShardState) -> None:
        """Take up what was committed, and cut off what was written later."""
        self._file.truncate(state.size_bytes)
        self._file.seek(0)
        while block := self._file.read(_COPY_BYTES):
            self._sink.take_note(block)
        if (self._sink.size_bytes, self._sink.sha256) != (state.size_bytes, state.sha256):
            raise self._damaged()
        for batch in _batches_of(self._folder / ROWS, self._schema):
            self._note(batch, row_digests(batch))

    def _put_back(self, state: ShardState) -> None:
        """Add the rows that waited at the last commit."""
        if not state.rows:
            return
        waiting = self._waiting = waiting_file(self._folder, state.rows)
        if not waiting.exists() or sha256_of(waiting) != state.waiting_sha256:
            raise self._damaged()
        for batch in _waiting_rows(waiting, self._schema):
            self.add(batch)
        if len(self.digests) != state.rows:
            raise self._damaged()

    def _damaged(self) -> StoreDamagedError:
        return StoreDamagedError(f"The file {self._folder / ROWS} is not as it was committed.")

    def __enter__(self) -> OpenShard:
        return self

    def __exit__(self, *_: object) -> None:
        self._to_disk.close()
        self._file.close()

    def add(self, rows: pa.RecordBatch, digests: Sequence[bytes] | None = None) -> None:
        """Add the rows of one video.

        Args:
            rows: the rows.
            digests: of each row, where they are known.
        """
        self._note(rows, row_digests(rows) if digests is None else digests)
        for batch in self._batches.add(rows):
            self._writer.write_batch(batch)
            self._to_disk.begin()

    def _note(self, rows: pa.RecordBatch, digests: Sequence[bytes]) -> None:
        self.digests.update(zip(row_names(rows), digests, strict=True))

    def commit(self, *, is_finished: bool = False) -> ShardState:
        """Flush all rows to disk, and return what to keep of them.

        Args:
            is_finished: no row is added any more.
        """
        if is_finished:
            for batch in self._batches.finish():
                self._writer.write_batch(batch)
            self._writer.close()
        self._to_disk.finish()
        path = waiting_file(self._folder, len(self.digests))
        for other in self._folder.glob(WAITING):
            if other not in {path, self._waiting}:
                other.unlink()
        self._waiting = path
        with atomic_write(path) as file:
            waiting = HashingWriter(file)
            for message in (self._schema, *self._batches.waiting()):
                waiting.write(memoryview(message.serialize()))
            waiting.write(END_OF_STREAM)
        return ShardState(
            size_bytes=self._sink.size_bytes,
            sha256=self._sink.sha256,
            rows=len(self.digests),
            waiting_sha256=waiting.sha256,
            is_finished=is_finished,
        )


class _Sink(HashingWriter):
    """A file in which the beginning of what is written may be already.

    Attributes:
        left_out_bytes: so many bytes of what is written next are there.
    """

    left_out_bytes = 0

    def write(self, data: Any) -> int:
        """Write and hash what is not there."""
        size_bytes = len(data)
        left_out = min(self.left_out_bytes, size_bytes)
        self.left_out_bytes -= left_out
        if left_out < size_bytes:
            super().write(memoryview(data)[left_out:] if left_out else data)
        return size_bytes


def _batches_of(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Return the batches of a stream that has no end yet; its bytes are those that were written."""
    stream = open_stream(path)
    reader = pa.ipc.open_stream(pa.BufferReader(stream.whole))
    if not reader.schema.equals(schema):
        raise StoreDamagedError(f"The file {path} has other columns than the clips of this store.")
    batches = []
    while True:
        try:
            batches.append(reader.read_next_batch())
        except StopIteration:
            return batches


def _waiting_rows(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    batches = read_batches(path)
    return [pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches]


def seal_open_shard(
    folder: Path, job: int, target: Path, state: ShardState, digests: dict[str, bytes] | None
) -> SealedShard:
    """Give a finished shard its name, and return its entry in the ledger.

    Args:
        folder: that of the parts of the job.
        job: number of the job.
        target: the shard, which may have its name already, if a run was killed then.
        state: what was committed of it.
        digests: of its rows; they are read where they are not known.

    Raises:
        StoreDamagedError: it is neither here nor there.
    """
    if not state.rows:
        return SealedShard(job, "", "", 0, 0)
    path = folder / ROWS
    if path.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_checksum(target, state.sha256)
        os.replace(path, target)
        sync_folder(target.parent)
    if digests is None:
        digests = {
            name: digest
            for batch in read_batches(target)
            for name, digest in zip(row_names(batch), row_digests(batch), strict=True)
        }
    return SealedShard(job, target.name, state.sha256, state.rows, state.size_bytes, digests)


def open_shard_problem(folder: Path, state: ShardState) -> str:
    """Return how the files of an open shard differ from what was committed; empty if they do not.

    Args:
        folder: that of the parts of the job.
        state: what was committed.
    """
    rows, waiting = folder / ROWS, waiting_file(folder, state.rows)
    try:
        with open(rows, "rb") as file:
            writer, left = HashingWriter(file), state.size_bytes
            while left and (block := file.read(min(left, _COPY_BYTES))):
                writer.take_note(block)
                left -= len(block)
        if left or writer.sha256 != state.sha256:
            return f"The file {rows} is damaged: its checksum differs."
        if sha256_of(waiting) != state.waiting_sha256:
            return f"The file {waiting} is damaged: its checksum differs."
    except OSError as error:
        return f"The files of the open job in {folder} cannot be read: {error.strerror}."
    return ""
