"""Read Arrow streams that anybody may have written: nothing in them is used before it is checked.

Arrow reads what a file claims. One wrong offset ends the process when the value is used, and a
compressed column takes as much memory as it says. So a stream is read message by message, and each
batch is validated before it is handed out. Nothing is copied: the values stay in the mapped file.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from voxblink2_lib.errors import StoreDamagedError, VoxBlink2Error, first_line
from voxblink2_lib.files import system_error
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.store.advice import repair_advice

# End of an Arrow stream; one truncated between two batches lacks it.
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
# An Arrow file is this, a stream, and an index of the stream.
_FILE_BEGINNING = b"ARROW1\0\0"

# Positions of fields in Arrow's Message.fbs, and the number of a type of message there.
_HEADER_TYPE, _HEADER = 1, 2  # of Message
_COMPRESSION = 3  # of RecordBatch
_ROWS_OF_DICTIONARY = 1  # of DictionaryBatch: a RecordBatch
_SCHEMA, _DICTIONARY = 1, 2


class BatchStream(Protocol):
    """An Arrow stream, here or at a URL.

    Attributes:
        path: the file, or its URL without secrets.
    """

    @property
    def path(self) -> Path | str:
        """The file, or its URL without secrets."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches, each of them valid."""


@dataclass(frozen=True, slots=True)
class ArrowStream:
    """A memory-mapped Arrow stream file.

    Attributes:
        path: the file.
        whole: its bytes.
        schema: its columns; whoever uses them checks their names and types.
    """

    path: Path
    whole: pa.Buffer
    schema: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches, each of them valid and in place.

        Raises:
            StoreDamagedError: one is not valid, is compressed, or refers to a dictionary; or the
                stream has no end, or bytes after it.
        """
        file = pa.BufferReader(self.whole)
        yield from read_batches(file, self.schema, self.path)
        if file.tell() != self.whole.size or not self._has_end():
            raise damaged(self.path, "it is truncated, or has bytes after its end")

    def after_columns(self) -> pa.Buffer:
        """Return the bytes after the message that has the columns."""
        file = pa.BufferReader(self.whole)
        pa.ipc.read_message(file)
        return self.whole.slice(file.tell())

    def _has_end(self) -> bool:
        end = self.whole.slice(max(0, self.whole.size - len(END_OF_STREAM)))
        return bool(end.to_pybytes() == END_OF_STREAM)


def open_stream(path: Path) -> ArrowStream:
    """Memory-map an Arrow stream file.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the system does not let it be read, whatever is in it.
        StoreDamagedError: it is no such stream, or has columns that refer to dictionaries.
    """
    with _named(path, "its columns"), pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    return ArrowStream(path, whole, read_schema(whole, path))


def read_schema(beginning: pa.Buffer, path: Path | str) -> pa.Schema:
    """Return the columns of a stream, which come first in it.

    Args:
        beginning: its first bytes.
        path: the file or its URL, for messages.

    Raises:
        StoreDamagedError: it is no such stream, or has columns that refer to dictionaries.
    """
    with _named(path, "its columns"):
        # A dictionary would have to be read before the first batch.
        schema = pa.ipc.read_schema(pa.BufferReader(beginning))
        dictionaries = [field.name for field in _all_fields(schema) if _is_dictionary(field)]
    if dictionaries:
        column = shortened(dictionaries[0])
        raise damaged(path, f"the column {column} is in a dictionary; write it plain")
    return schema


def read_batches(
    file: pa.NativeFile, schema: pa.Schema, path: Path | str
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream, each of them valid.

    Args:
        file: the stream, from its beginning.
        schema: its columns.
        path: the file or its URL, for messages.

    Raises:
        StoreDamagedError: one is not valid, is compressed, or refers to a dictionary.
    """
    messages = pa.ipc.MessageReader.open_stream(file)
    for number in itertools.count(-1):  # the schema comes first
        with _named(path, f"batch {number}"):
            try:
                message = messages.read_next_message()
            except StopIteration:
                return
            if number < 0:
                continue
            batch = _batch(message, schema, path)
        yield batch


def _batch(message: pa.ipc.Message, schema: pa.Schema, path: Path | str) -> pa.RecordBatch:
    if message.type != "record batch":
        raise damaged(path, f"it has a message of the type {message.type!r}")
    if is_compressed(message.metadata):
        raise damaged(path, "it has a compressed batch; shards are not compressed")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return batch


def read_plain_file(path: Path, schema: pa.Schema) -> pa.Table:
    """Memory-map an Arrow file of known columns, without compression and nulls.

    Its index at the end is not used: it could name other bytes than those that are checked.

    Raises:
        OSError, ValueError, pa.ArrowException, struct.error: it is no such file.
    """
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    if bytes(memoryview(whole)[: len(_FILE_BEGINNING)]) != _FILE_BEGINNING:
        raise ValueError("it is no Arrow file")
    stream = whole.slice(len(_FILE_BEGINNING))
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(stream)):
        if is_compressed(message.metadata):
            raise ValueError("it is compressed")
    reader = pa.ipc.open_stream(pa.BufferReader(stream))
    if not reader.schema.equals(schema):
        raise ValueError("it has other columns")
    table = reader.read_all()
    table.validate(full=True)
    if any(column.null_count for column in table.itercolumns()):
        raise ValueError("it has a null")
    return table


def damaged(path: Path | str, problem: str) -> StoreDamagedError:
    """Return the error of an Arrow file, or one at a URL, that is not as it was written."""
    advice = repair_advice(path) if isinstance(path, Path) else "Publish its store again."
    return StoreDamagedError(f"The file {path} is damaged ({problem}). {advice}")


@contextlib.contextmanager
def _named(path: Path | str, place: str) -> Iterator[None]:
    """Turn whatever Arrow raises on a broken file into an error that names it."""
    try:
        yield
    except (VoxBlink2Error, FileNotFoundError):
        raise
    except Exception as error:  # a broken file makes nearly any of Arrow's and Python's errors
        if isinstance(path, Path) and (named := system_error(error, path)):
            raise named from error
        raise damaged(path, f"{place}: {shortened(first_line(error), quoted=False)}") from error


def _all_fields(parent: pa.Schema | pa.DataType) -> Iterator[pa.Field]:
    """Yield columns and what is in them; one whose name is no text is an error here, not later."""
    count = len(parent) if isinstance(parent, pa.Schema) else parent.num_fields
    for field in map(parent.field, range(count)):
        field.name.isprintable()
        yield field
        yield from _all_fields(field.type)


def _is_dictionary(field: pa.Field) -> bool:
    return bool(pa.types.is_dictionary(field.type))


def is_compressed(metadata: pa.Buffer) -> bool:
    """Return whether a record batch says that its buffers are compressed.

    PyArrow has no function for it, and a compressed buffer is expanded when the batch is read. The
    metadata is a flatbuffer, which Arrow has verified: tables that begin with the distance to
    their list of the positions of fields.
    """
    data = memoryview(metadata)
    message = _number(data, "<I", 0)
    kind = _number(data, "<B", _field(data, message, _HEADER_TYPE))
    if kind == _SCHEMA:
        return False
    rows = _table(data, message, _HEADER)
    if kind == _DICTIONARY:
        rows = _table(data, rows, _ROWS_OF_DICTIONARY)
    return _field(data, rows, _COMPRESSION) != 0


def _table(data: memoryview, table: int, index: int) -> int:
    """Return the position of a table that is a field of a table."""
    position = _field(data, table, index)
    return position + _number(data, "<I", position)


def _field(data: memoryview, table: int, index: int) -> int:
    """Return the position of a field of a flatbuffer's table; 0 if it is not there."""
    fields = table - _number(data, "<i", table)
    slot = 4 + 2 * index
    if slot >= _number(data, "<H", fields):
        return 0
    distance = _number(data, "<H", fields + slot)
    return table + distance if distance else 0


def _number(data: Any, kind: str, position: int) -> int:
    (number,) = struct.unpack_from(kind, data, position)
    return int(number)
