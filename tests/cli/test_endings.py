"""How commands end: wrong use, Ctrl-C, output that is gone; in words, and as one JSON object."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support import cli_process

from voxblink2_lib import cli
from voxblink2_lib.cli.completion import parsers_of
from voxblink2_lib.errors import UsageError

# -- Wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status --stores x", "unrecognized arguments: --stores x. Did you mean --store?"),
        ("status --st x", "unrecognized arguments: --st x"),
        ("materialize --conf audio", "unrecognized arguments: --conf audio. Did you mean --config"),
        ("doctor --proxi x", "unrecognized arguments: --proxi x. Did you mean --proxy?"),
        ("--jso status", "unrecognized arguments: --jso"),
        ("status --store a b", "unrecognized arguments: b"),
        ("status -demoSailor", "unrecognized arguments: -demoSailor"),
        ("status 'a\nb\x1b'", r"unrecognized arguments: 'a\nb\x1b'"),
        ("status --missing=yes", "argument --missing: ignored explicit argument 'yes'"),
        ("materialize --videos", "argument --videos: expected at least one argument"),
        (
            "score sv --trial x",
            "the following arguments are required: --trials; unrecognized arguments: --trial. "
            "Did you mean --trials?",
        ),
    ],
)
def test_wrong_use_is_said_in_three_lines_at_most(line: str, message: str) -> None:
    words = shlex.split(line)
    run = cli_process.run_inline(*words, code=2)
    first, *more = run.stderr.splitlines()
    assert first.startswith(f"voxblink2: {message}")
    assert len(more) <= 2
    assert run.stdout == ""


def test_what_a_refusal_recommends_can_be_run() -> None:
    run = cli_process.run_inline("score", "sv", code=2)
    command = run.stderr.splitlines()[1].split("'")[1]
    assert command == "voxblink2 score sv --help"
    assert "score trials by cosine" in cli_process.run_inline(*command.split()[1:]).stdout.lower()


def test_no_option_is_abbreviated() -> None:
    everyone = [*parsers_of(cli._parser())]
    assert len(everyone) > 12
    assert {parser.allow_abbrev for parser in everyone} == {False}
    for parser in everyone:
        longest = max(parser._option_string_actions, key=len)
        with pytest.raises(UsageError):
            parser.parse_args([longest[:-1]])


@pytest.mark.parametrize(
    "words",
    [
        ["--videos", "-demoSailor", "--max-speakers", "1"],
        ["--videos", "demoBicycle", "-demoSailor", "-hBCDEFGHIJ"],
        ["--videos=-demoSailor"],
        ["--exclude", "-demoSailor", "--videos", "-0123456789"],
    ],
)
def test_ids_that_begin_with_a_dash_are_values(words: list[str]) -> None:
    options = cli._parser().parse_args(["materialize", "--data-dir", "demo", *words])
    ids = {*(options.videos or []), *(options.exclude or [])}
    assert ids == {word for part in words for word in part.split("=") if len(word) == 11}
    assert options.max_speakers == (1 if "--max-speakers" in words else None)


@pytest.mark.parametrize("command", ["status", "status --missing", "verify", "report"])
def test_a_command_about_a_store_asks_which(command: str) -> None:
    run = cli_process.run_inline(*command.split(), code=2)
    (line,) = run.stderr.splitlines()
    assert line.startswith("voxblink2: Which store? Name its folder with --store, for example: ")
    example = line.partition("example: ")[2].split()
    assert cli._parser().parse_args(example[1:]).store == "voxblink2-demo/store"


def test_the_store_of_a_release_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--data-dir", "demo"], []):
        run = cli_process.run_inline("status", *words, code=2)
        assert "There is no store at" in run.stderr
        monkeypatch.setenv("VOXBLINK2_RELEASE", "demo")


# -- One object ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("fly", "UsageError"),
        ("", "UsageError"),
        ("status", "UsageError"),
        ("status --store", "UsageError"),
        ("score", "UsageError"),
        ("embed --dtype float16", "UsageError"),
        ("retry --since yesterday", "UsageError"),
        ("report --store x --out y --csv y", "UsageError"),
        ("status --store /nowhere", "StoreError"),
        ("materialize --data-dir /nowhere", "ReleaseError"),
        ("materialize --data-dir demo --max-speakers 0", "SelectionError"),
    ],
)
def test_errors_are_one_object_with_the_exit_code(line: str, error: str) -> None:
    run = cli_process.run_inline(*line.split(), "--json", code=2)
    record = json.loads(run.stdout)
    assert record.keys() == {"error", "message", "exit_code"}
    assert (record["error"], record["exit_code"]) == (error, 2)
    assert run.stderr.startswith(f"voxblink2: {record['message']}\n")


def test_a_run_without_any_clip_is_one_object(tmp_path: Path) -> None:
    media = tmp_path / "media" / "id990001"
    media.mkdir(parents=True)
    (media / "demoHarbour.mp4").write_bytes(b"")
    words = ("materialize", "--data-dir", "demo", "--speakers", "id990001")
    places = ("--store", tmp_path / "store", "--source", tmp_path / "media")
    record = cli_process.run_inline_json(*words, *places, code=2)
    assert record["videos"] == {"gone": 1, "media-unusable": 1}
    assert (record["error"], record["exit_code"]) == ("StoreError", 2)
    assert record["message"].startswith("No video is available")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["status", "--store", "x"], "Finished work is kept; run the same command to resume."),
        (["report", "--store", "x"], "Nothing was written; run the same command to start again."),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c(
    words: list[str], advice: str, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not interrupted")

    monkeypatch.setattr("voxblink2_lib.store.layout.named_store", interrupt)
    run = cli_process.run_inline(*words, *(["--json"] if as_json else []), code=3)
    assert run.stderr == f"\nvoxblink2: stopped. {advice}\n"
    expected = {"error": "StoppedError", "message": f"stopped. {advice}", "exit_code": 3}
    assert run.stdout == (f"{json.dumps(expected)}\n" if as_json else "")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_defect_ends_with_1(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("no such thing")

    monkeypatch.setattr("voxblink2_lib.store.layout.named_store", fail)
    words = ["status", "--store", "x", *(["--json"] if as_json else [])]
    run = cli_process.run_inline(*words, code=1)
    assert "Traceback" in run.stderr
    assert "report it to the maintainers" in run.stderr.splitlines()[-1]
    record = json.loads(run.stdout) if as_json else {"error": "KeyError", "exit_code": 1}
    assert (record["error"], record["exit_code"]) == ("KeyError", 1)
    assert as_json or run.stdout == ""


# -- Output that is gone ---------------------------------------------------------------------------

FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")


def run_program(line: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run the program with streams of a test's own; what is not named is captured."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, "-m", "voxblink2_lib.cli", *shlex.split(line)]
    environment = cli_process.environment()
    return subprocess.run(words, text=True, check=False, env=environment, **(pipes | streams))


@needs_full_device
@pytest.mark.parametrize("line", ["status --store {0}", "status --store {0} --json", "--help"])
def test_a_full_device_as_output(line: str, undisturbed: Path) -> None:
    with FULL.open("w") as full:
        run = run_program(line.format(undisturbed), stdout=full)
    assert run.returncode == 3
    assert run.stderr == (
        "voxblink2: Standard output cannot be written to: No space left on device. "
        "Run the same command again with another output.\n"
    )


@needs_full_device
def test_a_full_device_for_an_error(undisturbed: Path) -> None:
    """The code is that of the error, and neither stream fails again at exit."""
    with FULL.open("w") as full:
        assert run_program("status --store /nowhere --json", stdout=full).returncode == 2
        assert run_program("fly", stderr=full).returncode == 2
        run = run_program("fly --json", stderr=full)
    assert json.loads(run.stdout)["exit_code"] == run.returncode == 2


@pytest.mark.parametrize("ends", [("stdout",), ("stdout", "stderr")])
def test_a_reader_that_has_ended(ends: tuple[str, ...], undisturbed: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams = dict.fromkeys(ends, writer)
        run = run_program(f"status --store {undisturbed} --missing", **streams)
        assert (run.returncode, run.stderr or "") == (0, "")
        run = run_program("status --store /nowhere --json", **streams)
        assert run.returncode == 2
    finally:
        os.close(writer)


def test_streams_that_the_shell_closed(undisturbed: Path) -> None:
    program = f"{shlex.quote(sys.executable)} -m voxblink2_lib.cli"
    for redirections, line, code in (
        (">&-", f"status --store {undisturbed}", 0),
        ("2>&-", "status --store /nowhere --json", 2),
    ):
        run = subprocess.run(
            f"{program} {line} {redirections}",
            shell=True,
            text=True,
            check=False,
            capture_output=True,
            env=cli_process.environment(),
        )
        assert (run.returncode, run.stderr) == (code, "")
        assert not run.stdout or json.loads(run.stdout)["exit_code"] == 2
