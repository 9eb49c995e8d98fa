"""The page of the command line, made from its parsers."""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator, Sequence

from voxblink2_lib.cli import _parser
from voxblink2_lib.cli.terminal import EXIT_CODES

_WIDTH = 96
_EXAMPLE = re.compile(r"^examples?:\s*(?P<lines>.+?)(?:\n\n|\Z)", re.DOTALL)
_HEAD = """\
# The command line

Every command has `--help`, which shows what is below, and `--json`, which prints one object. A
store, a release or a model may be named by a path or, where it says so, by a URL.

"""


def command_line_page() -> str:
    """Return the page in Markdown: all commands with their arguments and an example."""
    parser = _parser()
    parts = [_HEAD, f"{_prose(EXIT_CODES.capitalize())}\n\n", *_section(parser, 1)]
    return "".join(parts)


def _section(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Yield the parts of a command, and of the commands below it."""
    if level > 1:
        yield f"{'#' * level} {parser.prog}\n\n"
        yield f"{_prose(_description(parser))}\n\n"
        yield f"```text\n{_usage(parser)}\n```\n\n"
        yield from _example(parser)
    yield from _tables(parser)
    for command in subcommands(parser):
        yield from _section(command, level + 1)


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of the commands directly below one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from dict.fromkeys(action.choices.values())


def _description(parser: argparse.ArgumentParser) -> str:
    text = (parser.description or "").strip()
    return text if text.endswith(".") else f"{text}."


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.RawDescriptionHelpFormatter(parser.prog, width=_WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")
    return formatter.format_help().strip()


def _example(parser: argparse.ArgumentParser) -> Iterator[str]:
    if example := _EXAMPLE.match(parser.epilog or ""):
        lines = "\n".join(line.strip() for line in example["lines"].splitlines())
        yield f"For example:\n\n```sh\n{lines}\n```\n\n"


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a table of all arguments in no group, then one of each group with its description."""
    groups = parser._action_groups
    plain = [action for group in groups if not group.description for action in group._group_actions]
    yield from _table(parser, plain)
    for group in groups:
        if group.description:
            title = (group.title or "").capitalize()
            yield f"**{title}**: {_prose(group.description)}\n\n"
            yield from _table(parser, group._group_actions)


def _table(parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]) -> Iterator[str]:
    """Yield a table of arguments, if there are any to show."""
    if rows := [_row(parser, action) for action in actions if _is_shown(action)]:
        yield "| argument | meaning |\n|---|---|\n"
        yield from rows
        yield "\n"


def _is_shown(action: argparse.Action) -> bool:
    is_other = isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    return not is_other and action.help != argparse.SUPPRESS


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=_WIDTH)
    written = formatter._format_action_invocation(action)
    meaning = formatter._expand_help(action) if action.help else ""
    return f"| <code>{_escaped(written)}</code> | {_prose(meaning)} |\n"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;")


def _prose(text: str) -> str:
    """Return a text of the help in Markdown, in one line."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", _escaped(" ".join(text.split())))
