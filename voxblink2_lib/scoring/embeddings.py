"""Read speaker embeddings, keyed by utterance name, from the files people have.

A file is data here, never a program: a Kaldi list that names a command is refused, and pickles are
read by :mod:`voxblink2_lib.scoring.pickles`.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import DependencyError, ScoringError
from voxblink2_lib.records import SPEAKER_ID, VIDEO_ID
from voxblink2_lib.scoring.pickles import Part, read_pickle
from voxblink2_lib.scoring.validation import row_not_finite

NAME_COLUMNS = ("name", "utterance", "utterance_id", "utt", "key", "id")
VECTOR_COLUMNS = ("embedding", "embeddings", "xvector", "vector")
NAMES_SUFFIXES = (".txt", ".ids", ".lst", ".names", ".scp")

# What 'voxblink2 embed' writes: names may have spaces.
_WHOLE_LINES = (".safetensors", ".ids")

_AUDIO = re.compile(r"\.(wav|flac|m4a|mp3|opus|ogg)$", re.IGNORECASE)

# id10270/x6uYqmx31kE/00001 or id10270-x6uYqmx31kE-00001, and above them any folders.
_UTTERANCE = re.compile(
    rf"(?:.*/)?({SPEAKER_ID.pattern})([/-])({VIDEO_ID.pattern})\2([0-9]{{5}})", re.DOTALL
)
_TEXT_TYPE = re.compile(r"(large_)?string|dictionary<values=(large_)?string, .*")
_LIST_TYPE = re.compile(r"(large_|fixed_size_)?list<[^<]*: (halffloat|float|double|u?int\d+)\b.*")
_KALDI_PLACE = re.compile(r"(?![|])(.+?)(?::([0-9]{1,18}))?(?<![]|])")  # no commands, no ranges
_KALDI_BINARY = re.compile(rb"\0B[FD](V |M \x04.{4})\x04.{4}", re.DOTALL)
_KALDI_NAME = re.compile(rb"(\S{1,4096}) ")
_KALDI_TEXT = re.compile(rb"\s*\[([^]]*)\]\s*")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One vector for each utterance. Rows count from 0.

    Attributes:
        names: n names, all different.
        vectors: float32, shape (n, dimensions), all finite. It may be a memory map.
        source: where it came from, for messages.

    Raises:
        ScoringError: names and vectors do not fit each other, or hold what they must not.
    """

    names: list[str]
    vectors: npt.NDArray[np.float32]
    source: str

    def __post_init__(self) -> None:
        names, vectors, rows = self.names, self.vectors, self._rows
        if vectors.shape[:-1] != (len(names),) or not vectors.size or vectors.dtype != np.float32:
            raise ScoringError(
                f"{self.source}: expected float32 vectors of shape (n, dimensions), one for each "
                f"name; got {len(names)} names and {vectors.dtype} of shape {vectors.shape}"
            )
        if len(rows) != len(names):
            twice = next(name for row, name in enumerate(names) if rows[name] != row)
            said = f"{twice!r} is there twice, in rows {names.index(twice)} and {rows[twice]}"
            raise ScoringError(f"{self.source}: {said}. Keep one embedding for each utterance.")
        if (row := row_not_finite(vectors)) is not None:
            raise ScoringError(
                f"{self.source}: row {row} ({names[row]!r}) has a number that is not finite "
                "(NaN or too large for float32). Make it again, or leave it out."
            )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def _rows_by_key(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            rows.setdefault(utterance_key(name), []).append(row)
        return rows

    def rows_of(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Find the rows of utterances.

        A name that is there exactly is taken. Otherwise all spellings of a VoxCeleb or VoxBlink
        utterance are one: ``id10270/x6uYqmx31kE/00001``, ``id10270-x6uYqmx31kE-00001``, with or
        without audio extension, below any folders. Other names may differ in that extension only.

        Args:
            names: m names of utterances.

        Returns:
            int64, shape (m,); -1 where there is no embedding.

        Raises:
            ScoringError: a name that is not there exactly fits two embeddings.

        >>> vectors = np.eye(2, dtype=np.float32)
        >>> names = ["id10270/x6uYqmx31kE/00001.wav", "noise.wav"]
        >>> embeddings = Embeddings(names, vectors, "memory")
        >>> embeddings.rows_of(["noise", "id10270-x6uYqmx31kE-00001", "music"]).tolist()
        [1, 0, -1]
        """
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        for place in np.flatnonzero(rows < 0).tolist():
            found = self._rows_by_key.get(utterance_key(names[place]), [-1])
            if len(found) > 1:
                raise ScoringError(
                    f"{self.source}: {names[place]!r} may be {self.names[found[0]]!r} or "
                    f"{self.names[found[1]]!r}. Keep one of them, or ask for one exactly."
                )
            rows[place] = found[0]
        return rows


def utterance_key(name: str) -> str:
    """Return what all spellings of an utterance's name share.

    >>> utterance_key("wav/id10270-x6uYqmx31kE-00001.wav") == utterance_key(
    ...     "id10270/x6uYqmx31kE/00001"
    ... )
    True
    """
    name = _AUDIO.sub("", name)
    utterance = _UTTERANCE.fullmatch(name)
    return "/".join(utterance.group(1, 3, 4)) if utterance else name


def read_embeddings(path: str | Path, *, names: str | Path | None = None) -> Embeddings:
    r"""Read embeddings from a file, by its extension.

    - ``.parquet``, or a folder of such files: a column of strings and a column of lists.
    - ``.npy``: shape (n, dimensions), a memory map if float32; and a file of names, one a line.
    - ``.safetensors``: one tensor of that shape; and a file of names, as for ``.npy``. Beside it, a
      file ``.ids`` has a whole name on each line.
    - ``.scp`` or ``.ark``: vectors of Kaldi, binary or text.
    - ``.pkl`` or ``.pickle``: a dictionary of names and NumPy arrays. No code in it is run.

    Args:
        path: the file or folder.
        names: file of names for these two; by default the one beside it, of the same stem and
            ``.txt``, ``.ids``, ``.lst``, ``.names`` or ``.scp``. The first word of a line counts.

    Raises:
        ScoringError: the file is missing, broken, hostile, or not what it should be.
        DependencyError: it holds binary vectors of Kaldi, and the package kaldiio is missing.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/xvector.npy", np.eye(2, dtype=np.float32))
    ...     _ = Path(folder, "xvector.txt").write_text("noise.wav\nmusic.wav\n")
    ...     embeddings = read_embeddings(f"{folder}/xvector.npy")
    >>> embeddings.names, embeddings.vectors.shape
    (['noise.wav', 'music.wav'], (2, 2))
    """
    path = Path(path)
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix not in _READERS:
        allowed = f"{', '.join(_READERS)} and a folder of .parquet files"
        raise ScoringError(f"{path}: extension {suffix!r} is not read. Allowed are {allowed}.")
    if names is not None and suffix not in _ARRAYS:
        raise ScoringError(
            f"{path}: names={str(names)!r} (--names) goes with {' and '.join(_ARRAYS)} only. "
            "Drop it here."
        )
    try:
        if not path.is_dir() and not (path.is_file() and path.stat().st_size):
            raise ScoringError(f"{path}: there is no such file, or it is empty")
        parts = _read_named(path, names) if suffix in _ARRAYS else _READERS[suffix](path)
        return Embeddings(*_join(path, parts), str(path))
    except OSError as error:
        raise ScoringError(f"{path}: cannot be read: {error}") from error


def _join(path: Path, parts: Iterable[Part]) -> Part:
    """Check parts and put them below each other as float32; one alone is not copied."""
    names: list[str] = []
    arrays: list[npt.NDArray[np.float32]] = []
    for part, array in parts:
        if array.shape[:-1] != (len(part),) or array.dtype.kind not in "fiu":
            raise ScoringError(
                f"{path}: expected one vector of real numbers for each of {len(part)} names "
                f"({part[0]!r} first), in their order; got {array.dtype} of shape {array.shape}"
            )
        if arrays and array.shape[1] != arrays[0].shape[1]:
            raise ScoringError(
                f"{path}: {part[0]!r} has {array.shape[1]} numbers, but {names[0]!r} has "
                f"{arrays[0].shape[1]}. All must come from the same model."
            )
        names += part
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused by name
            arrays.append(array.astype(np.float32, copy=False))
    if not names:
        raise ScoringError(f"{path}: there are no embeddings in it")
    return names, arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _read_parquet(path: Path) -> Iterator[Part]:
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        try:
            with pq.ParquetFile(file) as parquet:
                columns = list(_columns(file, parquet.schema_arrow))
                texts, lists = map(parquet.read(columns=columns).column, columns)
                names = texts.to_pylist()
        except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
            raise ScoringError(f"{file}: cannot be read as Parquet: {error}") from error
        if not len(texts):
            continue
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        numbers = pc.list_flatten(lists)
        for rows, problem in (
            (np.flatnonzero(texts.is_null()), "no name"),
            (np.flatnonzero(lengths == 0), "no embedding"),
            (np.flatnonzero(lengths != lengths[0]), "{} numbers, but row 0 ({!r}) has {}"),
            (np.flatnonzero(numbers.is_null()) // (lengths[0] or 1), "a null among its numbers"),
        ):
            for row in rows[:1].tolist():
                said = problem.format(lengths[row], names[0], lengths[0])
                raise ScoringError(f"{file}: row {row} ({names[row]!r}) has {said}. Make it again.")
        yield names, numbers.to_numpy().reshape(len(names), -1)


def _columns(file: Path, schema: Any) -> Iterator[str]:
    """Choose the column of names and the column of vectors."""
    for kind, preferred in ((_TEXT_TYPE, NAME_COLUMNS), (_LIST_TYPE, VECTOR_COLUMNS)):
        found = [field.name for field in schema if kind.fullmatch(str(field.type))]
        found = [name for name in preferred if name in found][:1] or found
        if len(found) != 1:
            seen = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise ScoringError(
                f"{file}: expected a column of strings ({', '.join(NAME_COLUMNS)}) and a column "
                f"of lists of numbers ({', '.join(VECTOR_COLUMNS)}), or only one of each kind. "
                f"Got {seen or 'no columns'}. Rename the columns."
            )
        yield found[0]


def _read_named(path: Path, names: str | Path | None = None) -> Iterator[Part]:
    array = _ARRAYS[path.suffix.lower()](path)
    there = [path.with_suffix(suffix) for suffix in NAMES_SUFFIXES]
    there = [file for file in there if file.is_file()] if names is None else [Path(names)]
    if len(there) != 1:
        seen = ", ".join(file.name for file in there) or "none"
        raise ScoringError(
            f"{path}: expected one file of names beside it, of the same stem and "
            f"{', '.join(NAMES_SUFFIXES)}; got {seen}. Say which with names=FILE (--names FILE)."
        )
    if (path.suffix.lower(), there[0].suffix) == _WHOLE_LINES:
        yield there[0].read_text("utf-8").removesuffix("\n").split("\n"), array
    else:
        yield [words[0] for words in _lines(there[0])], array


def _npy(path: Path) -> npt.NDArray[Any]:
    try:  # no pickled objects, and not the .npz that np.load would also take
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TokenError) as error:
        raise ScoringError(f"{path}: cannot be read as a NumPy array: {error}") from error


def _safetensors(path: Path) -> npt.NDArray[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            (name,) = file.keys()
            array: npt.NDArray[Any] = file.get_tensor(name)
            return array
    except (SafetensorError, ValueError, TypeError) as error:
        said = f"{path}: cannot be read as safetensors with one tensor: {error}"
        raise ScoringError(said) from error


def _lines(path: Path) -> list[list[str]]:
    """Return the first word and the rest of each line. Only the last lines may be empty."""
    lines = path.read_text("utf-8-sig", "backslashreplace").rstrip().split("\n")
    words = [line.strip().split(maxsplit=1) for line in lines]
    if [] in words:
        raise ScoringError(f"{path}: line {words.index([]) + 1} is empty. Put a name there.")
    return words


def _read_scp(path: Path) -> Iterator[Part]:
    mapped = lru_cache(_mapped)  # each ark is opened once, and not too many stay open
    for number, (name, *rest) in enumerate(_lines(path), start=1):
        place = _KALDI_PLACE.fullmatch("".join(rest))
        if not place:
            raise ScoringError(
                f"{path}: line {number} is {' '.join([name, *rest])!r}; expected 'NAME FILE:BYTE'. "
                "Commands ('|') are never run and ranges (']') not read. Write an ark instead."
            )
        ark = Path(place[1]) if Path(place[1]).is_file() else path.parent / place[1]
        yield [name], _kaldi_vector(mapped(ark), int(place[2] or 0), f"{ark}: {name!r}")[0]


def _read_ark(path: Path) -> Iterator[Part]:
    data, at = _mapped(path), 0
    while at < len(data):
        if not (name := _KALDI_NAME.match(data, at)):
            raise ScoringError(f"{path}: byte {at}: expected the name of an utterance")
        text = name[1].decode("utf-8", "backslashreplace")
        vector, at = _kaldi_vector(data, name.end(), f"{path}: {text!r}")
        yield [text], vector


def _mapped(path: Path) -> mmap.mmap:
    if not path.is_file() or not path.stat().st_size:
        raise ScoringError(f"{path}: there is no such ark, or it is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _kaldi_vector(data: mmap.mmap, at: int, where: str) -> tuple[npt.NDArray[Any], int]:
    """Read the value at a byte, and say where the next entry begins.

    Only one function of kaldiio is called, for safe forms: ``read_kaldi`` unpickles what is marked
    as PKL. Text is read here: kaldiio fails on "[ 0 0.5 ]", taking it for whole numbers.
    """
    try:
        if _KALDI_BINARY.match(data, at):
            from kaldiio.matio import read_matrix_or_vector

            data.seek(at)
            array, size = read_matrix_or_vector(data, return_size=True)
            if data.tell() == at + size:  # kaldiio makes do with less
                return np.atleast_2d(array), at + size
        elif text := _KALDI_TEXT.match(data, at):
            rows = [line.split() for line in text[1].splitlines() if line.strip()]
            return np.array(rows, np.float64), text.end()
    except ImportError as error:
        raise DependencyError("Kaldi files need kaldiio. Run 'pip install kaldiio'.") from error
    except ValueError:
        pass
    raise ScoringError(
        f"{where}: no whole vector at byte {at}, which begins with {data[at : at + 5]!r}. Allowed "
        "are vectors or one-row matrices, binary (FV, DV, FM, DM) or in brackets. Nothing was run."
    )


# Arrays whose names are in a file beside them.
_ARRAYS: dict[str, Callable[[Path], npt.NDArray[Any]]]
_ARRAYS = {".npy": _npy, ".safetensors": _safetensors}
_READERS: dict[str, Callable[[Path], Iterator[Part]]]
_READERS = {".parquet": _read_parquet, **dict.fromkeys(_ARRAYS, _read_named), ".scp": _read_scp}
_READERS |= {".ark": _read_ark, ".pkl": read_pickle, ".pickle": read_pickle}
