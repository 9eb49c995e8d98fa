"""Workers by fork, spawn and forkserver, after the parent has used its connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import forkserver
from pathlib import Path

import pytest
from support.bucket import bucket_server
from support.hub_server import dataset_hub
from support.remote_store import ROWS, files_of, make_store

from voxblink2_lib.training import Corpus, Reader, ShuffleSampler, TrainingLoader, UtteranceDataset

# A worker that hangs is an error after that time; each of these takes a second or two.
TIMEOUT_SECONDS = 120


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("local"))


@pytest.fixture
def store(request: pytest.FixtureRequest, local: Path) -> Iterator[str]:
    """The store at a place of the kind that is asked for."""
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    with ExitStack() as stack:
        if request.param == "local":
            yield str(local)
        elif request.param == "s3":
            system = stack.enter_context(bucket_server(monkeypatch))
            system.mkdir("bucket")
            for name, content in files_of(local).items():
                system.pipe_file(f"bucket/store/{name}", content)
            yield "s3://bucket/store"
        else:
            hub = stack.enter_context(dataset_hub(monkeypatch, "some/store", files_of(local)))
            monkeypatch.setenv("HF_ENDPOINT", hub.url)  # for workers that are spawned
            monkeypatch.setenv("HF_HUB_OFFLINE", "0")
            yield "hf://datasets/some/store"


def check_workers(store: str, local: Path, method: str) -> None:
    """Read all with two workers, after this process has read, with nothing in the cache."""
    # It has the environment of the test that started it.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # not in typeshed
    corpus, expected = Corpus.open(store), Reader(Corpus.open(local))
    assert Reader(corpus).encoded(0) == expected.encoded(0)
    dataset, sampler = UtteranceDataset(corpus), ShuffleSampler(corpus, batch_size=8)
    loader = TrainingLoader(
        dataset,
        sampler,
        num_workers=2,
        multiprocessing_context=method,
        timeout=TIMEOUT_SECONDS,
    )
    rows = []
    for batch in loader:
        for row, waveform, length in zip(
            batch["rows"].tolist(), batch["waveforms"], batch["lengths"].tolist(), strict=True
        ):
            assert waveform[:length].equal(expected.read(row))
            rows.append(row)
    assert sorted(rows) == list(range(ROWS))
    assert Reader(corpus).encoded(ROWS - 1) == expected.encoded(ROWS - 1)


@pytest.mark.parametrize("store", ["s3", "hub"], indirect=True)
def test_forked_workers_read_from_servers_that_the_parent_reads_from(
    store: str, local: Path
) -> None:
    check_workers(store, local, "fork")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("store", ["local", "s3", "hub"], indirect=True)
def test_workers_read_from_every_kind_of_store(store: str, method: str, local: Path) -> None:
    check_workers(store, local, method)
