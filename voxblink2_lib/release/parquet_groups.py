"""Write a Parquet file a row group at a time, such that each group outlives a kill.

What makes a Parquet file readable is the list of its groups at its very end. Here the entries of
that list are kept in a second file until all groups are written: after a stop, a writer goes on
behind the last group that was flushed. The file is byte for byte what one writer would have written
at once.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_MAGIC = b"PAR1"
# So many bytes before its end may be missing in the file of a writer that was stopped.
OVERWRITTEN_BYTES = len(_MAGIC)
_SIZE = struct.Struct("<I")
_END_BYTES = _SIZE.size + len(_MAGIC)


class ParquetGroups:
    """A Parquet file that grows by row groups.

    Args:
        path: the file.
        entries: the file of the groups' entries.
        schema: its columns.
        options: other arguments of ``pyarrow.parquet.ParquetWriter``.
        state: where to go on, as :meth:`flush` returned it; by default a new file is begun.
    """

    def __init__(
        self,
        path: Path,
        entries: Path,
        schema: pa.Schema,
        *,
        options: dict[str, Any],
        state: dict[str, Any] | None = None,
    ) -> None:
        self._path, self._entries = path, entries
        self._schema, self._options = schema, options
        if state is None:
            path.write_bytes(_MAGIC)
            entries.write_bytes(b"")
            self._size_bytes, self._last_bytes = len(_MAGIC), _MAGIC
        else:
            self._size_bytes = state["size_bytes"]
            self._last_bytes = bytes.fromhex(state["last_bytes"])
            os.truncate(entries, state["entries_bytes"])
            self._end_at(self._size_bytes)

    def _end_at(self, size_bytes: int) -> None:
        """Remove what is behind the groups, and put back what a writer may have overwritten."""
        with open(self._path, "r+b") as file:
            file.seek(self._size_bytes - len(_MAGIC))
            file.write(self._last_bytes)
            file.truncate(size_bytes)

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows as one group."""
        collected: list[pq.FileMetaData] = []
        # A writer begins a file with four bytes that only the first may add: they take the place of
        # the four before the group, and those are put back.
        os.truncate(self._path, self._size_bytes - len(_MAGIC))
        with pa.OSFile(os.fspath(self._path), "ab") as sink:
            # It refuses to begin elsewhere than at 0. In this mode all goes to the end anyway.
            os.lseek(sink.fileno(), 0, os.SEEK_SET)
            with pq.ParquetWriter(
                sink, self._schema, metadata_collector=collected, **self._options
            ) as writer:
                writer.write_batch(rows)
        with open(self._path, "rb") as file:
            size_bytes = _data_bytes(file)
        self._end_at(size_bytes)
        with open(self._path, "rb") as file:
            file.seek(size_bytes - len(_MAGIC))
            self._size_bytes, self._last_bytes = size_bytes, file.read()
        with open(self._entries, "ab") as entries:
            entry = _as_file(collected[0])
            entries.write(_SIZE.pack(len(entry)) + entry)

    def flush(self) -> dict[str, Any]:
        """Flush what is written to the disk, and return where it ends, as a JSON object."""
        for path in (self._path, self._entries):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        return {
            "size_bytes": self._size_bytes,
            "last_bytes": self._last_bytes.hex(),
            "entries_bytes": self._entries.stat().st_size,
        }

    def finish(self) -> None:
        """Write the list of the groups, of which there is at least one."""
        groups: pq.FileMetaData | None = None
        with open(self._entries, "rb") as entries:
            while size := entries.read(_SIZE.size):
                entry = pq.read_metadata(io.BytesIO(entries.read(*_SIZE.unpack(size))))
                if groups is None:
                    groups = entry
                else:
                    groups.append_row_groups(entry)
        with open(self._path, "ab") as file:
            file.write(_as_file(groups)[len(_MAGIC) :])


def _data_bytes(file: BinaryIO) -> int:
    """Return the size of a Parquet file without the list at its end."""
    end = file.seek(-_END_BYTES, os.SEEK_END)
    return end - int(*_SIZE.unpack(file.read(_SIZE.size)))


def _as_file(groups: pq.FileMetaData) -> bytes:
    """Return the list of groups as a Parquet file without data."""
    file = io.BytesIO()
    groups.write_metadata_file(file)
    return file.getvalue()
