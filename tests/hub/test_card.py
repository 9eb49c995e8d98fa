"""The card: what the Hub and ``datasets`` read of it, and what its owner wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from datasets import Audio, Features, Value
from huggingface_hub import DatasetCard

from voxblink2_lib.errors import ExportError
from voxblink2_lib.hub.card import card_of
from voxblink2_lib.hub.record import PublishedConfig, SplitSize, read_record, record_as_json

FEATURES = Features({"audio": Audio(sampling_rate=16_000), "transcript": Value("string")})
CONFIG = PublishedConfig(
    made_by="voxblink2 0.2.0",
    store="5" * 64,
    shards={"audio-00000.arrow": "0" * 64},
    annotations="a" * 64,
    annotated={"speakers": 10, "videos": 40, "utterances": 200},
    selection={"speakers": ["id000001"], "exclude": {"ids": 200, "sha256": "e" * 64}},
    options={},
    splits={"train": SplitSize(90, 9_000_000), "validation": SplitSize(10, 1_000_000)},
    present={"speakers": 5, "videos": 20, "utterances": 100},
    hours=0.25,
    outcomes={"done": 20, "gone": 12, "private": 3, "planned": 5},
    missing_utterances=7,
    purged=2,
    features=FEATURES.to_dict(),
    languages=["de", "en"],
    settings={"audio_format": "flac"},
    made_with=["libavcodec 62"],
)
FACES = replace(CONFIG, splits={"train": SplitSize(100, 1)}, languages=[])


def head_of(card: str) -> dict[str, Any]:
    return dict(vars(DatasetCard(card).data))


def test_what_the_hub_reads() -> None:
    data = head_of(card_of("me/clips", {"audio": CONFIG}))
    assert data["license"] == "other"
    assert data["license_name"] == "annotations-cc-by-nc-sa-4.0-media-of-their-owners"
    assert data["language"] == ["de", "en"]
    assert data["size_categories"] == ["n<1K"]
    assert data["task_categories"] == ["audio-classification", "automatic-speech-recognition"]
    (config,) = data["configs"]
    assert config["config_name"] == "audio"
    assert config["data_files"] == [
        {"split": "train", "path": "audio/train/*.parquet"},
        {"split": "validation", "path": "audio/validation/*.parquet"},
    ]
    info = data["dataset_info"]
    assert [split["num_examples"] for split in info["splits"]] == [90, 10]
    assert info["download_size"] == 10_000_000


def test_two_configurations_and_which_one_is_the_default() -> None:
    card = card_of("me/clips", {"audio-visual": FACES, "audio": CONFIG})
    head = head_of(card)
    configs = {entry["config_name"]: entry for entry in head["configs"]}
    assert configs["audio"]["default"] is True
    assert "default" not in configs["audio-visual"]
    assert "## How complete it is: `audio-visual`" in card
    assert "video-classification" in head["task_categories"]


def test_what_a_stranger_reads() -> None:
    text = card_of("me/clips", {"audio": CONFIG})
    assert 'load_dataset("me/clips", "audio", split="train", streaming=True)' in text
    assert "| speakers | 5 | 10 | 50.0% |" in text
    assert "| gone | permanently gone | 12 |" in text
    assert "| done |" not in text
    assert "Another 5 videos were not asked for yet." in text
    assert "`speakers`: id000001, `exclude`: 200 ids" in text
    assert "No speaker is in both `train` and `validation`." in text
    assert "CC BY-NC-SA 4.0" in text
    assert "voxblink2 purge VIDEO_ID --store STORE" in text
    assert "https://huggingface.co/datasets/me/clips/discussions" in text
    assert "@inproceedings{lin24voxblink2" in text


def test_no_annotations() -> None:
    config = replace(CONFIG, annotations="", annotated={})
    text = card_of("me/clips", {"audio": config})
    assert "| speakers | 5 | unknown | unknown |" in text
    assert "fingerprint `" not in text


def test_what_the_owner_wrote_stays() -> None:
    card = card_of("me/clips", {"audio": CONFIG}).replace(
        "pretty_name: clips\n", "pretty_name: clips\nextra_gated_prompt: Who are you?\n"
    )
    card = f"{card}\n## Thanks\n\nTo all.\n"
    again = card_of("me/clips", {"audio": replace(CONFIG, purged=0)}, card)
    assert again.endswith("## Thanks\n\nTo all.\n")
    assert head_of(again)["extra_gated_prompt"] == "Who are you?"
    assert "removed on request" in card
    assert "removed on request" not in again
    assert card_of("me/clips", {"audio": CONFIG}, again) == card


def test_a_record_is_read_back() -> None:
    record = {"audio": CONFIG, "audio-visual": FACES}
    assert read_record(record_as_json(record), "hf://datasets/me/clips") == record
    assert read_record(None, "hf://datasets/me/clips") == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}'])
def test_a_record_that_is_none(content: bytes) -> None:
    with pytest.raises(ExportError, match=r"voxblink2-dataset.json of me/clips cannot be used"):
        read_record(content, "me/clips")
