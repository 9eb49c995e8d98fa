"""Embeddings that may be more than fit in memory: vectors stay on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.embedding_files import parquet_files
from voxblink2_lib.scoring.embedding_tables import count_rows, is_parquet, read_parquet
from voxblink2_lib.scoring.embeddings import read_embeddings
from voxblink2_lib.scoring.validation import Floats, row_not_finite


class StoredVectors(NamedTuple):
    """Embeddings of which few are in memory at a time.

    Attributes:
        names: of the utterances. Shape: [utterances].
        vectors: float32, all finite; mapped from a file. Shape: [utterances, dimensions].
    """

    names: pa.ChunkedArray
    vectors: Floats


@contextlib.contextmanager
def stored_vectors(
    path: str | Path, *, names: str | Path | None = None, progress: Progress = no_progress
) -> Iterator[StoredVectors]:
    """Read embeddings as :func:`read_embeddings` does, but for what is in memory.

    Arrays are mapped as they are. The vectors of Parquet are unpacked into a temporary file, in
    ``$TMPDIR``, which is gone in the end.

    Args:
        path: the file, or a folder of Parquet files.
        names: of the rows; see :func:`read_embeddings`.
        progress: shows the vectors read.

    Raises:
        ScoringError: the file is missing, broken, or not of its format.
    """
    path = Path(path)
    if names or not is_parquet(path):
        embeddings = read_embeddings(path, names=names, progress=progress)
        yield StoredVectors(pa.chunked_array([embeddings.names]), embeddings.vectors)
        return
    for file in parquet_files(path):
        if not file.is_file():
            raise ScoringError(f"{file}: this file does not exist")
    with tempfile.TemporaryFile() as spool:
        parts, dimensions = _unpack(path, spool, progress)
        shape = (sum(map(len, parts)), dimensions)
        mapped = np.memmap(spool, np.float32, "r", shape=shape)
        yield StoredVectors(pa.chunked_array(parts), mapped)


def _unpack(path: Path, spool: IO[bytes], progress: Progress) -> tuple[list[pa.Array], int]:
    """Write the vectors of files to another; return the names, and the number of dimensions."""
    parts, dimensions = [], 0
    with progress("Unpacking", unit="vector", total=count_rows(path)) as advance:
        for part, vectors in read_parquet(path):
            dimensions = dimensions or vectors.shape[1]
            _check(path, part, vectors, dimensions)
            spool.write(np.ascontiguousarray(vectors, np.float32).data)
            parts.append(pa.array(part))
            advance(len(part))
    if not parts:
        raise ScoringError(f"{path}: it contains no embeddings")
    spool.flush()
    return parts, dimensions


def _check(path: Path, names: list[str], vectors: Floats, dimensions: int) -> None:
    if vectors.shape[1] != dimensions:
        raise ScoringError(
            f"{path}: {shortened(names[0])} has {vectors.shape[1]} numbers, but others have "
            f"{dimensions}. All must be of the same model."
        )
    if (row := row_not_finite(vectors)) is not None:
        raise ScoringError(
            f"{path}: {shortened(names[row])} has a number that is not finite. Compute it again, "
            "or leave it out."
        )
