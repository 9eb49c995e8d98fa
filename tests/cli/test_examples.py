"""The command that lists and copies the examples."""

from __future__ import annotations

import json
from pathlib import Path

from support import cli_process

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    path.name for pattern in ("*.py", "*.ipynb") for path in ROOT.glob(f"examples/{pattern}")
}


def test_examples_are_listed_with_what_they_do() -> None:
    lines = cli_process.run_inline("examples").stdout.splitlines()
    assert {line.split()[0] for line in lines} == SCRIPTS
    (title,) = (line for line in lines if line.startswith("train_with_lightning.py"))
    assert title.split(maxsplit=1)[1] == "Train a speaker model with PyTorch Lightning."


def test_examples_are_copied_and_nothing_is_replaced(tmp_path: Path) -> None:
    to = tmp_path / "mine"
    record = json.loads(cli_process.run_inline("examples", "--to", to, "--json").stdout)
    assert record["folder"] == str(to)
    assert record["examples"].keys() == SCRIPTS
    assert {path.name for path in to.iterdir()} == SCRIPTS
    for name in SCRIPTS:
        assert (to / name).read_bytes() == (ROOT / "examples" / name).read_bytes()
    cli_process.run_inline("examples", "--to", to)  # the same again
    (to / "train_speaker.py").write_text("mine")
    (to / "train_with_trainer.py").unlink()
    run = cli_process.run_inline("examples", "--to", to, code=2)
    assert f"{to / 'train_speaker.py'} exists, and is not this version's example" in run.stderr
    assert (to / "train_speaker.py").read_text() == "mine"
    assert not (to / "train_with_trainer.py").exists()


def test_a_notebook_is_listed_by_its_first_cell(tmp_path: Path) -> None:
    from voxblink2_lib.cli.examples import _title

    path = tmp_path / "look.ipynb"
    path.write_text(json.dumps({"cells": [{"source": ["# Look at it\n", "\n", "More."]}]}))
    assert _title(path) == "Look at it"
