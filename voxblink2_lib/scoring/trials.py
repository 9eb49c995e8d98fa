"""Read trial lists and lists of labelled utterances, and score trials by cosine.

A trial list stores each utterance's name once and refers to names by row, so ten million trials
take about 170 MB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, get_args

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

# Text is read in chunks, and the blocks of a chunk are parsed in parallel.
_CHUNK_BYTES, _BLOCK_BYTES = 64 << 20, 8 << 20

# What spreadsheets write before the first line.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _LineFormat(NamedTuple):
    words: int
    description: str  # for messages


_TRIAL_LINES = _LineFormat(
    3,
    "Allowed are '1 enrol test', 'enrol test target|nontarget', and the same with commas, "
    "also under a header of enrol, test, label.",
)
_LABELLED_LINES = _LineFormat(2, "Each line holds an utterance and its label.")


@dataclass(frozen=True, eq=False)
class TrialList:
    """Labelled trials.

    Attributes:
        names: names of utterances, each once.
        enrolment: rows of ``names``. Shape: [trials].
        test: rows of ``names``. Shape: [trials].
        labels: true for a target trial. Shape: [trials].
    """

    names: list[str]
    enrolment: Rows
    test: Rows
    labels: Flags


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Scores of the trials that could be scored.

    Attributes:
        scores: cosines, float32. Shape: [scored].
        rows: rows of these trials in the list, ascending. Shape: [scored].
        enrolment: rows of the embeddings. Shape: [scored].
        test: rows of the embeddings. Shape: [scored].
        labels: true for a target trial. Shape: [scored].
        missing: names without an embedding.
    """

    scores: Floats
    rows: Rows
    enrolment: Rows
    test: Rows
    labels: Flags
    missing: list[str]


def cosine_scores(embeddings: object, enrolment_rows: object, test_rows: object) -> Floats:
    """Return the cosine of each trial, float32. Shape: [trials].

    Trials are processed in blocks, so the memory in addition to arguments and result is a few
    mebibytes. The same two embeddings give the same bits in whatever rows they are.

    Args:
        embeddings: embeddings. Shape: [utterances, dimensions].
        enrolment_rows: rows of ``embeddings``. Shape: [trials].
        test_rows: rows of ``embeddings``. Shape: [trials].

    Raises:
        ScoringError: bad embeddings, or rows that they do not have.

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
    """Score a trial list by the cosines of its utterances' embeddings.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: what to do about trials with an utterance without embedding: ``"error"``, or
            ``"skip"`` to leave them out, counted.

    Raises:
        ScoringError: a name has no embedding; or no trial is left.
    """
    check_choice("missing", missing, get_args(Missing))
    embedding_rows = embeddings.rows_of(trials.names)
    enrolment, test = embedding_rows[trials.enrolment], embedding_rows[trials.test]
    covered: Flags = (enrolment >= 0) & (test >= 0)
    absent = [trials.names[row] for row in np.flatnonzero(embedding_rows < 0)]
    if missing == "error" and not covered.all():
        row = int(np.flatnonzero(~covered)[0])
        side = trials.enrolment if enrolment[row] < 0 else trials.test
        raise ScoringError(
            f"{len(absent):,} of {len(trials.names):,} utterances have no embedding in "
            f"{embeddings.source}, so {np.count_nonzero(~covered):,} of {len(covered):,} trials "
            f"cannot be scored; the first is trial {row + 1:,}, {trials.names[side[row]]!r} is "
            f"missing. Embeddings are named like {embeddings.names[0]!r}. To leave such trials out "
            "and have them counted: missing='skip' (--missing skip)."
        )
    if not covered.any():
        raise ScoringError(
            f"None of the {len(covered):,} trials has both embeddings in {embeddings.source}: the "
            f"list has names like {trials.names[0]!r}, the embeddings like {embeddings.names[0]!r}."
        )
    rows = np.flatnonzero(covered)
    enrolment, test = enrolment[rows], test[rows]
    scores = cosine_scores(embeddings.vectors, enrolment, test)
    return ScoredTrials(scores, rows, enrolment, test, trials.labels[rows], absent)


# -- Reading ---------------------------------------------------------------------------------------


def read_trials(path: str | Path) -> TrialList:
    r"""Read a trial list.

    The format is recognized by the first line: ``1 enrol test`` (VoxCeleb, VoxBlink2) or ``enrol
    test target|nontarget`` (Kaldi; also with ``1|0``), separated by white space or commas, with or
    without a header ``enrol,test,label`` in any order. Names are not changed.

    Args:
        path: the list, or the folder of the release, which has one in ``data/test_vox``.

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
    rows_by_name: dict[str, int] = {}
    parts: list[tuple[Rows, Rows, Flags]] = []
    columns: tuple[int, int, int] | None = None
    inner = (Path(path) / name for name in ("data/test_vox/trials", "test_vox/trials", "trials"))
    path = next(filter(os.path.isfile, inner), Path(path))
    for table, line in _tables(path, _TRIAL_LINES):
        header = 0
        if columns is None:
            columns, header = _columns(table, path)
        enrolment, test, label = (table.column(column) for column in columns)
        if header:  # encoded again, so that its words do not become names
            enrolment, test, label = (
                column.slice(1).cast(pa.string()).dictionary_encode()
                for column in (enrolment, test, label)
            )
        flags = _flags(label, path, line + header)
        parts.append((*_name_rows(enrolment, test, rows_by_name), flags))
    if not sum(len(flags) for _, _, flags in parts):
        raise ScoringError(f"{path} contains no trial. {_TRIAL_LINES.description}")
    enrolments, tests, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return TrialList(list(rows_by_name), enrolments, tests, labels)


def read_labelled(path: str | Path) -> tuple[list[str], list[str]]:
    """Read a list of ``utterance label``, such as the gallery and the probes of an OSSI protocol.

    Returns:
        Names and labels.

    Raises:
        ScoringError: the file is missing or empty, or a line is not two words; names the line.
    """
    names: list[str] = []
    labels: list[str] = []
    for table, _ in _tables(Path(path), _LABELLED_LINES):
        names += table.column(0).to_pylist()
        labels += table.column(1).to_pylist()
    return names, labels


def _tables(path: Path, line_format: _LineFormat) -> Iterator[tuple[pa.Table, int]]:
    """Yield the words of a text file as tables of dictionary-encoded columns.

    Yields:
        A table of many lines, and the number of lines before it, empty ones not counted.
    """
    lines = 0
    try:
        with open(path, "rb") as file:
            for chunk in _chunks(file):
                table = _table(chunk, path, line_format, lines_before=lines)
                if len(table):
                    yield table, lines
                lines += len(table)
    except OSError as error:
        raise ScoringError(f"{path} cannot be read: {error.strerror or error}") from error
    if not lines:
        raise ScoringError(f"{path} is empty. {line_format.description}")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
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
    """Return lines whose words are separated by a single character, and that character."""
    lines = lines.strip()
    if not any(odd in lines for odd in (b"\t", b",", b"  ", b" \n", b"\n ", b" \r")):
        return lines, " "
    lines = re.sub(rb"[ \t,]+", b"\t", lines)
    return re.sub(rb"\t*\r?\n[\t\r\n]*", b"\n", lines).strip(), "\t"


def _table(chunk: bytes, path: Path, line_format: _LineFormat, *, lines_before: int) -> pa.Table:
    lines, separator = _single_separators(chunk)
    wrong: list[pa_csv.InvalidRow] = []
    try:
        lines.decode("utf-8")  # Arrow's own message does not say where the bad bytes are
        table = _parse(lines, separator, line_format.words, wrong)
        if wrong:  # rows have numbers only if a single thread reads them
            wrong.clear()
            _parse(lines, separator, line_format.words, wrong, use_threads=False)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        problem = f"{path} cannot be read as text: {error}. {line_format.description}"
        raise ScoringError(problem) from error
    if wrong:
        row = wrong[0]
        raise ScoringError(
            f"{path}, line {lines_before + row.number:,} (empty lines not counted): "
            f"{' '.join(row.text.split())!r} has {row.actual_columns} words where "
            f"{line_format.words} are needed. {line_format.description}"
        )
    return table


def _parse(
    lines: bytes,
    separator: str,
    words: int,
    wrong: list[pa_csv.InvalidRow],
    *,
    use_threads: bool = True,
) -> pa.Table:
    """Parse lines of so many words; others are left out and appended to ``wrong``."""

    def leave_out(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    text = pa.dictionary(pa.int32(), pa.string())
    names = [str(column) for column in range(words)]
    if not lines:
        return pa.schema([(name, text) for name in names]).empty_table()
    return pa_csv.read_csv(
        pa.py_buffer(lines),
        read_options=pa_csv.ReadOptions(
            column_names=names, use_threads=use_threads, block_size=_BLOCK_BYTES
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=separator, quote_char=False, invalid_row_handler=leave_out
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, text), strings_can_be_null=False
        ),
    )


def _columns(table: pa.Table, path: str | Path) -> tuple[tuple[int, int, int], int]:
    """Return the columns of enrolment, test and label, and the number of header lines."""
    words = [table.column(column)[0].as_py() for column in range(3)]
    low = [word.lower() for word in words]
    named = [[column for column in range(3) if low[column] in names] for names in _HEADERS]
    if all(len(columns) == 1 for columns in named):
        return (named[0][0], named[1][0], named[2][0]), 1
    if low[2] in _TARGET:
        return (0, 1, 2), 0
    if low[0] in {"0", "1"}:
        return (1, 2, 0), 0
    raise ScoringError(
        f"{path}, line 1: {' '.join(words)!r} is not a trial. {_TRIAL_LINES.description}"
    )


def _flags(labels: pa.ChunkedArray, path: str | Path, before: int) -> Flags:
    parts: list[Flags] = [np.empty(0, bool)]
    for chunk in labels.chunks:
        known = [_TARGET.get(word.lower(), -1) for word in chunk.dictionary.to_pylist()]
        values = np.array(known)[chunk.indices.to_numpy(zero_copy_only=False)]
        if (wrong := np.flatnonzero(values < 0)).size:
            line = before + sum(map(len, parts)) + int(wrong[0]) + 1
            raise ScoringError(
                f"{path}, line {line:,} (empty lines not counted): the label is "
                f"{chunk[int(wrong[0])].as_py()!r}; allowed are {', '.join(_TARGET)}. "
                f"{_TRIAL_LINES.description}"
            )
        parts.append(values == 1)
    return np.concatenate(parts)


def _name_rows(
    enrolment: pa.ChunkedArray, test: pa.ChunkedArray, rows_by_name: dict[str, int]
) -> tuple[Rows, Rows]:
    """Return the row of each name; new names are added to ``rows_by_name``."""
    both = pa.chunked_array([*enrolment.chunks, *test.chunks], enrolment.type).unify_dictionaries()
    if not len(both):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    names = both.chunk(0).dictionary.to_pylist()
    row_list = [rows_by_name.setdefault(name, len(rows_by_name)) for name in names]
    rows = np.array(row_list, np.int64)
    parts = [rows[chunk.indices.to_numpy(zero_copy_only=False)] for chunk in both.chunks]
    count = enrolment.num_chunks
    return np.concatenate(parts[:count]), np.concatenate(parts[count:])


def speakers_of(names: Sequence[str]) -> list[str]:
    """Return the speaker of each name, ``id`` and five or six digits.

    Raises:
        ScoringError: a name does not contain its speaker; the message quotes it.
    """
    speakers = []
    for name in names:
        match = re.search(r"(?:^|/)(id\d{5,6})(?=[/-])", name)
        if not match:
            raise ScoringError(
                f"{name!r} does not contain its speaker; names such as "
                "id10270/x6uYqmx31kE/00001.wav or id10270-x6uYqmx31kE-00001 do."
            )
        speakers.append(match[1])
    return speakers
