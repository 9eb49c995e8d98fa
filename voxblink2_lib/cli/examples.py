"""The command ``examples``."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from voxblink2_lib import examples_path
from voxblink2_lib.cli.terminal import DONE, add_command, write_result
from voxblink2_lib.errors import UsageError
from voxblink2_lib.files import atomic_write


def _examples(options: argparse.Namespace) -> int:
    sources = sorted(
        path for path in Path(examples_path()).iterdir() if path.suffix in {".py", ".ipynb"}
    )
    to = None if options.to is None else Path(options.to)
    if to is not None:
        _copy(sources, to)
    titles = {path.name: _title(path) for path in sources}
    record = {"folder": None if to is None else str(to), "examples": titles}
    shown = [str(name if to is None else to / name) for name in titles]
    width = max(map(len, shown))
    lines = [f"{name:{width}}  {title}" for name, title in zip(shown, titles.values(), strict=True)]
    write_result(options, record, lines)
    return DONE


def _copy(sources: list[Path], to: Path) -> None:
    """Copy files to a folder; nothing there is replaced.

    Raises:
        UsageError: the folder has another file of one of these names.
    """
    contents = {to / path.name: path.read_bytes() for path in sources}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content:
            raise UsageError(
                f"{path} exists, and is not this version's example. Rename it, or name another "
                "folder with --to."
            )
    for path, content in contents.items():
        with atomic_write(path) as file:
            file.write(content)


def _title(path: Path) -> str:
    """Return the first line of a script's docstring, or of a notebook's first cell."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    else:
        words = "".join(json.loads(text)["cells"][0]["source"])
    return words.partition("\n")[0].lstrip("# ")


def add_examples_command(commands: Any) -> None:
    """Add the command ``examples``."""
    does = "list the example scripts and notebooks, or copy them to a folder"
    example = "voxblink2 examples --to examples"
    parser = add_command(commands, "examples", _examples, does, example)
    parser.add_argument("--to", metavar="DIR", help="folder to copy them to; default: only list")
