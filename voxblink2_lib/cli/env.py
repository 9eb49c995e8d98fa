"""The command that describes a machine for a bug report: ``env``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from voxblink2_lib.cli.terminal import DONE, add_command, write_result


def _env(options: argparse.Namespace) -> int:
    from voxblink2_lib.doctor.environment import describe_environment

    sections = describe_environment()
    write_result(options, sections, _lines(sections))
    return DONE


def _lines(sections: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield each section with its facts in columns below it."""
    width = max(len(name) for facts in sections.values() for name in facts)
    for title, facts in sections.items():
        yield title
        for name, value in facts.items():
            yield f"  {name:{width}}  {value}"


def add_env_command(commands: Any) -> None:
    """Add the command ``env``."""
    does = "describe this machine for a bug report: versions, FFmpeg, devices; no secrets"
    add_command(commands, "env", _env, does, "voxblink2 env > env.txt")
