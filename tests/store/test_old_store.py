"""A store that version 0.1.0 made is opened, read and added to as it is.

It holds two speakers of the built-in release, as Opus, and their faces in 48 x 48 pixels; two of
the five videos have no usable media. It was made with ``voxblink2 materialize --data-dir demo
--source media --speakers id990001 id990006 --audio-format opus``, and for the faces with
``--config audio-visual --video-size 48 --video-crf 45``; the folder's name was changed after.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_dataset

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.cli import main
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.training import Corpus

MADE = Path(__file__).parent / "made_by_0_1_0"
CLIPS = {"audio": 12, "audio-visual": 9}
VIDEOS = {"audio": {"done": 4, "gone": 1}, "audio-visual": {"done": 3, "gone": 2}}
configs = pytest.mark.parametrize("config", ["audio", "audio-visual"])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MADE, tmp_path / "store"))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return dict(json.loads(out))


def shard_bytes(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("shards/*/*")}


@configs
def test_status_and_verify_read_it(
    store: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(capsys, "status", "--store", store, "--config", config, "--missing")
    assert status["videos"] == VIDEOS[config]
    assert status["utterances"] == CLIPS[config]
    assert {video["status"] for video in status["missing"]} == {"gone"}
    verification = run(capsys, "verify", "--store", store, "--config", config, "--sample", 3)
    assert verification["rows"] == verification["clips_decoded"] == CLIPS[config]
    assert not verification["problems"]


@configs
def test_a_dataset_is_its_shards(store: Path, config: str, tmp_path: Path) -> None:
    rows = load_dataset(
        "voxblink2", config, store=str(store), split="train", cache_dir=str(tmp_path / "cache")
    )
    tables = []
    for path in sorted((MADE / "shards" / config).glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    assert rows.data.table.equals(pa.concat_tables(tables))


def test_training_reads_it(store: Path) -> None:
    corpus = Corpus.open(store)
    assert len(corpus) == CLIPS["audio"]


def test_a_run_adds_to_it_and_changes_nothing_that_is_there(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shard_bytes(store)
    words = ["--data-dir", "demo", "--source", MEDIA, "--store", store, "--workers", 1]
    speakers = ["--speakers", "id990001", "id990006"]
    run(capsys, "materialize", *words, *speakers)
    assert shard_bytes(store) == before
    status = run(capsys, "materialize", *words, *speakers, "id990002")
    assert status["videos"] == {"done": 6, "gone": 1}
    after = shard_bytes(store)
    assert before.items() < after.items()
    # As the store began, whatever is the default now.
    added = [name for name in after.keys() - before.keys() if name.endswith(".arrow")]
    with pa.memory_map(str(store / added[0])) as file:
        audio = pa.ipc.open_stream(file).read_all()["audio"].to_pylist()
    assert {clip["bytes"][:4] for clip in audio} == {b"OggS"}
