"""Where each clip lies is known to the byte, found once, and kept up to date."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store import test_shards
from support import cli_process, shard_builder
from support.recorded_progress import RecordedProgress

from voxblink2_lib.errors import StoreDamagedError, StoreError, TrainingError
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.store import catalogue
from voxblink2_lib.store.shards import seal_shard, write_part
from voxblink2_lib.training import Corpus


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the demo's store, to be changed."""
    unopened = shutil.ignore_patterns("catalogue")
    return Path(shutil.copytree(undisturbed, tmp_path / "store", ignore=unopened))


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are looked into from here on."""
    names: list[str] = []
    scan = catalogue._scan_shard

    def noted(path: Path) -> pa.Table:
        names.append(path.name)
        return scan(path)

    monkeypatch.setattr(catalogue, "_scan_shard", noted)
    return names


def shard_names(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "shards" / "audio").glob("*.arrow"))


def bytes_of(corpus: Corpus, row: int) -> bytes:
    """Read a clip where its place says, without the package's reader."""
    place = corpus.place(row)
    assert isinstance(corpus.shards, Path)
    whole = (corpus.shards / place.shard).read_bytes()
    return whole[place.offset : place.offset + place.size]


def seconds(row: dict[str, float]) -> float:
    return row["end_seconds"] - row["start_seconds"]


# -- What is known of each utterance ---------------------------------------------------------------


def test_rows_are_in_the_order_of_the_shards(store: Path) -> None:
    corpus, rows = Corpus.open(store), cli_process.rows(store)
    assert len(corpus) == len(rows) == 48
    assert corpus.names() == [
        f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}" for row in rows
    ]
    assert corpus.videos() == [f"{row['speaker_id']}/{row['video_id']}" for row in rows]
    assert corpus.samples.tolist() == [round(16_000 * seconds(row)) for row in rows]
    assert corpus.speakers == sorted({row["speaker_id"] for row in rows})
    assert [corpus.speakers[code] for code in corpus.speaker] == [row["speaker_id"] for row in rows]


def test_places_are_the_bytes_of_the_clips(store: Path) -> None:
    corpus = Corpus.open(store)
    row = 0
    for number, name in enumerate(shard_names(store)):
        for within, expected in enumerate(shard_builder.rows_of(store / "shards" / "audio" / name)):
            place = corpus.place(row)
            assert (place.shard, place.row, corpus.shard[row]) == (name, within, number)
            assert place.samples == corpus.samples[row]
            assert bytes_of(corpus, row) == expected["audio"]["bytes"]
            row += 1
    assert row == len(corpus)


def test_places_in_a_shard_of_several_batches(tmp_path: Path) -> None:
    sound = [
        shard_builder.clip(number, data=b"%d" % number * (number % 7 + 1)) for number in range(700)
    ]
    shard_builder.seal(tmp_path / "a.arrow", sound[:600])
    shard_builder.seal(tmp_path / "b.arrow", sound[600:])
    with pa.memory_map(str(tmp_path / "a.arrow")) as file:
        assert len(list(pa.ipc.open_stream(file))) > 2
    corpus = Corpus.open(tmp_path)
    assert [bytes_of(corpus, row) for row in range(700)] == [clip.data for clip in sound]
    assert [corpus.place(row).row for row in (0, 255, 256, 599, 600)] == [0, 255, 256, 599, 0]


def test_sound_of_an_audio_visual_store_is_found(tmp_path: Path) -> None:
    faces = [test_shards.make_face(number) for number in range(5)]
    part = tmp_path / "part.arrow"
    write_part(part, test_shards.make_face_batch(faces), Outcome(test_shards.KEY, "done", clips=5))
    folder = tmp_path / "store" / "shards" / "audio-visual"
    folder.mkdir(parents=True)
    seal_shard(0, [part], folder / "a.arrow", test_shards.FACES_SCHEMA)
    corpus = Corpus.open(tmp_path / "store", "audio-visual")
    assert [bytes_of(corpus, row) for row in range(5)] == [b"sound"] * 5
    assert (tmp_path / "store" / "catalogue" / "audio-visual.arrow").is_file()
    with pytest.raises(TrainingError, match=r"There are no shards in .*shards/audio/\*\.arrow"):
        Corpus.open(tmp_path / "store", "audio")


def test_a_corpus_says_what_it_is(store: Path) -> None:
    corpus = Corpus.open(store)
    hours = corpus.samples.sum() / 16_000 / 3600
    assert repr(corpus) == f"Corpus(48 utterances, 8 speakers, {hours:.2f} h)"


# -- Some of them ----------------------------------------------------------------------------------


def test_rows_are_selected_by_number_and_by_mask(store: Path) -> None:
    corpus = Corpus.open(store)
    names = corpus.names()
    selected = corpus.select([40, 3, 3, 17])
    assert selected.names() == [names[40], names[3], names[3], names[17]]
    assert selected.samples.tolist() == corpus.samples[[40, 3, 3, 17]].tolist()
    assert [selected.place(row) for row in range(4)] == [
        corpus.place(row) for row in (40, 3, 3, 17)
    ]
    assert selected.names([1, 3]) == [names[3], names[17]]
    mask = corpus.speaker == 5
    masked = corpus.select(mask)
    assert masked.names() == [name for name, taken in zip(names, mask, strict=True) if taken]


def test_selections_nest(store: Path) -> None:
    corpus = Corpus.open(store)
    inner = corpus.select(range(10, 30)).select([5, 0]).select([False, True])
    assert inner.names() == [corpus.names()[10]]
    assert inner.place(0) == corpus.place(10)
    assert inner.shard.tolist() == [corpus.shard[10]]


def test_speakers_of_a_selection_are_numbered_anew(store: Path) -> None:
    corpus = Corpus.open(store)
    selected = corpus.select(np.flatnonzero(np.isin(corpus.speaker, [2, 6]))[::-1])
    assert selected.speakers == [corpus.speakers[2], corpus.speakers[6]]
    assert set(selected.speaker.tolist()) == {0, 1}
    assert [name.split("/")[0] for name in selected.names()] == [
        selected.speakers[code] for code in selected.speaker
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "the selection is empty"),
        (np.zeros(48, bool), "the selection is empty"),
        ([0, 48], r"Rows 0 to 48 were requested; expected are 0 to 47"),
        ([-1], r"Rows -1 to -1 were requested; expected are 0 to 47"),
        ([True, False], r"The mask has shape \(2,\); expected is \(48,\)"),
    ],
)
def test_selections_that_are_not_possible(store: Path, rows: list[int], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        Corpus.open(store).select(rows)


def test_a_corpus_can_be_pickled(store: Path) -> None:
    selected = Corpus.open(store).select([7, 2])
    again = pickle.loads(pickle.dumps(selected))
    assert again.names() == selected.names()
    assert [again.place(row) for row in (0, 1)] == [selected.place(row) for row in (0, 1)]
    assert again.speakers == selected.speakers


def test_a_pickled_corpus_is_the_name_of_its_catalogue(store: Path) -> None:
    corpus = Corpus.open(store)
    assert corpus.names()
    assert corpus.speaker.any()  # derived, and large
    assert len(pickle.dumps(corpus)) < 2_000


def test_a_store_may_grow_between_a_process_and_its_workers(store: Path) -> None:
    before = Corpus.open(store)
    pickled = pickle.dumps(before)
    shard_builder.seal(
        store / "shards" / "audio" / "zz.arrow", [shard_builder.clip(0, speaker="id999999")]
    )
    assert len(Corpus.open(store)) == 49
    again = pickle.loads(pickled)
    assert again.names() == before.names()
    assert again.speakers == before.speakers
    assert pickle.loads(pickle.dumps(again)).names() == before.names()


def test_what_else_changed_between_a_process_and_its_workers_is_told(store: Path) -> None:
    pickled = pickle.dumps(Corpus.open(store))
    (store / "shards" / "audio" / shard_names(store)[0]).unlink()
    assert len(Corpus.open(store)) < 48
    words = r"audio\.arrow has other shards than when the store was opened"
    with pytest.raises(TrainingError, match=words):
        pickle.loads(pickled)
    (store / "catalogue" / "audio.arrow").unlink()
    with pytest.raises(TrainingError, match=r"audio\.arrow cannot be read: .*No such file"):
        pickle.loads(pickled)


def test_the_address_of_a_folder_is_a_folder(store: Path) -> None:
    assert Corpus.open(f"file://{store}").names() == Corpus.open(store).names()


# -- The catalogue is made once --------------------------------------------------------------------


def test_a_catalogue_is_used_again(store: Path, scanned: list[str]) -> None:
    first = Corpus.open(store)
    assert sorted(scanned) == shard_names(store)
    scanned.clear()
    before = (store / "catalogue" / "audio.arrow").stat()
    assert Corpus.open(store).names() == first.names()
    assert scanned == []
    assert (store / "catalogue" / "audio.arrow").stat().st_mtime_ns == before.st_mtime_ns


def test_a_catalogue_grows_by_the_new_shards(store: Path, scanned: list[str]) -> None:
    before = Corpus.open(store)
    scanned.clear()
    new = [shard_builder.clip(number, speaker="id999999", data=b"new") for number in range(3)]
    shard_builder.seal(store / "shards" / "audio" / "zz.arrow", new)
    grown = Corpus.open(store)
    assert scanned == ["zz.arrow"]
    assert grown.names()[:48] == before.names()
    assert [bytes_of(grown, row) for row in (48, 49, 50)] == [b"new"] * 3
    assert grown.speakers == [*before.speakers, "id999999"]
    assert len(before) == 48
    assert bytes_of(before, 47) == bytes_of(grown, 47)


def test_a_new_shard_that_comes_first_by_name_comes_first(store: Path) -> None:
    before = Corpus.open(store).names()
    shard_builder.seal(
        store / "shards" / "audio" / "00.arrow", [shard_builder.clip(0, data=b"first")]
    )
    corpus = Corpus.open(store)
    assert bytes_of(corpus, 0) == b"first"
    assert corpus.names()[1:] == before


def test_a_changed_shard_makes_a_new_catalogue(store: Path) -> None:
    corpus = Corpus.open(store)
    name = shard_names(store)[0]
    rows = int((corpus.shard == 0).sum())
    shard_builder.seal(store / "shards" / "audio" / name, [shard_builder.clip(8, data=b"another")])
    again = Corpus.open(store)
    assert len(again) == 48 - rows + 1
    assert bytes_of(again, 0) == b"another"
    assert again.names()[1:] == corpus.names()[rows:]


def test_a_shard_that_is_gone_makes_a_new_catalogue(store: Path) -> None:
    corpus = Corpus.open(store)
    (store / "shards" / "audio" / shard_names(store)[2]).unlink()
    assert Corpus.open(store).names() == corpus.select(corpus.shard != 2).names()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)


def _another_file(path: Path) -> None:
    with pa.ipc.new_file(str(path), pa.schema([("x", pa.int8())])):
        pass


@pytest.mark.parametrize("damage", [_empty, _half, _noise, _another_file])
def test_a_damaged_catalogue_is_made_again(
    store: Path, damage: Callable[[Path], None], scanned: list[str]
) -> None:
    names = Corpus.open(store).names()
    scanned.clear()
    # A new file: the old one is mapped.
    path = store / "catalogue" / "audio.arrow"
    copy = Path(shutil.copy(path, store / "copy"))
    damage(copy)
    copy.replace(path)
    assert Corpus.open(store).names() == names
    assert sorted(scanned) == shard_names(store)
    scanned.clear()
    assert Corpus.open(store).names() == names
    assert scanned == []


# -- Where it is kept ------------------------------------------------------------------------------


def test_a_read_only_store_has_its_catalogue_in_the_users_cache(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scanned: list[str]
) -> None:
    before = sorted(store.rglob("*"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    names = Corpus.open(store).names()
    assert sorted(store.rglob("*")) == before
    assert len(list((tmp_path / "home" / "catalogue").glob("*-audio.arrow"))) == 1
    scanned.clear()
    assert Corpus.open(store).names() == names
    assert scanned == []


def test_two_read_only_stores_have_catalogues_of_their_own(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shard_builder.seal(other / "a.arrow", [shard_builder.clip(0, data=b"x")])
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert [len(Corpus.open(store)), len(Corpus.open(other)), len(Corpus.open(store))] == [
        48,
        1,
        48,
    ]


def test_a_folder_of_shards_is_a_corpus(store: Path, tmp_path: Path, scanned: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in shard_names(store)[3:6]:
        shutil.copy(store / "shards" / "audio" / name, folder)
    whole = Corpus.open(store)
    expected = whole.select((whole.shard >= 3) & (whole.shard < 6))
    scanned.clear()
    for _ in range(2):
        corpus = Corpus.open(str(folder))
        assert corpus.names() == expected.names()
        assert bytes_of(corpus, 0) == bytes_of(expected, 0)
    assert len(scanned) == 3


def _open(store: Path, answers: multiprocessing.Queue[list[str]]) -> None:
    answers.put(Corpus.open(store).names())


def test_processes_that_open_at_once_agree(store: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=_open, args=(store, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    names = [answers.get(timeout=cli_process.DEADLINE_SECONDS) for _ in processes]
    for process in processes:
        process.join(cli_process.DEADLINE_SECONDS)
    assert [process.exitcode for process in processes] == [0, 0]
    assert names[0] == names[1] == Corpus.open(store).names()
    assert {path.suffix for path in (store / "catalogue").iterdir()} <= {
        ".arrow",
        ".sha256",
        ".lock",
    }


# -- What is not a store ---------------------------------------------------------------------------


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"There is no folder .*/nothing\. Name a store"):
        Corpus.open(tmp_path / "nothing")


def test_a_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"There are no shards in .*: expected is a store with"):
        Corpus.open(tmp_path)


def test_an_arrow_file_of_other_columns(tmp_path: Path) -> None:
    schema = pa.schema([("audio", pa.binary()), ("speaker_id", pa.string()), ("text", pa.string())])
    with pa.ipc.new_stream(str(tmp_path / "other.arrow"), schema):
        pass
    words = (
        r"other\.arrow is no shard .*: it has no column video_id, utterance_id, .*; it has audio"
    )
    with pytest.raises(TrainingError, match=words):
        Corpus.open(tmp_path)


def test_a_shard_cut_short_anywhere_is_told(tmp_path: Path) -> None:
    many = [shard_builder.clip(number, data=bytes(50)) for number in range(300)]
    whole = shard_builder.seal(tmp_path / "whole.arrow", many).read_bytes()
    with pa.memory_map(str(tmp_path / "whole.arrow")) as file:
        stream = pa.ipc.open_stream(file)
        between = [file.tell() for _ in range(2) if stream.read_next_batch()]
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / "b.arrow"
    # The hardest to see are cuts between two batches: what is left is a stream without its end.
    for size in [0, 1, 100, *between, len(whole) // 2, len(whole) - 8, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(StoreDamagedError, match=r"The file .*b\.arrow is damaged \(.+\)\."):
            Corpus.open(cut.parent)
    cut.write_bytes(whole)
    assert len(Corpus.open(cut.parent)) == 300


# -- As the store's own users see it ---------------------------------------------------------------


def test_the_store_reports_errors_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There are no shards in"):
        catalogue.local_catalogue(tmp_path, "audio")


def test_only_new_shards_count_for_progress(tmp_path: Path) -> None:
    progress = RecordedProgress()
    for name in ("a", "b"):
        shard_builder.seal(tmp_path / f"{name}.arrow", [shard_builder.clip(0)])
    for _ in range(2):  # the second time, nothing is scanned
        catalogue.local_catalogue(tmp_path, "audio", progress=progress)
    shard_builder.seal(tmp_path / "c.arrow", [shard_builder.clip(0)])
    catalogue.local_catalogue(tmp_path, "audio", progress=progress)
    assert [(task.task, task.unit, task.total, task.counts) for task in progress.tasks] == [
        ("Scanning shards", "shard", 2, [1, 1]),
        ("Scanning shards", "shard", 1, [1]),
    ]
