"""The lines of text files as they come, and the words of a line.

Text may be UTF-8 with or without a byte order mark, UTF-16, or either in gzip, with any line ends.
Blank lines and comments (``#``, ``;;``) are no lines of a list, but they count.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import ScoringError

_CHUNK_BYTES = 8 << 20

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP_MAGIC = b"\x1f\x8b"

_COPY_AGAIN = " Copy the file again: allowed are whole text files, also in gzip."

_COMMENT = re.compile(r"[ \t]*(#|;;)")
_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_END_BYTES = re.compile(rb"\r\n|\r|\n")
# In quotes that end the word, where two quotes stand for one; or anything else.
_WORD = re.compile(r'"((?:[^"]|"")*)"(?![^ \t,])|([^ \t,]+)')


class TextChunk(NamedTuple):
    """Whole lines of a file.

    Attributes:
        path: the file.
        lines: the lines, UTF-8.
        first_line: number of the first, counted from 1.
    """

    path: Path
    lines: bytes
    first_line: int

    def from_line(self, number: int) -> TextChunk:
        """Return the lines from one of this chunk, not the first, to its end."""
        ends = islice(_LINE_END_BYTES.finditer(self.lines), number - self.first_line - 1, None)
        end = next(ends, None)
        return TextChunk(self.path, self.lines[end.end() :] if end else b"", number)


def read_chunks(path: Path) -> Iterator[TextChunk]:
    """Yield the lines of a file in chunks.

    Raises:
        ScoringError: it cannot be read, unpacked or decoded.
    """
    number, rest = 1, b""
    try:
        with open(path, "rb") as file:
            for block in _utf8_blocks(file):
                lines = rest + block
                end = lines.rfind(b"\n") + 1
                rest, lines = lines[end:], lines[:end]
                if lines:
                    yield TextChunk(path, lines, number)
                    number += _count_line_ends(lines)
    except (OSError, EOFError, zlib.error) as error:
        problem = str(getattr(error, "strerror", None) or error).rstrip(".")
        place = _place_behind(path, number)
        advice = "" if isinstance(error, FileNotFoundError | IsADirectoryError) else _COPY_AGAIN
        raise ScoringError(f"{place} cannot be read: {problem}.{advice}") from error
    except UnicodeDecodeError as error:
        raise ScoringError(
            f"{_place_behind(path, number)} is not whole UTF-16 text: {error.reason}."
            f"{_COPY_AGAIN} Lists may also be UTF-8."
        ) from error
    if rest:
        yield TextChunk(path, rest, number)


def _place_behind(path: Path, number: int) -> str:
    """Return what is behind the lines before one, for messages."""
    return f"{path}, behind line {number - 1:,}," if number > 1 else str(path)


def _utf8_blocks(file: Any) -> Iterator[bytes]:
    """Yield the content of a binary file, unpacked and without a byte order mark."""
    head = file.peek(2)[:2]
    if head == _GZIP_MAGIC:
        file = gzip.GzipFile(fileobj=file)
        head = file.peek(2)[:2]
    if head in _UTF16_MARKS:
        decoder = codecs.getincrementaldecoder("utf-16")()
        while block := file.read(_CHUNK_BYTES):
            yield decoder.decode(block).encode()
        decoder.decode(b"", final=True)
        return
    yield file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while block := file.read(_CHUNK_BYTES):
        yield block


def _count_line_ends(lines: bytes) -> int:
    count = lines.count(b"\n")
    return count + lines.count(b"\r") - lines.count(b"\r\n") if b"\r" in lines else count


def numbered_lines(chunk: TextChunk) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is neither blank nor a comment.

    Raises:
        ScoringError: the lines are not text; names the first that is not.
    """
    try:
        text = chunk.lines.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = chunk.lines[error.start : error.start + 1]
        number = chunk.first_line + _count_line_ends(chunk.lines[: error.start])
        raise _no_text(chunk, number, f"byte {wrong!r}") from error
    for number, line in enumerate(_LINE_END.split(text), start=chunk.first_line):
        if "\0" in line:
            raise _no_text(chunk, number, "a byte of zero")
        if not is_skipped(line):
            yield number, line


def is_skipped(line: str) -> bool:
    """Return whether a line is blank or a comment."""
    return not line.strip(" \t,;") or _COMMENT.match(line) is not None


def _no_text(chunk: TextChunk, number: int, wrong: str) -> ScoringError:
    return ScoringError(
        f"{chunk.path}, line {number:,}: {wrong} is not UTF-8 text. Save the list as UTF-8, or as "
        "UTF-16 with a byte order mark."
    )


def split_words(line: str, separator: str | None) -> list[str]:
    """Return the words of a line.

    Args:
        line: the line.
        separator: what separates words, of which some may be empty; ``None`` for any run of
            spaces, tabs and commas.

    >>> split_words('1 "a b.wav", c', None), split_words("a; ;c d", ";")
    (['1', 'a b.wav', 'c'], ['a', '', 'c d'])
    """
    if separator is None:
        return [_unquoted(word) for word in _WORD.finditer(line)]
    words = line.split(separator)
    if '"' in line and len(line) < csv.field_size_limit():
        words = next(csv.reader([tighten_quotes(line, separator)], delimiter=separator))
    return [word.strip(" \t") for word in words]


def _unquoted(word: re.Match[str]) -> str:
    return word[2] if word[1] is None else word[1].replace('""', '"')


def tighten_quotes(lines: str, separator: str) -> str:
    """Remove blanks before words in quotes: readers of CSV see quotes at the start of a word only.

    A blank is a space or a tab, unless tabs separate words.
    """
    blanks = " " if separator == "\t" else " \t"
    if not any(f'{blank}"' in lines for blank in blanks):
        return lines
    return re.sub(rf'(^|{separator})[{blanks}]+"', r'\1"', lines, flags=re.MULTILINE)


def read_words(path: Path, accepted: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line, however many words it has.

    Words are separated by tabs alone where a line has tabs, else by spaces and commas.

    Args:
        path: the file.
        accepted: the forms of a line, for messages.

    Raises:
        ScoringError: the file cannot be read as text, or has no line.
    """
    is_empty = True
    for chunk in read_chunks(path):
        for number, line in numbered_lines(chunk):
            is_empty = False
            yield number, split_words(line, "\t" if "\t" in line else None)
    if is_empty:
        raise ScoringError(f"{path} is empty. {accepted}")
