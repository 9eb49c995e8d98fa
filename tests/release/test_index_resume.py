"""Whatever moment an index is stopped at, the next run goes on and ends in the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.disk_faults import Fault, FaultyDisk, KilledError
from support.recorded_progress import RecordedProgress
from support.release_builder import (
    jittering_release,
    write_archive,
    write_release,
)
from support.small_index import INPUT_BYTES, POINT_BYTES, UTTERANCES_PER_GROUP, small_index

from voxblink2_lib.archive.gzip_stream import GzipStream
from voxblink2_lib.errors import ReleaseError, StoreError
from voxblink2_lib.progress import AdvanceWithNote
from voxblink2_lib.release import annotation_files, annotation_workers
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import build_index, open_index
from voxblink2_lib.release.index_writer import read_checkpoint
from voxblink2_lib.release.location import Release
from voxblink2_lib.workers.pool import WorkerPool

FORMS = ["a.tar.gz", "a.tar", "a.tar.xz", "folder"]
VIDEOS = 11
FILES = 5 * VIDEOS + 3


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_index():
        yield


def make_release(folder: Path, form: str, *, videos: int = VIDEOS) -> Release:
    """Write a release with files that are rejected: some are bad, and one is there twice."""
    members: list[tuple[str, bytes]] = list(jittering_release(videos).items())
    name, data = members[19]
    members.insert(3, ("meta/readme.txt", b"x"))
    members.insert(30, (f"{name}.csv", b"\0"))
    if form == "folder":
        return Release(write_release(folder, {**dict(members), "meta/x": b""}) / "meta")
    members.insert(23, (name, data))
    return Release(write_archive(folder / form, members))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def build(release: Release, folder: Path, **options: Any) -> Index:
    return build_index(release, folder, processes=1, **options)


# -- Faults ----------------------------------------------------------------------------------------


# Those that make an index of what is written, which come once, at the end.
LAST_OPERATIONS = 12


def check_faults(tmp_path: Path, form: str, fault: Fault, *, step: int) -> None:
    """Check a fault at every step-th operation, and at each of the last ones."""
    release = make_release(tmp_path, form)
    counted = FaultyDisk(tmp_path / "whole")
    with counted.installed():
        whole = snapshot(build(release, tmp_path / "whole").folder)
    count = len(counted.operations)
    assert count > 150
    for at in sorted({*range(0, count, step), *range(count - LAST_OPERATIONS, count)}):
        folder = tmp_path / f"{at}" / "index.new"
        disk = FaultyDisk(folder, fault, at)
        with disk.installed():
            try:
                build(release, folder)
            except KilledError:
                assert disk.is_dead
            except StoreError as error:
                assert fault in {"full", "broken"}, error  # noqa: PT017  # others pass
        assert disk.is_reached
        if (folder / "index.json").exists():
            assert list(Index(folder).problems()) == []
        assert snapshot(build(release, folder).folder) == whole, (at, disk.operations[-1:])


@pytest.mark.parametrize(
    ("fault", "form"), [("full", "a.tar.gz"), *(("killed", form) for form in FORMS)]
)
def test_a_fault_at_some_operations(tmp_path: Path, fault: Fault, form: str) -> None:
    check_faults(tmp_path, form, fault, step=41)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", ["killed", "full", "broken"])
def test_a_fault_at_any_operation(tmp_path: Path, form: str, fault: Fault) -> None:
    check_faults(tmp_path, form, fault, step=1)


# -- How much is done again ------------------------------------------------------------------------


def stop_after(release: Release, folder: Path, files: int) -> None:
    """Stop the reading of a release when so many files have been written."""

    @contextmanager
    def interrupt(
        task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> Iterator[AdvanceWithNote]:
        def advance(count: int, /, *, note: str = "") -> None:
            if note and int(note.split(maxsplit=1)[0].replace(",", "")) >= files:
                raise KeyboardInterrupt("now")

        yield advance

    with pytest.raises(KeyboardInterrupt, match="now"):
        build(release, folder, progress=interrupt)


# Points are at the ends of deflate blocks, which zlib makes of about so much text.
BLOCK_BYTES = 64 << 10


def interval_bytes(files: dict[str, bytes], packed_bytes: int) -> int:
    """Return the packed bytes between two seek points, of a group of rows and of a batch."""
    ratio = packed_bytes / sum(map(len, files.values()))
    file_bytes = max(map(len, files.values())) + 1024
    batch_files = 4
    text = POINT_BYTES + BLOCK_BYTES + (UTTERANCES_PER_GROUP + batch_files) * file_bytes
    return round(ratio * text) + INPUT_BYTES


@pytest.mark.parametrize("files", [20, 150, 297])
def test_a_restart_reads_at_most_one_interval_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    contents = jittering_release(60)
    release = Release(write_archive(tmp_path / "a.tar.gz", contents))
    whole = snapshot(build(release, tmp_path / "whole").folder)
    read: list[int] = []

    class Counted(GzipStream):
        def _read_input(self) -> bool:
            more = super()._read_input()
            read.append(len(self._input))
            return more

    monkeypatch.setattr(annotation_files, "GzipStream", Counted)
    size_bytes = size_of(release)
    folder = tmp_path / "index.new"
    stop_after(release, folder, files)
    first = sum(read)
    read.clear()
    assert snapshot(build(release, folder).folder) == whole
    again = first + sum(read) - size_bytes
    assert 0 <= again < interval_bytes(contents, size_bytes) < size_bytes / 2


def size_of(release: Release) -> int:
    return os.path.getsize(str(release.path))


@pytest.mark.parametrize("form", FORMS)
def test_progress_begins_where_it_was(tmp_path: Path, form: str) -> None:
    release = make_release(tmp_path, form)
    folder = tmp_path / "index.new"
    stop_after(release, folder, 40)
    assert not (folder / "index.json").exists()
    progress = RecordedProgress()
    build(release, folder, progress=progress)
    task = progress.tasks[-1]
    assert task.task == "Reading annotations"
    assert task.unit == ("file" if form == "folder" else "B")
    total = FILES if form == "folder" else size_of(release)
    assert task.total == total
    assert 0 < task.done < total
    assert task.done + sum(task.counts) == total
    assert [note for note in task.notes if note][-1] == f"{FILES} files"


def test_a_stop_before_the_first_group_leaves_nothing(tmp_path: Path) -> None:
    release = make_release(tmp_path, "a.tar.gz")
    stop_after(release, tmp_path / "index.new", 1)
    assert not (tmp_path / "index.new").exists()


# -- What is of no use -----------------------------------------------------------------------------


def test_another_release_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "index.new"
    release = make_release(tmp_path, "a.tar.gz")
    stop_after(release, folder, 40)
    checkpoint = folder / "unfinished" / "checkpoint.json"
    assert release.signature() in checkpoint.read_text("utf-8")
    release = make_release(tmp_path, "a.tar.gz", videos=8)
    whole = snapshot(build(release, tmp_path / "whole").folder)
    assert snapshot(build(release, folder).folder) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record[: len(record) // 2],
        lambda _: b"{}",
        lambda _: b"[]",
        lambda _: b'{"checkpoint": 1, "digest": 2}',
        lambda _: b"\xff",
        lambda record: record.replace(b"pyarrow", b"pyarrow 0."),
        lambda record: record.replace(b"offset", b"place"),
    ],
    ids=["cut", "empty", "list", "numbers", "binary", "version", "key"],
)
def test_a_checkpoint_that_is_not_ours_begins_anew(tmp_path: Path, change: Any) -> None:
    folder = tmp_path / "index.new"
    release = make_release(tmp_path, "a.tar.gz")
    stop_after(release, folder, 40)
    checkpoint = folder / "unfinished" / "checkpoint.json"
    assert read_checkpoint(folder, release.signature()) is not None
    checkpoint.write_bytes(change(checkpoint.read_bytes()))
    assert read_checkpoint(folder, release.signature()) is None
    whole = snapshot(build(release, tmp_path / "whole").folder)
    assert snapshot(build(release, folder).folder) == whole


@pytest.mark.parametrize("name", ["utterances.parquet", "rejects.csv", "unfinished/ranges.arrow"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_files_that_are_gone_begin_anew(tmp_path: Path, name: str, is_gone: bool) -> None:
    folder = tmp_path / "index.new"
    release = make_release(tmp_path, "a.tar.gz")
    stop_after(release, folder, 40)
    (folder / name).write_bytes(b"")
    if is_gone:
        (folder / name).unlink()
    whole = snapshot(build(release, tmp_path / "whole").folder)
    assert snapshot(build(release, folder).folder) == whole


def test_a_damaged_release_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "index.new"
    release = make_release(tmp_path, "a.tar.gz")
    path = Path(str(release.path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReleaseError, match=r"damaged or not a tar archive: after \d\d files"):
        build(release, folder)
    assert not folder.exists()


# -- Processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_do_not_show(tmp_path: Path, processes: int) -> None:
    release = make_release(tmp_path, "a.tar.gz")
    whole = snapshot(build(release, tmp_path / "whole").folder)
    index = build_index(release, tmp_path / "index", processes=processes)
    assert snapshot(index.folder) == whole


def run_and_kill(release: Release, folder: Path, flush: int, *, processes: int = 2) -> int:
    """Build in a process of its own, which kills itself at a flush; return its exit code."""
    arguments = [release.path, folder, f"{processes}", f"{flush}"]
    program = [sys.executable, "-m", "support.small_index", *map(str, arguments)]
    return subprocess.run(program, cwd=Path(__file__).parents[1], check=False).returncode


def test_a_killed_process_with_workers(tmp_path: Path) -> None:
    release = make_release(tmp_path, "a.tar.gz")
    whole = snapshot(build(release, tmp_path / "whole").folder)
    folder = tmp_path / "store" / "index"
    fresh = folder.with_name("index.new")
    for flush in (40, 12):  # a checkpoint takes 8
        assert run_and_kill(release, fresh, flush) == -signal.SIGKILL
        assert not (fresh / "index.json").exists()
        assert not folder.exists()
    assert read_checkpoint(fresh, release.signature()) is not None
    assert snapshot(open_index(release, folder).folder) == whole
    assert [path.name for path in folder.parent.iterdir()] == ["index"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_twenty_kills_at_random_moments(tmp_path: Path, form: str) -> None:
    release = make_release(tmp_path, form)
    whole = snapshot(build(release, tmp_path / "whole").folder)
    folder = tmp_path / "index.new"
    chance = random.Random(1)
    program = [sys.executable, "-m", "support.small_index", release.path, folder, "2", "100000"]
    for _ in range(20):
        process = subprocess.Popen(
            list(map(str, program)), cwd=Path(__file__).parents[1], start_new_session=True
        )
        time.sleep(chance.uniform(0.3, 1.8))  # a random moment, of no importance to the result
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert snapshot(build(release, folder).folder) == whole


def test_workers_are_ended_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make_release(tmp_path, "a.tar.gz")
    whole = snapshot(build(release, tmp_path / "whole").folder)
    pools: list[WorkerPool] = []

    class Kept(WorkerPool):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            pools.append(self)

    monkeypatch.setattr(annotation_workers, "WorkerPool", Kept)
    folder = tmp_path / "index.new"

    @contextmanager
    def interrupt(
        task: str, *, unit: str, total: int | None = None, done: int = 0
    ) -> Iterator[AdvanceWithNote]:
        def advance(count: int, /, *, note: str = "") -> None:
            if note and int(note.split(maxsplit=1)[0]) >= 40:
                raise KeyboardInterrupt("now")

        yield advance

    with pytest.raises(KeyboardInterrupt, match="now"):
        build_index(release, folder, progress=interrupt, processes=2)
    (pool,) = pools
    assert pool.running() == []
    assert read_checkpoint(folder, release.signature()) is not None
    assert snapshot(build_index(release, folder, processes=2).folder) == whole
