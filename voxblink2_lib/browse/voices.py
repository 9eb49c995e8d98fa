"""Compare the utterances of a speaker by their embeddings, of which those of all stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from voxblink2_lib.browse.query import utterance_of
from voxblink2_lib.errors import ScoringError, SelectionError, VoxBlink2Error
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size
from voxblink2_lib.records import UtteranceKey, is_speaker_id
from voxblink2_lib.scoring.embedding_tables import vector_columns
from voxblink2_lib.scoring.embeddings import Embeddings, read_embeddings
from voxblink2_lib.scoring.validation import row_not_finite

Vectors = npt.NDArray[np.float32]

# A picture of more is no picture.
MOST_UTTERANCES = 400
_LEAST_UTTERANCES = 2


@dataclass(frozen=True, slots=True, eq=False)
class ComparedVoices:
    """The utterances of a speaker, compared with each other.

    Attributes:
        keys: the utterances, sorted.
        cosines: of each with each, shape (n, n).
        own: cosine of each with the mean of the others, shape (n,).
        points: two directions in which they differ most, by principal components, shape (n, 2).
        shares: how much of all differences is along each, from 0 to 1.
        left_out: how many more utterances have an embedding.
    """

    keys: tuple[UtteranceKey, ...]
    cosines: Vectors
    own: Vectors
    points: Vectors
    shares: tuple[float, float]
    left_out: int

    @property
    def videos(self) -> list[str]:
        """The video of each utterance."""
        return [key.video_id for key in self.keys]

    @property
    def farthest_first(self) -> list[tuple[UtteranceKey, float]]:
        """The utterances with their cosines, the farthest from the others first."""
        order = np.argsort(self.own, kind="stable").tolist()
        return [(self.keys[row], float(self.own[row])) for row in order]


class Voices:
    """Embeddings of the utterances of a store.

    Args:
        path: a file of them, or a folder of Parquet files, as ``voxblink2 embed`` writes.
        names: of its rows; see :func:`voxblink2_lib.scoring.read_embeddings`.
    """

    def __init__(self, path: Path, *, names: Path | None = None) -> None:
        self._path = path
        self._names = names

    def compare(self, speaker_id: str) -> ComparedVoices:
        """Compare the utterances of a speaker.

        Raises:
            SelectionError: there is no such speaker.
            ScoringError: the file cannot be read, or has fewer than two utterances of the speaker.
        """
        if not is_speaker_id(speaker_id):
            raise SelectionError(
                f"{speaker_id[:40]!r} is no speaker. Write an id such as id000002."
            )
        names, vectors = self._of_speaker(speaker_id)
        keys, rows = _utterances(names, speaker_id)
        if len(keys) < _LEAST_UTTERANCES:
            raise ScoringError(
                f"{self._path} has {len(keys)} embeddings of utterances of {speaker_id}; two or "
                "more can be compared."
            )
        return _compared(keys[:MOST_UTTERANCES], vectors[rows], len(keys))

    def _of_speaker(self, speaker_id: str) -> tuple[Sequence[str], Vectors]:
        if self._parquet_files:
            return self._read_range(f"{speaker_id}/", f"{speaker_id}0")  # "0" follows "/"
        names = self._all.names
        rows = [n for n, name in enumerate(names) if name.startswith(f"{speaker_id}/")]
        return [names[row] for row in rows], np.asarray(self._all.vectors[rows], np.float32)

    @cached_property
    def _parquet_files(self) -> list[Path]:
        if self._names is not None:
            return []
        files = sorted(self._path.glob("*.parquet")) if self._path.is_dir() else [self._path]
        return [file for file in files if file.suffix.lower() == ".parquet"]

    @cached_property
    def _all(self) -> Embeddings:
        return read_embeddings(self._path, names=self._names)

    def _read_range(self, first: str, stop: str) -> tuple[Sequence[str], Vectors]:
        """Return the rows whose names are in a range; groups without any are not read."""
        with as_own_error(ScoringError, f"{self._path}: cannot be read as Parquet"):
            for file in self._parquet_files:
                if not file.is_file():
                    raise ScoringError(f"{file}: this file does not exist")
                check_parquet_size(file, pq.read_metadata(file))
            dataset = pads.dataset([str(file) for file in self._parquet_files], format="parquet")
            name, vector = vector_columns(self._path, dataset.schema)
            wanted = (pads.field(name) >= first) & (pads.field(name) < stop)
            table = dataset.to_table(columns=[name, vector], filter=wanted)
            table.validate(full=True)
            return _names_and_vectors(self._path, table)


def _names_and_vectors(path: Path, table: pa.Table) -> tuple[Sequence[str], Vectors]:
    names = [str(name) for name in table[0].to_pylist()]
    rows = table[1].to_pylist()
    if len({len(row or ()) for row in rows}) > 1:
        raise ScoringError(f"{path}: embeddings of one speaker have different lengths")
    return names, np.array(rows, np.float32).reshape(len(rows), len(rows[0] or ()) if rows else 0)


def _utterances(names: Sequence[str], speaker_id: str) -> tuple[list[UtteranceKey], list[int]]:
    """Return the utterances that names are of, sorted, and their rows; others are left out."""
    keys: dict[UtteranceKey, int] = {}
    for row, name in enumerate(names):
        try:
            key = utterance_of(name)
        except VoxBlink2Error:  # a file may have the embeddings of other corpora too
            continue
        if key.speaker_id == speaker_id:
            keys.setdefault(key, row)
    return sorted(keys), [keys[key] for key in sorted(keys)]


def _compared(keys: Sequence[UtteranceKey], vectors: Vectors, known: int) -> ComparedVoices:
    units = _units(keys, vectors[: len(keys)])
    sums = units.sum(axis=0) - units
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    centred = units - units.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(units), 2), np.float32)
    shares = np.zeros(2)
    axes = min(2, len(lengths))
    points[:, :axes] = (left * lengths)[:, :axes]
    shares[:axes] = np.square(lengths[:axes]) / max(float(np.square(lengths).sum()), 1e-12)
    return ComparedVoices(
        keys=tuple(keys),
        cosines=np.clip(units @ units.T, -1, 1),
        own=np.einsum("ij,ij->i", units, means),
        points=points,
        shares=(float(shares[0]), float(shares[1])),
        left_out=known - len(keys),
    )


def _units(keys: Sequence[UtteranceKey], vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = np.flatnonzero(lengths[:, 0] == 0).tolist()
    row = row_not_finite(vectors)
    if wrong or row is not None:
        name = keys[wrong[0] if row is None else row].name
        raise ScoringError(f"The embedding of {name} is zero, or has a number that is not finite.")
    return np.asarray(vectors / lengths, np.float32)
