"""A store to publish, and the URLs that it is published at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from support.bucket import bucket_server
from support.cli_process import run_inline
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.published import remote_errors


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of six videos, and their media."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), video_ids(6), per_speaker=2)


@pytest.fixture(scope="session")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local store of it, of six shards."""
    root = tmp_path_factory.mktemp("made") / "store"
    words = ("--data-dir", corpus, "--source", corpus / "media", "--store", root, "--workers", 1)
    run_inline("materialize", *words)
    return root


@pytest.fixture
def local(made: Path, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(made, tmp_path / "scratch"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches and scratch stores; and no pauses between tries."""
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    return tmp_path / "home"


@pytest.fixture(params=["memory", "file", "s3"])
def url(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """A URL of each kind of store, with nothing at it."""
    if request.param == "s3":
        with bucket_server(monkeypatch) as system:
            system.mkdir("bucket")
            yield "s3://bucket/corpora/store"
    elif request.param == "file":
        yield f"file://{tmp_path}/published/store"
    else:
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        yield "memory://corpora/store"
        memory.store.clear()


@pytest.fixture
def memory() -> Iterator[str]:
    """A URL in this process's memory, with nothing at it."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield "memory://corpora/store"
    system.store.clear()
