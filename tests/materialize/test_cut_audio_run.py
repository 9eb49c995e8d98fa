"""Cut audio beside annotations, beside other sources, and without either."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import archive_builder, cli_process, cut_runs
from support.cut_runs import go, in_order, name_of, row_names, write
from support.plain_corpus import UTTERANCE_FRAMES, make_corpus, video_ids

from voxblink2_lib.archive.reader import ArchiveDamagedError
from voxblink2_lib.cut_audio import decoding
from voxblink2_lib.errors import SelectionError, SourceError, StoreMismatchError
from voxblink2_lib.materialize.cut_audio_end import DIFFERENCES
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.verify import verify_store

SECONDS = UTTERANCE_FRAMES / 25
VIDEOS = 9
# Milliseconds by which the annotated utterance of a video is longer in the archive.
OFF_BY = {1: 39, 2: 40, 3: 41, 4: -40, 5: -41}
PRESENT, STRANGER = range(7), 20


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with cut_runs.small():
        yield


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Nine videos, each with the utterance 00001, and media of all; three videos a speaker."""
    return make_corpus(tmp_path / "corpus", video_ids(VIDEOS), per_speaker=3)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Seven of these videos, each but the last with 00001, all with 00002; and another video."""
    files = []
    for video in PRESENT:
        seconds = SECONDS + OFF_BY.get(video, 0) / 1000
        files += [
            (name_of(video, utterance), archive_builder.wav(video, seconds=seconds))
            for utterance in (1, 2)
            if (video, utterance) != (6, 1)
        ]
    files.append((name_of(STRANGER, 1), archive_builder.wav(99)))
    archive_builder.write_parts(tmp_path / "parts", gzip.compress(archive_builder.tar(files)), 3)
    return tmp_path / "parts"


def statuses(store: Path) -> dict[str, str]:
    with Ledger(store / "ledger.sqlite", "audio", readonly=True) as ledger:
        videos = ledger.planned_videos()
    return dict(zip(videos["video_id"].to_pylist(), videos["status"].to_pylist(), strict=True))


def problems(store: Path) -> tuple[str, ...]:
    return tuple(verify_store(Store(store), sample=99).problems)


# -- With annotations ------------------------------------------------------------------------------


def test_what_is_different_is_counted_and_listed_and_kept(
    corpus: Path, parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    go(parts, store, data_dir=corpus)
    with open(store / DIFFERENCES, newline="") as file:
        rows = {row["utterance"]: row for row in csv.DictReader(file)}
    kinds = Counter(row["difference"] for row in rows.values())
    assert kinds == {
        "of another length": 2,
        "only in the cut audio": 8,
        "only in the annotations": 1,
    }
    assert {name for name, row in rows.items() if row["difference"] == "of another length"} == {
        "id000001/video000003/00001",
        "id000001/video000005/00001",
    }
    longer = rows["id000001/video000003/00001"]
    assert (longer["seconds"], longer["annotated_seconds"]) == ("1.241", "1.200")
    lacking = rows["id000002/video000006/00001"]
    assert (lacking["seconds"], lacking["annotated_seconds"]) == ("", "1.200")
    assert "6 utterances are in the cut audio and in the annotations" in caplog.text
    assert "2 of another length, 1 only in the annotations, 8 only in the cut audio" in caplog.text
    clips = {(row["video_id"], row["utterance_id"]): row for row in cli_process.rows(store)}
    assert len(clips) == 14
    for (video_id, utterance_id), row in clips.items():
        number = int(video_id[-6:])
        if utterance_id == "00001" and number != STRANGER:
            assert row["start_seconds"] == pytest.approx(number / 25)
            assert row["end_seconds"] == pytest.approx(number / 25 + SECONDS)
        else:
            assert row["start_seconds"] is None
            assert row["end_seconds"] is None
    assert problems(store) == ()
    with Ledger(store / "ledger.sqlite", "audio", readonly=True) as ledger:
        (missing,) = ledger.cut.missing(VideoKey("id000002", "video000006"))
    assert missing.utterance_id == "00001"


def test_videos_that_it_lacks_are_gone_at_the_end_only_and_come_from_elsewhere(
    corpus: Path, parts: Path, tmp_path: Path
) -> None:
    store, last = tmp_path / "store", sorted(parts.iterdir())[-1]
    data = last.read_bytes()
    last.write_bytes(data[:-5])
    with pytest.raises(ArchiveDamagedError):
        go(parts, store, data_dir=corpus)
    assert set(statuses(store).values()) <= {"done", "planned"}
    assert not (store / DIFFERENCES).exists()
    assert problems(store) == ()
    last.write_bytes(data)
    go(parts, store, data_dir=corpus)
    assert Counter(statuses(store).values()) == {"done": 8, "gone": 2}
    assert problems(store) == ()
    go(corpus / "media", store, data_dir=corpus)
    assert set(statuses(store).values()) == {"done"}
    sources = Counter(row["source"] for row in cli_process.rows(store))
    assert sources == {"cut-audio": 14, "folder": 2}
    assert problems(store) == ()


def test_what_the_store_has_is_not_decoded_again(
    corpus: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    go(corpus / "media", store, data_dir=corpus, videos=["video000001", "video000007"])
    decoded: list[int] = []

    def counted(data: bytes, extension: str) -> decoding.DecodedFile:
        decoded.append(len(data))
        return decoding.decode_file(data, extension)

    monkeypatch.setattr("voxblink2_lib.cut_audio.cutting.decode_file", counted)
    go(parts, store, data_dir=corpus)
    assert len(decoded) == 12
    sources = Counter(row["source"] for row in cli_process.rows(store))
    assert sources == {"cut-audio": 12, "folder": 2}
    assert problems(store) == ()
    decoded.clear()
    go(parts, store, data_dir=corpus)
    assert decoded == []


def test_more_can_be_selected_later(corpus: Path, parts: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    go(parts, store, data_dir=corpus, speakers=["id000001"])
    assert {row["speaker_id"] for row in cli_process.rows(store)} == {"id000001"}
    assert "gone" not in statuses(store).values()
    go(parts, store, data_dir=corpus, max_speakers=1)
    go(parts, store, data_dir=corpus)
    whole = tmp_path / "whole"
    go(parts, whole, data_dir=corpus)
    assert row_names(store) == row_names(whole)
    tables = [(folder / DIFFERENCES).read_text().splitlines() for folder in (store, whole)]
    assert sorted(tables[0]) == sorted(tables[1])
    assert problems(store) == ()


def test_jobs_of_another_source_that_are_left_open(
    corpus: Path, parts: Path, tmp_path: Path
) -> None:
    """A run over media was stopped; the cut audio is read for one speaker only."""
    store = tmp_path / "store"
    media = sorted((corpus / "media").rglob("*.wav"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "voxblink2_lib.materialize.scheduler.Scheduler.run",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            go(corpus / "media", store, data_dir=corpus)
    assert len(media) == VIDEOS
    go(parts, store, data_dir=corpus, speakers=["id000000"])
    assert {row["source"] for row in cli_process.rows(store)} == {"cut-audio"}
    go(parts, store, data_dir=corpus)
    go(corpus / "media", store, data_dir=corpus)
    assert set(statuses(store).values()) == {"done"}
    assert problems(store) == ()


# -- Without annotations ---------------------------------------------------------------------------


def test_annotations_given_later_are_refused_before_any_write(
    corpus: Path, parts: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    go(parts, store)
    assert problems(store) == ()
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    for source in (parts, corpus / "media"):
        with pytest.raises(
            StoreMismatchError, match="was begun from cut audio without annotations"
        ):
            go(source, store, data_dir=corpus)
    changed = [
        path.name
        for path in store.rglob("*")
        if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    ]
    assert [name for name in changed if not name.startswith((".lock", "ledger.sqlite-"))] == []


@pytest.mark.parametrize("limit", ["max_speakers", "max_videos_per_speaker"])
def test_limits_are_refused_while_reading(limit: str, parts: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    options: dict[str, Any] = {limit: 1}
    with pytest.raises(SelectionError, match="cannot be applied to cut audio without annotations"):
        go(parts, store, **options)
    assert not store.exists()


def test_ids_may_be_selected(parts: Path, tmp_path: Path) -> None:
    go(parts, tmp_path / "store", speakers=["id000001"], exclude=["video000004"])
    names = {name.split("/")[2] for name in row_names(tmp_path / "store")}
    assert names == {"video000003", "video000005"}


def test_faces_are_refused_before_any_write(parts: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="is cut audio, which has no faces"):
        go(parts, tmp_path / "store", data_dir=corpus, config="audio-visual")
    assert not (tmp_path / "store").exists()


# -- Again -----------------------------------------------------------------------------------------


def test_the_store_remembers_its_source(tmp_path: Path) -> None:
    parts, store = write(tmp_path / "parts", in_order(6)), tmp_path / "store"
    words = ("materialize", "--source", parts, "--store", store, "--workers", 1)
    cli_process.run_inline(*words)
    before = cli_process.shards(store)
    cli_process.run_inline("materialize", "--store", store)
    assert cli_process.shards(store) == before
    parts.rename(tmp_path / "moved")
    said = cli_process.run_inline("materialize", "--store", store, code=2).stderr
    assert f"{parts} does not exist" in said
    cli_process.run_inline("materialize", "--store", store, "--source", tmp_path / "moved")
    assert cli_process.shards(store) == before


def test_a_folder_that_has_grown_is_looked_at_again(tmp_path: Path) -> None:
    files, store = tmp_path / "files", tmp_path / "store"

    def put(names: list[str]) -> None:
        for name in names:
            path = files / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cut_runs.content(name))

    put(in_order(3))
    go(files, store)
    put(in_order(5))
    go(files, store)
    assert row_names(store) == in_order(5)
    assert problems(store) == ()


def test_another_archive_adds_what_the_first_does_not_have(tmp_path: Path) -> None:
    store = tmp_path / "store"
    go(write(tmp_path / "a", in_order(5)), store)
    go(write(tmp_path / "b", in_order(9)[6:]), store)
    assert row_names(store) == in_order(9)
    assert problems(store) == ()


def test_an_archive_that_is_read_to_its_end_is_no_source_to_retry(
    corpus: Path, parts: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    go(parts, store, data_dir=corpus)
    said = cli_process.run_inline("retry", "--store", store, "--class", "gone", code=2).stderr
    assert "is cut audio, which was read to its end" in said
    assert SourceError.__name__ not in said
