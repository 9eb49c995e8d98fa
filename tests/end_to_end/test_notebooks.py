"""The notebooks in ``examples/``: they run on the demo, and lie there without outputs."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support.notebook_run import run_notebook

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# In this order: a model is trained before it is evaluated.
NAMES = ["look_at_the_corpus", "train", "evaluate_a_model"]
# Plots that each one draws.
PLOTS = {"look_at_the_corpus": 4, "train": 4, "evaluate_a_model": 3}

notebooks = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> Any:
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def code(notebook: Any) -> list[str]:
    """Return the sources of the cells of code; commands of the shell are left out."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [re.sub(r"^!.*$", "", source, flags=re.MULTILINE) for source in sources]


def test_all_notebooks_are_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(NAMES)


@notebooks
def test_a_notebook_has_no_outputs_and_compiles(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert cell.metadata == {}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    for source in code(notebook):
        ast.parse(source)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "voxblink2" in text
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


@notebooks
def test_a_notebook_imports_only_what_it_uses(name: str) -> None:
    tree = ast.parse("\n".join(code(read(name))))
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    text = "\n".join(cell.source for cell in read(name).cells)
    # They register what others load; a command of the shell names the interpreter.
    needed = {"voxblink2", "voxblink2_lib", *re.findall(r"\{(sys)\.executable\}", text)}
    assert imported - used <= needed


@pytest.mark.slow
def test_the_notebooks_run(tmp_path: Path) -> None:
    shown = {}
    for name in NAMES:
        path = Path(shutil.copy(EXAMPLES / f"{name}.ipynb", tmp_path))
        shown[name] = outputs_of(run_notebook(path, timeout_seconds=500))
    for name, outputs in shown.items():
        images = [output for output in outputs if "image/png" in output.get("data", {})]
        assert len(images) == PLOTS[name], name
        texts = [text_of(output) for output in outputs if output.get("name") == "stderr"]
        assert not [text for text in texts if "Warning" in text], name
    corpus, training, evaluation = ("\n".join(map(text_of, outputs)) for outputs in shown.values())
    assert "num_rows: 36" in corpus
    assert re.search(r"demoGone404\s+gone|gone.*demoGone404", corpus), corpus
    before, after = (float(rate) for rate in re.findall(r"EER +([\d.]+) %", training))
    assert after < before / 2
    (numbers,) = re.findall(r"EER +([\d.]+) % \[([\d.]+), ([\d.]+)\]", evaluation)
    rate, low, high = map(float, numbers)
    assert low <= rate <= high < 50
    assert "rank1" in evaluation


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain") or "")
