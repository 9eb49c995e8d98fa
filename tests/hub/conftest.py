"""A loopback Hub to publish to, and a store of which others get a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exported import make_store
from support.hub_server import Hub, writable_hub

from voxblink2_lib.published import remote_errors


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub on which the user may write, with a repository of somebody else."""
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))
    with writable_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 14 videos of two speakers in three shards, beside its corpus."""
    return make_store(tmp_path_factory.mktemp("published for others"))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "store"))
