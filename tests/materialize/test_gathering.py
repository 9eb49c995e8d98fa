"""Videos that come back share shards, whatever run, worker or kill is in between."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process, growing_folder
from support.disk_faults import Fault, FaultyDisk, KilledError
from support.fault_site import DIRECT, REASONS, FaultSite, SiteRequest
from support.growing_folder import FULL, VIDEOS
from support.inline_pool import ThreadPool
from support.property_settings import fewer_examples

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.errors import (
    BlockedError,
    StoppedError,
    StoreDamagedError,
    StoreError,
    TrainingError,
)
from voxblink2_lib.files import link_file
from voxblink2_lib.materialize.gathering import Gathering
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import retry_videos
from voxblink2_lib.materialize.scheduler import Scheduler
from voxblink2_lib.store import catalogue
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import read_batches
from voxblink2_lib.store.tail import RecoveredShards
from voxblink2_lib.training import Corpus, Reader

pytestmark = pytest.mark.usefixtures("inline_workers")
# Fixtures of this module.
corpus, small_shards = growing_folder.corpus, growing_folder.small_shards

# Three videos a job: these are in shards of their own, whatever comes later.
FIRST_JOBS = 4
# What comes in each run.
Runs = Sequence[Sequence[int]]


class Runner(growing_folder.Runner):
    """Runs that gather what comes back."""

    def recovered(self) -> dict[str, list[int]]:
        return {name: rows for name, rows in self.shards().items() if name >= name_of(0)}


def name_of(number: int) -> str:
    """Name of a shard of recovered videos, counted from 0."""
    return shard_name("audio", FIRST_JOBS + number)


def expected(runs: Runs) -> dict[str, list[int]]:
    """What the shards of recovered videos have: what came in each run, sorted, in chunks."""
    shards: dict[str, list[int]] = {}
    count = 0
    for arrivals in runs:
        waiting = sorted(arrivals)
        while waiting:
            last = max(shards, default="")
            tail = shards.pop(last) if last and len(shards[last]) < FULL else []
            room = FULL - len(tail)
            shards[name_of(count)] = [*tail, *waiting[:room]]
            waiting = waiting[room:]
            count += 1
    return shards


@pytest.fixture
def runner(corpus: Path, tmp_path: Path) -> Runner:
    return Runner(corpus, tmp_path)


# -- What is in which shard ------------------------------------------------------------------------


def test_what_comes_back_is_in_one_shard_that_grows(runner: Runner, tmp_path: Path) -> None:
    runs = [[7], [1, 10], [], [4, 0, 9], [2]]
    runner.run([5, 6])
    first = cli_process.shards(runner.store)
    assert len(first) == 2 * 2
    for place, arrivals in enumerate(runs, start=1):
        runner.run(arrivals)
        assert runner.recovered() == expected(runs[:place])
        assert {name: cli_process.shards(runner.store)[name] for name in first} == first
        assert not runner.problems()
        come = sorted([5, 6, *chain(*runs[:place])])
        assert sorted(chain(*runner.shards().values())) == come
        rows = load_dataset(
            "voxblink2", "audio", store=str(runner.store), split="train", cache_dir=str(tmp_path)
        )
        assert rows["video_id"][:] == [
            name.split("/")[1] for name in Corpus.open(runner.store).names()
        ]
        assert sorted(rows["video_id"]) == [VIDEOS[number] for number in come]
    assert runner.recovered() == {name_of(1): [7, 1, 10], name_of(2): [0, 4, 9], name_of(3): [2]}


def test_a_retry_of_all_that_brings_few_makes_one_shard(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxblink2_lib.materialize.jobs.MAX_VIDEOS_PER_JOB", 5)
    monkeypatch.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 12)
    runner.run([3])
    assert list(runner.shards()) == ["audio-00003.arrow"]
    runner.run([0, 6, 8, 11])
    assert list(runner.shards().values()) == [[3], [0, 6, 8, 11]]
    assert list(runner.shards()) == ["audio-00003.arrow", "audio-00012.arrow"]


@fewer_examples(5)
@given(come=st.lists(st.integers(0, 4), min_size=len(VIDEOS) - 1, max_size=len(VIDEOS) - 1))
def test_rows_follow_from_what_came_in_which_run(
    come: list[int], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = [[n for n, run in enumerate(come, start=1) if run == number] for number in range(5)]
    runner = Runner(corpus, tmp_path_factory.mktemp("runs"))
    runner.run([0, *runs[0]])
    for arrivals in runs[1:]:
        runner.run(arrivals)
    assert runner.recovered() == expected(runs[1:])
    assert not runner.problems()


def test_workers_do_not_change_them(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0])
    other = runner.copy(tmp_path / "other")
    runner.run(range(1, 12))
    monkeypatch.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", ThreadPool)
    other.run(workers=4)
    assert cli_process.shards(other.store) == cli_process.shards(runner.store)
    assert runner.recovered() == expected([range(1, 12)])


def test_a_selection_that_grows_has_its_shards_after_the_tail(runner: Runner) -> None:
    runner.run([0], max_speakers=1)
    runner.run([1], max_speakers=1)
    runner.run([2, 10])
    shards = runner.shards()
    assert list(shards) == [*sorted(shards)]
    assert list(shards.values()) == [[0], [10], [1, 2]]
    assert not runner.problems()
    names = [name.split("/")[1] for name in Corpus.open(runner.store).names()]
    assert names == [VIDEOS[number] for number in (0, 10, 1, 2)]


def test_retries_of_the_user_are_gathered_too(runner: Runner) -> None:
    runner.run([0])
    runner.run([1])
    runner.add([5, 3])
    request = MaterializeRequest(store=str(runner.store), source=str(runner.media), workers=1)
    retry_videos(request, ["gone"])
    assert list(runner.recovered().values()) == [[1, 3, 5]]


# -- Readers ---------------------------------------------------------------------------------------


def test_a_load_while_a_run_supersedes_the_tail(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0])
    runner.run([1])
    links: list[str] = []

    def link(source: Path, target: Path) -> None:
        if not links:
            runner.run([2])
        links.append(source.name)
        link_file(source, target)

    monkeypatch.setattr("voxblink2_lib.store.view_table.link_file", link)
    rows = load_dataset(
        "voxblink2", "audio", store=str(runner.store), split="train", cache_dir=str(tmp_path)
    )
    assert rows["video_id"][:] == [VIDEOS[number] for number in (0, 1, 2)]
    assert links == ["audio-00000.arrow", name_of(0), "audio-00000.arrow", name_of(1)]


def test_a_corpus_that_was_open_before_says_what_to_do(runner: Runner) -> None:
    runner.run([0])
    runner.run([1])
    before = Corpus.open(runner.store)
    pickled = pickle.dumps(before)
    runner.run([2])
    assert len(Reader(before).read(0))
    with pytest.raises(StoreDamagedError, match=r"00004\.arrow is missing\. .* open it again"):
        Reader(before).read(1)
    with pytest.raises(TrainingError, match=r"has other shards than .* Open it again"):
        pickle.loads(pickled)
    with pytest.raises(StoreDamagedError, match=r"00004\.arrow is missing\. .* the store again"):
        next(read_batches(runner.store / "shards" / "audio" / name_of(0)))


def test_a_catalogue_reads_the_new_tail_only(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0, 4])
    runner.run([1])
    scan = catalogue._scan_shard
    scanned: list[str] = []

    def noted(path: Path) -> pa.Table:
        scanned.append(path.name)
        return scan(path)

    monkeypatch.setattr(catalogue, "_scan_shard", noted)
    runner.run([2])
    assert scanned == [name_of(1)]


# -- Killed, stopped, full -------------------------------------------------------------------------

# Tests that share the operations, so that none takes long.
PARTS = 12


def assert_no_row_is_twice(runner: Runner, least: set[int]) -> None:
    """What a reader finds at a moment when no run is active."""
    videos = list(chain(*runner.shards().values()))
    assert len(set(videos)) == len(videos)
    assert set(videos) >= least
    names = [name.split("/")[1] for name in Corpus.open(runner.store).names()]
    assert names == [VIDEOS[number] for number in videos]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("fault", ["killed", "full"])
def test_a_fault_at_any_operation_changes_nothing(
    fault: Fault, part: int, runner: Runner, tmp_path: Path
) -> None:
    """The run supersedes a tail, seals a full shard, and begins a tail."""
    runner.run([0])
    runner.run([4, 2])
    runner.add([5, 1, 11] if fault == "killed" else [5])
    whole = runner.copy(tmp_path / "whole")
    whole.run()
    after = cli_process.shards(whole.store)
    whole.run([7])
    at = part
    while True:
        again = runner.copy(tmp_path / f"store{at}")
        (again.media / "id000000" / f"{VIDEOS[7]}.wav").unlink()
        disk = FaultyDisk(again.store, fault, at)
        with disk.installed():
            try:
                again.run()
            except KilledError:
                assert disk.is_dead
            except StoreError as error:
                assert "No space" in str(error)  # noqa: PT017  # others pass
        if not disk.is_reached:
            break
        assert_no_row_is_twice(again, {0, 2, 4})
        again.run()
        assert cli_process.shards(again.store) == after, f"after {disk.operations[-1]}"
        again.run([7])
        assert cli_process.shards(again.store) == cli_process.shards(whole.store)
        assert not list((again.store / "parts" / "audio").glob("*"))
        at += PARTS
    assert at > 50, "the operations were not seen"


def test_what_a_kill_leaves_is_cleared_by_a_run_without_work(runner: Runner) -> None:
    runner.run([0])
    runner.run([1])
    (tail,) = runner.recovered()
    folder = runner.store / "shards" / "audio"
    left = {name: (folder / name).read_bytes() for name in (tail, f"{tail}.sha256")}
    runner.run(range(2, 12))
    for name, content in left.items():
        (folder / name).write_bytes(content)
    assert_no_row_is_twice(runner, set(range(12)))
    assert not runner.problems()  # whoever reads the store takes it for what it is
    runner.run()
    assert not runner.problems()
    assert not set(left) & set(cli_process.shards(runner.store))


def test_what_a_kill_leaves_is_cleared_where_its_number_is_of_an_empty_job(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0], max_speakers=1)
    with monkeypatch.context() as patched:
        patched.setattr(RecoveredShards, "switch", _stop)
        with pytest.raises(StoppedError):
            runner.run([1], max_speakers=1)
    # Ten videos of the first speaker make four jobs; the next would be of the second speaker.
    (orphan,) = set(cli_process.shards(runner.store)) & {name_of(0)}
    assert_no_row_is_twice(runner, {0})
    runner.run()
    assert orphan not in cli_process.shards(runner.store)
    assert runner.shards() == {"audio-00000.arrow": [0], name_of(1): [1]}
    assert not runner.problems()


def test_a_run_that_is_refused_gathers_what_came_before(runner: Runner) -> None:
    runner.run([0])
    come: list[str] = []

    def refuse(request: SiteRequest) -> None:
        if request.video_id not in come:
            come.append(request.video_id)
        if len(come) > 4:
            site.refused.add(DIRECT)

    with FaultSite() as site:
        site.before = refuse
        reasons = runner.store.parent / "reasons.toml"
        reasons.write_text(REASONS)
        remote: dict[str, Any] = {"source": site.template(), "reasons": str(reasons), "fetches": 1}
        with pytest.raises(BlockedError):
            runner.run(**remote)
        (first, second) = runner.recovered().items()
        assert first == (name_of(0), [1, 2, 3])
        assert second == (name_of(1), [4])
        assert not runner.problems()
        site.before = lambda _: None
        site.refused.clear()
        runner.run(**remote)
    assert runner.recovered() == expected([[1, 2, 3, 4], range(5, 12)])
    assert not runner.problems()


def test_full_shards_are_there_before_the_run_ends(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0])
    seen: list[list[list[int]]] = []
    monkeypatch.setattr(
        Gathering, "_write_all", lambda _: seen.append([*runner.recovered().values()])
    )
    monkeypatch.setattr(Scheduler, "_raise_if_stopped", _stop)
    with pytest.raises(StoppedError, match="the test is over"):
        runner.run(range(1, 11))
    assert seen == [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]


def _stop(*_: object, **__: object) -> None:
    raise StoppedError("the test is over")


def test_a_damaged_tail_is_not_copied(runner: Runner) -> None:
    runner.run([0])
    runner.run([1])
    (name,) = runner.recovered()
    tail = runner.store / "shards" / "audio" / name
    whole = tail.read_bytes()
    tail.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    for _ in range(2):
        with pytest.raises(
            StoreDamagedError,
            match=r"is damaged: .* Mend the store with 'voxblink2 repair .* wait for that",
        ):
            runner.run([2])
    tail.write_bytes(whole)
    runner.run()
    assert runner.recovered() == expected([[1], [2]])


def test_a_part_that_someone_removed_is_made_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0])
    with monkeypatch.context() as patched:
        patched.setattr(Gathering, "_write_all", _stop)
        with pytest.raises(StoppedError):
            runner.run([1, 2])
    parts = sorted((runner.store / "parts" / "audio").glob("*/*.arrow"))
    assert len(parts) == 2
    parts[0].unlink()
    runner.run()
    assert runner.recovered() == expected([[1, 2]])


# -- How many there may be -------------------------------------------------------------------------


def plan_of(runner: Runner) -> list[tuple[object, ...]]:
    """Which jobs there are, and which videos are in them."""
    with closing(sqlite3.connect(runner.store / "ledger.sqlite")) as ledger:
        jobs = ledger.execute("select * from jobs").fetchall()
        return [*jobs, *ledger.execute("select speaker_id, video_id, job, status from videos")]


def test_more_shards_than_a_process_can_map_are_refused_before_planning(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.run([0], max_speakers=1)
    before = plan_of(runner)
    monkeypatch.setattr("voxblink2_lib.materialize.jobs.MAX_SHARDS", 1)
    with pytest.raises(
        StoreError, match=r"has 1 shards, and this run would add up to 4; allowed are 1,"
    ):
        runner.run([1])
    with pytest.raises(StoreError, match=r"would add up to 3; allowed are 1, .* another store"):
        runner.run([1], max_speakers=1)
    assert plan_of(runner) == before
