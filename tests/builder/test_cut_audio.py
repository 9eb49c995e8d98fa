"""Cut audio alone makes a dataset, whose times are unknown; all that reads a store reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Audio, load_dataset
from support import cli_process, cut_runs
from support.cut_runs import round_robin, write
from support.plain_corpus import make_release, video_ids

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.errors import SelectionError, StoreMismatchError
from voxblink2_lib.training import (
    Corpus,
    ShuffleSampler,
    SpeakerLabels,
    TrainingLoader,
    UtteranceDataset,
)

VIDEOS, ROWS = 9, 27
PLAIN = Audio(decode=False)


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with cut_runs.small():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive, whose videos lie apart, and its store."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "parts", round_robin(VIDEOS))
    with cut_runs.small():
        cut_runs.go(folder / "parts", folder / "store")
    return folder


def load(folder: Path, tmp_path: Path, *, store: str = "store", **options: Any) -> Any:
    options = {"split": "train", "cache_dir": str(tmp_path / "cache"), **options}
    return load_dataset("voxblink2", "audio", store=str(folder / store), **options)


def test_the_parts_alone_are_enough_and_unknown_times_are_told(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = load(tmp_path, tmp_path, source=str(made / "parts")).cast_column("audio", PLAIN)
    assert len(rows) == ROWS
    assert set(rows["start_seconds"]) == set(rows["end_seconds"]) == {None}
    assert set(rows["source"]) == {"cut-audio"}
    assert "The times of the utterances in their videos are not known" in caplog.text


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ({"speakers": ["id000001"]}, 9),
        ({"videos": ["video000004"]}, 3),
        ({"exclude": ["id000000", "video000008"]}, 15),
        ({"max_speakers": 2}, 18),
        ({"max_speakers": 2, "max_videos_per_speaker": 1}, 6),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_any_selection_is_a_view_of_a_finished_store(
    selection: dict[str, Any], count: int, streaming: bool, made: Path, tmp_path: Path
) -> None:
    for source in (None, str(made / "parts")):
        rows = load(made, tmp_path, source=source, streaming=streaming, **selection)
        assert len(list(rows.cast_column("audio", PLAIN))) == count


def test_ids_that_the_store_does_not_have(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="1 requested speakers are not in the store"):
        load(made, tmp_path, speakers=["id999999"])


def test_a_release_given_later_is_refused(made: Path, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", video_ids(VIDEOS), per_speaker=3)
    with pytest.raises(StoreMismatchError, match="was begun from cut audio without annotations"):
        load(made, tmp_path, source=str(made / "parts"), data_dir=str(release))


def test_one_store_by_default_however_the_archive_is_named(made: Path, tmp_path: Path) -> None:
    for named in ("parts", "parts/VB2_audio.tar.gz.00", "parts/VB2_audio.tar.gz.*"):
        options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
        rows = load_dataset("voxblink2", "audio", source=str(made / named), **options)
        assert len(rows) == ROWS
    assert len(list((tmp_path / "home").glob("VB2_audio.tar.gz-*"))) == 1


def test_training_reads_rows_without_times(made: Path) -> None:
    corpus = Corpus.open(made / "store")
    assert len(corpus) == ROWS
    dataset = UtteranceDataset(corpus, crop_seconds=0.04, labels=SpeakerLabels.of(corpus))
    loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=4, seed=1))
    labels = [label for batch in loader for label in batch["labels"].tolist()]
    assert set(labels) == {0, 1, 2}
    assert np.isfinite(next(iter(loader))["waveforms"].numpy()).all()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("status", "27 (0.00 hours)"),
        ("status --missing", "9 done"),
        ("verify", "No problems"),
        ("repair --dry-run", "Nothing is damaged"),
        ("report", "Report"),
    ],
)
def test_commands_on_a_store_without_annotations(
    command: str, said: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli_process.run_inline(*command.split(), "--store", made / "store")
    assert said in done.stdout


def test_doctor_looks_at_cut_audio(made: Path) -> None:
    for config, level in [("audio", "ok"), ("audio-visual", "error")]:
        done = cli_process.run_any(
            "doctor", "--source", made / "parts", "--config", config, "--json"
        )
        findings = json.loads(done.stdout)["findings"]
        sources = [each for each in findings if each["what"] == "source"]
        assert sources[-1]["level"] == level
        assert all("cut audio" in each["says"] for each in sources)
