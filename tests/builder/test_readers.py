"""One store, and views of it, loaded by several readers: processes, ranks, a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import cli_process

PROCESSES = """
import multiprocessing, sys
import voxblink2
from datasets import Audio, load_dataset

def load():
    rows = load_dataset("voxblink2", store=sys.argv[1], cache_dir=sys.argv[2], split="train",
                        speakers=["id990003", "id990005"])
    return rows.cast_column("audio", Audio(decode=False))

def read(rows, number):
    return rows[number]

if __name__ == "__main__":
    rows = load()
    expected = [read(rows, number) for number in range(len(rows))]
    assert len(expected) == 12, expected
    for method in sys.argv[3:]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(read, [(rows, number) for number in range(12)]) == expected
        print(method)
"""

RANKS = """
import sys, torch
import voxblink2
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node

def rank(number, store, cache):
    torch.distributed.init_process_group("gloo", init_method=f"file://{cache}/ranks", rank=number,
                                         world_size=2)
    options = {"store": store, "cache_dir": cache, "split": "train", "exclude": ["id990003"]}
    rows = load_dataset("voxblink2", **options)
    stream = load_dataset("voxblink2", streaming=True, **options)
    for part in (rows, stream):
        part = split_dataset_by_node(part.select_columns(["video_id"]), rank=number, world_size=2)
        mine, all_of = [row["video_id"] for row in part], [None, None]
        torch.distributed.all_gather_object(all_of, mine)
        assert sorted(sum(all_of, [])) == sorted(rows["video_id"])
    torch.distributed.destroy_process_group()

if __name__ == "__main__":
    torch.multiprocessing.spawn(rank, (sys.argv[1], sys.argv[2]), nprocs=2)
    print("done")
"""

CELLS = [
    "import voxblink2\nfrom datasets import load_dataset",
    "rows = load_dataset('voxblink2', store={store!r}, cache_dir={cache!r}, split='train',\n"
    "                    data_dir='demo', max_speakers=2)\nlen(rows)",
    "rows.select_columns(['video_id']).map(lambda row: row, num_proc=2).num_rows",
    "rows",
]


def run(tmp_path: Path, script: str, *words: object) -> str:
    path = tmp_path / "script.py"
    path.write_text(script)
    run = subprocess.run(
        [sys.executable, path, *map(str, words)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=cli_process.environment({"PYTHONWARNINGS": "ignore"}),
        timeout=cli_process.DEADLINE_SECONDS,
    )
    return run.stdout


def test_processes_that_are_forked_and_spawned(undisturbed: Path, tmp_path: Path) -> None:
    out = run(tmp_path, PROCESSES, undisturbed, tmp_path / "cache", "fork", "spawn")
    assert out == "fork\nspawn\n"


@pytest.mark.slow
def test_ranks_of_a_distributed_run(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    assert run(tmp_path, RANKS, undisturbed, tmp_path / "cache") == "done\n"


@pytest.mark.slow
def test_a_notebook(undisturbed: Path, tmp_path: Path) -> None:
    place = {"store": str(undisturbed), "cache": str(tmp_path / "cache")}
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell{number}", "metadata": {}, "outputs": [],
         "execution_count": None, "source": source.format(**place)}
        for number, source in enumerate(CELLS)
    ]  # fmt: skip
    notebook = tmp_path / "notebook.ipynb"
    notebook.write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    env = {name: str(tmp_path / name) for name in folders}
    subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", notebook],
        check=True,
        env={**os.environ, **cli_process.environment(env)},
        timeout=cli_process.DEADLINE_SECONDS,
    )
    shown = [
        "".join(output["data"]["text/plain"])
        for cell in json.loads(notebook.read_text())["cells"]
        for output in cell["outputs"]
        if output["output_type"] == "execute_result"
    ]
    assert shown[:2] == ["12", "12"]
    assert "num_rows: 12" in shown[2]
