"""Lists of trials and of labelled utterances: reading the formats in use, scoring trials.

Names stand for utterances. A list of trials keeps each name once and rows into the names, so ten
million trials take about 170 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.blockwise import cosines
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.validation import (
    Flags,
    Floats,
    Rows,
    as_embeddings,
    check_choice,
    checked_rows,
    norms_of,
)

Missing = Literal["error", "skip"]

_TARGET = {"1": True, "0": False, "target": True, "nontarget": False}

# Headers of CSV files, in lower case.
_HEADERS = (
    {"enrol", "enroll", "enrolment", "enrollment"},
    {"test"},
    {"label", "target"},
)

# Text is read so much at a time, and each of its blocks by a thread of its own.
_CHUNK_BYTES, _BLOCK_BYTES = 64 << 20, 8 << 20

# What spreadsheets put before the first line.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FORMATS = (
    "Allowed are '1 enrol test', 'enrol test target|nontarget', and the same with commas, "
    "also under a header of enrol, test, label."
)


@dataclass(frozen=True, eq=False)
class TrialList:
    """Trials whose truth is known.

    Attributes:
        names: names of utterances, each once.
        enrolment: [trials], rows of ``names``.
        test: [trials], rows of ``names``.
        labels: [trials], true for a target trial.
    """

    names: list[str]
    enrolment: Rows
    test: Rows
    labels: Flags


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Scores of the trials that could be scored.

    Attributes:
        scores: [scored], cosines, float32.
        rows: [scored], which trials of the list these are, ascending.
        enrolment: [scored], rows of the embeddings.
        test: [scored], rows of the embeddings.
        labels: [scored], true for a target trial.
        missing: names without an embedding.
    """

    scores: Floats
    rows: Rows
    enrolment: Rows
    test: Rows
    labels: Flags
    missing: list[str]


def cosine_scores(embeddings: object, enrolment_rows: object, test_rows: object) -> Floats:
    """Return the cosine of each trial, float32 [trials].

    Trials are gathered some at a time, so the memory beside arguments and result is a few
    mebibytes. The same two embeddings give the same bits in whatever row they stand.

    Args:
        embeddings: [utterances, dimensions].
        enrolment_rows: [trials], rows of ``embeddings``.
        test_rows: [trials], rows of ``embeddings``.

    Raises:
        ScoringError: bad embeddings, or rows that are not theirs.

    Example:
        >>> cosine_scores([[1, 0], [3, 4]], [0, 0], [0, 1])
        array([1. , 0.6], dtype=float32)
    """
    vectors = as_embeddings(embeddings, "embeddings")
    enrolment = checked_rows(enrolment_rows, "enrolment_rows", utterances=len(vectors))
    test = checked_rows(
        test_rows, "test_rows", utterances=len(vectors), trials=len(enrolment), of="enrolment_rows"
    )
    norms = norms_of(vectors, "embeddings")
    return cosines(vectors, vectors, enrolment, test, (norms, norms))


def score_trials(
    trials: TrialList, embeddings: Embeddings, *, missing: Missing = "error"
) -> ScoredTrials:
    """Score a list of trials with embeddings by name.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: what to do about trials with a name that has no embedding: ``"error"``, or
            ``"skip"`` to leave them out, counted.

    Raises:
        ScoringError: a name has no embedding; or no trial is left.
    """
    check_choice("missing", missing, get_args(Missing))
    at = embeddings.rows_of(trials.names)
    enrolment, test = at[trials.enrolment], at[trials.test]
    there = (enrolment >= 0) & (test >= 0)
    absent = [trials.names[row] for row in np.flatnonzero(at < 0)]
    left_out = len(there) - int(np.count_nonzero(there))
    if left_out and missing == "error":
        row = int(np.flatnonzero(~there)[0])
        side = trials.enrolment if enrolment[row] < 0 else trials.test
        raise ScoringError(
            f"{len(absent):,} of {len(at):,} utterances have no embedding in {embeddings.source}, "
            f"so {left_out:,} of {len(there):,} trials cannot be scored; the first is trial "
            f"{row + 1:,}, {trials.names[side[row]]!r} is not there. Embeddings are named like "
            f"{embeddings.names[0]!r}. To leave such trials out and have them counted: "
            "missing='skip' (--missing skip)."
        )
    if not there.any():
        raise ScoringError(
            f"None of the {len(there):,} trials has both embeddings in {embeddings.source}: the "
            f"list has names like {trials.names[0]!r}, the embeddings like {embeddings.names[0]!r}."
        )
    rows = np.flatnonzero(there)
    enrolment, test = enrolment[rows], test[rows]
    scores = cosine_scores(embeddings.vectors, enrolment, test)
    return ScoredTrials(scores, rows, enrolment, test, trials.labels[rows], absent)


# -- reading ----------------------------------------------------------------------------------


def read_trials(path: str | Path) -> TrialList:
    r"""Read a list of trials.

    Formats, told by the first line: ``1 enrol test`` (VoxCeleb, VoxBlink2), ``enrol test
    target|nontarget`` (Kaldi; ``1|0`` serves, too), separated by white space or commas, with or
    without a header ``enrol,test,label`` in any order. Names are kept as they are.

    Raises:
        ScoringError: the file is missing or empty, or a line is not a trial; names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n")
        ...     file.flush()
        ...     trials = read_trials(file.name)
        >>> trials.names, trials.enrolment, trials.test, trials.labels
        (['a/1.wav', 'a/2.wav', 'b/1.wav'], array([0, 0]), array([1, 2]), array([ True, False]))
    """
    found: dict[str, int] = {}
    parts: list[tuple[Rows, Rows, Flags]] = []
    columns: tuple[int, int, int] | None = None
    for table, line in _tables(Path(path), width=3, formats=_FORMATS):
        header = 0
        if columns is None:
            columns, header = _columns(table, path)
        enrolment, test, label = (table.column(column) for column in columns)
        if header:  # encoded anew, so that its words are no names
            enrolment, test, label = (
                column.slice(1).cast(pa.string()).dictionary_encode()
                for column in (enrolment, test, label)
            )
        flags = _flags(label, path, line + header)
        parts.append((*_named(enrolment, test, found), flags))
    if not sum(len(part[2]) for part in parts):
        raise ScoringError(f"{path} holds no trial. {_FORMATS}")
    enrolments, tests, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return TrialList(list(found), enrolments, tests, labels)


def read_labelled(path: str | Path) -> tuple[list[str], list[str]]:
    """Read a list of ``utterance label``, as the gallery and the probes of an OSSI protocol.

    Returns:
        Names and labels, both as texts.

    Raises:
        ScoringError: the file is missing or empty, or a line has not two words; names the line.
    """
    formats = "Each line holds an utterance and its label."
    names: list[str] = []
    labels: list[str] = []
    for table, _ in _tables(Path(path), width=2, formats=formats):
        names += table.column(0).to_pylist()
        labels += table.column(1).to_pylist()
    return names, labels


def _tables(path: Path, *, width: int, formats: str) -> Iterator[tuple[pa.Table, int]]:
    """Yield the words of a text file as tables of dictionary-encoded columns, some lines each.

    Yields:
        A table, and how many lines with words there were before it.
    """
    lines = 0
    try:
        with open(path, "rb") as file:
            for chunk in _chunks(file):
                table = _table(chunk, path, width=width, formats=formats, before=lines)
                if len(table):
                    yield table, lines
                lines += len(table)
    except OSError as error:
        raise ScoringError(f"{path} cannot be read: {error.strerror or error}") from error
    if not lines:
        raise ScoringError(f"{path} is empty. {formats}")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines, many at a time."""
    rest = file.read(3).removeprefix(_BYTE_ORDER_MARK)
    while block := file.read(_CHUNK_BYTES):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
    if rest:
        yield rest


def _single_separators(lines: bytes) -> tuple[bytes, str]:
    """Return lines whose words are separated by one character, and that character."""
    lines = lines.strip()
    if not any(odd in lines for odd in (b"\t", b",", b"  ", b" \n", b"\n ", b" \r")):
        return lines, " "
    lines = re.sub(rb"[ \t,]+", b"\t", lines)
    return re.sub(rb"\t*\r?\n[\t\r\n]*", b"\n", lines).strip(), "\t"


def _table(
    chunk: bytes, path: Path, *, width: int, formats: str, before: int, threads: bool = True
) -> pa.Table:
    wrong: list[pa_csv.InvalidRow] = []

    def remember(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    texts = pa.dictionary(pa.int32(), pa.string())
    names = [f"{column}" for column in range(width)]
    lines, separator = _single_separators(chunk)
    if not lines:
        return pa.schema([(name, texts) for name in names]).empty_table()
    try:
        lines.decode("utf-8")  # Arrow says no more of bad bytes than that there are some
        table = pa_csv.read_csv(
            pa.py_buffer(lines),
            read_options=pa_csv.ReadOptions(
                column_names=names, use_threads=threads, block_size=_BLOCK_BYTES
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=separator, quote_char=False, invalid_row_handler=remember
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, texts), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ScoringError(f"{path} cannot be read as text: {error}. {formats}") from error
    if wrong and threads:  # rows have their numbers only when one thread reads
        _table(chunk, path, width=width, formats=formats, before=before, threads=False)
    if wrong:
        raise ScoringError(
            f"{path}, line {before + wrong[0].number:,} (empty lines not counted): "
            f"{' '.join(wrong[0].text.split())!r} has {wrong[0].actual_columns} words where "
            f"{width} are needed. {formats}"
        )
    return table


def _columns(table: pa.Table, path: str | Path) -> tuple[tuple[int, int, int], int]:
    """Return where enrolment, test and label stand, and how many lines the header has."""
    words = [table.column(column)[0].as_py() for column in range(3)]
    low = [word.lower() for word in words]
    at = [[column for column in range(3) if low[column] in names] for names in _HEADERS]
    if all(len(columns) == 1 for columns in at):
        return (at[0][0], at[1][0], at[2][0]), 1
    if low[2] in _TARGET:
        return (0, 1, 2), 0
    if low[0] in {"0", "1"}:
        return (1, 2, 0), 0
    raise ScoringError(f"{path}, line 1: {' '.join(words)!r} is not a trial. {_FORMATS}")


def _flags(labels: pa.ChunkedArray, path: str | Path, before: int) -> Flags:
    found: list[Flags] = [np.empty(0, bool)]
    for chunk in labels.chunks:
        known = [_TARGET.get(word.lower(), -1) for word in chunk.dictionary.to_pylist()]
        labels_here = np.array(known)[chunk.indices.to_numpy(zero_copy_only=False)]
        if (wrong := np.flatnonzero(labels_here < 0)).size:
            row = before + sum(len(part) for part in found) + int(wrong[0])
            raise ScoringError(
                f"{path}, line {row + 1:,} (empty lines not counted): the label is "
                f"{chunk[int(wrong[0])].as_py()!r}; allowed are {', '.join(_TARGET)}. {_FORMATS}"
            )
        found.append(labels_here == 1)
    return np.concatenate(found)


def _named(
    enrolment: pa.ChunkedArray, test: pa.ChunkedArray, found: dict[str, int]
) -> tuple[Rows, Rows]:
    """Return the row of each name; names that are new get the next ones."""
    both = pa.chunked_array([*enrolment.chunks, *test.chunks], enrolment.type).unify_dictionaries()
    if not len(both):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    names = both.chunk(0).dictionary.to_pylist()
    rows = np.array([found.setdefault(name, len(found)) for name in names], np.int64)
    at = [rows[chunk.indices.to_numpy(zero_copy_only=False)] for chunk in both.chunks]
    count = enrolment.num_chunks
    return np.concatenate(at[:count]), np.concatenate(at[count:])


def speakers_of(names: Sequence[str]) -> list[str]:
    """Return the speaker of each name, ``id`` and five or six digits.

    Raises:
        ScoringError: a name does not tell its speaker; names it.
    """
    speakers = []
    for name in names:
        match = re.search(r"(?:^|/)(id\d{5,6})(?=[/-])", name)
        if not match:
            raise ScoringError(
                f"{name!r} does not tell its speaker; names such as id10270/x6uYqmx31kE/00001.wav "
                "or id10270-x6uYqmx31kE-00001 do."
            )
        speakers.append(match[1])
    return speakers
