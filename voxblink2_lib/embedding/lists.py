"""Lists of audio: Kaldi's ``wav.scp`` and ``segments``, and ``raw.list`` of WeSpeaker."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import EmbeddingError
from voxblink2_lib.foreign_files import shortened

# A WAV file in an archive of Kaldi: where it begins.
_IN_ARCHIVE = re.compile(r"(.+):([0-9]{1,15})")
_SEGMENT_FIELDS = 4


class FilePart(NamedTuple):
    """A part of a file that is an utterance.

    Attributes:
        path: of the file.
        offset_bytes: where a WAV file begins in it, if it is an archive of Kaldi.
        start_seconds: where the utterance begins in the recording.
        end_seconds: where it ends; ``None`` for the end of the recording.
    """

    path: str
    offset_bytes: int | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a file."""
        return self == FilePart(self.path)


def read_list(path: Path) -> Iterator[tuple[str, FilePart]]:
    """Yield names and files of a list; relative files may be beside it.

    Args:
        path: of lines ``NAME FILE`` or ``NAME FILE:OFFSET``, or of JSON objects with ``key`` and
            ``wav``.

    Raises:
        EmbeddingError: it cannot be read, or a line is none of these. Names the line.
    """
    for number, line in _lines(path):
        name, file = _from_json(path, number, line) if line[0] == "{" else _pair(path, number, line)
        yield name, _found(path.parent, file)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    fields = line.split(maxsplit=1)
    if len(fields) == 1 or fields[1].endswith("|") or fields[1].startswith("|"):
        raise EmbeddingError(
            f"{path}: line {number} is {shortened(line)}; expected 'NAME FILE'. Commands ('|') are "
            "never run."
        )
    return fields[0], fields[1]


def _from_json(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        name, file = record.get("key"), record.get("wav")
        if isinstance(name, str) and name and isinstance(file, str) and file:
            return name, file
    raise EmbeddingError(
        f"{path}: line {number} is {shortened(line)}; expected is an object of JSON with 'key', a "
        "name, and 'wav', a file."
    )


def _found(folder: Path, file: str) -> FilePart:
    """Return a file of a list, as seen from here or from beside the list."""
    match = _IN_ARCHIVE.fullmatch(file)
    for place, offset in ((file, None), (match[1], int(match[2])) if match else (file, None)):
        for base in (Path(), folder):
            if (base / place).is_file():
                return FilePart(str((base / place).absolute()), offset)
    return FilePart(str(folder / file))


def read_segments(path: Path, recordings: dict[str, FilePart]) -> Iterator[tuple[str, FilePart]]:
    """Yield the utterances of lines ``NAME RECORDING START END``, in seconds; -1 is the end.

    Args:
        path: of the list.
        recordings: files by their names.

    Raises:
        EmbeddingError: it cannot be read, a line is something else, or a recording is not listed.
    """
    for number, line in _lines(path):
        fields = line.split()
        times = _times(fields)
        if times is None:
            raise EmbeddingError(
                f"{path}: line {number} is {shortened(line)}; expected 'NAME RECORDING START END', "
                "with the end after the start, in seconds, or -1 for the end of the recording."
            )
        recording = recordings.get(fields[1])
        if recording is None:
            raise EmbeddingError(
                f"{path}: line {number} is of the recording {shortened(fields[1])}, which is not "
                "in the list of audio."
            )
        start, end = times
        yield fields[0], recording._replace(start_seconds=start, end_seconds=end)


def _times(fields: list[str]) -> tuple[float, float | None] | None:
    try:
        start, end = map(float, fields[2:])
    except ValueError:
        return None
    if len(fields) != _SEGMENT_FIELDS or not 0 <= start < math.inf:
        return None
    if end == -1:
        return start, None
    return (start, end) if start < end < math.inf else None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EmbeddingError(f"{path} cannot be read as a list: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()
