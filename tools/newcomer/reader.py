"""Read pages as a person does: their blocks, one after the other, in one folder and one Python.

    PYTHONPATH=tools:tests .venv/bin/python -m newcomer.reader README.md docs/tutorials/*.md

Runs in the environment that the reader has made, and in the working directory. Prints the steps as
JSON, and progress to the standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from support.block_session import BlockSession, OutputDiffersError
from support.page_blocks import Block, blocks_of, title_of

from newcomer.steps import Fault, Step, progress


class ReaderSession(BlockSession):
    """A session in the reader's own folder, with nothing prepared but a Hub."""

    def prepare(self, name: str) -> None:
        """Run a Hub on this machine, which is the only thing that a reader has and this one not."""
        import pytest
        from support.hub_server import hub_of_processes

        if name != "hub":
            raise ValueError(f"A reader of this page has no {name!r}; the page must make it.")
        patched = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.stack.enter_context(hub_of_processes(patched))

    def _python(self, block: Block) -> str:
        with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
            return super()._python(block)


def heading(page: Path) -> str:
    """Return what a page is called, for people."""
    return f"{title_of(page)} ({page.name})"


def read(page: Path, session: BlockSession) -> Step:
    """Run the blocks of a page, up to one that fails; an output that differs does not end it.

    Args:
        page: path of the page.
        session: what the pages before it have left.
    """
    begun, compared, command = time.monotonic(), 0, ""
    faults: list[Fault] = []
    for block in blocks_of(page):
        command = block.text if block.is_run else command
        compared += "output" in block.markers
        try:
            session.run(block)
        except OutputDiffersError as error:
            faults.append(Fault(block.place, command, block.text, error.difference))
        except Exception as error:  # whatever the code of a page raises
            faults.append(Fault(block.place, command, "", seen(error)))
            break
    return Step(heading(page), time.monotonic() - begun, compared, tuple(faults))


def seen(error: Exception) -> str:
    """Return what a reader sees of an error."""
    if isinstance(error, AssertionError):
        return str(error)
    return "".join(traceback.format_exception(error))


def main(names: Sequence[str]) -> int:
    """Read pages, print their steps, and return 0."""
    # The reader's own programs have nothing of it.
    os.environ.pop("PYTHONPATH", None)
    steps = []
    with ReaderSession(Path.cwd()) as session:
        for number, name in enumerate(names, 1):
            page = Path(name)
            print(progress(f"{number}/{len(names)} {heading(page)}"), file=sys.stderr, flush=True)
            steps.append(read(page, session))
    print(json.dumps([dataclasses.asdict(step) for step in steps]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
