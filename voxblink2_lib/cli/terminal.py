"""What all commands share: exit codes, output, and the layout of the help."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO, cast

from voxblink2_lib.errors import StoppedError, VoxBlink2Error

DONE, CHECK_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3

EXIT_CODES = """\
exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 stopped with work left, run the
same command again; 4 the source refuses every route, with work left."""


def own_terminal() -> None:
    """Send log messages to standard error, and turn SIGTERM into a ``KeyboardInterrupt``.

    From now on a standard error that is gone (a closed pipe, a full disk) ends nothing.
    """
    if sys.stderr is None:  # closed by the shell; print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open until the end
    if not isinstance(sys.stderr, _LastingStream):
        sys.stderr = cast(TextIO, _LastingStream(sys.stderr))
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    # A stopped service is handled like Ctrl-C: end now, keep what is finished.
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class _LastingStream:
    """A stream of messages that drops them where the other end is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        with _silenced_if_gone(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with _silenced_if_gone(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def _silenced_if_gone(stream: TextIO) -> Iterator[None]:
    """Send a stream to nowhere if it cannot be written to: Python would complain at exit."""
    try:
        yield
    except OSError:
        _silence(stream)


def _silence(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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


def write_failure(error: VoxBlink2Error, *, as_json: bool) -> int:
    """Print an error for people, and with ``--json`` as an object too; return the exit code."""
    write_message(f"voxblink2: {error}", *getattr(error, "__notes__", []))
    if as_json:
        with contextlib.suppress(StoppedError):  # the message above is all that can be done
            _print(json.dumps(failure_record(error)))
    return error.exit_code


def failure_record(error: VoxBlink2Error) -> dict[str, Any]:
    """Return what ``--json`` prints about an error: its class, its message, the exit code."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
    }


def flush_output() -> None:
    """Write what was printed to standard output.

    Raises:
        StoppedError: standard output cannot be written to.
    """
    _print("", end="")


def _print(text: str, end: str = "\n") -> None:
    """Print to standard output; quietly give up if its reader has ended, as ``head`` does.

    Raises:
        StoppedError: standard output cannot be written to, as on a full disk.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise StoppedError(
            f"Standard output cannot be written to: {error.strerror}. Run the same command again "
            "with another output."
        ) from error


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
    )
    parser.set_defaults(command=run, prog=parser.prog)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; messages go to standard error"
    )
    return parser
