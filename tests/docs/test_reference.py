"""The pages that are made from the code: every public name, every command, every option."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documentation import reference
from documentation.command_line import subcommands
from documentation.docstrings import PAGES, as_markdown, gaps, is_old_name, public_names

from voxblink2_lib import cli
from voxblink2_lib.builder.config import VoxBlink2Config
from voxblink2_lib.training import SeededRow

MODULES = [module for modules in PAGES.values() for module in modules]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.reference_pages()


# -- Docstrings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_described_with_its_arguments(module: str) -> None:
    lacks = list(gaps(importlib.import_module(module)))
    assert not lacks, "\n".join(lacks)


SAMPLE = '''
from dataclasses import dataclass
from functools import cached_property

__all__ = ["described", "lacking", "Lacking", "Made", "MISSING", "PRESENT"]
MISSING = 1
PRESENT = 2
"""How many there are."""


def described(a, *, b=1):
    """Do it.

    Args:
        a: this.
        b: that, and
            more: of it.
    """


def lacking(a, b):
    """Do it.

    Args:
        a: this.
    """


@dataclass
class Lacking:
    """A record.

    Attributes:
        x: a number.
    """

    x: int
    y: int

    def run(self, speed):
        """Run."""

    @cached_property
    def size(self):
        return 1

    @staticmethod
    def of(text):
        """Read."""


class Made:
    """Made by :func:`described`."""

    def __init__(self, secret):
        pass
'''


def test_what_a_docstring_lacks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sample.py"
    file.write_text(SAMPLE)
    spec = importlib.util.spec_from_file_location("voxblink2_lib.sample", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert [gap.removeprefix("voxblink2_lib.sample.") for gap in gaps(module)] == [
        "lacking: argument b is not described",
        "Lacking: argument y is not described",
        "Lacking.run: argument speed is not described",
        "Lacking.size: no docstring",
        "Lacking.of: argument text is not described",
        "MISSING: no docstring below it",
    ]


def test_names_of_an_earlier_version_are_shown_as_such(pages: dict[str, str]) -> None:
    assert is_old_name("Draw", SeededRow)
    assert "`Draw` is `SeededRow`" in pages["training.md"]
    assert "::: voxblink2_lib.training.Draw\n" not in pages["training.md"]


def test_a_docstring_becomes_markdown() -> None:
    text = "Of :meth:`~a.B.open`.\n\nExample:\n    >>> f(\n    ...     1)\n    2\n\nMore."
    assert as_markdown(text) == (
        "Of `a.B.open`.\n\n"
        "Example:\n    ```pycon\n    >>> f(\n    ...     1)\n    2\n    ```\n\nMore."
    )


# -- Pages -----------------------------------------------------------------------------------------


def test_every_public_name_has_its_place_on_a_page(pages: dict[str, str]) -> None:
    for page, modules in PAGES.items():
        shown = re.findall(r"^::: (.+)$", pages[f"{page}.md"], re.MULTILINE)
        expected = []
        for module in modules:
            names = public_names(importlib.import_module(module)).items()
            now = [name for name, value in names if not is_old_name(name, value)]
            expected += [module, *(f"{module}.{name}" for name in now)]
        assert shown == expected


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for command in subcommands(parser):
        yield command
        yield from commands(command)


def test_every_command_is_shown_with_its_options_and_an_example(pages: dict[str, str]) -> None:
    page = pages["command_line.md"]
    sections = dict(re.findall(r"^##+ (voxblink2 .+)\n((?:(?!##).*\n)*)", page, re.MULTILINE))
    every = {command.prog: command for command in commands(cli._parser())}
    assert sections.keys() == every.keys()
    for name, command in every.items():
        for action in command._actions:
            if action.option_strings and action.dest != "help":
                assert f"| <code>{action.option_strings[0]}" in sections[name], name
        if command.get_default("command"):
            (example,) = re.findall(r"```sh\n(.*?)```", sections[name], re.DOTALL)
            assert any(line.startswith(name) for line in example.splitlines())


def test_every_option_of_load_dataset_is_shown(pages: dict[str, str]) -> None:
    shown = re.findall(r"^\| `(\w+)` \|", pages["load_dataset.md"], re.MULTILINE)
    own = {"name", "version", "data_files", "description"}
    assert sorted(shown) == sorted(inspect.signature(VoxBlink2Config).parameters.keys() - own)


def test_no_text_of_a_page_is_taken_for_markup(pages: dict[str, str]) -> None:
    for name in ("command_line.md", "load_dataset.md"):
        for row in re.findall(r"^\|.*\|$", pages[name], re.MULTILINE):
            assert len(re.findall(r"(?<!\\)\|", row)) in {3, 4}, row
            assert "<speaker>" not in row
