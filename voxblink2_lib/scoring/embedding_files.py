"""Read embeddings from arrays, with lists of their names, and what a file says of itself."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import as_own_error, shortened

# Names and their vectors. Shape of both: [names], [names, dimensions].
NamedVectors = tuple[list[str], npt.NDArray[Any]]

NAMES_SUFFIXES = (".txt", ".ids", ".lst", ".names", ".scp")

# Embeddings hardly shrink when they are compressed.
_MOST_EXPANSION, _ALWAYS_ALLOWED_BYTES = 16, 64 << 20

# What 'voxblink2 embed' writes beside the embeddings: a corpus, and the model as JSON.
CORPUS_KEY, MODEL_KEY = "voxblink2_corpus", "voxblink2_model"

# -- What a file says of itself --------------------------------------------------------------------


def corpus_key(name: str) -> str:
    """Return one spelling for all spellings of a corpus.

    >>> corpus_key("VoxCeleb 2") == corpus_key("voxceleb_2")
    True
    """
    return re.sub(r"[\W_]", "", name).casefold()


def parquet_files(path: Path) -> list[Path]:
    """Return a Parquet file, or those of a folder."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def corpus_of_file(path: Path, named: str | None = None) -> str | None:
    """Return the corpus that a file of embeddings is of, if that is known.

    Args:
        path: the file.
        named: the corpus, as the caller knows it.

    Raises:
        ScoringError: the file says another one.
    """
    written = _written_corpus(path)
    if named and written and corpus_key(named) != corpus_key(written):
        raise ScoringError(
            f"{path} says that it is of {shortened(written)}, not of {shortened(named)}. Leave out "
            "the name of the corpus (--corpus, --cohort-corpus), or embed the audio again with the "
            "right one."
        )
    return named or written


def _written_corpus(path: Path) -> str | None:
    """Return the corpus that a file says, or all files of a folder."""
    corpora = [written_text(file, CORPUS_KEY) for file in parquet_files(path)]
    keys = {corpus and corpus_key(corpus) for corpus in corpora}
    return corpora[0] if len(keys) == 1 else None


def written_text(path: Path, key: str) -> str | None:
    """Return what ``embed`` wrote beside the embeddings of a file, if anything."""
    metadata: dict[Any, Any] = {}
    if path.suffix.lower() == ".parquet":
        metadata = pq.read_metadata(path).metadata or {}
    elif path.suffix.lower() == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    text = metadata.get(key) or metadata.get(key.encode(), b"").decode()
    return text or None


def written_model(path: Path) -> dict[str, Any] | None:
    """Return the model that made a file of embeddings, if ``embed`` wrote it.

    Returns:
        Its name, SHA-256, front end, and how it was used; ``None`` if that is not known.
    """
    with contextlib.suppress(ValueError, RecursionError):  # a folder, or written by others
        model = json.loads((None if path.is_dir() else written_text(path, MODEL_KEY)) or "null")
        return model if isinstance(model, dict) else None
    return None


# -- Arrays and lists of names ---------------------------------------------------------------------


def read_npy(path: Path, names: Path | None = None) -> Iterator[NamedVectors]:
    """Yield the array of a ``.npy`` file, as a memory map, and the names of its rows.

    Args:
        path: the file.
        names: file of names; by default the one beside it.

    Raises:
        ScoringError: it is no such file, or there is not one file of names.
    """
    with as_own_error(ScoringError, f"{path}: cannot be read as a NumPy array"):
        _check_npy_header(path)
        with np.errstate(over="raise"):  # of the number of bytes
            # No pickled objects, and not the .npz that np.load would also accept.
            array = np.lib.format.open_memmap(path, mode="r")
    yield [words[0] for words in split_lines(names_file(path, names))], array


def _check_npy_header(path: Path) -> None:
    """Check that the header is in the file: NumPy would make room for what it claims."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        length = file.read(2 if version == (1, 0) else 4)
        end = file.tell() + int.from_bytes(length, "little")
    if end > path.stat().st_size:
        raise ValueError("it is cut off in its header")


def pickle_start(path: Path) -> int | None:
    """Return the first byte of the pickle in a ``.npy`` file of Python objects, ``None`` if none.

    Raises:
        ScoringError: it is no ``.npy`` file.
    """
    with as_own_error(ScoringError, f"{path}: cannot be read as a NumPy array"):
        _check_npy_header(path)
        with path.open("rb") as file:
            dtype = _npy_header(file)[2]
            return file.tell() if dtype.hasobject else None


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether columns come first, and its type."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format is not read")
    return readers[version](file)


def read_npz(path: Path) -> Iterator[NamedVectors]:
    """Yield name and vector of each array of an ``.npz`` file, one for each utterance.

    Raises:
        ScoringError: it is no such file, is larger than its size allows, or holds Python objects.
    """
    with (
        as_own_error(ScoringError, f"{path}: cannot be read as NumPy arrays"),
        zipfile.ZipFile(path) as archive,
    ):
        members = archive.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > _ALWAYS_ALLOWED_BYTES + _MOST_EXPANSION * path.stat().st_size:
            raise ValueError(f"it claims {claimed:,} bytes")
        for member in members:
            with as_own_error(ScoringError, f"{path}: {shortened(member.filename)}"):
                yield [member.filename.removesuffix(".npy")], _npz_array(archive.read(member))


def _npz_array(data: bytes) -> npt.NDArray[Any]:
    file = io.BytesIO(data)
    shape, columns_first, dtype = _npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read. Save arrays of numbers")
    array = np.frombuffer(data, dtype, offset=file.tell())
    return as_row(array.reshape(shape, order="F" if columns_first else "C"))


def as_row(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the vector of an utterance as a row. Shape: [1, dimensions].

    Raises:
        ValueError: it is more than one vector.
    """
    rows = np.atleast_2d(array)
    if array.ndim == 0 or rows.shape[:-1] != (1,):
        raise ValueError(f"expected one vector for an utterance, got the shape {array.shape}")
    return rows


def read_safetensors(path: Path, names: Path | None = None) -> Iterator[NamedVectors]:
    """Yield the tensors of a safetensors file.

    Args:
        path: the file: one tensor of rows, whose names are in another file; or a vector for each
            utterance, under its name.
        names: file of names; by default the one beside it.

    Raises:
        ScoringError: it is no such file, or there is not one file of names.
    """
    from safetensors import safe_open

    with (
        as_own_error(ScoringError, f"{path}: cannot be read as safetensors"),
        safe_open(path, "numpy") as file,
    ):
        tensors = list(file.keys())
        if names is None and (len(tensors) > 1 or _is_vector(file, tensors)):
            for name in tensors:
                with as_own_error(ScoringError, f"{path}: {shortened(name)}"):
                    yield [name], as_row(file.get_tensor(name))
            return
        if len(tensors) != 1:
            raise ValueError(f"it holds {len(tensors)} tensors, where rows with names are one")
        array = file.get_tensor(tensors[0])
    names = names_file(path, names)
    if names.suffix == ".ids":  # written by 'voxblink2 embed', whose names may contain spaces
        yield names.read_text("utf-8").removesuffix("\n").split("\n"), array
    else:
        yield [words[0] for words in split_lines(names)], array


def _is_vector(file: Any, tensors: Sequence[str]) -> bool:
    return len(tensors) == 1 and len(file.get_slice(tensors[0]).get_shape()) == 1


def names_file(path: Path, names: Path | None = None) -> Path:
    """Return the file of the names of rows: the one that is named, or the only one beside it.

    Raises:
        ScoringError: none is named, and there is none or more than one.
    """
    if names is not None:
        return names
    files = [file for suffix in NAMES_SUFFIXES if (file := path.with_suffix(suffix)).is_file()]
    if len(files) != 1:
        raise ScoringError(
            f"{path}: expected one file of names beside it, of the same stem and "
            f"{', '.join(NAMES_SUFFIXES)}; got {', '.join(file.name for file in files) or 'none'}. "
            "Name it with names=FILE (--names FILE)."
        )
    return files[0]


def split_lines(path: Path) -> list[list[str]]:
    """Return the first word and the rest of each line. Only the last lines may be empty.

    Raises:
        ScoringError: another line is empty.
    """
    lines = path.read_text("utf-8-sig", "backslashreplace").rstrip().split("\n")
    words = [line.strip().split(maxsplit=1) for line in lines]
    if [] in words:
        raise ScoringError(f"{path}: line {words.index([]) + 1} is empty. Put a name there.")
    return words
