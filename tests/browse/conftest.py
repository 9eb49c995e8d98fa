"""Stores that several files of tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browsed_store import make_store
from support.chromium import launched
from support.served_page import served_page, write_vectors


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the demo with transcripts. Not to be changed."""
    return _made(tmp_path_factory.mktemp("browsed"))


@pytest.fixture(scope="session")
def face_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two speakers with faces. Not to be changed."""
    folder = tmp_path_factory.mktemp("browsed-faces")
    return _made(folder, "--speakers", "id990001", "id990003", config="audio-visual")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(face_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The page of the store with faces: its URL, and where its files are."""
    folder = tmp_path_factory.mktemp("page")
    vectors = write_vectors(folder / "vectors.parquet", face_store, "id990001")
    with served_page(face_store, folder, "--embeddings", vectors) as page:
        yield page


def _made(folder: Path, *more: str, config: str = "audio") -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        return make_store(folder, *more, config=config)
