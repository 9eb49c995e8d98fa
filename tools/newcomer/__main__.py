"""The command: everything in a temporary folder, then a table; the exit code is 1 on any fault."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.block_session import OutputDiffersError, compare
from support.page_blocks import Block, blocks_of

from newcomer.machine import ROOT, activated, clone, linked, shell_environment
from newcomer.steps import Fault, Step, progress, summary

_EPILOG = """\
examples:
  make newcomer                    a clone, an environment, the tests, README.md and all tutorials
  PYTHONPATH=tools:tests python -m newcomer --here --skip-tests 1 6
                                   in a folder of links to this checkout, with its environment
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m newcomer",
        description="Clone, run the commands of README.md and the blocks of README.md and the "
        "tutorials, in one folder and as they are written, and compare what is printed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tutorials",
        nargs="*",
        metavar="NUMBER",
        help="of the tutorials in docs/tutorials, in this order; all if none is given",
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="make no clone and no environment, but take this checkout and its .venv; "
        "what is made is in a temporary folder all the same",
    )
    parser.add_argument("--skip-tests", action="store_true", help="leave out 'make test'")
    return parser


def pages(numbers: Sequence[str]) -> list[str]:
    """Return the paths of README.md and of tutorials, as they are in a clone.

    Args:
        numbers: those that the tutorials' names begin with; all if it is empty.

    Raises:
        SystemExit: no tutorial has such a number.
    """
    paths = {path.name.partition("_")[0]: path for path in (ROOT / "docs/tutorials").glob("*.md")}
    if wrong := [number for number in numbers if number not in paths]:
        parser().error(
            f"no tutorial has the number {wrong[0]!r}; allowed are {', '.join(sorted(paths))}"
        )
    tutorials = [paths[number] for number in numbers or sorted(paths)]
    return [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *tutorials)]


# -- The commands of README.md ---------------------------------------------------------------------


def commands(readme: Path) -> dict[str, list[Block]]:
    """Return the lines of ``make`` in the first script of README.md, each with its output's blocks.

    An output that is shown below the script is the first command's.
    """
    blocks = blocks_of(readme)
    lines = (shlex.split(line, comments=True) for line in next(blocks).text.splitlines())
    first, *others = [shlex.join(words) for words in lines if words[:1] == ["make"]]
    below = next(blocks)
    return {first: [below] if "output" in below.markers else [], **{line: [] for line in others}}


def run_command(line: str, outputs: Sequence[Block], *, here: Path, env: dict[str, str]) -> Step:
    """Run a command of README.md, and compare what it prints.

    Args:
        line: the command.
        outputs: what the page shows of it.
        here: the clone.
        env: the environment.
    """
    print(progress(line), file=sys.stderr, flush=True)
    begun = time.monotonic()
    code, printed = _printed(shlex.split(line), here=here, env=env)
    faults = []
    if code:
        faults.append(Fault("README.md", line, "", f"exit code {code}\n{printed[-4000:]}"))
    for block in outputs:
        try:
            compare(block, printed)
        except OutputDiffersError as error:
            faults.append(Fault(f"README.md:{block.line}", line, block.text, error.difference))
    return Step(line, time.monotonic() - begun, len(outputs), tuple(faults))


def _printed(words: Sequence[str], *, here: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a program whose output is also shown as it comes; return its exit code and output."""
    lines = []
    with subprocess.Popen(
        words,
        cwd=here,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            lines.append(line)
            print(f"  {line}", end="", file=sys.stderr, flush=True)
    return process.returncode, "".join(lines)


# -- The hour --------------------------------------------------------------------------------------


def read_pages(names: Sequence[str], *, here: Path, env: dict[str, str]) -> list[Step]:
    """Run the blocks of pages with the environment that the commands have made.

    Args:
        names: paths in the clone.
        here: the clone.
        env: the environment before it is activated.
    """
    python = here / ".venv" / "bin" / "python"
    ours = {"PYTHONPATH": f"{here / 'tools'}:{here / 'tests'}"}
    done = subprocess.run(
        [python, "-m", "newcomer.reader", *names],
        cwd=here,
        env=activated(env, here) | ours,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [step_of(record) for record in json.loads(done.stdout)]


def step_of(record: dict[str, Any]) -> Step:
    """Return a step that was written as JSON."""
    faults = tuple(Fault(**fault) for fault in record["faults"])
    return Step(record["title"], record["seconds"], record["compared"], faults)


def hour(folder: Path, options: argparse.Namespace) -> Iterator[Step]:
    """Yield the steps of the hour; one that ends with an error ends the hour.

    Args:
        folder: an empty folder.
        options: of the command line.
    """
    names = pages(options.tutorials)
    home = folder / "home"
    home.mkdir()
    env = shell_environment(home)
    here = linked(folder) if options.here else clone(folder)
    for line, outputs in commands(here / "README.md").items():
        if line == "make test" and options.skip_tests:
            continue
        step = run_command(line, outputs, here=here, env=env)
        yield step
        if step.faults:
            return
    yield from read_pages(names, here=here, env=env)


def main(words: Sequence[str] | None = None) -> int:
    """Do it, print what was wrong and how long it took, and return the exit code."""
    options = parser().parse_args(words)
    with tempfile.TemporaryDirectory(prefix="voxblink2-newcomer-") as name:
        steps = list(hour(Path(name).resolve(), options))
    print("\n".join(summary(steps)))
    return 1 if any(step.faults for step in steps) else 0


if __name__ == "__main__":
    sys.exit(main())
