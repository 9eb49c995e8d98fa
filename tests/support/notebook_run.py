"""Notebooks, run by nbclient in a real kernel, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nbformat

from support import cli_process

# Jupyter's files, of which none may be the user's.
_FOLDERS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
Output = Mapping[str, Any]


def run_notebook(path: Path, *, timeout_seconds: float = cli_process.DEADLINE_SECONDS) -> Any:
    """Run a notebook in its folder, and return it with its outputs.

    Args:
        path: the notebook, which is overwritten.
        timeout_seconds: how long all of it may take.

    Raises:
        AssertionError: a cell raises an error.
    """
    home = path.parent / ".jupyter"
    home.mkdir(exist_ok=True)
    extra = {name: str(home / name) for name in _FOLDERS}
    extra |= {"HF_HOME": str(home / "hf"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=cli_process.environment(extra),
        timeout=timeout_seconds,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return nbformat.read(path, as_version=4)


def run_cells(sources: Sequence[str], folder: Path) -> tuple[list[list[Output]], Mapping[str, Any]]:
    """Run cells of code; return the outputs of each, and the states of the widgets.

    Args:
        sources: of the cells.
        folder: where they run.
    """
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = folder / "cells.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    notebook = run_notebook(path)
    widgets = notebook.metadata.get("widgets", {})
    states = widgets.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    return [cast(list[Output], cell.outputs) for cell in notebook.cells], states
