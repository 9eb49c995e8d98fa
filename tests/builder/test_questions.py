"""What Hugging Face asks of a dataset by its name alone, before there is any store."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import datasets
import pytest
from datasets import load_dataset, load_dataset_builder
from support import cli_process

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.errors import ReleaseError, SelectionError, StoreError
from voxblink2_lib.store.schema import FEATURES

CONFIGS = ["audio", "audio-visual"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network at all, and a cache of this test's own."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", ["voxblink2", "VoxBlink2", "VOXBLINK2"])
def test_questions_are_answered_from_constants(name: str) -> None:
    started = time.monotonic()
    assert datasets.get_dataset_config_names(name) == CONFIGS
    assert datasets.get_dataset_default_config_name(name) == "audio"
    for config in CONFIGS:
        assert datasets.get_dataset_split_names(name, config) == ["train"]
        info = datasets.get_dataset_config_info(name, config)
        assert info.features == FEATURES[config]
        assert info.homepage == "https://VoxBlink2.github.io"
        assert [*info.splits] == ["train"]
        assert load_dataset_builder(name, config).info.features == FEATURES[config]
    infos = datasets.get_dataset_infos(name)
    assert {config: info.features for config, info in infos.items()} == FEATURES
    assert load_dataset_builder(name).info.features == FEATURES["audio"]
    assert time.monotonic() - started < 2


def test_a_store_that_does_not_exist_yet_has_the_same_answers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data_dir": "demo", "store": str(tmp_path / "store")}
    assert datasets.get_dataset_split_names("voxblink2", "audio", **options) == ["train"]
    assert load_dataset_builder("voxblink2", **options).info.features == FEATURES["audio"]
    assert not (tmp_path / "store").exists()


def test_the_answer_is_of_the_store_that_is_named(undisturbed: Path) -> None:
    builder = load_dataset_builder("VoxBlink2", store=str(undisturbed))
    assert builder.info.features == FEATURES["audio"]
    assert len(builder._views["train"].shards) == 16


def test_questions_about_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="BuilderConfig 'video' not found"):
        datasets.get_dataset_config_info("voxblink2", "video")
    with pytest.raises(SelectionError, match="audio_format must be flac, wav or opus"):
        load_dataset_builder("voxblink2", audio_format="mp3")
    with pytest.raises(SelectionError, match="store must be a text that is not empty"):
        load_dataset_builder("voxblink2", store="")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_load_still_needs_a_release_or_a_store(streaming: bool, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="No release was named"):
        load_dataset("VoxBlink2", "audio", streaming=streaming)
    with pytest.raises(ReleaseError, match="No release was named"):
        load_dataset("voxblink2", store=str(tmp_path / "nowhere"), streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_store_is_no_dataset(streaming: bool, tmp_path: Path, undisturbed: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes((undisturbed / "ledger.sqlite").read_bytes())
    with pytest.raises(StoreError, match="audio-visual"):
        load_dataset("voxblink2", "audio-visual", store=str(tmp_path), streaming=streaming)


STREAM = """
import sys, voxblink2
from datasets import load_dataset
rows = load_dataset("VoxBlink2", store=sys.argv[1], cache_dir=sys.argv[2], split="train",
                    streaming=True, max_speakers=int(sys.argv[3]) or None)
print(next(iter(rows))["utterance_id"])
iterator = iter(rows)
print(next(iterator)["utterance_id"])
"""


@pytest.mark.parametrize("speakers", [0, 2], ids=["whole store", "view"])
def test_a_program_may_end_amid_a_stream(speakers: int, undisturbed: Path, tmp_path: Path) -> None:
    """What is left open is closed at exit, when modules are half gone, without a word."""
    words = [sys.executable, "-c", STREAM, str(undisturbed), str(tmp_path / "cache"), str(speakers)]
    run = subprocess.run(
        words, check=True, capture_output=True, text=True, env=cli_process.environment()
    )
    assert run.stdout == "00001\n00001\n"
    assert run.stderr == ""
