"""What all commands share: exit codes, output, and the layout of the help."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn

from voxblink2_lib.foreign_text import visible, visible_lines
from voxblink2_lib.redaction import redact, secrets_in

DONE, CHECK_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3

EXIT_CODES = """\
exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 stopped with work left, run the
same command again; 4 the source refuses every route, with work left."""


# Secrets in the arguments of this process: no message shows them.
_secrets: set[str] = set()


def own_terminal(arguments: Sequence[str]) -> None:
    """Send log messages and errors to standard error; turn SIGTERM into a ``KeyboardInterrupt``.

    Args:
        arguments: those of the command line, whose secrets no message shows.
    """
    _secrets.clear()
    _secrets.update(secrets_in(*arguments))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    sys.excepthook = _write_exception
    # A stopped service is handled like Ctrl-C: end now, keep what is finished.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class _SafeFormatter(logging.Formatter):
    """Formats log messages, with tracebacks, as texts that are safe to print."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return _safe(super().format(record))


def _write_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    write_message("".join(traceback.format_exception(kind, error, trace)).rstrip())


def without_secrets(text: str) -> str:
    """Return a text without the secrets of this process's arguments."""
    return redact(text, _secrets)


def _safe(text: str) -> str:
    """Return a text of our own, of one or more lines, that may quote foreign texts and secrets."""
    return visible_lines(without_secrets(text))


def write_message(*texts: str) -> None:
    """Print texts to standard error, each on a line of its own."""
    for text in texts:
        print(_safe(text), file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """A parser that quotes no secret when it refuses arguments."""

    def error(self, message: str) -> NoReturn:
        """Print why the arguments are refused, and exit."""
        super().error(_safe(message))


def write_result(options: argparse.Namespace, record: dict[str, Any], lines: Sequence[str]) -> None:
    """Print one JSON object, or lines for people."""
    if options.json:
        _print(json.dumps(_redacted(record)))
    else:
        _print("\n".join(visible(redact(line)) for line in lines))


def _redacted(value: Any) -> Any:
    """Redact all texts in a JSON value; escapes of JSON make them harmless."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(inner) for key, inner in value.items()}
    return [_redacted(inner) for inner in value] if isinstance(value, list | tuple) else value


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
