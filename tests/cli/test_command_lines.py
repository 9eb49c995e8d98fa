"""Whatever is written on the command line: a documented end, one object with ``--json``."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import cli_process
from support.property_settings import fewer_examples

from voxblink2_lib import cli
from voxblink2_lib.foreign_text import visible_lines
from voxblink2_lib.release.builtin import MEDIA

CODES = {0, 1, 2, 3, 4}
# Values that look like something, in an option's place or as a word too many. None names a place
# outside the test's folder: what is written would be written there.
BAD_VALUES = [
    *("", " ", "-", "--", "---", "=", "nothing", "nowhere/at/all", "pipe", ".", "store", "~"),
    *("-1", "0", "1e999", "nan", "½", "9" * 400, "x" * 5000, "é\nforged", "\x1b[31m", "\udcff"),
    *("-demoSailor", "--video-crf", "--json", "--no-such", "--store", "-h", "@file", "%s", "{0}"),
    *("s3://bucket/x", "ftp://x/{video_id}", "http://", "http://["),
]
# What these do is quick to see: they read a small store. Of the others, only the parsing.
CHEAP = {"status": [], "report": [], "doctor": ["--source", str(MEDIA)]}


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser by its name, as `score sv`."""
    named = {}

    def walk(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> None:
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for name, inner in (pair for group in groups for pair in group.choices.items()):
            walk(inner, (*words, name))
        if not groups:
            named[" ".join(words)] = parser

    walk(cli._parser(), ())
    return named


PARSERS = commands()


def options_of(command: str) -> list[argparse.Action]:
    actions = PARSERS[command]._actions
    return [a for a in actions if a.option_strings and a.dest not in {"help", "json"}]


def good_value(action: argparse.Action) -> str:
    """A value that an option takes; places are those of the test's folder."""
    if action.choices:
        return str(next(iter(action.choices)))
    places = {"store": "store", "data_dir": "demo", "out": "page.html", "csv": "missing.csv"}
    return places.get(action.dest, "1")


@st.composite
def command_lines(draw: st.DrawFn, command: str) -> list[str]:
    """A command with up to three of its options, one of them with a bad value, in any form."""
    named = options_of(command)  # some commands have none
    options = draw(st.lists(st.sampled_from(named), max_size=3, unique=True)) if named else []
    bad = draw(
        st.none()
        | st.sampled_from(BAD_VALUES)
        | st.text(st.characters(exclude_characters="\0/~"), max_size=8)
    )
    words = []
    for place, action in enumerate(options):
        name = action.option_strings[0]
        value = bad if place == 0 and bad is not None else good_value(action)
        if action.nargs == 0:
            words.append(name if place or bad is None else f"{name}={bad}")
        else:
            words += draw(st.sampled_from([[name, value], [f"{name}={value}"]]))
    if bad is not None and not options:
        words.append(bad)
    return words


def check(words: list[str]) -> None:
    """Run a command line with and without ``--json``."""
    people, record = (cli_process.run_any(*words, *more) for more in ([], ["--json"]))
    assert people.returncode in CODES
    assert not re.search(r"Traceback|File \"", people.stderr + record.stderr)
    if "-h" in words or "--help" in words:
        return
    assert record.returncode == people.returncode
    (line,) = record.stdout.splitlines()
    value = json.loads(line)
    if people.returncode > 1:
        assert value["exit_code"] == people.returncode
        assert value["error"]
        assert visible_lines(value["message"]) in record.stderr
    if value.get("error") == "UsageError":
        assert len(people.stderr.splitlines()) <= 3


@pytest.fixture
def folder(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, with a store."""
    shutil.copytree(undisturbed, tmp_path / "work" / "store")
    os.mkfifo(tmp_path / "work" / "pipe")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "work"


of_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(of_one_folder, max_examples=fewer_examples(3).max_examples)
@given(st.data())
def test_commands_on_a_small_store(folder: Path, data: st.DataObject) -> None:
    command = data.draw(st.sampled_from([*CHEAP]))
    check([command, *CHEAP[command], *data.draw(command_lines(command))])


@of_one_folder
@given(st.data())
def test_any_command_that_is_refused(folder: Path, data: st.DataObject) -> None:
    """A word too many, so that no command begins its work."""
    command = data.draw(st.sampled_from(sorted(PARSERS)))
    lines = data.draw(command_lines(command))
    check([*command.split(), *lines, "--no-such-option"])


@pytest.mark.slow
@pytest.mark.parametrize("command", CHEAP)
def test_every_bad_value_of_every_option(folder: Path, command: str) -> None:
    for action in options_of(command):
        for value in BAD_VALUES:
            store = [] if action.dest == "store" else ["--store", "store"]
            check([command, *CHEAP[command], *store, f"{action.option_strings[0]}={value}"])
