"""Opening a store at a URL takes few requests, as many for many shards as for few."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from datasets import load_dataset
from support.cli_process import run_inline
from support.faulty_bucket import Faults, faulty_bucket
from support.plain_corpus import make_corpus, video_ids

import voxblink2
from voxblink2_lib.materialize import jobs
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import cache_of
from voxblink2_lib.published.session import publishing
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.store.layout import Store
from voxblink2_lib.training import Corpus, Reader

assert voxblink2  # registers the builder

BUCKET = "s3://bucket/corpora/"
MOST_REQUESTS = 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of thirty shards."""
    folder = tmp_path_factory.mktemp("large")
    corpus = make_corpus(folder / "corpus", video_ids(30))
    words = ("--data-dir", corpus, "--source", corpus / "media", "--workers", 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "_SMALL_CORPUS_SHARDS", 30)
        run_inline("materialize", *words, "--store", folder / "store")
    return folder / "store"


def first_row(url: str) -> None:
    stream = load_dataset("voxblink2", "audio", store=url, split="train", streaming=True)
    next(iter(stream.remove_columns("audio")))


def first_selected_row(url: str) -> None:
    chosen = {"store": url, "speakers": ["id000000"], "split": "train", "streaming": True}
    next(iter(load_dataset("voxblink2", "audio", **chosen).remove_columns("audio")))


def first_clip(url: str) -> None:
    assert Reader(Corpus.open(url)).encoded(0)


def publish(url: str, root: Path) -> None:
    """Publish a store whose shards are only at the URL afterwards."""
    with publishing(url, Store(root, url)):
        pass


def requests(faults: Faults, open_store: Callable[[str], None], url: str) -> list[str]:
    """Requests beyond those for the catalogue."""
    faults.seen.clear()
    open_store(url)
    return [name for name in faults.seen if "/catalogue/" not in name]


def test_few_requests_whatever_the_number_of_shards(
    large: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (tmp_path / "datasets" / str(number) for number in itertools.count())
    with faulty_bucket(monkeypatch, read_timeout_seconds=60) as faults:
        stores = {f"{BUCKET}few": local, f"{BUCKET}many": large}
        for url, root in stores.items():
            publish(url, root)
        numbers = [len(Place(url).read().manifest.shards("audio")) for url in stores]  # type: ignore[union-attr]  # published
        assert numbers == [6, 30]
        for open_store in (first_row, first_selected_row, first_clip):
            counts = []
            for number, url in enumerate(stores):
                monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / f"{open_store} {number}"))
                monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", next(folders))
                fsspec.get_filesystem_class("s3").clear_instance_cache()
                counts.append(len(requests(faults, open_store, url)))
            assert counts[0] == counts[1] <= MOST_REQUESTS, open_store


def test_a_load_of_all_rows_downloads_no_ledger(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with faulty_bucket(monkeypatch, read_timeout_seconds=60):
        url = f"{BUCKET}few"
        publish(url, local)
        first_row(url)
        (copy,) = cache_of(url).glob("1-*")
        files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
        summaries = {f"summary/{config}.json" for config in CONFIG_NAMES}
        assert files == {"index/index.json", "published/manifest.json", *summaries}
        first_selected_row(url)
        files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
        assert files >= {"ledger.sqlite", "index/videos.parquet", "catalogue/audio.arrow"}
        assert not files & {"index/boxes.parquet", "index/utterances.parquet"}
