"""Stores that several files of tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browsed_store import make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the demo with transcripts. Not to be changed."""
    return _made(tmp_path_factory.mktemp("browsed"))


@pytest.fixture(scope="session")
def face_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two speakers with faces. Not to be changed."""
    folder = tmp_path_factory.mktemp("browsed-faces")
    return _made(folder, "--speakers", "id990001", "id990003", config="audio-visual")


def _made(folder: Path, *more: str, config: str = "audio") -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        return make_store(folder, *more, config=config)
