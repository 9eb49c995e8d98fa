"""Read pickled dictionaries of arrays without running anything that they name.

The instructions are read first: see :mod:`voxblink2_lib.foreign_files`. Unpickling then only fills
inert records; arrays are built from them afterwards.
"""

from __future__ import annotations

import functools
import mmap
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError, first_line
from voxblink2_lib.foreign_files import as_own_error, scan_pickle, shortened
from voxblink2_lib.scoring.embedding_files import NamedVectors

_PICKLED = re.compile(
    r"numpy\._?core\.(multiarray\._reconstruct|multiarray\.scalar|numeric\._frombuffer)"
    r"|numpy\.(dtype|ndarray)|_codecs\.encode|collections\.OrderedDict"
)

# Two names may have the same array, which is in the file once. All of them are copied into one.
_MOST_EXPANSION = 16
_ALWAYS_ALLOWED_BYTES = 64 << 20

_PICKLED_TYPE = re.compile(r"[<>|=][biufcU][0-9]+")  # no objects, no structures


class _Record:
    """A NumPy object of a pickle: stores arguments and state, and does nothing.

    ``__setstate__`` prevents a pickle from setting attributes of a record or of its class.
    """

    __slots__ = ("args", "state")
    kind: str

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not _PICKLED.fullmatch(f"{module}.{name}"):
            raise ValueError(
                f"it names {module}.{name}, which arrays do not need. Nothing of it was run. "
                "Save the vectors (of torch: tensor.cpu().numpy()) as .npy or Parquet"
            )
        # The class of arrays is only ever an argument; a string cannot be called.
        known: dict[str, object] = {"OrderedDict": _ordered, "ndarray": "ndarray"}
        return known.get(name) or _record_class(name)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    """Return an ordered dictionary; keys that are no texts could be made to collide."""
    return {key: value for key, value in pairs if isinstance(key, str | _Record)}


@functools.cache
def _record_class(name: str) -> type[_Record]:
    return type("Record", (_Record,), {"kind": name, "__slots__": ()})


def read_pickle(path: Path, *, start: int = 0) -> Iterator[NamedVectors]:
    """Yield the name and the vector of each entry of a pickled dictionary.

    Args:
        path: the file.
        start: its first byte in the file, behind a header.

    Raises:
        ScoringError: it is broken, names anything that arrays do not need, or has other values.
    """
    most_bytes = _ALWAYS_ALLOWED_BYTES + _MOST_EXPANSION * path.stat().st_size
    for key, value in _content(path, start).items():
        with as_own_error(
            ScoringError,
            f"{path}: {shortened(key)}: expected a name and an array of real numbers",
        ):
            name = _array(key).item() if isinstance(key, _Record) else key
            array = _array(value)
            if not isinstance(name, str) or array.ndim == 0:
                raise ValueError(f"a name of type {type(name).__name__} and {array.ndim} axes")
            most_bytes -= array.nbytes
            if most_bytes < 0:
                raise ValueError("the same array as many others. Give each its own")
        yield [name], np.atleast_2d(array)


def _content(path: Path, start: int) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                scan_pickle(data, start)
            file.seek(start)
            # Arrays of Python 2 are text, one character per byte.
            content = _Unpickler(file, encoding="latin1").load()
        match content:  # of np.save: an array without axes that holds the dictionary
            case _Record(kind="_reconstruct", state=(_, (), _, _, [inner])):
                content = inner
        if not isinstance(content, dict):
            kind = "array" if isinstance(content, _Record) else type(content).__name__
            raise TypeError(f"it holds one {kind}")
    except Exception as error:  # broken pickles raise errors of any kind
        problem = f"{type(error).__name__}: {shortened(first_line(error), quoted=False)}"
        raise ScoringError(f"{path}: not a pickled dictionary of arrays: {problem}") from error
    return content


def _array(record: object) -> npt.NDArray[Any]:
    """Return the array of a record; a scalar has no axes."""
    match record:
        case (
            _Record(kind="_reconstruct", state=(_, shape, dtype, _, raw))
            | _Record(kind="_frombuffer", args=(raw, dtype, shape, *_))
        ):
            pass  # the memory order makes no difference to vectors
        case _Record(kind="scalar", args=(dtype, raw)):
            shape = ()
        case _:
            raise ValueError(f"a value of type {type(record).__name__}")
    match raw:
        case _Record(kind="encode", args=(str(text), "latin1")) | str(text):
            raw = text.encode("latin1")
    match dtype:
        case _Record(kind="dtype", args=(str(code), *_), state=(_, str(endian), *_)):
            if _PICKLED_TYPE.fullmatch(endian + code):
                return np.frombuffer(raw, endian + code).reshape(shape)
    kinds = getattr(dtype, "args", ())[:1]
    raise ValueError(f"an array of type {', '.join(map(shortened, kinds))}")
