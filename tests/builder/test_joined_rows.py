"""Transcripts and facts about speakers are columns of every row, and are in no shard."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import load_dataset, load_dataset_builder
from support import cli_process
from support.plain_corpus import make_corpus, video_ids
from support.speaker_files import transcripts_of, write_speakers
from torch.utils.data import DataLoader

from voxblink2_lib.builder.config import VoxBlink2Config
from voxblink2_lib.errors import SelectionError, StoreDamagedError, StoreError
from voxblink2_lib.store import joined_columns, view_table
from voxblink2_lib.store.schema import FEATURES, SPEAKER_FEATURES

pytestmark = pytest.mark.usefixtures("inline_workers")

Row = dict[str, Any]
PLAIN = datasets.Audio(decode=False)
VIDEOS = video_ids(6)
FACTS = [*SPEAKER_FEATURES]
INFO = '{"gender": "f", "language": ["en", "de"], "country": "AT", "tags": ["vlog", "art"]}'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of three speakers with two videos each, and its store, without transcripts."""
    folder = tmp_path_factory.mktemp("joined")
    release = make_corpus(folder / "release", VIDEOS, per_speaker=2)
    words = ("--data-dir", release, "--source", release / "media", "--store", folder / "store")
    cli_process.run_inline("materialize", *words, "--workers", 1)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of release and store; the store knows the release by its signature."""
    shutil.copytree(made, tmp_path / "place", copy_function=shutil.copy2)
    return tmp_path / "place"


@pytest.fixture(params=["slices", "indices"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the rows of a view are named."""
    if request.param == "indices":
        monkeypatch.setattr(view_table, "_SLICES_PER_SHARD", 0)
    return str(request.param)


def add_transcripts(place: Path, words: str = "words of") -> None:
    """Give the release files of two of its three speakers, and index them."""
    asr = {
        f"id{number:06}": transcripts_of(
            f"id{number:06}", VIDEOS[2 * number : 2 * number + 2], words=words
        )
        for number in (0, 2)
    }
    write_speakers(place / "release", "asr_res", asr)
    write_speakers(place / "release", "spk_info", {"id000001": INFO})
    index(place)


def index(place: Path) -> str:
    words = ("--data-dir", place / "release", "--store", place / "store")
    return cli_process.run_inline("index", *words).stdout


def load(place: Path, *, split: Any = "train", config: str = "audio", **options: Any) -> Any:
    options = {"store": str(place / "store"), "cache_dir": str(place / "cache"), **options}
    return load_dataset("voxblink2", config, split=split, **options)


def rows_of(dataset: Any) -> list[Row]:
    return list(dataset.cast_column("audio", PLAIN))


def said(dataset: Any) -> dict[str, tuple[str | None, str | None]]:
    return {
        row["video_id"]: (row["transcript"], row["language"])
        for row in dataset.select_columns(["video_id", "transcript", "language"])
    }


def expected(words: str = "words of") -> dict[str, tuple[str | None, str | None]]:
    silent = {*VIDEOS[2:4]}
    return {
        video: (None, None) if video in silent else (f"{words} {video}", "en") for video in VIDEOS
    }


def sealed(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted((place / "store" / "shards" / "audio").iterdir())
    }


# -- Always the same columns -----------------------------------------------------------------------


@pytest.mark.parametrize("config", ["audio", "audio-visual"])
def test_features_are_the_same_before_there_is_a_store(config: str, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path)}
    features = load_dataset_builder("voxblink2", config, **options).info.features
    assert features == FEATURES[config]
    assert list(features)[-2:] == ["transcript", "language"]
    with_facts = load_dataset_builder("voxblink2", config, with_speaker_info=True, **options)
    assert with_facts.info.features == {**FEATURES[config], **SPEAKER_FEATURES}


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_unknown_is_null(streaming: bool, place: Path) -> None:
    rows = load(place, streaming=streaming, with_speaker_info=True)
    assert rows.features == {**FEATURES["audio"], **SPEAKER_FEATURES}
    for row in rows.select_columns(["transcript", "language", *FACTS]):
        assert set(row.values()) == {None}


def test_a_store_without_an_index_has_the_columns(place: Path) -> None:
    shutil.rmtree(place / "store" / "index")
    assert said(load(place)) == dict.fromkeys(VIDEOS, (None, None))
    assert said(load(place, streaming=True)) == dict.fromkeys(VIDEOS, (None, None))


# -- Joined ----------------------------------------------------------------------------------------


def test_transcripts_are_joined_to_every_kind_of_load(place: Path, form: str) -> None:
    before = sealed(place)
    add_transcripts(place)
    rows = load(place)
    assert said(rows) == said(load(place, streaming=True)) == expected()
    assert rows.features == FEATURES["audio"]
    assert sealed(place) == before
    links = [Path(file["filename"]) for file in rows.cache_files if ".arrow" in file["filename"]]
    shards = sorted((place / "store" / "shards" / "audio").glob("*.arrow"))
    assert all(map(os.path.samefile, links, shards))
    assert len(links) == len(shards)
    part = load(place, speakers=["id000001", "id000002"], videos=VIDEOS[3:])
    assert said(part) == {video: expected()[video] for video in VIDEOS[3:]}
    assert said(load(place, split="train[1:3]+train[5:]")) == {
        video: expected()[video] for video in (*VIDEOS[1:3], VIDEOS[5])
    }
    in_memory = load(place, keep_in_memory=True)
    assert rows_of(in_memory) == rows_of(rows)


def test_facts_about_speakers_are_joined_where_they_are_asked_for(place: Path) -> None:
    add_transcripts(place)
    assert not set(FACTS) & set(load(place).column_names)
    nothing = dict.fromkeys(FACTS)
    facts = dict(zip(FACTS, ("female", "en, de", "AT", ["vlog", "art"]), strict=True))
    for streaming in (False, True):
        rows = load(place, with_speaker_info=True, streaming=streaming)
        assert rows.features == {**FEATURES["audio"], **SPEAKER_FEATURES}
        assert said(rows) == expected()
        for row in rows.select_columns(["speaker_id", *FACTS]):
            speaker = row.pop("speaker_id")
            assert row == (facts if speaker == "id000001" else nothing)


def test_a_loaded_dataset_may_be_changed_pickled_and_saved(place: Path) -> None:
    add_transcripts(place)
    rows = load(place, with_speaker_info=True)
    copy = pickle.loads(pickle.dumps(rows))
    assert said(copy) == expected()
    # Nothing is copied into a pickle.
    assert len(pickle.dumps(rows)) < 20_000
    assert said(rows.filter(lambda row: row["language"] == "en")) == {
        video: value for video, value in expected().items() if value[0]
    }
    assert said(rows.shuffle(seed=1)) == said(rows.select(range(6))) == expected()
    lengths = rows.select_columns(["video_id", "transcript"]).map(word_count, num_proc=2)
    assert list(lengths["words"]) == [len((text or "").split()) for text, _ in expected().values()]
    rows.cast_column("audio", PLAIN).save_to_disk(str(place / "saved"))
    assert said(datasets.load_from_disk(str(place / "saved"))) == expected()
    # What datasets cleans up is its own.
    rows.cleanup_cache_files()
    assert said(load(place, with_speaker_info=True)) == expected()


def word_count(row: Row) -> Row:
    return {"words": len((row["transcript"] or "").split())}


def test_streams_under_a_data_loader_have_the_columns(place: Path) -> None:
    add_transcripts(place)
    stream = load(place, streaming=True).select_columns(["video_id", "transcript", "language"])
    for workers in (0, 1):
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        assert {row["video_id"]: (row["transcript"], row["language"]) for row in loader} == (
            expected()
        )


def test_other_features_and_other_formats_have_the_columns(place: Path) -> None:
    add_transcripts(place)
    features = datasets.Features({**FEATURES["audio"], "start_seconds": datasets.Value("float32")})
    assert said(load(place, features=features)) == expected()
    builder = load_dataset_builder(
        "voxblink2", store=str(place / "store"), cache_dir=str(place / "cache")
    )
    builder.download_and_prepare(str(place / "parquet"), file_format="parquet")
    files = [str(path) for path in sorted((place / "parquet").glob("*.parquet"))]
    written = load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(place / "cache")
    )
    assert said(written) == expected()


def test_facts_are_a_switch(place: Path) -> None:
    with pytest.raises(SelectionError, match="with_speaker_info must be True or False, got 'yes'"):
        load(place, with_speaker_info="yes")
    assert "with_speaker_info: further columns" in (VoxBlink2Config.__doc__ or "")


@pytest.mark.parametrize("with_release", [True, False])
def test_rows_of_cut_audio_have_the_columns(with_release: bool, place: Path) -> None:
    """With annotations, transcripts are joined; without, the columns are there and null."""
    for media in (place / "release" / "media").glob("*/*.wav"):
        clip = place / "cut" / media.parent.name / media.stem / "00001.wav"
        clip.parent.mkdir(parents=True)
        shutil.copy(media, clip)
    add_transcripts(place)
    release = {"data_dir": str(place / "release")} if with_release else {}
    options = {"source": str(place / "cut"), "store": str(place / "store of cut audio")}
    rows = load(place, **options, **release)
    assert rows.features == FEATURES["audio"]
    assert said(rows) == (expected() if with_release else dict.fromkeys(VIDEOS, (None, None)))
    assert said(load(place, streaming=True, **options, **release)) == said(rows)


# -- The release changes ---------------------------------------------------------------------------


def mapped(rows: Any) -> list[str | None]:
    """Return what a cached ``map`` answers."""
    seen = rows.select_columns(["transcript"]).map(shouted)["seen"]
    return list(seen)


def shouted(row: Row) -> Row:
    return {"seen": (row["transcript"] or "").upper() or None}


def test_other_transcripts_are_another_place_in_the_cache(place: Path) -> None:
    unknown = load(place)
    assert set(mapped(unknown)) == {None}
    add_transcripts(place)
    first = load(place)
    assert mapped(first) == [(text or "").upper() or None for text, _ in expected().values()]
    add_transcripts(place, words="other words of")
    second = load(place)
    assert said(second) == expected("other words of")
    assert len({rows._fingerprint for rows in (unknown, first, second)}) == 3
    # Those that are loaded already are as they were.
    assert said(unknown) == dict.fromkeys(VIDEOS, (None, None))
    assert said(first) == expected()
    # Facts that are not in the rows change nothing.
    write_speakers(place / "release", "spk_info", {"id000001": "{}"})
    index(place)
    assert load(place)._fingerprint == second._fingerprint


def test_a_load_of_a_complete_store_writes_nothing_and_says_what_is_new(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = {"data_dir": str(place / "release"), "source": str(place / "release" / "media")}
    add = {"id000000": transcripts_of("id000000", VIDEOS[:1])}
    # A copy is another release by its times; the store takes it over once.
    index(place)
    write_speakers(place / "release", "asr_res", add)
    before = {path: path.stat().st_mtime_ns for path in (place / "store").rglob("*")}
    rows = load(place, **release)
    assert set(rows["transcript"]) == {None}
    after = {path: path.stat().st_mtime_ns for path in (place / "store").rglob("*")}
    assert {path for path in after if path.suffix in {".parquet", ".json", ".arrow"}} == {
        path for path in before if path.suffix in {".parquet", ".json", ".arrow"}
    }
    assert "has other files about speakers, or other transcripts, than the store" in caplog.text
    index(place)
    caplog.clear()
    assert load(place, **release)["transcript"][0] == f"words of {VIDEOS[0]}"
    assert "about speakers" not in caplog.text


def test_the_command_index_counts_what_is_new(place: Path) -> None:
    add_transcripts(place)
    text = index(place)
    assert "About    3 speakers" in text
    assert "Said     4 utterances with transcript or language" in text
    words = ("--data-dir", place / "release", "--store", place / "store")
    record = cli_process.run_inline_json("index", *words)
    assert record["about_speakers"]["transcripts"] == 4


def test_a_change_between_naming_and_writing_is_seen(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache folder is named after the transcripts that are in it, whoever indexes meanwhile."""
    add_transcripts(place)
    real = joined_columns.JoinedColumns.write
    changes = iter(["other words of"])

    def change_first(self: Any, *args: Any, **options: Any) -> None:
        for words in changes:
            add_transcripts(place, words)
        real(self, *args, **options)

    monkeypatch.setattr(joined_columns.JoinedColumns, "write", change_first)
    rows = load(place)
    assert said(rows) == expected("other words of")
    assert said(load(place)) == expected("other words of")
    assert load(place)._fingerprint == rows._fingerprint


# -- Damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["speakers.parquet", "transcripts.parquet", "speakers.json"])
def test_damage_is_named_by_loads_and_verify_and_mended(name: str, place: Path) -> None:
    add_transcripts(place)
    path = place / "store" / "index" / name
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises((StoreDamagedError, datasets.exceptions.DatasetGenerationError)) as caught:
        load(place)
    error: BaseException | None = caught.value
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__ or error.__context__
    assert any("voxblink2 repair" in message for message in messages)
    store = ("--store", place / "store")
    assert name in cli_process.run_inline("verify", *store, code=1).stdout
    words = (*store, "--data-dir", place / "release")
    assert name in cli_process.run_inline("repair", *words, "--dry-run", code=1).stdout
    assert name in cli_process.run_inline("verify", *store, code=1).stdout
    cli_process.run_inline("repair", *words)
    cli_process.run_inline("verify", *store)
    assert said(load(place)) == expected()


def test_without_the_release_what_is_damaged_is_put_away(place: Path) -> None:
    add_transcripts(place)
    path = place / "store" / "index" / "transcripts.parquet"
    path.write_bytes(b"damaged")
    shutil.rmtree(place / "release" / "asr_res")
    shutil.rmtree(place / "release" / "spk_info")
    store = ("--store", place / "store")
    done = cli_process.run_inline("repair", *store, "--data-dir", place / "release")
    assert "makes them again" in done.stdout
    assert (place / "store" / "lost+found" / "index" / "transcripts.parquet").exists()
    cli_process.run_inline("verify", *store)
    assert said(load(place)) == dict.fromkeys(VIDEOS, (None, None))


def test_an_index_that_is_made_again_has_its_transcripts(place: Path) -> None:
    add_transcripts(place)
    (place / "store" / "index" / "videos.parquet").write_bytes(b"damaged")
    store = ("--store", place / "store", "--data-dir", place / "release")
    cli_process.run_inline("repair", *store)
    assert said(load(place)) == expected()


def test_a_stream_goes_on_while_the_index_is_replaced(place: Path) -> None:
    add_transcripts(place)
    rows = iter(load(place, streaming=True).select_columns(["video_id", "transcript"]))
    first = next(rows)
    add_transcripts(place, "other words of")
    texts = [row["transcript"] for row in [first, *rows]]
    assert texts == [text for text, _ in expected().values()]
    assert issubclass(StoreDamagedError, StoreError)
