"""Command lines of ours in what a test's code raises, logs and prints: each must be one.

``watch`` notes every message of the library in this process; ``check`` parses the commands in them
as the command line would.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import re
import shlex
from collections.abc import Iterator
from typing import Any

from voxblink2_lib import cli, errors
from voxblink2_lib.cli import terminal

# What stands for a place that only the user knows.
PLACEHOLDERS = frozenset({"NEW_STORE", "RELEASE", "SOURCE", "SUMS"})
# A word as `errors.next_command` writes it: in double or single quotes, or as it is.
_WORD = r"""(?:"[^"]*"|'[^']*'(?:"'"'[^']*')*|[^\s'"]+)"""
_QUOTED = re.compile(rf"'(voxblink2(?: {_WORD})+)'(?!\w)")
_OWN_LINE = re.compile(r"^  (voxblink2 .*)$", re.MULTILINE)

_noted: set[str] = set()
_known: set[str] = set()


def commands_in(text: str) -> list[str]:
    """Return the commands in a text, in quotes or on a line of their own."""
    return [*_QUOTED.findall(text), *_OWN_LINE.findall(text)]


def words_of(command: str, **places: object) -> list[str]:
    """Return the words of a command after the program's name, with places filled in."""
    words = shlex.split(command)[1:]
    assert set(words) & PLACEHOLDERS <= places.keys(), command
    return [str(places.get(word, word)) for word in words]


def note(text: str) -> None:
    """Note the commands of a text."""
    if "voxblink2 " in text:
        _noted.update(commands_in(text))


def check() -> None:
    """Parse what was noted.

    Raises:
        UsageError: a command is none.
    """
    for command in sorted(_noted - _known):
        _noted.discard(command)
        with contextlib.redirect_stdout(io.StringIO()), _help():
            assert cli._parser().parse_args(shlex.split(command)[1:]).command
        _known.add(command)
    _noted.clear()


@contextlib.contextmanager
def _help() -> Iterator[None]:
    """Let a command show its help."""
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            raise


def watch() -> None:
    """Note, from now on, every message of the library in this process."""
    logging.getLogger("voxblink2_lib").addHandler(_Notes())

    def initialize(error: errors.VoxBlink2Error, *args: Any, **named: Any) -> None:
        super(errors.VoxBlink2Error, error).__init__(*args, **named)
        note(" ".join(map(str, args)))

    def write(*args: Any, **named: Any) -> None:
        note(" ".join(map(str, args)))
        builtins.print(*args, **named)  # noqa: T201  # as the terminal does

    errors.VoxBlink2Error.__init__ = initialize  # type: ignore[assignment, method-assign]
    terminal.print = write  # type: ignore[attr-defined]


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())
