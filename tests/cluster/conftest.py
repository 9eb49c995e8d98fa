"""A corpus for a cluster, and the store that one machine makes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from support.bucket import bucket_server
from support.cli_process import run_inline
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.materialize import jobs
from voxblink2_lib.published import remote_errors

VIDEOS = 60


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of caches and of scratch stores; jobs of 20 videos; no pauses between tries."""
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(jobs, "_SMALL_CORPUS_SHARDS", 3)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of sixty videos, and their media."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), video_ids(VIDEOS))


@pytest.fixture(scope="session")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards that one machine makes of it, by their names."""
    root = tmp_path_factory.mktemp("alone") / "store"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "_SMALL_CORPUS_SHARDS", 3)
        words = ("--data-dir", corpus, "--source", corpus / "media", "--store", root)
        run_inline("materialize", *words)
    return {path.name: path.read_bytes() for path in root.glob("shards/audio/*.arrow")}


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of an empty store in memory, which nodes in this process share."""
    fsspec.filesystem("memory").store.clear()
    yield "memory://corpora/store"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty store on an S3 server."""
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        yield "s3://bucket/corpora/store"
