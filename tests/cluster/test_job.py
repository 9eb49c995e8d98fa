"""Scratch folders of the jobs of a machine: whose are removed, and when."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from voxblink2_lib.cluster.job import _scratch_store
from voxblink2_lib.errors import StoreBusyError
from voxblink2_lib.store.lock import hold_lock


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which all jobs of this machine have theirs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"voxblink2-jobs-{os.getuid()}"


def job(number: int) -> Any:
    return SimpleNamespace(known=SimpleNamespace(config="audio", job=number))


def jobs_with_folders(folders: Path) -> list[str]:
    return sorted(path.name.split("-")[1] for path in folders.iterdir() if path.is_dir())


def test_folders_of_killed_jobs_are_removed_and_those_of_others_are_not(folders: Path) -> None:
    with _scratch_store(job(1)):
        (folders / "audio-2-killed").mkdir()
        with _scratch_store(job(3)):
            assert jobs_with_folders(folders) == ["1", "3"]
        assert jobs_with_folders(folders) == ["1"]
    assert jobs_with_folders(folders) == []


def test_no_job_looks_at_folders_while_one_is_removed(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    remove = tempfile.TemporaryDirectory.cleanup

    def removed_alone(folder: tempfile.TemporaryDirectory[str]) -> None:
        with pytest.raises(StoreBusyError), hold_lock(folders, wait=False):
            pass
        removed.append(folder.name)
        remove(folder)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "cleanup", removed_alone)
    with _scratch_store(job(1)) as store:
        pass
    assert removed == [str(store.root)]
    assert not store.root.exists()
