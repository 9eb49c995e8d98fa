"""What all commands share: exit codes, output, and the layout of the help."""

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
same command again; 4 the source refuses every route, with work left."""


def own_terminal() -> None:
    """Send log messages to standard error, and turn SIGTERM into a ``KeyboardInterrupt``."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # A stopped service is handled like Ctrl-C: end now, keep what is finished.
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
    """Lay out a table in lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader of our output has ended, as `head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with ``--json``, and an example and the exit codes in its help.

    Args:
        commands: what ``add_subparsers`` returned, of the program or of a group of commands.
        name: name of the command.
        run: does the work and returns the exit code. It imports itself what takes long to
            import, so that ``--help`` is quick.
        does: what the command does, without a capital letter and a full stop.
        example: a complete command line.

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
