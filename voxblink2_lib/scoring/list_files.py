"""Read lists with the same columns in each line, from text or Parquet.

Words are separated by spaces, tabs and commas in any number. Below a header, or where that does not
fit, tabs, semicolons or commas alone separate them. :mod:`voxblink2_lib.scoring.list_text` defines
the words of a line; PyArrow splits the chunks in which it finds the same words, Python the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size, shortened
from voxblink2_lib.progress import counted
from voxblink2_lib.scoring.list_text import (
    TextChunk,
    numbered_lines,
    read_chunks,
    split_words,
    tighten_quotes,
)

# The blocks of a chunk are parsed in parallel.
_BLOCK_BYTES = 2 << 20

# What may separate words alone, these first.
_SEPARATORS = ("\t", ";", ",")

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMENT_LINE = re.compile(rb"^[ \t]*(#|;;)", re.MULTILINE)
_QUOTED = re.compile(rb'(?<![^ \n])"([^" \n]+)"(?![^ \n])')
_AS_SPACES = bytes.maketrans(b"\t,", b"  ")

LABEL, SCORE = "label", "score"
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# Types of columns that are no plain texts.
_TYPES = {LABEL: _DICTIONARY, SCORE: pa.float64()}

Columns = dict[str, int]


class ListKind(NamedTuple):
    """What a kind of list holds, and how its columns are recognized.

    Attributes:
        noun: what a line is, for messages.
        accepted: the forms of a line, for messages.
        headers: names of each column in a header, in lower case, without ``_``, ``-`` and spaces.
        required: columns that a header must have; others may be missing.
        recognize: returns the columns of a line without a header, ``None`` if it is no such line.
    """

    noun: str
    accepted: str
    headers: dict[str, set[str]]
    required: frozenset[str]
    recognize: Callable[[Sequence[str]], Columns | None]


class Block(NamedTuple):
    """Many items of a list.

    Attributes:
        columns: their words by column: texts, of which ``label`` are dictionary-encoded, and
            ``score``, float64.
        place: returns file and line (or row) of an item, for messages.
    """

    columns: dict[str, pa.ChunkedArray]
    place: Callable[[int], str]


class _Layout(NamedTuple):
    """How the lines of a file are split.

    Attributes:
        separator: the only separator; ``None`` for any run of spaces, tabs and commas.
        words: number of words in each line.
        columns: which of them are read.
        line: number of the line that shows this.
        is_header: that line is a header.
    """

    separator: str | None
    words: int
    columns: Columns
    line: int
    is_header: bool


def read_blocks(path: Path, kind: ListKind) -> Iterator[Block]:
    """Yield the items of a list.

    Raises:
        ScoringError: the file is missing or empty, or a line is not what the first one is; names
            the line and what is accepted.
    """
    if path.suffix.lower() == ".parquet":
        yield from _parquet_blocks(path, kind)
        return
    layout: _Layout | None = None
    for chunk in read_chunks(path):
        lines = chunk
        if layout is None:
            first = next(numbered_lines(chunk), None)
            if first is None:
                continue
            layout = _recognized(path, *first, kind)
            if layout.is_header:
                lines = chunk.from_line(layout.line + 1)
        columns = _fast_columns(lines.lines, layout)
        if columns is None:
            columns = _careful_columns(lines, layout, kind)
        if len(next(iter(columns.values()))):
            yield Block(columns, partial(_place, lines, layout))
    if layout is None:
        raise ScoringError(f"{path} is empty. {kind.accepted}")


# -- Columns ---------------------------------------------------------------------------------------


def _recognized(path: Path, number: int, line: str, kind: ListKind) -> _Layout:
    """Return how the lines of a file are split, by the first of them."""
    for separator in (*_SEPARATORS, None):
        words = split_words(line, separator)
        columns = _header_columns(words, kind)
        if columns is not None:
            return _Layout(separator, len(words), columns, number, is_header=True)
    # Where words are empty, a run of tabs as one would shift those behind.
    for separator in (*(["\t"] if "\t\t" in line else []), None, *_SEPARATORS):
        words = split_words(line, separator)
        columns = kind.recognize(words)
        if columns is not None and all(words[column] for column in columns.values()):
            return _Layout(separator, len(words), columns, number, is_header=False)
    raise ScoringError(
        f"{path}, line {number:,}: {shortened(line.strip())} is not {kind.noun}. {kind.accepted}"
    )


def plain_header(word: str) -> str:
    """Return a word of a header in lower case, without ``_``, ``-`` and spaces."""
    return re.sub("[_ -]", "", word.lower())


def _header_columns(words: Sequence[str], kind: ListKind) -> Columns | None:
    plain = [plain_header(word) for word in words]
    places = {
        column: [place for place, word in enumerate(plain) if word in names]
        for column, names in kind.headers.items()
    }
    columns = {column: matches[0] for column, matches in places.items() if len(matches) == 1}
    is_clear = all(len(matches) < 2 for matches in places.values())
    return columns if is_clear and kind.required <= columns.keys() else None


# -- Line by line ----------------------------------------------------------------------------------


def _lines_of(chunk: TextChunk, layout: _Layout) -> Iterator[tuple[int, str, list[str]]]:
    """Yield number, text and words of each line that has words."""
    for number, line in numbered_lines(chunk):
        words = split_words(line, layout.separator)
        if any(words):
            yield number, line, words


def _place(chunk: TextChunk, layout: _Layout, item: int) -> str:
    """Return file and line of an item, for messages."""
    numbers = (number for number, _, _ in _lines_of(chunk, layout))
    return f"{chunk.path}, line {next(islice(numbers, item, None)):,}"


def _careful_columns(
    chunk: TextChunk, layout: _Layout, kind: ListKind
) -> dict[str, pa.ChunkedArray]:
    lists: dict[str, list[str]] = {column: [] for column in layout.columns}
    for number, line, words in _lines_of(chunk, layout):
        if problem := _problem(words, layout):
            text = shortened(line.strip())
            place = f"{chunk.path}, line {number:,}"
            raise ScoringError(f"{place}: {text} {problem}. {kind.accepted}")
        for column, values in lists.items():
            values.append(words[layout.columns[column]])
    return {column: pa.chunked_array([_array(column, lists[column])]) for column in lists}


def _problem(words: Sequence[str], layout: _Layout) -> str | None:
    """Return why a line is refused, if it is."""
    if len(words) != layout.words:
        return f"has {counted(len(words), 'word')}, but line {layout.line:,} has {layout.words}"
    for column, place in layout.columns.items():
        if not words[place]:
            return f"has no {column}"
        if column == SCORE and not is_number(words[place]):
            return f"has the score {shortened(words[place])}; allowed are finite decimal numbers"
    return None


def _array(column: str, words: list[str]) -> pa.Array:
    if column == SCORE:
        return pa.array([float(word) for word in words], pa.float64())
    texts = pa.array(words, pa.string())
    return texts.dictionary_encode() if column == LABEL else texts


def is_number(word: str) -> bool:
    """Return whether a word is a finite decimal number.

    >>> is_number("-1.5e-3"), is_number("nan"), is_number("1_0"), is_number("1,5")
    (True, False, False, False)
    """
    return bool(_NUMBER.fullmatch(word)) and abs(float(word)) < float("inf")


# -- Fast ------------------------------------------------------------------------------------------


def _fast_columns(lines: bytes, layout: _Layout) -> dict[str, pa.ChunkedArray] | None:
    """Split lines by PyArrow; ``None`` if it may not find the same words, or any is wrong."""
    lines = lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines
    if b"\r" in lines or b"\0" in lines:
        return None
    if (b"#" in lines or b";;" in lines) and _COMMENT_LINE.search(lines):
        return None
    forms = _separated(lines, layout) if layout.separator is None else _delimited(lines, layout)
    for plain in forms:
        columns = _parsed(plain, layout)
        if columns is not None:
            return columns
    return None


class _PlainLines(NamedTuple):
    """Lines for PyArrow.

    Attributes:
        lines: the lines.
        separator: the character between words.
        quoted: number of lines, if words may be in quotes.
    """

    lines: bytes
    separator: bytes
    quoted: int | None = None


def _separated(lines: bytes, layout: _Layout) -> Iterator[_PlainLines]:
    """Yield forms of lines with any run of spaces, tabs and commas between words."""
    marks = [mark for mark in (b" ", b"\t", b",") if mark in lines]
    has_quotes = b'"' in lines
    if len(marks) == 1 and not has_quotes:
        mark = marks[0]
        # If two follow each other, a word is empty, which is seen only if it is read.
        odd = (mark + mark, mark + b"\n", b"\n" + mark)
        if layout.words == len(layout.columns) or not any(form in lines for form in odd):
            yield _PlainLines(lines, mark)
    if b"\t" in marks or b"," in marks:
        lines = lines.translate(_AS_SPACES)
    while b"  " in lines:
        lines = lines.replace(b"  ", b" ")
    for end in (b" \n", b"\n "):
        if end in lines:
            lines = lines.replace(end, b"\n")
    lines = lines.strip(b" \n")
    if has_quotes:
        lines = _QUOTED.sub(rb"\1", lines)
    if b'"' not in lines:
        yield _PlainLines(lines, b" ")


def _delimited(lines: bytes, layout: _Layout) -> Iterator[_PlainLines]:
    """Yield the form of lines with one separator, perhaps with words in quotes."""
    assert layout.separator
    mark, quoted = layout.separator.encode(), None
    if b'"' in lines:
        if b' "' in lines or b'\t"' in lines:
            text = lines.decode("utf-8", "surrogateescape")
            lines = tighten_quotes(text, layout.separator).encode("utf-8", "surrogateescape")
        quoted = lines.count(b"\n") + (not lines.endswith(b"\n"))
    yield _PlainLines(lines, mark, quoted)


def _parsed(plain: _PlainLines, layout: _Layout) -> dict[str, pa.ChunkedArray] | None:
    """Parse lines; ``None`` if one has another number of words, or a wrong one."""
    types = {column: _TYPES.get(column, pa.string()) for column in layout.columns}
    if not plain.lines.strip():
        return {column: pa.chunked_array([], kind) for column, kind in types.items()}
    names = {place: column for column, place in layout.columns.items()}
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(plain.lines),
            read_options=pa_csv.ReadOptions(
                column_names=[names.get(place, str(place)) for place in range(layout.words)],
                block_size=_BLOCK_BYTES,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=plain.separator.decode(), quote_char=plain.quoted is not None and '"'
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                strings_can_be_null=False,
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    # A quote that is not closed would join lines.
    if plain.quoted not in {None, len(table)}:
        return None
    columns = {column: table.column(column) for column in types}
    blanks = {b" ", b"\t"} - {plain.separator}
    if layout.separator is not None and any(blank in plain.lines for blank in blanks):
        columns = {column: _trimmed(words) for column, words in columns.items()}
    return columns if all(map(_is_whole, columns.values())) else None


def _trimmed(words: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim(words, " \t") if words.type == pa.string() else words


def _is_whole(words: pa.ChunkedArray) -> bool:
    """Return whether no word is empty or needs trimming, and all numbers are finite."""
    if words.type == pa.float64():
        return bool(pc.all(pc.is_finite(words), min_count=0).as_py())
    if words.type == _DICTIONARY:
        texts = [text for chunk in words.chunks for text in chunk.dictionary.to_pylist()]
        return all(text and text == text.strip(" \t") for text in texts)
    return bool(pc.all(pc.greater(pc.binary_length(words), 0), min_count=0).as_py())


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet_blocks(path: Path, kind: ListKind) -> Iterator[Block]:
    with (
        as_own_error(ScoringError, f"{path}: cannot be read as Parquet", kind.accepted),
        pq.ParquetFile(path) as parquet,
    ):
        check_parquet_size(path, parquet.metadata)
        names = parquet.schema_arrow.names
        columns = _header_columns(names, kind)
        if columns is None:
            raise ScoringError(
                f"{path}: the columns {shortened(', '.join(names), quoted=False)} are not those "
                f"of {kind.noun}. {kind.accepted}"
            )
        first = 0
        for batch in parquet.iter_batches(columns=[names[place] for place in columns.values()]):
            chosen = {column: names[place] for column, place in columns.items()}
            yield _parquet_block(path, batch, chosen, first, kind)
            first += len(batch)
        if not first:
            raise ScoringError(f"{path} is empty. {kind.accepted}")


def _parquet_block(
    path: Path, batch: pa.RecordBatch, names: dict[str, str], first: int, kind: ListKind
) -> Block:
    batch.validate(full=True)
    columns = {}
    for column, name in names.items():
        values = batch.column(name)
        if values.null_count:
            row = first + values.is_null().index(True).as_py()
            raise ScoringError(f"{path}, row {row:,}: it has no {column}. {kind.accepted}")
        if column == SCORE:
            if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
                raise ScoringError(
                    f"{path}, column {shortened(name)}: it is of the type {values.type}; allowed "
                    f"are numbers. {kind.accepted}"
                )
            values = values.cast(pa.float64())
            finite = pc.is_finite(values)
            if not pc.all(finite).as_py():
                row = first + finite.index(False).as_py()
                raise ScoringError(
                    f"{path}, row {row:,}: the score is {values[row - first]}; allowed are finite "
                    f"numbers. {kind.accepted}"
                )
        else:
            values = values.cast(pa.string())
            values = values.dictionary_encode() if column == LABEL else values
        columns[column] = pa.chunked_array([values])
    return Block(columns, lambda item: f"{path}, row {first + item:,}")
