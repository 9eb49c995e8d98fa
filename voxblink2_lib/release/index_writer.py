"""Write the files of an index in row groups, and remember after each where the writing goes on."""

from __future__ import annotations

import csv
import itertools
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib import __version__
from voxblink2_lib.files import atomic_write, short_digest
from voxblink2_lib.foreign_text import csv_cell
from voxblink2_lib.release.annotation_batch import AnnotatedBatch, Reject, duplicate
from voxblink2_lib.release.annotation_files import BatchPlace, PlacedBatch
from voxblink2_lib.release.index import BOX_COLUMNS, UTTERANCE_COLUMNS
from voxblink2_lib.release.parquet_groups import OVERWRITTEN_BYTES, ParquetGroups
from voxblink2_lib.release.row_ranges import RowRanges

UTTERANCES_PER_GROUP = 65_536
BOXES_PER_GROUP = 8_192
# In the folder of an index that is being written: what only its writer reads.
UNFINISHED = "unfinished"
_CHECKPOINT = "checkpoint.json"
# Neighbouring boxes differ little: as differences in few bits they take about 3 bytes instead of
# 8, and are faster to write and to read. benchmarks/index_boxes.py compares the encodings.
BOX_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {
        f"{name}.list.element": "DELTA_BINARY_PACKED" for name in BOX_COLUMNS.names
    },
}
# Other versions may write the same rows as other bytes.
_MADE_BY = f"{__version__}, pyarrow {pa.__version__}"


@dataclass(frozen=True, slots=True)
class Counts:
    """What an index has so far."""

    rows: int = 0
    boxes: int = 0
    frames: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the writing of an index goes on after a stop.

    Attributes:
        signature: of the release.
        place: of the batch that was being written.
        done_files: how many of its files are in the index.
        counts: of the index until there.
        states: how far each part of it is written.
        sizes: bytes of its files, by their names.
        made_by: versions that wrote it.
    """

    signature: str
    place: BatchPlace
    done_files: int
    counts: Counts
    states: dict[str, Any]
    sizes: dict[str, int]
    made_by: str = _MADE_BY

    def has_files(self, folder: Path) -> bool:
        """Return whether none of the files has become shorter.

        Raises:
            OSError: one is not there.
        """
        return all(
            (folder / name).stat().st_size >= size_bytes - OVERWRITTEN_BYTES
            for name, size_bytes in self.sizes.items()
        )

    def as_json(self) -> bytes:
        """Return the contents of the file."""
        record = json.dumps({**asdict(self), "place": self.place.as_dict()})
        return json.dumps({"checkpoint": record, "digest": short_digest(record.encode())}).encode()


def read_checkpoint(folder: Path, signature: str) -> Checkpoint | None:
    """Return where to go on with an index of a release; ``None`` if there is nothing to go on with.

    Args:
        folder: where it is written.
        signature: of the release; the index of another one is of no use.
    """
    try:
        file = json.loads((folder / UNFINISHED / _CHECKPOINT).read_bytes())
        if file["digest"] != short_digest(file["checkpoint"].encode()):
            return None
        record = json.loads(file["checkpoint"])
        place, counts = BatchPlace.from_dict(record["place"]), Counts(**record["counts"])
        checkpoint = replace(Checkpoint(**record), place=place, counts=counts)
        is_of_use = (checkpoint.signature, checkpoint.made_by) == (signature, _MADE_BY)
        return checkpoint if is_of_use and checkpoint.has_files(folder) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


class IndexWriter:
    """Writes utterances and boxes as they are read, and collects each video's row ranges.

    Args:
        folder: of the index.
        signature: of the release.
        checkpoint: where to go on; by default a new index is begun.

    Attributes:
        counts: what is written.
    """

    def __init__(
        self, folder: Path, *, signature: str = "", checkpoint: Checkpoint | None = None
    ) -> None:
        self._signature = signature
        self._state_folder = folder / UNFINISHED
        self._state_folder.mkdir(parents=True, exist_ok=True)
        self._begin = checkpoint
        states = checkpoint.states if checkpoint else {}
        self.counts = checkpoint.counts if checkpoint else Counts()
        self._ranges = RowRanges(self._state_folder / "ranges.arrow", states.get("ranges"))
        self._tables = [
            self._table("utterances", UTTERANCE_COLUMNS, UTTERANCES_PER_GROUP, states),
            self._table("boxes", BOX_COLUMNS, BOXES_PER_GROUP, states, **BOX_OPTIONS),
        ]
        rejects = folder / "rejects.csv"
        if checkpoint:
            os.truncate(rejects, states["rejects"])
        self._rejects_file = open(  # noqa: SIM115  # closed in __exit__
            rejects, "a" if checkpoint else "w", newline="", encoding="utf-8"
        )
        self._rejects = csv.writer(self._rejects_file)
        if not checkpoint:
            self._rejects.writerow(["path", "reason"])

    def _table(
        self,
        name: str,
        schema: pa.Schema,
        rows_per_group: int,
        states: dict[str, Any],
        **options: Any,
    ) -> _Table:
        groups = ParquetGroups(
            self._state_folder.parent / f"{name}.parquet",
            self._state_folder / f"{name}.groups",
            schema,
            options={"compression": "zstd", **options},
            state=states.get(name),
        )
        return _Table(name, groups, schema, rows_per_group)

    def take(self, placed: PlacedBatch, annotated: AnnotatedBatch) -> None:
        """Write what the files of the next batch say."""
        rows, rejects = self._new(placed, annotated)
        first = 0
        while first < len(rows):
            count = min(len(rows) - first, *(table.room for table in self._tables))
            part = rows.slice(first, count)
            first += count
            done_files = part["file"][-1].as_py() + 1
            self._append(part)
            while rejects and rejects[0].file < done_files:
                self._reject(rejects.pop(0))
            if all(table.is_flushed for table in self._tables):
                self._save(placed.place, done_files)
        for reject in rejects:
            self._reject(reject)

    def add(self, rows: pa.RecordBatch) -> None:
        """Write rows of another index: the columns of ``ROW_COLUMNS``, without ``file``."""
        while len(rows):
            count = min(len(rows), *(table.room for table in self._tables))
            self._append(rows.slice(0, count))
            rows = rows.slice(count)

    def _new(
        self, placed: PlacedBatch, annotated: AnnotatedBatch
    ) -> tuple[pa.RecordBatch, list[Reject]]:
        """Return a batch without what an earlier run or the batch before has written."""
        rows, rejects = annotated
        if self._begin is not None:
            done = self._begin.done_files
            rows = rows.filter(pc.greater_equal(rows["file"], done))
            rejects = [reject for reject in rejects if reject.file >= done]
            self._begin = None
        if known := self._ranges.known(rows):
            files = rows["file"].take(pa.array(known)).to_pylist()
            rows = rows.filter(~np.isin(np.arange(len(rows)), known))
            again = [duplicate(placed.batch, file) for file in files]
            rejects = sorted([*rejects, *again], key=lambda reject: reject.file)
        return rows, list(rejects)

    def _append(self, rows: pa.RecordBatch) -> None:
        self._ranges.add(rows)
        for table in self._tables:
            table.append(rows)
        frames = pc.sum(pc.subtract(rows["last_frame"], rows["first_frame"])).as_py() + len(rows)
        self.counts = replace(
            self.counts,
            rows=self.counts.rows + len(rows),
            boxes=self.counts.boxes + pc.sum(pc.list_value_length(rows["frame"])).as_py(),
            frames=self.counts.frames + frames,
        )

    def _reject(self, reject: Reject) -> None:
        self._rejects.writerow([csv_cell(reject.path), csv_cell(reject.reason)])
        self.counts = replace(self.counts, rejected=self.counts.rejected + 1)

    def _save(self, place: BatchPlace, done_files: int) -> None:
        self._rejects_file.flush()
        os.fsync(self._rejects_file.fileno())
        states = {
            "rejects": os.fstat(self._rejects_file.fileno()).st_size,
            "ranges": self._ranges.flush(),
            **{table.name: table.groups.flush() for table in self._tables},
        }
        folder = self._state_folder.parent
        paths = [*folder.iterdir(), *self._state_folder.glob("[!.]*")]
        checkpoint = Checkpoint(
            signature=self._signature,
            place=place,
            done_files=done_files,
            counts=self.counts,
            states=states,
            sizes={
                f"{path.relative_to(folder)}": path.stat().st_size
                for path in paths
                if path.is_file() and path.name != _CHECKPOINT
            },
        )
        with atomic_write(self._state_folder / _CHECKPOINT) as file:
            file.write(checkpoint.as_json())

    def finish(self) -> pa.Table:
        """Complete the files; return the table of videos, see :meth:`RowRanges.by_video`."""
        self._rejects_file.flush()
        for table in self._tables:
            table.finish()
        return self._ranges.by_video()

    def first_reject(self) -> str:
        """Return path and reason of the first file that is left out."""
        self._rejects_file.flush()
        with open(self._rejects_file.name, newline="", encoding="utf-8") as file:
            _, (path, reason) = itertools.islice(csv.reader(file), 2)
        return f"the first, {path}: {reason}"

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rejects_file.close()


class _Table:
    """Rows that are written in groups of one size."""

    def __init__(
        self, name: str, groups: ParquetGroups, schema: pa.Schema, rows_per_group: int
    ) -> None:
        self.name = name
        self.groups = groups
        self._columns = schema.names
        self._rows: list[pa.RecordBatch] = []
        self.room = self._rows_per_group = rows_per_group

    @property
    def is_flushed(self) -> bool:
        return not self._rows

    def append(self, rows: pa.RecordBatch) -> None:
        self._rows.append(rows.select(self._columns))
        self.room -= len(rows)
        if not self.room:
            self._flush()

    def _flush(self) -> None:
        # In one piece, as the bytes of a group depend on the pieces of its columns.
        self.groups.write(pa.concat_batches(self._rows))
        self._rows = []
        self.room = self._rows_per_group

    def finish(self) -> None:
        if self._rows:
            self._flush()
        self.groups.finish()
