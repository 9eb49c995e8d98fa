"""Read vectors from Kaldi's ``.ark`` and ``.scp`` files without running the commands in them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import DependencyError, ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.scoring.embedding_files import NamedVectors, split_lines

_ARK_POSITION = re.compile(r"(?![|])(.+?)(?::([0-9]{1,18}))?(?<![]|])")  # no commands, no ranges
_BINARY_VALUE = re.compile(rb"\0B[FD](V |M \x04.{4})\x04.{4}", re.DOTALL)
_NAME = re.compile(rb"(\S{1,4096}) ")
_TEXT_VALUE = re.compile(rb"\s*\[([^]]*)\]\s*")


def read_scp(path: Path) -> Iterator[NamedVectors]:
    """Yield the vectors that an ``.scp`` file lists, from the arks that it names.

    Raises:
        ScoringError: a line is not ``NAME FILE:BYTE``, or no vector is there.
        DependencyError: see :func:`read_ark`.
    """
    mapped = lru_cache(_mapped)  # each ark is opened once, and not too many stay open
    for number, (name, *rest) in enumerate(split_lines(path), start=1):
        position = _ARK_POSITION.fullmatch("".join(rest))
        if not position:
            line = shortened(" ".join([name, *rest]))
            raise ScoringError(
                f"{path}: line {number} is {line}; expected 'NAME FILE:BYTE'. "
                "Commands ('|') are never run and ranges (']') not read. Write an ark instead."
            )
        ark = _ark_of(path, position[1])
        if not ark.is_file():
            raise ScoringError(
                f"{path}: line {number} names {shortened(position[1])}, which is no file, here or "
                f"beside it. Expected 'NAME FILE:BYTE', with the ark that FILE is."
            )
        vector, _ = _vector_at(mapped(ark), int(position[2] or 0), f"{ark}: {shortened(name)}")
        yield [name], vector


def _ark_of(path: Path, name: str) -> Path:
    return Path(name) if Path(name).is_file() else path.parent / name


def arks_of(path: Path) -> dict[str, Path]:
    """Return the arks that an ``.scp`` file names, by the names that they have there."""
    matches = (_ARK_POSITION.fullmatch("".join(rest)) for _, *rest in split_lines(path))
    names = {match[1] for match in matches if match}
    return {name: _ark_of(path, name) for name in sorted(names)}


def read_ark(path: Path) -> Iterator[NamedVectors]:
    """Yield the vectors of an ``.ark`` file.

    Raises:
        ScoringError: the file is missing or empty, or an entry is not a whole vector.
        DependencyError: a vector is binary, and the package kaldiio is missing.
    """
    data, position = _mapped(path), 0
    while position < len(data):
        if not (match := _NAME.match(data, position)):
            raise ScoringError(f"{path}: byte {position}: expected the name of an utterance")
        name = match[1].decode("utf-8", "backslashreplace")
        vector, position = _vector_at(data, match.end(), f"{path}: {shortened(name)}")
        yield [name], vector


def _mapped(path: Path) -> mmap.mmap:
    if not path.is_file() or not path.stat().st_size:
        raise ScoringError(f"{path}: this ark does not exist or is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _vector_at(data: mmap.mmap, start: int, where: str) -> tuple[npt.NDArray[Any], int]:
    """Return the value at a byte, and the first byte of the next entry.

    Only one function of kaldiio is called, for safe forms: ``read_kaldi`` unpickles values that are
    marked as PKL. Text is parsed here: kaldiio fails on "[ 0 0.5 ]", reading it as integers.
    """
    try:
        if _BINARY_VALUE.match(data, start):
            from kaldiio.matio import read_matrix_or_vector

            data.seek(start)
            array, size = read_matrix_or_vector(data, return_size=True)
            if data.tell() == start + size:  # kaldiio accepts values that are cut off
                return np.atleast_2d(array), start + size
        elif text := _TEXT_VALUE.match(data, start):
            rows = [line.split() for line in text[1].splitlines() if line.strip()]
            return np.array(rows, np.float64), text.end()
    except ImportError as error:
        raise DependencyError("Kaldi files need kaldiio. Run 'pip install kaldiio'.") from error
    except ValueError:
        pass
    raise ScoringError(
        f"{where}: no whole vector at byte {start}, which begins with {data[start : start + 5]!r}. "
        "Allowed are vectors or one-row matrices, binary (FV, DV, FM, DM) or in brackets. Nothing "
        "was run."
    )
