"""What is finished is kept, and the result is the same whatever the stops, workers and growth."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import run_inline
from support.disk_faults import Fault, FaultyDisk, KilledError
from support.exported import content, export_to, make_store, materialize
from support.shard_builder import overwrite
from support.speaker_files import transcripts_of, write_speakers

from voxblink2_lib.errors import (
    ExportError,
    StoppedError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
)
from voxblink2_lib.export.manifest import MANIFEST
from voxblink2_lib.export.run import _locked
from voxblink2_lib.export.target import Target
from voxblink2_lib.export.units import FOLDER
from voxblink2_lib.workers.pool import WorkerDiedError

NAMES = ["kaldi", "wespeaker", "webdataset", "lhotse", "nemo", "csv", "parquet", "folder"]


@pytest.fixture(autouse=True)
def _nothing_to_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing all disks of the machine is no part of what is tested."""
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with its store, not to be changed."""
    return make_store(tmp_path_factory.mktemp("exports"), videos=4, shards=2)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of both, in a folder of their own."""
    return Path(shutil.copytree(made.parent, tmp_path / "copy")) / made.name


def written(folder: Path) -> dict[str, int]:
    """When each file of the format was last written."""
    paths = [path for path in folder.rglob("*") if path.is_file() and FOLDER not in path.parts]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize(
    "name",
    [
        *("kaldi", "parquet"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in NAMES
            if name not in {"kaldi", "parquet"}
        ),
    ],
)
def test_processes_write_what_one_process_writes(made: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    made_alone = export_to(out, made, name)
    alone = content(out)
    shutil.rmtree(out)
    assert export_to(out, made, name, workers=2) == made_alone
    assert content(out) == alone
    manifest = json.loads(alone[MANIFEST])
    assert manifest["is_complete"]
    assert manifest["shards"].keys() == {"audio-00000.arrow", "audio-00001.arrow"}
    assert not [path for path in alone if path.endswith((".begun", ".half"))]


def faults(name: str, fault: Fault, made: Path, tmp_path: Path, *, every: int) -> int:
    """Run into a fault at an operation, then to the end; for many operations. Return how many."""
    out = tmp_path / "out"
    with FaultyDisk(out).installed() as disk:
        export_to(out, made, name)
    expected, operations = content(out), len(disk.operations)
    for at in range(0, operations, every):
        shutil.rmtree(out)
        with FaultyDisk(out, fault, at).installed() as disk:
            try:
                export_to(out, made, name)
            except (KilledError, StoreError):
                assert disk.is_reached
        finished = set(out.glob(f"{FOLDER}/*.receipt"))
        before = written(out)
        again = export_to(out, made, name)
        assert content(out) == expected, f"stopped at {at}: {disk.operations[-1:]}"
        assert again.written == 2 - len(finished) or not again.written
        if len(finished) == 1 and name == "webdataset":
            (unit,) = (path.stem for path in finished)
            assert written(out)[f"{unit}.tar"] == before[f"{unit}.tar"]
    return operations


@pytest.mark.parametrize("name", ["webdataset", "folder"])
def test_a_kill_at_some_operations(made: Path, tmp_path: Path, name: str) -> None:
    assert faults(name, "killed", made, tmp_path, every=9) > 40


@pytest.mark.parametrize("fault", ["full", "broken"])
def test_a_disk_that_fails(made: Path, tmp_path: Path, fault: Fault) -> None:
    assert faults("nemo", fault, made, tmp_path, every=11) > 40


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "full", "broken"])
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_at_every_operation(made: Path, tmp_path: Path, name: str, fault: Fault) -> None:
    assert faults(name, fault, made, tmp_path, every=1)


def test_nothing_is_written_again(made: Path, tmp_path: Path) -> None:
    export_to(tmp_path, made, "wespeaker")
    before = written(tmp_path)
    again = export_to(tmp_path, made, "wespeaker")
    assert (again.written, again.removed) == (0, 0)
    assert written(tmp_path) == before


@pytest.mark.parametrize("gone", ["shards/audio-00001.tar", "utt2spk", "spk2utt"])
def test_a_file_that_is_gone_is_written_again(made: Path, tmp_path: Path, gone: str) -> None:
    export_to(tmp_path, made, "wespeaker")
    before = content(tmp_path)
    (tmp_path / gone).unlink()
    export_to(tmp_path, made, "wespeaker")
    assert content(tmp_path) == before


def test_an_export_that_was_moved_has_its_lists_written_again(made: Path, tmp_path: Path) -> None:
    export_to(tmp_path / "old", made, "kaldi")
    (tmp_path / "old").rename(tmp_path / "new")
    before = written(tmp_path / "new")
    assert export_to(tmp_path / "new", made, "kaldi").written == 0
    assert str(tmp_path / "old") not in (tmp_path / "new" / "wav.scp").read_text()
    archive = "wav/audio-00000.ark"
    assert written(tmp_path / "new")[archive] == before[archive]


# -- A store that changes --------------------------------------------------------------------------


def grow(store: Path) -> None:
    """Add the second half of a store that was begun with two of four videos."""
    materialize(store.parent / "corpus", store, "--forget", "videos", shards=2)


@pytest.fixture
def half(store: Path) -> Path:
    """A store of two of the videos, the first of which has no medium yet."""
    shutil.rmtree(store)
    media = store.parent / "corpus" / "media" / "id000000"
    (media / "video000000.wav").rename(store.parent / "late.wav")
    videos = ("--videos", "video000000", "video000001")
    return materialize(store.parent / "corpus", store, *videos, shards=2)


@pytest.mark.parametrize("name", ["lhotse", "csv"])
def test_a_store_that_has_grown(half: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    export_to(out, half, name)
    before = written(out)
    corpus = half.parent / "corpus"
    materialize(corpus, half, "--videos", "video000001", "video000002", "video000003")
    result = export_to(out, half, name)
    assert result.written == 2
    clips = [path for path in before if path.endswith((".tar", ".flac"))]
    assert {path: written(out)[path] for path in clips} == {path: before[path] for path in clips}
    grown = content(out)
    shutil.rmtree(out)
    export_to(out, half, name)
    assert content(out) == grown


def test_a_shard_that_was_superseded(half: Path, tmp_path: Path) -> None:
    """Two retries that each bring a video back: the second shard takes the place of the first."""
    corpus, media = half.parent / "corpus", half.parent / "corpus" / "media" / "id000000"
    (half.parent / "late.wav").rename(media / "video000000.wav")
    (media / "video000002.wav").rename(half.parent / "later.wav")
    materialize(corpus, half, "--videos", *(f"video{number:06}" for number in range(4)))
    out = tmp_path / "out"
    export_to(out, half, "webdataset")
    before = {path.stem for path in out.glob("*.tar")}
    (half.parent / "later.wav").rename(media / "video000002.wav")
    materialize(corpus, half)
    result = export_to(out, half, "webdataset")
    after = {path.stem for path in out.glob("*.tar")}
    assert (result.written, result.removed) == (1, 1)
    assert len(before - after) == len(after - before) == 1
    shards = {path.stem for path in (half / "shards" / "audio").glob("*.arrow")}
    assert after == shards
    assert not list((out / FOLDER).glob(f"{(before - after).pop()}*"))


def test_what_was_begun_of_a_store_that_has_changed_since(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that was purged after a kill does not stay in the folder."""
    out = tmp_path / "out"
    monkeypatch.setattr(
        "voxblink2_lib.export.units.Receipt", lambda *_: (_ for _ in ()).throw(KilledError)
    )
    with pytest.raises(KilledError):
        export_to(out, store, "folder")
    monkeypatch.undo()
    monkeypatch.setattr(os, "sync", lambda: None)
    assert len(list(out.glob("*/*/*.flac"))) == 2
    shutil.rmtree(store)
    videos = ("--videos", "video000001", "video000002", "video000003")
    materialize(store.parent / "corpus", store, *videos, shards=1)
    export_to(out, store, "folder")
    assert {path.parent.name for path in out.glob("*/*/*.flac")} == set(videos[1:])


def test_transcripts_that_come_later(store: Path, tmp_path: Path) -> None:
    formats = ["nemo", "kaldi"]
    for name in formats:
        export_to(tmp_path / name, store, name)
    texts = transcripts_of("id000000", ["video000003"])
    write_speakers(store.parent / "corpus", "asr_res", {"id000000": texts})
    run_inline("index", "--data-dir", store.parent / "corpus", "--store", store)
    results = [export_to(tmp_path / name, store, name).written for name in formats]
    assert results == [2, 0]
    assert "words of video000003" in (tmp_path / "nemo" / "manifest.json").read_text()


# -- What cannot be done ---------------------------------------------------------------------------


def test_another_export_in_the_same_folder(made: Path, tmp_path: Path) -> None:
    with (
        _locked(Target.of(str(tmp_path))),
        pytest.raises(StoreBusyError, match="Another process exports to"),
    ):
        export_to(tmp_path, made, "folder")


def test_no_worker(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least 1 worker, got 0"):
        export_to(tmp_path, made, "folder", workers=0)


class DyingPool:
    """A pool of two, of which one dies."""

    def __init__(self, size: int) -> None:
        assert size == 2

    def __enter__(self) -> DyingPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, next_call: Any) -> Any:
        yield next_call(), WorkerDiedError("the worker process died of SIGKILL")


def test_processes_are_started_where_there_is_much_to_write(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.export.run.WorkerPool", DyingPool)
    monkeypatch.setattr("voxblink2_lib.export.run.usable_cores", lambda: 2)
    assert export_to(tmp_path / "little", made, "folder", workers=None).written == 2
    monkeypatch.setattr("voxblink2_lib.export.run._BYTES_PER_WORKER", 1)
    with pytest.raises(StoppedError, match="SIGKILL"):
        export_to(tmp_path / "much", made, "folder", workers=None)


def test_a_worker_that_dies(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.export.run.WorkerPool", DyingPool)
    with pytest.raises(StoppedError, match=r"SIGKILL\. Nothing finished is lost; run the same"):
        export_to(tmp_path, made, "folder", workers=2)


def test_too_little_space(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "free_bytes", lambda _: 1000)
    with pytest.raises(StoreFullError, match=r"and 1\.0 kB are free for .*Nothing was written"):
        export_to(tmp_path / "out", made, "kaldi")
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard(store: Path, tmp_path: Path) -> None:
    shard = store / "shards" / "audio" / "audio-00001.arrow"
    overwrite(shard, shard.stat().st_size - 8, bytes(8))
    with pytest.raises(StoreDamagedError, match=r"audio-00001\.arrow is damaged"):
        export_to(tmp_path / "out", store, "webdataset")
    assert (tmp_path / "out" / "audio-00000.tar").exists()
    assert not (tmp_path / "out" / "audio-00001.tar").exists()


@pytest.mark.parametrize("name", ["kaldi", "webdataset"])
def test_clips_that_are_none(store: Path, tmp_path: Path, name: str) -> None:
    shard = store / "shards" / "audio" / "audio-00000.arrow"
    damage = shard.read_bytes().replace(b"fLaC", b"MThd")
    shard.write_bytes(damage)
    with pytest.raises(StoreDamagedError, match=r"a clip begins with b'MThd': that is no FLAC"):
        export_to(tmp_path / "out", store, name)


def test_ids_that_lead_out_of_the_folder(store: Path, tmp_path: Path) -> None:
    shard = store / "shards" / "audio" / "audio-00000.arrow"
    shard.write_bytes(shard.read_bytes().replace(b"id000000", b"../../.."))
    with pytest.raises(StoreDamagedError, match="is not a speaker id"):
        export_to(tmp_path / "out", store, "folder")
