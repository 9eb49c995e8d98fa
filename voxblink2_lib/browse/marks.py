"""Marks of what is to be left out, in a file that ``exclude`` reads.

::

    -JUT3czS6OI  # id000002/-JUT3czS6OI/00001: somebody else speaks
    id000007  # id000007/abcdefghijk/00002: all of them are silent
    # utterance id000003/abcdefghij0/00003: a jingle

``exclude`` takes whole videos and speakers. An utterance alone is a comment, which it passes over:
``voxblink2 purge`` takes the name, and :func:`read_marks` returns it.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, get_args

from voxblink2_lib.browse.query import utterance_of
from voxblink2_lib.errors import SelectionError, StoreError, first_line
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.records import UtteranceKey, is_speaker_id, is_video_id

MarkScope = Literal["video", "speaker", "utterance"]
SCOPES: tuple[str, ...] = get_args(MarkScope)
_ALONE = re.compile(r"#\s*utterance\s+(?P<name>[\w/-]+):?(?:\s+(?P<reason>.*))?")
_MOST_REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to leave out.

    Attributes:
        scope: what of the utterance.
        name: id of the video or the speaker; of an utterance, its whole name.
        reason: why, in the user's words; of a line that somebody else wrote, its comment.
    """

    scope: MarkScope
    name: str
    reason: str = ""

    @classmethod
    def of(cls, key: UtteranceKey, scope: str, reason: str = "") -> Mark:
        """Mark an utterance, its video, or its speaker.

        Raises:
            SelectionError: there is no such scope, or no single utterance is meant.

        >>> Mark.of(UtteranceKey("id000002", "-JUT3czS6OI", "00001"), "video").line
        '-JUT3czS6OI  # id000002/-JUT3czS6OI/00001'
        """
        text = visible(" ".join(reason.split()))[:_MOST_REASON_CHARACTERS]
        if scope == "utterance":
            if not key.utterance_id:
                raise SelectionError(
                    f"{key.name} is a whole video. Mark the video, or choose one of its utterances."
                )
            return cls("utterance", key.name, text)
        reason = f"{key.name}: {text}" if text else key.name
        if scope == "video":
            return cls("video", key.video_id, reason)
        if scope == "speaker":
            return cls("speaker", key.speaker_id, reason)
        raise SelectionError(f"{scope[:40]!r} cannot be marked. Choose among {', '.join(SCOPES)}.")

    @property
    def line(self) -> str:
        """How it is written."""
        if self.scope == "utterance":
            return f"# utterance {self.name}" + (f": {self.reason}" if self.reason else "")
        return f"{self.name}  # {self.reason}" if self.reason else self.name


class Marks:
    """What is marked, and the file that it is saved to.

    Args:
        file: may exist already, perhaps written by voxblink2 purity: what is in it is kept.
        store: folder of the store, which nothing is written to.

    Raises:
        SelectionError: the file is in the store, or has what is no id.
    """

    def __init__(self, file: Path, store: Path) -> None:
        self.file = file.expanduser().absolute()
        if self.file.resolve().is_relative_to(store.resolve()):
            raise SelectionError(
                f"{self.file} is in the store, to which nothing is written here. Name another file "
                "with --exclude."
            )
        if self.file.is_dir():
            raise SelectionError(f"{self.file} is a folder. Name a file with --exclude.")
        self._lock = Lock()
        read = _read(self.file)
        self._comments = read.comments
        self._marks = {mark.name: mark for mark in read.marks}
        self._saved = dict(self._marks)

    @property
    def all(self) -> tuple[Mark, ...]:
        """All marks, in the order in which they were made."""
        with self._lock:
            return tuple(self._marks.values())

    @property
    def is_saved(self) -> bool:
        """Whether the file has all of them, and no others."""
        with self._lock:
            return self._marks == self._saved

    def on(self, key: UtteranceKey) -> list[Mark]:
        """Return the marks by which an utterance is left out."""
        names = (key.name, key.video_id, key.speaker_id)
        with self._lock:
            return [self._marks[name] for name in names if name in self._marks]

    def add(self, mark: Mark) -> None:
        """Add a mark, in place of one on the same."""
        with self._lock:
            self._marks[mark.name] = mark

    def remove(self, name: str) -> None:
        """Take a mark away; nothing happens if there is none."""
        with self._lock:
            self._marks.pop(name, None)

    def save(self) -> None:
        """Write the file.

        Raises:
            StoreError: it cannot be written.
        """
        with self._lock:
            try:
                with atomic_write(self.file) as file:
                    file.write(self._text().encode())
            except OSError as error:
                raise StoreError(
                    f"{self.file} cannot be written: {error.strerror or first_line(error)}."
                ) from error
            self._saved = dict(self._marks)

    def _text(self) -> str:
        lines = [*self._comments, *(mark.line for mark in self._marks.values())]
        return "".join(f"{line}\n" for line in lines)


class _Lines(NamedTuple):
    """The lines of a file: marks, and comments of the user that are none."""

    marks: list[Mark]
    comments: list[str]


def read_marks(file: str | os.PathLike[str]) -> list[Mark]:
    """Read a file of marks, or one that voxblink2 purity or a user wrote for ``exclude``.

    Args:
        file: the file; one that is not there has no marks.

    Raises:
        SelectionError: it cannot be read, or has what is no id.
    """
    return _read(file).marks


def _read(file: str | os.PathLike[str]) -> _Lines:
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise SelectionError(f"{file} cannot be read: {first_line(error)}.") from error
    read = _Lines([], [])
    for number, line in enumerate(lines, start=1):
        marks = _marks_in(line, path, number)
        read.marks.extend(marks)
        if not marks and line.strip():
            read.comments.append(line.strip())
    return read


def _marks_in(line: str, file: Path, number: int) -> list[Mark]:
    alone = _ALONE.fullmatch(line.strip())
    if alone and _is_utterance(alone["name"]):
        return [Mark("utterance", alone["name"], alone["reason"] or "")]
    ids, _, comment = line.partition("#")
    return [Mark(_scope(name, file, number), name, comment.strip()) for name in ids.split()]


def _is_utterance(name: str) -> bool:
    with contextlib.suppress(SelectionError):
        return bool(utterance_of(name))
    return False


def _scope(name: str, file: Path, number: int) -> MarkScope:
    if is_speaker_id(name):
        return "speaker"
    if is_video_id(name):
        return "video"
    raise SelectionError(
        f"Line {number} of {file} has {name[:80]!r}, which is no speaker id and no video id. "
        "Correct it, or name another file with --exclude."
    )
