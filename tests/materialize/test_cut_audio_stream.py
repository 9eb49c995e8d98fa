"""One pass over cut audio: whatever its order and the moment of a kill, the same rows."""

from __future__ import annotations

import gzip
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import archive_builder, cli_process, cut_runs
from support.cut_runs import content, go, in_order, name_of, round_robin, row_names, write
from support.disk_faults import Fault, FaultyDisk, KilledError
from support.inline_pool import ThreadPool

from voxblink2_lib.archive.layout import utterance_of
from voxblink2_lib.archive.tar_reader import TarMember
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.cut_audio_job import CutJob
from voxblink2_lib.repair.run import plan_repair
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.open_shard import ShardState
from voxblink2_lib.store.status import incomplete_messages
from voxblink2_lib.store.verify import verify_store
from voxblink2_lib.store.view import View


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with cut_runs.small():
        yield


def scattered(videos: int, *, seed: int) -> list[str]:
    """Return names of members in any order, some of them twice."""
    chosen = random.Random(seed)
    names = in_order(videos)
    names += chosen.sample(names, 6)
    chosen.shuffle(names)
    return names


ORDERS = {
    "in order": in_order(9),
    "round robin": round_robin(9),
    "scattered": scattered(9, seed=3),
    "duplicates beside each other": [name for name in in_order(4) for _ in range(2)],
    "one video twice": [*in_order(2), *in_order(6)],
}


# -- Orders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ORDERS.values(), ids=ORDERS)
def test_each_utterance_is_one_row_whatever_the_order(names: list[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    go(write(tmp_path / "parts", names), store)
    assert row_names(store) == sorted(set(names))
    for row in cli_process.rows(store):
        name = f"audio/{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}.wav"
        (tmp_path / "a.flac").write_bytes(row["audio"]["bytes"])
        (tmp_path / "a.wav").write_bytes(content(name))
        clip, file = (
            soundfile.read(tmp_path / f"a.{end}", dtype="int16") for end in ("flac", "wav")
        )
        assert np.array_equal(clip[0], file[0])
        assert (row["source"], row["start_seconds"], row["end_seconds"]) == (
            "cut-audio",
            None,
            None,
        )
    with Ledger(store / "ledger.sqlite", "audio", readonly=True) as ledger:
        videos = ledger.planned_videos()
        assert len(videos) == len({name.split("/")[2] for name in names})
        assert set(videos["status"].to_pylist()) == {"done"}
        totals = ledger.statistics.totals()
        assert totals.clips == len(set(names))
        assert totals.samples == totals.clips * round(cut_runs.SECONDS * 16_000)
    assert verify_store(Store(store), sample=99).problems == ()


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_nothing(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "parts", scattered(9, seed=5))
    go(tmp_path / "parts", tmp_path / "one")
    monkeypatch.setattr(f"{cut_runs.BLOCKS}.WorkerPool", ThreadPool)
    go(tmp_path / "parts", tmp_path / "many", workers=workers)
    assert cli_process.shards(tmp_path / "many") == cli_process.shards(tmp_path / "one")


def test_a_plain_tar_and_a_folder_have_the_rows_of_the_parts(tmp_path: Path) -> None:
    names = in_order(9)
    go(write(tmp_path / "parts", names), tmp_path / "packed")
    go(write(tmp_path / "plain", names, packed=False), tmp_path / "unpacked")
    for name in names:
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    go(tmp_path / "files", tmp_path / "folder")
    packed = cli_process.shards(tmp_path / "packed")
    assert cli_process.shards(tmp_path / "unpacked") == packed
    assert cli_process.shards(tmp_path / "folder") == packed


def test_a_long_video_goes_over_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{cut_runs.BLOCKS}._BLOCK_BYTES", 3_000)
    files = [(name_of(1, each), content(name_of(1, each))) for each in range(12)]
    # Those of the first blocks do not decode.
    files[:5] = [(name, b"no audio") for name, _ in files[:5]]
    archive_builder.write_parts(tmp_path / "parts", gzip.compress(archive_builder.tar(files)), 2)
    go(tmp_path / "parts", tmp_path / "store")
    assert row_names(tmp_path / "store") == [name for name, _ in files[5:]]
    with Ledger(tmp_path / "store" / "ledger.sqlite", "audio", readonly=True) as ledger:
        assert ledger.statistics.totals().clips == 7
        missing = ledger.statistics.missing_names(0)
    assert sorted(missing) == [name_of(1, each)[6:-4] for each in range(5)]


# -- Stops -----------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(tmp_path / "parts", scattered(9, seed=7))


@pytest.fixture
def whole(archive: Path, tmp_path: Path) -> dict[str, bytes]:
    go(archive, tmp_path / "whole")
    return cli_process.shards(tmp_path / "whole")


def killed(archive: Path, store: Path, at: int) -> list[str]:
    """Run, and be killed at an operation on a file; return those before."""
    disk = FaultyDisk(store, "killed", at)
    with disk.installed():
        try:
            go(archive, store)
        except KilledError:
            assert disk.is_dead
    return disk.operations


@pytest.mark.parametrize(
    "share",
    [0.1, 0.35, 0.6, 0.85, *(pytest.param(n / 60, marks=pytest.mark.slow) for n in range(60))],
)
def test_killed_at_any_operation_it_ends_in_the_same_shards(
    share: float, archive: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    operations = killed(archive, tmp_path / "counted", 10**9)
    store = tmp_path / "store"
    killed(archive, store, round(share * len(operations)))
    go(archive, store)
    assert cli_process.shards(store) == whole
    assert not list((store / "parts" / "audio").iterdir())
    assert verify_store(Store(store), sample=9).problems == ()


@pytest.mark.parametrize("job", [0, 1])
def test_what_a_job_has_before_its_first_commit_is_no_problem(
    job: int, archive: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    commit = CutJob.commit

    def stopped(self: CutJob, *words: Any, **options: Any) -> ShardState:
        if self.number == job:
            self._shard.commit()  # and the ledger does not know of it
            raise KeyboardInterrupt
        return commit(self, *words, **options)

    store = Store(tmp_path / "store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CutJob, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(archive, store.root)
    (begun,) = store.parts("audio").glob("*/rows.arrow")
    assert begun.parent == store.job_parts("audio", job)
    problems = verify_store(store, sample=9).problems
    # Of a store without a shard it says that there is nothing to check.
    assert [each.startswith("Nothing to check") for each in problems] == [True] * (job == 0)
    assert plan_repair(store).mends == ()
    go(archive, store.root)
    assert cli_process.shards(store.root) == whole


@pytest.mark.parametrize("fault", ["full", "broken"])
def test_a_disk_that_refuses_stops_the_run_which_goes_on(
    fault: Fault, archive: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    operations = killed(archive, tmp_path / "counted", 10**9)
    commits = [at for at, what in enumerate(operations) if what.startswith("replace waiting.")]
    store = tmp_path / "store"
    with (
        FaultyDisk(store, fault, commits[len(commits) // 2]).installed(),
        pytest.raises(StoreError, match=r"No space is left|check the disk"),
    ):
        go(archive, store)
    go(archive, store)
    assert cli_process.shards(store) == whole


def test_ctrl_c_saves_all_that_was_read(
    archive: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    is_interrupted = True

    def noted(member: TarMember) -> object:
        read.append(member.name)
        if is_interrupted and len(read) % 9 == 0:  # the last one too
            signal.raise_signal(signal.SIGINT)
        return utterance_of(member)

    monkeypatch.setattr("voxblink2_lib.materialize.cut_audio_stream.utterance_of", noted)
    before = signal.getsignal(signal.SIGINT)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            go(archive, tmp_path / "store")
    assert signal.getsignal(signal.SIGINT) is before
    is_interrupted = False
    go(archive, tmp_path / "store")
    assert cli_process.shards(tmp_path / "store") == whole
    in_four_runs = list(read)
    read.clear()
    go(archive, tmp_path / "undisturbed")
    assert in_four_runs == read


def test_a_kill_in_between_keeps_what_was_committed(
    archive: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    members: list[TarMember] = []

    def interrupted(member: TarMember) -> object:
        members.append(member)
        if len(members) % 14 == 0:
            raise KeyboardInterrupt
        return utterance_of(member)

    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.cut_audio_stream.utterance_of", interrupted)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                go(archive, store)
    going_on = f"not read to its end yet: 'voxblink2 materialize --store {store} --config audio'"
    assert going_on in cli_process.run_inline("status", "--store", store).stdout
    (message,) = incomplete_messages(Store(store), "audio", View(()))
    assert going_on in message
    go(archive, store)
    assert cli_process.shards(store) == whole
    assert (
        cli_process.run_inline_json("status", "--store", store, "--config", "audio")[
            "archive_problem"
        ]
        == ""
    )
    assert list(incomplete_messages(Store(store), "audio", View(()))) == []


def lose_position(store: Path) -> None:
    with Ledger(store / "ledger.sqlite", "audio") as ledger:
        ledger.cut.set_position(None)


def damage_points(store: Path) -> None:
    for path in (store / "archive").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-30])


LOSSES: dict[str, Callable[[Path], object]] = {
    "position": lose_position,
    "points damaged": damage_points,
    "points": lambda store: SeekPoints(store).forget(),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_what_is_remembered_of_the_archive_may_be_lost(
    lose: Callable[[Path], object], archive: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    killed(archive, store, 330)
    lose(store)
    go(archive, store)
    assert cli_process.shards(store) == whole
    assert row_names(store) == sorted(set(row_names(store)))
