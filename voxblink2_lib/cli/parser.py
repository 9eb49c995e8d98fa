"""The parser of every command: whole names of options, short refusals, ids with a dash."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from voxblink2_lib.cli.terminal import flush_output
from voxblink2_lib.errors import UsageError
from voxblink2_lib.records import is_video_id


class CommandParser(argparse.ArgumentParser):
    """A parser whose refusals are errors of this library, of three lines at most.

    ``add_subparsers`` makes parsers of the same class. An option is never abbreviated, since a new
    option would change what an old script means.
    """

    _words: Sequence[str] = ()

    def __init__(self, **details: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **details
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse arguments, and refuse those that this very command does not have."""
        self._words = tuple(args or ())
        for word in self._words:
            if word.startswith("--") and word.endswith("=--"):  # argparse makes an empty list of it
                self.error(f"argument {word[:-3]}: expected a value, got '--'")
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {self._described(unknown)}")
        return namespace, unknown

    def _described(self, words: Sequence[str]) -> str:
        """Return unknown arguments, with what the first of them may be meant to be."""
        text = " ".join(word if word.isprintable() else ascii(word) for word in words)
        similar = difflib.get_close_matches(words[0].split("=")[0], self._option_string_actions, 1)
        return f"{text}. Did you mean {similar[0]}?" if similar else text

    def _parse_optional(self, arg_string: str) -> Any:
        # An id such as -demoSailor is a value; argparse would take it for an option.
        is_id = is_video_id(arg_string) and not arg_string.startswith("--")
        return None if is_id else super()._parse_optional(arg_string)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments; where one is missing, it may be there with its name misspelt."""
        unknown = [
            word
            for word in self._words
            if word.startswith("--") and word.split("=")[0] not in self._option_string_actions
        ]
        if unknown and message.startswith("the following arguments are required"):
            message += f"; unrecognized arguments: {self._described(unknown)}"
        error = UsageError(message)
        error.add_note(f"'{self.prog} --help' shows how the command is used.")
        raise error

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End after ``--help`` or ``--version``, when they are written."""
        flush_output()
        super().exit(status, message)
