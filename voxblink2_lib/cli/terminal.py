"""What all commands share: exit codes, output, and the layout of the help."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, TextIO, cast

from voxblink2_lib.errors import StoppedError, VoxBlink2Error, first_line, next_command
from voxblink2_lib.foreign_text import visible, visible_lines
from voxblink2_lib.materialize.request import user_options
from voxblink2_lib.records import option_variable
from voxblink2_lib.redaction import redact, secrets_in
from voxblink2_lib.release.location import RELEASE_VARIABLE

DONE, CHECK_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3

EXIT_CODES = """\
exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 stopped with work left, run the
same command again; 4 the source refuses every route, with work left."""

_DEFECT = (
    "This is a defect of voxblink2. Finished work is kept. Please report it to the maintainers, "
    f"with the command line, the lines on standard error, and what {next_command('env')} prints."
)

# Secrets in the arguments of this process: no message shows them.
_secrets: set[str] = set()

# What closes the JSON object that is being printed, the innermost bracket last.
_open_brackets: list[str] = []


def own_terminal(arguments: Sequence[str]) -> None:
    """Send log messages and errors to standard error; turn SIGTERM into a ``KeyboardInterrupt``.

    From now on a standard error that is gone (a closed pipe, a full disk) ends nothing.

    Args:
        arguments: those of the command line, whose secrets no message shows.
    """
    if sys.stderr is None:  # closed by the shell; print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open until the end
    if not isinstance(sys.stderr, _LastingStream):
        sys.stderr = cast(TextIO, _LastingStream(sys.stderr))
    _open_brackets.clear()
    _secrets.clear()
    _secrets.update(secrets_in(*arguments, *_secret_variables()))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SafeFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    sys.excepthook = _write_exception
    # A stopped service is handled like Ctrl-C: end now, keep what is finished.
    signal.signal(signal.SIGTERM, _interrupt)


def _secret_variables() -> Iterator[str]:
    """Yield the values of environment variables that may hold a secret."""
    yield os.environ.get(RELEASE_VARIABLE, "")
    for name, option in user_options().items():
        if option.may_be_secret:
            yield os.environ.get(option_variable(name), "")


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


def write_result(
    options: argparse.Namespace, record: Mapping[str, Any], lines: Iterable[str]
) -> None:
    """Print one JSON object, or lines for people, as they come.

    Args:
        options: parsed arguments.
        record: the object. An iterator in it, of which there may be millions of rows, becomes an
            array; it may lie in other objects, not in lists.
        lines: the lines.

    Raises:
        StoppedError: standard output cannot be written to.
    """
    if options.json:
        _print_parts(_json_parts(record))
        _print("")
    else:
        _print_parts(f"{visible(redact(line))}\n" for line in lines)


def write_verbatim(text: str) -> None:
    """Print a program of ours to the letter: nothing in it is foreign or secret.

    Raises:
        StoppedError: standard output cannot be written to.
    """
    _print(text)


def _json_parts(value: Any, lead: str = "") -> Iterator[str]:
    """Yield a value as JSON in parts; after any of them, the open brackets complete it.

    Args:
        value: what is written.
        lead: what goes before it, in the same part.
    """
    if isinstance(value, Mapping):
        yield f"{lead}{{"
        _open_brackets.append("}")
        for number, (name, inner) in enumerate(value.items()):
            yield from _json_parts(inner, f"{', ' if number else ''}{json.dumps(name)}: ")
        yield _open_brackets.pop()
    elif isinstance(value, Iterator):
        yield f"{lead}["
        _open_brackets.append("]")
        for number, inner in enumerate(value):
            yield f"{', ' if number else ''}{json.dumps(redacted(inner))}"
        yield _open_brackets.pop()
    else:
        yield f"{lead}{json.dumps(redacted(value))}"


def redacted(value: Any) -> Any:
    """Redact all texts in a JSON value; escapes of JSON make them harmless."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    return [redacted(inner) for inner in value] if isinstance(value, list | tuple) else value


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
        _print_failure(failure_record(error))
    return error.exit_code


def write_defect(error: Exception, *, as_json: bool) -> int:
    """Print an error that this program does not expect, with its traceback; return the exit code.

    With ``--json`` an object is printed as well.
    """
    _write_exception(type(error), error, error.__traceback__)
    write_message(f"voxblink2: {_DEFECT}")
    if as_json:
        message = without_secrets(f"{first_line(error)}. {_DEFECT}")
        record = {"error": type(error).__name__, "message": message, "exit_code": CHECK_FAILED}
        _print_failure(record)
    return CHECK_FAILED


def _print_failure(record: Mapping[str, Any]) -> None:
    """Print an object about an error; one that was begun ends with its keys."""
    text = json.dumps(record)
    if _open_brackets:
        _, *inner = _open_brackets
        text = f"{''.join(reversed(inner))}, {text[1:]}"
    with contextlib.suppress(StoppedError):  # the message is all that can be done
        _print(text)


def failure_record(error: VoxBlink2Error) -> dict[str, Any]:
    """Return what ``--json`` prints about an error: its class, its message, the exit code."""
    return {
        "error": type(error).__name__,
        "message": without_secrets(str(error)),
        "exit_code": error.exit_code,
    }


def flush_output() -> None:
    """Write what was printed to standard output.

    Raises:
        StoppedError: standard output cannot be written to.
    """
    _print("", end="")


def _print_parts(parts: Iterable[str]) -> None:
    """Print parts of a text until its reader has ended, see :func:`_print`."""
    for part in parts:
        if not _print(part, end="", flush=False):
            return
    flush_output()


def _print(text: str, end: str = "\n", *, flush: bool = True) -> bool:
    """Print to standard output; quietly give up if its reader has ended, as ``head`` does.

    Returns:
        Whether there may be a reader.

    Raises:
        StoppedError: standard output cannot be written to, as on a full disk.
    """
    try:
        print(text, end=end, flush=flush)
    except BrokenPipeError:
        _silence(sys.stdout)
        return False
    except OSError as error:
        _silence(sys.stdout)
        raise StoppedError(
            f"Standard output cannot be written to: {error.strerror}. Run the same command again "
            "with another output."
        ) from error
    return True


def add_group(commands: Any, name: str, does: str, example: str) -> Any:
    """Add a group of commands, and return what :func:`add_command` adds one to.

    Args:
        commands: what ``add_subparsers`` returned.
        name: name of the group.
        does: what its commands do, without a capital letter and a full stop.
        example: a complete command line.
    """
    parser = commands.add_parser(name, **_help(does, example))
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def _help(does: str, example: str) -> dict[str, str]:
    return {
        "help": does,
        "description": f"{does[0].upper()}{does[1:]}.",
        "epilog": f"example:\n  {example}\n\n{EXIT_CODES}",
    }


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with ``--json``, and an example and the exit codes in its help.

    Args:
        commands: what ``add_subparsers`` returned, or :func:`add_group`.
        name: name of the command.
        run: does the work and returns the exit code. It imports itself what takes long to
            import, so that ``--help`` is quick.
        does: what the command does, without a capital letter and a full stop.
        example: a complete command line.

    Returns:
        The command's parser, for arguments of its own.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, **_help(does, example))
    parser.set_defaults(command=run, prog=parser.prog)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; messages go to standard error"
    )
    return parser
