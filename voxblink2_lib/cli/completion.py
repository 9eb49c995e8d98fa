"""The command ``completion``: a script that completes commands, options, choices and paths."""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from voxblink2_lib.cli.terminal import DONE, add_command, write_verbatim

SHELLS = ("bash", "zsh")

# Which values are paths, by a word of what stands for them in the help.
FOLDERS = frozenset({"DIR", "FOLDER", "OUT", "STORE"})
FILES = frozenset(
    {
        *("FILE", "PATH", "PLACE", "RELEASE", "SOURCE", "PARTS", "BEFORE", "AFTER", "MODEL"),
        *("CHECKPOINT", "SCORES", "KEY", "LIST", "MAP", "CALIBRATION", "RESULT", "A", "B"),
    }
)

# How each shell completes them. Bash hands the word over as it is typed: with a backslash before
# each space.
_COMPLETERS = {
    FOLDERS: {"bash": "_voxblink2_dirs", "zsh": "_files -/"},
    FILES: {"bash": "_voxblink2_files", "zsh": "_files"},
}
# Where something is to be written that is no path, zsh offers options only if there is a list.
_NOTHING = {"bash": "", "zsh": "( )"}
_PREAMBLE = {
    "bash": r"""
_voxblink2_files() { compgen -f -- "${1//\\/}"; }
_voxblink2_dirs() { compgen -d -- "${1//\\/}"; }
"""
}


def completion_script(program: argparse.ArgumentParser, shell: str) -> str:
    """Return what a shell reads once to complete the words of a program.

    The script holds all names: nothing is started while somebody types.

    Args:
        program: the program's parser. It is of no use afterwards but for this.
        shell: one of :data:`SHELLS`.
    """
    import shtab

    for parser in parsers_of(program):
        for action in parser._actions:
            _prepare(action)
    # Its annotation says str; a dictionary by shells is what it takes.
    preamble: Any = _PREAMBLE
    return str(shtab.complete(program, shell, preamble=preamble))


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers_of(inner)


def _prepare(action: argparse.Action) -> None:
    """Mark a value that is a path, and let its name have no colon, which zsh splits at."""
    if not action.choices and (completers := _completers(action)):
        action.complete = completers  # type: ignore[attr-defined]  # what shtab looks for
    if isinstance(action.metavar, str):
        action.metavar = action.metavar.replace(":", " ")


def _completers(action: argparse.Action) -> dict[str, str]:
    """Return how each shell completes a value; empty where it does not."""
    for names, completers in _COMPLETERS.items():
        if names & words_of(action):
            return completers
    return {} if action.option_strings else _NOTHING


def words_of(action: argparse.Action) -> set[str]:
    """Return the words of what stands for a value in the help: of ``DIR|URL`` two."""
    shown = action.metavar or action.dest.upper()
    return set(re.findall(r"\w+", shown if isinstance(shown, str) else " ".join(shown)))


def _complete(options: argparse.Namespace, *, program: argparse.ArgumentParser) -> int:
    script = completion_script(program, options.shell)
    record = {"shell": options.shell, "script": script}
    write_verbatim(json.dumps(record) if options.json else script)
    return DONE


def add_completion_command(commands: Any, program: argparse.ArgumentParser) -> None:
    """Add the command ``completion``.

    Args:
        commands: what ``add_subparsers`` returned.
        program: the parser of the whole program.
    """
    does = "print a script that completes commands, options and paths in a shell"
    example = "voxblink2 completion bash > ~/.voxblink2-completion.bash"
    run = functools.partial(_complete, program=program)
    parser = add_command(commands, "completion", run, does, example)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads it")
