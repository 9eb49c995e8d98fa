"""A store in a data set of the Hub: a commit for each generation, in front of a loopback Hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import load_dataset
from support.cli_process import run_any, run_inline, run_inline_json
from support.hub_server import Hub, dataset_hub

import voxblink2
from voxblink2_lib.errors import StoreBusyError, StoreError, StoreMismatchError
from voxblink2_lib.published import publisher as publisher_file
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.publisher import Publisher
from voxblink2_lib.published.session import publishing
from voxblink2_lib.published.slices import CommonPlan, agree
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.training import Corpus, Reader

assert voxblink2  # registers the builder

NAME = "somebody/corpus"
URL = f"hf://datasets/{NAME}/store"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub on which the user may write, with a data set that has a card."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with dataset_hub(monkeypatch, NAME, {"README.md": b"# A card"}) as hub:
        hub.token = "secret"
        yield hub


def publish(root: Path, url: str = URL) -> int:
    with publishing(url, Store(root, url)) as publisher:
        pass
    return publisher.generation


def grow(root: Path) -> None:
    with Ledger(root / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting("note", (ledger.setting("note") or "") + "x")


def test_a_generation_is_one_commit(hub: Hub, local: Path, tmp_path: Path) -> None:
    before = hub.repos[NAME].commit
    assert publish(local) == 1
    after = hub.repos[NAME]
    assert after.commit != before
    assert "README.md" in after.files
    assert publish(local) == 1
    assert hub.repos[NAME].commit == after.commit
    stream = load_dataset("voxblink2", "audio", store=URL, split="train", streaming=True)
    there = load_dataset("voxblink2", "audio", store=URL, split="train")
    here = load_dataset("voxblink2", "audio", store=str(local), split="train")
    assert [*there["utterance_id"]] == [*here["utterance_id"]]
    assert [row["video_id"] for row in stream] == [*here["video_id"]]
    corpus = Corpus.open(URL, cache_dir=tmp_path / "pieces")
    assert Reader(corpus).encoded(3) == Reader(Corpus.open(local)).encoded(3)
    assert run_inline_json("status", "--store", URL, "--config", "audio")["shards"] == 6


def test_a_new_data_set_is_made(hub: Hub, local: Path) -> None:
    url = "hf://datasets/somebody/other"
    assert publish(local, url) == 1
    assert "manifest.json" in hub.repos["somebody/other"].files
    grow(local)
    assert publish(local, url) == 2


def test_another_commit_in_the_data_set_is_no_conflict(hub: Hub, local: Path) -> None:
    publish(local)
    grow(local)
    with publishing(URL, Store(local, URL)) as publisher:
        repo = hub.repos[NAME]
        hub.repos[NAME] = repo._replace(files={**repo.files, "new": b"1"}, commit="1" * 40)
    assert publisher.generation == 2
    assert "new" in hub.repos[NAME].files


def test_another_generation_is_a_conflict(hub: Hub, local: Path, tmp_path: Path) -> None:
    publish(local)
    other = Path(shutil.copytree(local, tmp_path / "other"))
    place = open_place(URL)
    late = Publisher(Store(other, URL), place, place.lease(), place.read())
    grow(other)
    grow(local)
    grow(local)
    publish(local)
    before = hub.repos[NAME].commit
    with pytest.raises(StoreBusyError, match="generation 2 was written by"):
        late.publish()
    assert hub.repos[NAME].commit == before


def test_former_files_go_with_a_later_commit(
    hub: Hub, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_file, "_GRACE_SECONDS", -1.0)
    for _ in range(4):
        publish(local)
        grow(local)
    ledgers = [name for name in hub.repos[NAME].files if "ledger" in name]
    assert len(ledgers) == 2  # that of the generation before goes with the next commit


def test_who_may_not_write_is_told(hub: Hub, local: Path) -> None:
    hub.token = "another"
    with pytest.raises(StoreError, match=r"cannot be published: .*Ask its owner for permission"):
        publish(local)
    with pytest.raises(StoreError, match="Name hf://datasets/USER/NAME"):
        open_place("hf://somebody/model")


def test_verify_reads_the_hub(hub: Hub, local: Path) -> None:
    publish(local)
    assert run_any("verify", "--store", URL).returncode == 0
    repo = hub.repos[NAME]
    shard = next(name for name in repo.files if "audio-00001" in name and "arrow" in name)
    repo.files[shard] = repo.files[shard][:-1] + b"x"
    assert run_any("verify", "--store", URL).returncode == 1


def test_a_purge_is_one_commit_and_tells_how_the_history_goes(hub: Hub, local: Path) -> None:
    publish(local)
    grow(local)
    publish(local)
    before = hub.repos[NAME].commit
    done = run_inline("purge", "id000001", "--store", URL, "--scratch", local)
    after = hub.repos[NAME]
    assert after.commit != before
    assert "README.md" in after.files
    for name, data in after.files.items():
        assert b"id000001" not in data + name.encode(), name
        assert b"video000002" not in data, name
    assert f"The history of the data set {NAME} has all that was removed" in done.stdout
    (command,) = re.findall('python -c "(.+?)"', done.stdout)
    exec(command)
    assert run_any("verify", "--store", URL).returncode == 0


def test_slices_in_a_data_set(hub: Hub, corpus: Path, made: Path) -> None:
    for number in (2, 1):
        words = ("--data-dir", corpus, "--source", corpus / "media", "--workers", 1)
        run_inline("materialize", *words, "--store", URL, "--shard-of-jobs", f"{number}/2")
    assert "store/slices/audio.json" in hub.repos[NAME].files
    status = run_inline_json("status", "--store", URL, "--config", "audio")
    assert (status["videos"], status["shards"]) == ({"done": 6}, 6)
    stream = load_dataset("voxblink2", "audio", store=URL, split="train", streaming=True)
    here = load_dataset("voxblink2", "audio", store=str(made), split="train")
    assert [row["video_id"] for row in stream] == [*here["video_id"]]
    place = open_place(URL)
    with pytest.raises(StoreMismatchError, match="slices, release, selection, clips differ"):
        agree(place, "audio", CommonPlan(3, "", "", {}))
