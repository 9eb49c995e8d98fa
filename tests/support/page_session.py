"""A page of the documentation as a session: its blocks, run from top to bottom in one folder."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support import cli_process
from support.inline_pool import InlinePool
from support.page_blocks import ROOT, Block, plain_commands
from support.page_output import differences

# Set for a session, so that nothing outside this machine is reached.
_NOWHERE = "http://127.0.0.1:9"
_DATA = re.compile(r"(?<![\w.~/])/data/")
_LINKS = ("examples", "metrics", "tools")
_DEADLINE_SECONDS = 600.0
# Where workers are processes that have to be started.
_POOLS = ("materialize.scheduler", "cut_audio.blocks", "embedding.run", "export.run")

Preparation = Callable[["PageSession"], None]


class PageSession:
    """What the blocks of a page share: a folder, names in Python, and the environment.

    Args:
        folder: a folder of which nothing exists yet; ``page`` in it is the working directory.
        patched: undoes at the end of the test what the session changes in this process.
        demo_store: returns a finished store of the demo, not to be changed.
        preparations: what the marker ``with`` may name.
        in_processes: scripts run in processes of their own, whatever is in them.

    Attributes:
        folder: the working directory.
        names: names of the Python blocks.
        stack: is closed at the end, in a ``with`` block of the session.
    """

    def __init__(
        self,
        folder: Path,
        patched: pytest.MonkeyPatch,
        *,
        demo_store: Callable[[], Path],
        preparations: Mapping[str, Preparation],
        in_processes: bool = False,
    ) -> None:
        self.folder = folder / "page"
        self.patched = patched
        self.demo_store = demo_store
        self.names: dict[str, Any] = {"__name__": "page"}
        self.stack = contextlib.ExitStack()
        self._preparations = preparations
        self._in_processes = in_processes
        self._printed = ""
        self.folder.mkdir(parents=True)
        for name in _LINKS:
            (self.folder / name).symlink_to(ROOT / name)
        self._install(folder / "venv")
        self._isolate(folder)
        if not in_processes:
            for module in _POOLS:
                patched.setattr(f"voxblink2_lib.{module}.WorkerPool", InlinePool)

    def __enter__(self) -> PageSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.names.clear()
        self.stack.close()

    def _install(self, venv: Path) -> None:
        """Put the programs in place, as an environment of a user has them."""
        programs = {"python": sys.executable, "voxblink2": f"{sys.executable} -m voxblink2_lib.cli"}
        (venv / "bin").mkdir(parents=True)
        for name, command in programs.items():
            (venv / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (venv / "bin" / name).chmod(0o755)
        (self.folder / ".venv").symlink_to(venv)
        self.patched.setenv("PATH", f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}")
        self.patched.setenv("PYTHONPATH", str(ROOT))

    def _isolate(self, folder: Path) -> None:
        """Let this process and those that it starts write into the folder, and reach nothing."""
        self.patched.chdir(self.folder)
        self.patched.setenv("HF_HOME", str(folder / "huggingface"))
        self.patched.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
        self.patched.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        self.patched.setattr("evaluate.config.HF_MODULES_CACHE", folder / "modules")
        self.patched.setattr("evaluate.config.HF_METRICS_CACHE", folder / "metrics")
        for protocol in ("http", "https"):
            self.patched.setenv(f"{protocol}_proxy", _NOWHERE)
        self.patched.setenv("no_proxy", "127.0.0.1,localhost")

    def run(self, block: Block) -> None:
        """Run a block, or compare an output that the page shows with what was printed last."""
        for name in block.preparations:
            self._preparations[name](self)
        if block.is_run:
            self._printed = self._python(block) if block.language == "python" else self._sh(block)
        elif "output" in block.markers:
            text = differences(block.text, self._printed, block.tolerance)
            assert not text, f"{block.place}: the output differs.\n{text}"

    def _python(self, block: Block) -> str:
        # Lines of a traceback are those of the page.
        text = "\n" * (block.line - 1) + self._local(block.text)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, str(block.page), "exec"), self.names)
        return printed.getvalue()

    def _sh(self, block: Block) -> str:
        script = self._local(block.text)
        commands = None if self._in_processes else plain_commands(script)
        code, printed = self._in_bash(script) if commands is None else self._inline(commands)
        assert code == block.exit_code, f"{block.place}: exit code {code}\n{printed}"
        return printed

    def _inline(self, commands: list[list[str]]) -> tuple[int, str]:
        """Run command lines of ours in this process, up to the first that fails."""
        code, printed = 0, ""
        for words in commands:
            done = cli_process.run_any(*words)
            code, printed = done.returncode, f"{printed}{done.stdout}{done.stderr}"
            if code:
                break
        return code, printed

    def _in_bash(self, script: str) -> tuple[int, str]:
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
