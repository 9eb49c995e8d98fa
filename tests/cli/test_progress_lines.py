"""What commands write to a log: no control characters, and in each line a total and time left."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.cli_process import run_inline

from voxblink2_lib import progress
from voxblink2_lib.release.builtin import MEDIA

# Time of day, task, share, number of total, time passed and left, speed, note.
LINE = re.compile(r"\d\d:\d\d:\d\d  ([^:]+): +\d+% [\d.kMGT]+/[\d.kMGT]+ \[[\d:]+<[\d:?]+, .+\]")
RUN_LINE = re.compile(r"\d\d:\d\d:\d\d  \d+ of \d+ videos: .+videos/min")
SPEAKER = "id990003"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state of every task is written, however short it is."""
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_SECONDS", dict.fromkeys(progress._SECONDS, 0.0))


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "store"))


def tasks(*words: object, code: int = 0) -> set[str]:
    """Run a command; return the tasks that it has shown."""
    done = run_inline(*words, code=code)
    assert done.stderr.replace("\n", "").isprintable(), repr(done.stderr)
    lines = [line for line in done.stderr.splitlines() if re.match(r"\d\d:\d\d:\d\d  ", line)]
    shown = {line: LINE.fullmatch(line) for line in lines if not RUN_LINE.match(line)}
    assert None not in shown.values(), shown
    return {match[1] for match in shown.values() if match}


def test_a_run(tmp_path: Path) -> None:
    shown = tasks(
        *("materialize", "--data-dir", "demo", "--source", MEDIA, "--store", tmp_path / "store"),
        *("--workers", 1),
    )
    assert shown == {
        *("Reading annotations", "Indexing speakers", "Planning", "Writing outcomes"),
        "Scanning shards",
    }


def test_what_reads_a_store(store: Path, tmp_path: Path) -> None:
    assert "Verifying audio" in tasks("verify", "--store", store)
    report = ("--out", tmp_path / "report.html")
    assert tasks("report", "--store", store, *report) == {
        "Listing missing videos",
        "Writing the report",
    }
    assert "Checking audio" in tasks("repair", "--store", store, "--dry-run")
    assert tasks("diff", store, store) == {"Comparing audio"}
    exported = tasks("export", "kaldi", "--store", store, "--to", tmp_path / "kaldi")
    assert exported == {"Exporting", "Writing lists"}


def test_what_changes_a_store(store: Path, tmp_path: Path) -> None:
    planned = tasks("purge", SPEAKER, "--store", store, "--dry-run", code=1)
    assert "Looking through shards" in planned
    assert "Rewriting shards" in tasks("purge", SPEAKER, "--store", store)
    assert "Taking over shards" in tasks("merge", store, "--into", tmp_path / "merged")


def test_a_new_index(tmp_path: Path) -> None:
    shown = tasks("index", "--data-dir", "demo", "--store", tmp_path / "store")
    assert shown == {"Reading annotations", "Indexing speakers"}
