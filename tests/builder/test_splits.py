"""``load_dataset(..., validation=FILE)``: speakers on one side each, streamed and as views too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import load_dataset
from support import cli_process

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.errors import SelectionError
from voxblink2_lib.release.speaker_split import SpeakerSplit
from voxblink2_lib.store import view_table

pytestmark = pytest.mark.usefixtures("inline_workers")

PLAIN = datasets.Audio(decode=False)


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    """A complete store of eight speakers."""
    return Path(shutil.copytree(undisturbed, tmp_path / "store"))


@pytest.fixture
def rule(store: Path, tmp_path: Path) -> Path:
    """A split with three speakers for validation."""
    path = tmp_path / "validation.txt"
    done = cli_process.run_inline_json(
        *("split", "--store", store, "--out", path, "--validation-speakers", 3, "--seed", 1)
    )
    assert (done["validation_speakers"], done["out"]) == (3, str(path))
    return path


@pytest.fixture(params=["slices", "indices"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the rows of a view are named."""
    if request.param == "indices":
        monkeypatch.setattr(view_table, "_SLICES_PER_SHARD", 0)
    return str(request.param)


def load(store: Path, **options: Any) -> Any:
    return load_dataset(
        "voxblink2", store=str(store), cache_dir=str(store.parent / "cache"), **options
    )


def names(rows: Any) -> list[str]:
    plain = rows.cast_column("audio", PLAIN)
    return [f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}" for row in plain]


def test_two_splits(form: str, store: Path, rule: Path) -> None:
    whole = load(store)
    assert [*whole] == ["train"]
    both = load(store, validation=str(rule))
    assert [*both] == ["train", "validation"]
    split = SpeakerSplit.read(rule)
    everything = names(whole["train"])
    for side, is_validation in (("train", False), ("validation", True)):
        expected = [
            name
            for name in everything
            if split.is_validation([name.split("/")[0]])[0] == is_validation
        ]
        assert expected
        assert names(both[side]) == expected
        streamed = load(store, validation=str(rule), streaming=True)
        assert names(streamed[side]) == expected
    audio = both["validation"][0]["audio"].get_all_samples()
    assert audio.sample_rate == 16_000
    validation = names(both["validation"])
    assert names(load(store, validation=rule, split="validation")) == validation
    assert names(load(store, validation=rule, split="validation[2:4]")) == validation[2:4]
    together = load(store, validation=rule, split="validation+train[:3]")
    assert names(together) == validation + names(both["train"])[:3]
    assert both["train"]._fingerprint != whole["train"]._fingerprint


def test_a_view_of_some_speakers(form: str, store: Path, rule: Path) -> None:
    (speaker, *_) = sorted(rule.read_text().split("\n")[1:-1])
    both = load(store, validation=str(rule))
    others = sorted({*both["train"]["speaker_id"]})
    some = load(store, validation=str(rule), speakers=[speaker, others[0]])
    assert {*some["validation"]["speaker_id"]} == {speaker}
    assert {*some["train"]["speaker_id"]} == {others[0]}
    with pytest.raises(SelectionError, match="leaves none for train"):
        load(store, validation=str(rule), speakers=[speaker])
    excluded = load(store, exclude=str(rule))["train"]
    assert names(excluded) == names(both["train"])


def test_inspection(store: Path, rule: Path) -> None:
    place = {"store": str(store), "cache_dir": str(store.parent / "cache")}
    assert datasets.get_dataset_split_names("voxblink2", "audio", **place) == ["train"]
    split_names = datasets.get_dataset_split_names(
        "voxblink2", "audio", validation=str(rule), **place
    )
    assert split_names == ["train", "validation"]


def test_speakers_who_come_later_fall_by_their_hash(
    store: Path, rule: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    part = {"data_dir": "demo", "exclude": "id990003"}
    before = load(first, validation=str(rule), **part)
    after = load(first, validation=str(rule), data_dir="demo")
    for side in ("train", "validation"):
        assert {*before[side]["speaker_id"]} <= {*after[side]["speaker_id"]}
    assert not {*after["train"]["speaker_id"]} & {*after["validation"]["speaker_id"]}
    (side,) = (name for name in after if "id990003" in after[name]["speaker_id"])
    assert SpeakerSplit.read(rule).is_validation(["id990003"])[0] == (side == "validation")


def test_within_a_fact(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "within.txt"
    words = ("split", "--store", store, "--out", path, "--validation-speakers", 3)
    done = cli_process.run_inline_json(*words, "--within", "language")
    assert (done["within"], done["validation_speakers"]) == ("language", 3)
    both = load(store, validation=str(path))
    assert len({*both["validation"]["speaker_id"]}) == 3
    for name in ("speakers.json", "speakers.parquet", "transcripts.parquet"):
        (store / "index" / name).unlink()
    refused = cli_process.run_inline(*words, "--within", "language", code=2)
    assert "does not know the language of speakers" in refused.stderr


def test_what_is_refused(store: Path, rule: Path, tmp_path: Path) -> None:
    wrong = cli_process.run_inline("split", "--store", store, "--validation-speakers", 8, code=2)
    assert "validation_speakers is 8" in wrong.stderr
    none = cli_process.run_inline("split", code=2)
    assert "Which store?" in none.stderr
    with pytest.raises(SelectionError, match="no file of a split"):
        load(store, validation=str(tmp_path / "absent"))
    other = tmp_path / "other"
    other.write_text(json.dumps({"seed": 1}))
    with pytest.raises(SelectionError, match="does not begin with the rule"):
        load(store, validation=str(other))
