"""What every command shares: exit codes, what it prints, and how its help is laid out."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

DONE, CHECK_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3

EXIT_CODES = """\
exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 stopped with work left, run the
same command again; 4 the source refuses every address, with work left."""


def own_terminal() -> None:
    """Send messages to standard error, and let a signal to end be a ``KeyboardInterrupt``."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # A stopped service and Ctrl-C are the same to us: end now, keep what is finished.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def write_message(*lines: str) -> None:
    """Print lines to standard error."""
    for line in lines:
        print(line, file=sys.stderr)


def write_result(options: argparse.Namespace, record: dict[str, Any], lines: Sequence[str]) -> None:
    """Print one JSON object, or lines for people."""
    _print(json.dumps(record) if options.json else "\n".join(lines))


def columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lay a table out for people: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            word.ljust(width) if place == 0 else word.rjust(width)
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with ``--json``, and an example and the exit codes in its help.

    Args:
        commands: what ``add_subparsers`` returned, of the program or of a group of commands.
        name: the command's word.
        run: does the work and returns the exit code. What takes long to import, it imports
            itself: ``--help`` is quick.
        does: what the command does, as a part of a sentence.
        example: a whole command line.

    Returns:
        The command's parser, for arguments of its own.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; messages go to standard error"
    )
    return parser
