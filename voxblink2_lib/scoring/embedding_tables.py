"""Read embeddings from tables: Parquet files, and data sets of Hugging Face."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size, shortened
from voxblink2_lib.scoring.embedding_files import NamedVectors, parquet_files

NAME_COLUMNS = ("name", "utterance", "utterance_id", "utt", "key", "id")
VECTOR_COLUMNS = ("embedding", "embeddings", "xvector", "vector")
# Its state is what makes a folder a saved data set.
DATASET_STATE = "state.json"

# A few at a time take less time and memory than a whole file, however large its groups of rows are.
_ROWS_AT_ONCE = 8_192

_TEXT_TYPE = re.compile(r"(large_)?string|dictionary<values=(large_)?string, .*")
_LIST_TYPE = re.compile(r"(large_|fixed_size_)?list<[^<]*: (halffloat|float|double|u?int\d+)\b.*")


def read_parquet(path: Path) -> Iterator[NamedVectors]:
    """Yield the rows of a Parquet file, or of each one in a folder, some at a time.

    Raises:
        ScoringError: a file is broken, the columns cannot be identified, or a row has no name or
            another number of values.
    """
    for file in parquet_files(path):
        with _parquet(file) as (parquet, columns):
            first = 0
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns):
                yield from _named_vectors(file, batch, columns, first)
                first += len(batch)


def is_parquet(path: Path) -> bool:
    """Return whether a file, or each one in a folder that is no data set, is called Parquet."""
    suffixes = {file.suffix.lower() for file in parquet_files(path)}
    return suffixes == {".parquet"} and not (path / DATASET_STATE).is_file()


def count_rows(path: Path) -> int:
    """Return the number of rows of a Parquet file, or of all in a folder.

    Raises:
        ScoringError: see :func:`read_parquet`.
    """
    rows = 0
    for file in parquet_files(path):
        with _parquet(file) as (parquet, _):
            rows += int(parquet.metadata.num_rows)
    return rows


@contextlib.contextmanager
def _parquet(file: Path) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """Open a file, and yield it with the columns of names and of vectors."""
    with (
        as_own_error(ScoringError, f"{file}: cannot be read as Parquet"),
        pq.ParquetFile(file, pre_buffer=False) as parquet,
    ):
        check_parquet_size(file, parquet.metadata)
        yield parquet, [*vector_columns(file, parquet.schema_arrow)]


def read_dataset(path: Path) -> Iterator[NamedVectors]:
    """Yield the rows of a data set that ``Dataset.save_to_disk`` of Hugging Face wrote.

    Raises:
        ScoringError: a file is missing or broken, or the columns cannot be identified.
    """
    for file in dataset_files(path):
        with (
            as_own_error(ScoringError, f"{file}: cannot be read as Arrow"),
            pa.memory_map(str(file)) as source,
            pa.ipc.open_stream(source) as stream,
        ):
            columns, first = [*vector_columns(file, stream.schema)], 0
            for batch in stream:
                yield from _named_vectors(file, batch, columns, first)
                first += len(batch)


def dataset_files(path: Path) -> list[Path]:
    """Return the Arrow files of a saved data set.

    Raises:
        ScoringError: its state is missing or broken, or it is a selection of rows.
    """
    with as_own_error(ScoringError, f"{path}: cannot be read as a saved data set"):
        state = json.loads((path / DATASET_STATE).read_text("utf-8"))
        if state.get("_indices_data_files"):
            raise ValueError("it is a selection. Save it again after 'flatten_indices()'")
        return [path / Path(part["filename"]).name for part in state["_data_files"]]


# -- Columns ---------------------------------------------------------------------------------------


def vector_columns(file: Path, schema: pa.Schema) -> Iterator[str]:
    """Yield the column of names and the column of vectors."""
    for kind, preferred in ((_TEXT_TYPE, NAME_COLUMNS), (_LIST_TYPE, VECTOR_COLUMNS)):
        matches = [field.name for field in schema if kind.fullmatch(str(field.type))]
        matches = [name for name in preferred if name in matches][:1] or matches
        if len(matches) != 1:
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            columns = shortened(columns, quoted=False)
            raise ScoringError(
                f"{file}: expected a column of strings ({', '.join(NAME_COLUMNS)}) and a column "
                f"of lists of numbers ({', '.join(VECTOR_COLUMNS)}), or only one of each kind. "
                f"Got {columns or 'no columns'}. Rename the columns."
            )
        yield matches[0]


def _named_vectors(
    file: Path, batch: pa.RecordBatch, columns: Sequence[str], first: int
) -> Iterator[NamedVectors]:
    """Yield the rows of a batch, if it has any; the first has this number in the file."""
    batch.validate(full=True)
    texts, lists = map(batch.column, columns)
    if names := texts.to_pylist():
        numbers = _numbers(file, texts, lists, names, first)
        # Copied: what Arrow reads into may be twice as large, or a file that is closed.
        yield names, numbers.to_numpy().reshape(len(names), -1).copy()


def _numbers(
    file: Path, texts: pa.Array, lists: pa.Array, names: list[str], first: int
) -> pa.Array:
    """Return the numbers of all rows, each of which must have a name and as many as the first."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    numbers = pc.list_flatten(lists)
    for rows, problem in (
        (np.flatnonzero(texts.is_null()), "no name"),
        (np.flatnonzero(lengths == 0), "no embedding"),
        (np.flatnonzero(lengths != lengths[0]), "{} numbers, but row {} ({}) has {}"),
        (_rows_with_nulls(numbers, lengths[0] or 1), "a null among its numbers"),
    ):
        for row in rows[:1].tolist():
            details = problem.format(lengths[row], first, shortened(names[0]), lengths[0])
            raise ScoringError(
                f"{file}: row {first + row} ({shortened(names[row])}) has {details}. Compute it "
                "again."
            )
    return numbers


def _rows_with_nulls(numbers: pa.Array, dimensions: int) -> npt.NDArray[Any]:
    places = np.flatnonzero(numbers.is_null()) if numbers.null_count else np.empty(0, np.int64)
    return places // dimensions
