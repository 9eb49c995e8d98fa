"""Blocks of a page, run one after the other in a folder, and what they print compared.

It needs nothing but Python, so that it runs in an environment that a reader has made.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path
from typing import Any, Self

from support.page_blocks import LANGUAGES, Block
from support.page_output import differences

_DATA = re.compile(r"(?<![\w.~/])/data/")
_DEADLINE_SECONDS = 600.0


class OutputDiffersError(AssertionError):
    """A page shows another output than what was printed.

    Attributes:
        difference: what is missing, and what was printed.
    """

    def __init__(self, place: str, difference: str) -> None:
        super().__init__(f"{place}: the output differs.\n{difference}")
        self.difference = difference


def compare(block: Block, printed: str) -> None:
    """Compare an output that a page shows with what was printed.

    Raises:
        OutputDiffersError: it differs.
    """
    if difference := differences(block.text, printed, block.tolerance):
        raise OutputDiffersError(block.place, difference)


class BlockSession:
    """What the blocks of pages share.

    Args:
        folder: the working directory of the scripts.

    Attributes:
        folder: the same.
        names: names of the Python blocks.
        stack: is closed at the end, in a ``with`` block of the session.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self.stack = contextlib.ExitStack()
        self._printed: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.names.clear()
        self.stack.close()

    def prepare(self, name: str) -> None:
        """Put something in place that the marker ``with`` names."""
        raise NotImplementedError(name)

    def run(self, block: Block) -> None:
        """Run a block, or compare an output that the page shows with what the block above printed.

        If the block above is not run, the output is only shown.

        Raises:
            OutputDiffersError: it differs.
            AssertionError: a script ends with another exit code.
            Exception: whatever a Python block raises.
        """
        for name in block.preparations:
            self.prepare(name)
        if block.is_run:
            self._printed = self._python(block) if block.language == "python" else self._sh(block)
        elif block.language in LANGUAGES:
            self._printed = None
        elif "output" in block.markers and self._printed is not None:
            compare(block, self._printed)

    def _python(self, block: Block) -> str:
        # Lines of a traceback are those of the page.
        text = "\n" * (block.line - 1) + self._local(block.text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, str(block.page), "exec"), self.names)
        return printed.getvalue()

    def _sh(self, block: Block) -> str:
        code, printed = self._script(self._local(block.text))
        assert code == block.exit_code, f"{block.place}: exit code {code}\n{printed}"
        return printed

    def _script(self, script: str) -> tuple[int, str]:
        """Run a script with ``bash``, and return its exit code and what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def _local(self, text: str) -> str:
        """Return a block with ``/data/`` in the working directory; no other change is made."""
        return _DATA.sub(f"{self.folder}/data/", text)
