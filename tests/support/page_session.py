"""A page of the documentation as a session: its blocks, run from top to bottom in one folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support import cli_process
from support.block_session import BlockSession
from support.inline_pool import InlinePool
from support.page_blocks import ROOT, plain_commands

# Set for a session, so that nothing outside this machine is reached.
_NOWHERE = "http://127.0.0.1:9"
_LINKS = ("examples", "metrics", "tools")
# Where workers are processes that have to be started.
_POOLS = ("materialize.scheduler", "cut_audio.blocks", "embedding.run", "export.run")

Preparation = Callable[["PageSession"], None]


class PageSession(BlockSession):
    """A session in an environment of its own, for one test.

    Args:
        folder: a folder of which nothing exists yet; ``page`` in it is the working directory.
        patched: undoes at the end of the test what the session changes in this process.
        demo_store: returns a finished store of the demo, not to be changed.
        preparations: what the marker ``with`` may name.
        in_processes: scripts run in processes of their own, whatever is in them.

    Attributes:
        patched: the same.
        demo_store: the same.
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
        super().__init__(folder / "page")
        self.patched = patched
        self.demo_store = demo_store
        self._preparations = preparations
        self._in_processes = in_processes
        self.folder.mkdir(parents=True)
        for name in _LINKS:
            (self.folder / name).symlink_to(ROOT / name)
        self._install(folder / "venv")
        self._isolate(folder)
        if not in_processes:
            for module in _POOLS:
                patched.setattr(f"voxblink2_lib.{module}.WorkerPool", InlinePool)

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

    def prepare(self, name: str) -> None:
        self._preparations[name](self)

    def _script(self, script: str) -> tuple[int, str]:
        commands = None if self._in_processes else plain_commands(script)
        return super()._script(script) if commands is None else _inline(commands)


def _inline(commands: list[list[str]]) -> tuple[int, str]:
    """Run command lines of ours in this process, up to the first that fails."""
    code, printed = 0, ""
    for words in commands:
        done = cli_process.run_any(*words)
        code, printed = done.returncode, f"{printed}{done.stdout}{done.stderr}"
        if code:
            break
    return code, printed
