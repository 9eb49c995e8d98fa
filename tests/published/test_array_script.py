"""The array job of the documentation runs as it is printed, but for its places."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.cli_process import environment, run_inline_json

ROOT = Path(__file__).resolve().parents[2]
# What is at other places here.
_PLACES = {"/shared/release": "release", "/shared/voxblink2": "store", "youtube": "source"}


def test_the_array_script_of_the_docs(corpus: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/bash\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    places = {"release": corpus, "store": tmp_path / "store", "source": corpus / "media"}
    for name, place in _PLACES.items():
        script = script.replace(name, str(places[place]))
    command = tmp_path / "bin" / "voxblink2"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m voxblink2_lib.cli "$@"\n')
    command.chmod(0o755)
    variables = {"ID": 1, "MIN": 0, "MAX": 1, "STEP": 1, "COUNT": 2}
    env = environment(
        {
            **{f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()},
            "SLURM_CPUS_PER_TASK": "1",
            "TMPDIR": str(tmp_path),
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
            "VOXBLINK2_HOME": str(tmp_path / "home"),
        }
    )
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "002-of-002" in done.stdout
    status = run_inline_json("status", "--store", tmp_path / "store", "--config", "audio")
    assert status["videos"] == {"done": 3}
