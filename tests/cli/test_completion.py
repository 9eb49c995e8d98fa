"""Completion in real shells: keys are typed into a terminal, and every name is asked for."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cli_process

from voxblink2_lib import cli
from voxblink2_lib.cli.completion import FILES, FOLDERS, SHELLS, completion_script, words_of
from voxblink2_lib.errors import UsageError

# Words that stand for values that are no paths.
NO_PATHS = {
    *("N", "P", "C", "S", "K", "ID", "NAME", "URL", "SECONDS", "COSINE", "COLUMN", "DATE", "FAR"),
    *("FRACTION", "PIXELS", "RATE", "OPTION", "OPTIONS", "ARGS", "BROWSER", "CLASS", "KIND"),
    *("HOST", "TEXT", "WEIGHT", "PART", "DEVICE"),
}
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")


def commands() -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
    """Yield the parser of each command, and of each group, with the words that lead to it."""

    def walk(
        parser: argparse.ArgumentParser, words: list[str]
    ) -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
        yield words, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, inner in action.choices.items():
                    yield from walk(inner, [*words, name])

    return walk(cli._parser(), [])


COMMANDS = [*commands()]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "voxblink2.bash"
    path.write_text(completion_script(cli._parser(), "bash"), encoding="utf-8")
    return path


# -- The command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str) -> None:
    expected = completion_script(cli._parser(), shell)
    assert cli_process.run("completion", shell).stdout == f"{expected}\n"


def test_json_has_the_script_in_it() -> None:
    record = json.loads(cli_process.run("completion", "bash", "--json").stdout)
    assert record == {"shell": "bash", "script": completion_script(cli._parser(), "bash")}


def test_another_shell_is_refused() -> None:
    with pytest.raises(UsageError, match="invalid choice: 'powershell'"):
        cli._parser().parse_args(["completion", "powershell"])


def test_every_value_is_a_path_or_is_known_to_be_none() -> None:
    unknown = [
        f"{' '.join(words)} {action.dest}: {action.metavar}"
        for words, parser in COMMANDS
        for action in parser._actions
        if action.nargs != 0 and not action.choices and not isinstance(action, argparse._HelpAction)
        if not words_of(action) & (FILES | FOLDERS | NO_PATHS)
    ]
    assert not unknown, "add what stands for the value to voxblink2_lib/cli/completion.py, or here"


# -- Every name, in bash ---------------------------------------------------------------------------


def replies(script: Path, folder: Path, queries: list[list[str]]) -> list[set[str]]:
    """Return what bash would offer for the last word of each query."""
    lines = [
        f"cd {shlex.quote(str(folder))}; source {shlex.quote(str(script))}",
        'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_voxblink2;'
        ' printf "%s\\n" "${COMPREPLY[@]}" ---; }',
        *(shlex.join(["ask", "voxblink2", *words]) for words in queries),
    ]
    done = subprocess.run(
        ["bash", "--norc", "--noprofile"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [set(part.split("\n")) - {""} for part in done.stdout.split("---\n")[:-1]]


@needs_bash
def test_bash_offers_every_command_and_option(script: Path, tmp_path: Path) -> None:
    offered = replies(script, tmp_path, [[*words, "--"] for words, _ in COMMANDS])
    for (words, parser), options in zip(COMMANDS, offered, strict=True):
        expected = {name for name in parser._option_string_actions if name.startswith("--")}
        assert options == expected, words
    groups = [
        (words, set(action.choices))
        for words, parser in COMMANDS
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    offered = replies(script, tmp_path, [[*words, ""] for words, _ in groups])
    assert offered == [choices for _, choices in groups]


@needs_bash
def test_bash_offers_every_choice(script: Path, tmp_path: Path) -> None:
    chosen = [
        ([*words, *action.option_strings[:1], ""], {str(choice) for choice in action.choices})
        for words, parser in COMMANDS
        for action in parser._actions
        if action.choices and not isinstance(action, argparse._SubParsersAction)
    ]
    assert len(chosen) > 20
    offered = replies(script, tmp_path, [words for words, _ in chosen])
    for (words, choices), choices_offered in zip(chosen, offered, strict=True):
        assert choices_offered == choices, words


@needs_bash
def test_bash_offers_paths_where_paths_go(script: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").touch()
    queries = {
        "status --store f": {"folder"},
        "materialize --cookies f": {"folder", "file.txt"},
        "score sv --trials f": {"folder", "file.txt"},
        "score compare f": {"folder", "file.txt"},
        "score compare file.txt f": {"folder", "file.txt"},
        "convert f": {"folder", "file.txt"},
        "convert file.txt f": {"folder"},
        "materialize --max-speakers f": set(),
        "status --json f": set(),
    }
    assert replies(script, tmp_path, [query.split() for query in queries]) == [*queries.values()]


# -- Keys ------------------------------------------------------------------------------------------


def ran(shell: list[str], begin: str, folder: Path, *lines: str) -> list[list[str]]:
    """Type lines into a terminal with a shell in it, and return the words that it ran us with.

    Args:
        shell: its command line.
        begin: what is typed first, so that it completes.
        folder: where it is.
        lines: what is typed then.
    """
    log = folder.parent / "ran"
    program = f"voxblink2() {{ printf '%s\\0' \"$@\" end >> {shlex.quote(str(log))}; }}"
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        shell,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TERM": "dumb", "INPUTRC": os.devnull, "HISTFILE": ""},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        lines = (f"{begin}; {program}", *lines, "exit")
        os.write(keyboard, "".join(f"{line}\n" for line in lines).encode())
        shown = b""
        while part := _read(keyboard):
            shown += part
        process.wait()
    os.close(keyboard)
    assert log.exists(), shown.decode()
    commands = log.read_text(encoding="utf-8").removesuffix("end\0").split("end\0")
    return [command.removesuffix("\0").split("\0") for command in commands]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux's way to say that the other side is gone
        return b""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with what names of paths are completed to."""
    folder = tmp_path / "work"
    (folder / "my release" / "meta data").mkdir(parents=True)
    (folder / "store").mkdir()
    (folder / "trials.txt").touch()
    return folder


TYPED = {
    "voxblink2 mat\t--conf\taudio-v\t": ["materialize", "--config", "audio-visual"],
    "voxblink2 sc\tsv --tri\ttri\t--plo\t": ["score", "sv", "--trials", "trials.txt", "--plot"],
    "voxblink2 statu\t--store sto\t --j\t": ["status", "--store", "store/", "--json"],
    # Of what is ambiguous, what is common.
    "voxblink2 re\tl\t": ["release"],
    "voxblink2 index --data-dir my\tmeta\t": ["index", "--data-dir", "my release/meta data/"],
    "voxblink2 materialize --video-shape str\t--audio-format wa\t": [
        *("materialize", "--video-shape", "stretched", "--audio-format", "wav"),
    ],
}


@needs_bash
def test_the_tab_key_completes(script: Path, work: Path) -> None:
    bash = ["bash", "--norc", "--noprofile", "-i"]
    begin = f"source {shlex.quote(str(script))}"
    assert ran(bash, begin, work, *TYPED) == [*TYPED.values()]


# -- zsh -------------------------------------------------------------------------------------------


@pytest.fixture
def zsh_begin(tmp_path: Path) -> str:
    """What zsh reads at its start, as in docs/install.md; nothing is asked or shown in lists."""
    functions = tmp_path / "functions"
    functions.mkdir()
    path = functions / "_voxblink2"
    path.write_text(completion_script(cli._parser(), "zsh"), encoding="utf-8")
    return (
        f"fpath=({shlex.quote(str(functions))} $fpath); autoload -Uz compinit; "
        f"compinit -u -d {shlex.quote(str(tmp_path / 'dump'))}; "
        "unsetopt auto_list auto_menu auto_remove_slash"
    )


@needs_zsh
def test_zsh_reads_its_script_and_knows_the_program(zsh_begin: str) -> None:
    code = f"{zsh_begin}; print $_comps[voxblink2]"
    done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("_voxblink2\n", "")


@needs_zsh
def test_the_tab_key_completes_in_zsh(zsh_begin: str, work: Path) -> None:
    assert ran(["zsh", "-f", "-i"], zsh_begin, work, *TYPED) == [*TYPED.values()]


@needs_zsh
def test_zsh_completes_every_option_of_every_command(zsh_begin: str, work: Path) -> None:
    typed = {
        shlex.join(["voxblink2", *words, name[:-1]]) + "\t": [*words, name]
        for words, parser in COMMANDS
        for names in [[*parser._option_string_actions]]
        for name in names
        if [other for other in names if other.startswith(name[:-1])] == [name]
    }
    assert len(typed) > 300
    assert ran(["zsh", "-f", "-i"], zsh_begin, work, *typed) == [*typed.values()]
