"""The files that a result is made of, and their hashes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.files import sha256_of
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.embedding_files import names_file
from voxblink2_lib.scoring.embedding_tables import DATASET_STATE, dataset_files
from voxblink2_lib.scoring.kaldi import arks_of
from voxblink2_lib.scoring.protocols import protocol_files
from voxblink2_lib.scoring.trial_lists import trial_file

# The name of an input that is a file itself, wherever it lies and whatever its own name.
ITSELF = "."

# Files by names that are the same after a move: below the input, or as the input itself has them.
Files = dict[str, Path]


def single_file(path: Path) -> Files:
    """Return a file."""
    return {ITSELF: path}


def files_of_trials(path: Path) -> Files:
    """Return the list of trials, perhaps that in the folder of the release."""
    file = trial_file(path)
    return _below(path, [file]) if path.is_dir() else single_file(file)


def files_of_protocols(path: Path) -> Files:
    """Return the lists of open-set protocols in or below a folder."""
    return _below(path, protocol_files(path))


def files_of_embeddings(path: Path) -> Files:
    """Return a file of embeddings with the files that it names, or those of a folder."""
    if path.is_dir():
        if (path / DATASET_STATE).is_file():
            return _below(path, [path / DATASET_STATE, *dataset_files(path)])
        return _below(path, sorted(path.glob("*.parquet")))
    files = single_file(path)
    suffix = path.suffix.lower()
    if suffix in {".npy", ".safetensors"}:
        with contextlib.suppress(ScoringError):  # none, or named by its own option
            names = names_file(path)
            files[names.suffix] = names
    return files | (arks_of(path) if suffix == ".scp" else {})


def _below(folder: Path, files: list[Path]) -> Files:
    return {file.relative_to(folder).as_posix(): file for file in files}


def hash_inputs(
    inputs: Mapping[str, Path],
    listers: Mapping[str, Callable[[Path], Files]],
    *,
    progress: Progress = no_progress,
) -> dict[str, dict[str, str]]:
    """Return the SHA-256 of each file of each input, by the names of both.

    Args:
        inputs: paths by name.
        listers: what lists the files behind a path, by the name of its input.
        progress: shows the bytes read.

    Raises:
        ScoringError: a file cannot be read, or a folder is not such an input.
    """
    listed: dict[str, Files] = {}
    total = 0
    for name, path in inputs.items():
        with as_own_error(ScoringError, f"{path}: cannot be read"):
            listed[name] = listers[name](path)
            total += sum(map(_size_bytes, listed[name].values()))
    hashes: dict[str, dict[str, str]] = {}
    with progress("Hashing", unit="B", total=total) as advance:
        for name, files in listed.items():
            hashes[name] = {}
            for part, file in files.items():
                with as_own_error(ScoringError, f"{file}: cannot be read"):
                    hashes[name][part] = sha256_of(file, advance=advance)
    return hashes


def _size_bytes(file: Path) -> int:
    if not file.is_file():  # nor is a device, which may have no end
        raise ScoringError(f"{file} is not a file, or it does not exist.")
    return file.stat().st_size
