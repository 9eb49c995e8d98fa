"""Speaker embeddings by utterance name, read from the usual file formats.

A file is data, never a program: a Kaldi list that names a command is refused, and pickles are read
by :mod:`voxblink2_lib.scoring.pickles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.progress import Advance, Progress, no_progress
from voxblink2_lib.scoring.embedding_files import (
    NamedVectors,
    corpus_of_file,
    pickle_start,
    read_npy,
    read_npz,
    read_safetensors,
)
from voxblink2_lib.scoring.embedding_tables import (
    DATASET_STATE,
    count_rows,
    is_parquet,
    read_dataset,
    read_parquet,
)
from voxblink2_lib.scoring.kaldi import read_ark, read_scp
from voxblink2_lib.scoring.names import NameIndex
from voxblink2_lib.scoring.pickles import read_pickle
from voxblink2_lib.scoring.source_models import SourceModel, model_of_file
from voxblink2_lib.scoring.validation import row_not_finite


def _read_npy(path: Path, names: Path | None = None) -> Iterator[NamedVectors]:
    """Read an array, or the dictionary that ``np.save`` pickles behind the header of an array."""
    start = pickle_start(path)
    if start is None:
        return read_npy(path, names)
    if names is not None:
        raise ScoringError(
            f"{path} has its own names: it is a pickled dictionary. Drop names (--names)."
        )
    return read_pickle(path, start=start)


def _read_folder(path: Path) -> Iterator[NamedVectors]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(file.parent.name for file in path.glob(f"*/{DATASET_STATE}"))
        raise ScoringError(
            f"{path} holds several data sets. Name the folder of one: "
            f"{shortened(', '.join(splits), quoted=False)}."
        )
    return read_dataset(path) if (path / DATASET_STATE).is_file() else read_parquet(path)


_READERS: dict[str, Callable[..., Iterator[NamedVectors]]] = {
    ".parquet": read_parquet,
    ".npy": _read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".scp": read_scp,
    ".ark": read_ark,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
}

# Their readers take ``names``, a file with the names of the rows.
_ARRAYS = (".npy", ".safetensors")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector for each utterance. Rows are counted from 0.

    Attributes:
        names: names, all different. Shape: [utterances].
        vectors: float32, all finite; may be a memory map. Shape: [utterances, dimensions].
        source: where they were read from, for messages.
        corpus: which corpus they are of, if that is known: ids are of people of that corpus.
        averaged: the utterances, if vectors are means of them and names are speakers.
        model: which model they are of, if ``embed`` wrote that into the file.
        centred: what was subtracted, if vectors are centred, for people.

    Raises:
        ScoringError: names and vectors do not match, names are repeated, or values are not finite.
    """

    names: list[str]
    vectors: npt.NDArray[np.float32]
    source: str
    corpus: str | None = None
    averaged: tuple[str, ...] = ()
    model: SourceModel | None = None
    centred: str | None = None

    def __post_init__(self) -> None:
        names, vectors, rows = self.names, self.vectors, self.index.row_by_name
        if vectors.shape[:-1] != (len(names),) or not vectors.size or vectors.dtype != np.float32:
            raise ScoringError(
                f"{self.source}: expected float32 vectors of shape (n, dimensions), one for each "
                f"name; got {len(names)} names and {vectors.dtype} of shape {vectors.shape}"
            )
        if len(rows) != len(names):
            name = next(name for row, name in enumerate(names) if rows[name] != row)
            raise ScoringError(
                f"{self.source}: {shortened(name)} occurs twice, in rows {names.index(name)} and "
                f"{rows[name]}. Keep one embedding for each utterance."
            )
        if (row := row_not_finite(vectors)) is not None:
            raise ScoringError(
                f"{self.source}: row {row} ({shortened(names[row])}) has a number that is not "
                "finite (NaN or too large for float32). Compute it again, or leave it out."
            )

    @cached_property
    def index(self) -> NameIndex:
        """The names, to be looked for."""
        return NameIndex(self.names, self.source)

    def rows_of(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the rows of utterances, -1 where there is no embedding.

        Names may be spelled differently: see :meth:`NameIndex.rows_of`. Shape: [names].

        Args:
            names: of utterances.

        Raises:
            ScoringError: a name without exact match fits two embeddings, or two fit one.
        """
        return self.index.rows_of(names)


def read_embeddings(
    path: str | Path,
    *,
    names: str | Path | None = None,
    corpus: str | None = None,
    progress: Progress = no_progress,
) -> Embeddings:
    r"""Read embeddings from a file, whose extension gives the format.

    - ``.parquet``, or a folder of such files: a column of strings and a column of lists.
    - A folder that ``Dataset.save_to_disk`` of Hugging Face wrote, with the same columns.
    - ``.npy``: an array, a memory map if float32, and a file of names. Shape: [names, dimensions].
      Or what ``np.save`` makes of a dictionary of names and arrays. No code in it is run.
    - ``.npz``: an array for each utterance, under its name.
    - ``.safetensors``: one tensor as ``.npy``, and a file of names; or one for each utterance.
    - ``.scp`` or ``.ark``: vectors of Kaldi, binary or text.
    - ``.pkl`` or ``.pickle``: a dictionary of names and NumPy arrays. No code in it is run.

    Args:
        path: the file or folder.
        names: file of names for ``.npy`` and ``.safetensors``, one per line; by default the one
            beside it, of the same stem and ``.txt``, ``.ids``, ``.lst``, ``.names`` or ``.scp``.
            A name is the first word of a line; in an ``.ids`` file of safetensors, the whole line.
        corpus: which corpus they are of; by default what the file says, if ``embed`` wrote it. It
            may not say another.
        progress: shows the vectors read, and of Parquet how many there are.

    Raises:
        ScoringError: the file is missing, broken, hostile, or not of its format.
        DependencyError: it has binary vectors of Kaldi, and the package kaldiio is missing.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/xvector.npy", np.eye(2, dtype=np.float32))
    ...     _ = Path(folder, "xvector.txt").write_text("noise.wav\nmusic.wav\n")
    ...     embeddings = read_embeddings(f"{folder}/xvector.npy")
    >>> embeddings.names, embeddings.vectors.shape
    (['noise.wav', 'music.wav'], (2, 2))
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_dir() and suffix not in _READERS:
        allowed = f"{', '.join(_READERS)}, a folder of .parquet files and a saved data set"
        raise ScoringError(f"{path}: extension {suffix!r} is not read. Allowed are {allowed}.")
    if names is not None and (path.is_dir() or suffix not in _ARRAYS):
        raise ScoringError(
            f"{path}: names={str(names)!r} (--names) goes with {' and '.join(_ARRAYS)} "
            "only. Drop it here."
        )
    names_file = {} if names is None else {"names": Path(names)}
    # Whatever a reader does not expect, such as a lack of memory, is an error that names the file.
    with as_own_error(ScoringError, f"{path}: cannot be read"):
        if not path.is_dir() and not (path.is_file() and path.stat().st_size):
            raise ScoringError(f"{path}: this file does not exist or is empty")
        read = _read_folder if path.is_dir() else _READERS[suffix]
        parts = read(path, **names_file)
        total = count_rows(path) if is_parquet(path) else None
        with progress("Reading", unit="vector", total=total) as advance:
            # First: it knows what is wrong with a broken file.
            joined = _joined(path, parts, advance)
        named = corpus_of_file(path, corpus)
        return Embeddings(*joined, str(path), named, model=model_of_file(path))


def _joined(
    path: Path, parts: Iterable[NamedVectors], advance: Advance
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Check parts and concatenate them as float32; a single one is not copied."""
    names: list[str] = []
    arrays: list[npt.NDArray[np.float32]] = []
    for part_names, array in parts:
        if array.shape[:-1] != (len(part_names),) or array.dtype.kind not in "fiu":
            raise ScoringError(
                f"{path}: expected one vector of real numbers for each of {len(part_names)} names "
                f"({_first(part_names)} first), in order; got {array.dtype} of shape {array.shape}"
            )
        if arrays and array.shape[1] != arrays[0].shape[1]:
            raise ScoringError(
                f"{path}: {_first(part_names)} has {array.shape[1]} numbers, but {_first(names)} "
                f"has {arrays[0].shape[1]}. All must be of the same model."
            )
        names += part_names
        with np.errstate(over="ignore"):  # overflow gives infinity, which is refused with its name
            arrays.append(array.astype(np.float32, copy=False))
        advance(len(part_names))
    if not names:
        raise ScoringError(f"{path}: it contains no embeddings")
    return names, arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _first(names: Sequence[str]) -> str:
    return shortened(names[0] if names else None)
