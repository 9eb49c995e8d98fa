"""A ledger that is made again says what the lost one said."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process, growing_folder, ledger_tables
from support.disk_faults import FaultyDisk, KilledError
from support.growing_folder import FULL, VIDEOS, Runner
from support.property_settings import fewer_examples

from voxblink2_lib.cli import main
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.outcomes import MediaFacts, MissingUtterance, Outcome, Status
from voxblink2_lib.records import ConfigName, SealedShard, VideoKey
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.backup import back_up_ledger
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_path, write_stale_outcomes
from voxblink2_lib.store.rebuild import Rebuilt, rebuild_ledger
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.verify import verify_store

# Fixtures of this module.
corpus, small_shards = growing_folder.corpus, growing_folder.small_shards
BOTH: tuple[ConfigName, ...] = ("audio", "audio-visual")


@pytest.fixture
def runner(corpus: Path, tmp_path: Path, inline_workers: None) -> Runner:
    return Runner(corpus, tmp_path)


def remove_ledger(store: Store) -> None:
    for path in store.root.glob("ledger*"):
        path.unlink()


def assert_rebuilt_from_files(store: Store) -> Rebuilt:
    before = ledger_tables.tables(store.ledger)
    remove_ledger(store)
    rebuilt = rebuild_ledger(store)
    assert ledger_tables.tables(store.ledger) == before
    assert (rebuilt.later, rebuilt.damaged_files, rebuilt.kept_in) == (0, (), None)
    assert rebuilt.videos == len(before["videos"])
    assert rebuilt.jobs == rebuilt.files == len(before["jobs"])
    return rebuilt


# -- Of what happens to a ledger -------------------------------------------------------------------

KEYS = [VideoKey(f"id00000{n % 3}", letter * 11) for n, letter in enumerate("abcdefghijkl")]
_outcomes = st.builds(
    Outcome,
    st.sampled_from(KEYS),
    st.sampled_from(["done", "private", "transient", "media-unusable", "ambiguous", "gone"]),
    reason=st.sampled_from(["", "timed out", "This video is private"]),
    clips=st.integers(0, 3),
    missing=st.sampled_from([(), (MissingUtterance("00001", "no face"),)]),
    route=st.sampled_from(["", "direct", "proxy 1"]),
    digest=st.integers(-5, 5),
    facts=st.sampled_from([MediaFacts(), MediaFacts(audio_tracks=2)]),
    is_explicit=st.booleans(),
)
_steps = st.one_of(
    st.tuples(st.just("record"), st.sampled_from(["youtube", "folder"]), _outcomes),
    st.tuples(st.just("seal"), st.integers(0, 3)),
    st.tuples(st.just("retry"), st.sets(st.sampled_from(KEYS))),
    st.tuples(st.just("gather"), st.booleans()),
    st.tuples(st.just("drop"), st.sampled_from(KEYS)),
    st.tuples(st.just("set"), st.sampled_from(["source", "plan"]), st.sampled_from("abc")),
    st.tuples(st.just("witness"), st.sampled_from(KEYS)),
    st.just(("write",)),
)


class _Life:
    """What happens to a ledger, in any order."""

    def __init__(self, store: Store, config: str) -> None:
        self.store = store
        self.ledger = Ledger(store.ledger, config)
        self.ledger.add_jobs([KEYS[:4], KEYS[4:8], KEYS[8:]])

    def record(self, source: str, outcome: Outcome) -> None:
        if self._statuses().get(outcome.key) != "done":
            self.ledger.verdicts(source).record(outcome)

    def seal(self, job: int) -> None:
        if job in self.ledger.open_jobs():
            self.ledger.seal(self._entry(job))

    def retry(self, keys: set[VideoKey]) -> None:
        failed = [key for key in sorted(keys) if self._statuses().get(key, "done") != "done"]
        if failed:
            self.ledger.add_jobs([failed], kind="retry")

    def gather(self, with_tail: bool) -> None:
        recovered = self.ledger.recovered
        for job in recovered.retry_jobs():
            if done := recovered.done_videos(job):
                tail = recovered.tail(full=FULL) if with_tail else None
                closed = [job] if len(done) == len(self.ledger.job_videos(job)) else []
                shard = self._entry(recovered.next_number())
                recovered.switch(shard, done, tail=tail, closed=closed)

    def drop(self, key: VideoKey) -> None:
        self.ledger.drop([key])

    def set(self, name: str, value: str) -> None:
        self.ledger.set_setting(name, value)

    def witness(self, key: VideoKey) -> None:
        self.ledger.verdicts("youtube").record_witness(key, "direct", at=1.0)

    def write(self) -> None:
        write_stale_outcomes(self.store, self.ledger)

    def _statuses(self) -> dict[VideoKey, str]:
        table = self.ledger.planned_videos().to_pylist()
        return {VideoKey(row["speaker_id"], row["video_id"]): row["status"] for row in table}

    def _entry(self, job: int) -> SealedShard:
        return SealedShard(job, shard_name(self.ledger.config, job), "a" * 64, 3, 1000)


@fewer_examples(4)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["audio", "audio-visual"]), _steps), max_size=40),
    at=st.integers(0, 40),
)
def test_whatever_happened_is_rebuilt(
    steps: Sequence[tuple[str, tuple[Any, ...]]],
    at: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    lives = {config: _Life(store, config) for config in ("audio", "audio-visual")}
    for number, (config, (name, *values)) in enumerate(steps):
        if number == at:
            shutil.copy(store.ledger, store.backup)
        getattr(lives[config], name)(*values)
    # The file that was written last has the witnesses of both.
    for life in lives.values():
        life.set("source", "last")
        life.write()
    for life in lives.values():
        life.ledger.close()
    assert_rebuilt_from_files(store)


# -- Of real runs ----------------------------------------------------------------------------------


def test_runs_with_failures_retries_tails_and_two_sources(runner: Runner, tmp_path: Path) -> None:
    store = Store(runner.store)
    runner.add([0, 5])
    (runner.media / "id000000" / f"{VIDEOS[9]}.wav").write_bytes(b"no audio")
    runner.run(exclude=[VIDEOS[11]])
    assert_rebuilt_from_files(store)
    runner.run([7, 1])
    runner.run([2])
    other = tmp_path / "other"
    shutil.copytree(runner.corpus / "media" / "id000001", other / "id000001")
    runner.run(source=str(other), exclude=[VIDEOS[11]])
    before = cli_process.shards(runner.store)
    excluded = _excluded(store)
    assert excluded
    assert_rebuilt_from_files(store)
    assert not runner.problems()
    runner.run(source=str(other), exclude=[VIDEOS[11]])
    assert cli_process.shards(runner.store) == before
    assert _excluded(store) == excluded
    runner.run([*range(11)], exclude=[VIDEOS[11]])
    # What the first source gave of one of them was unusable, and it is not asked again.
    assert sorted(chain(*runner.shards().values())) == [*range(9), 10]
    assert not runner.problems()
    assert_rebuilt_from_files(store)


def _excluded(store: Store) -> list[Any]:
    with closing(sqlite3.connect(store.ledger)) as connection:
        return connection.execute("select * from videos where status = 'excluded'").fetchall()


def test_both_configurations(tmp_path: Path, inline_workers: None) -> None:
    store = Store(tmp_path / "store")
    for config in BOTH:
        _run_demo(store, config)
    shards = cli_process.shards(store.root)
    for config in BOTH:
        assert (store.shards(config) / f"{config}-00000.outcomes.parquet").exists()
    assert_rebuilt_from_files(store)
    for config in BOTH:
        _run_demo(store, config)
        assert not verify_store(store, config, sample=1).problems
    assert cli_process.shards(store.root) == shards


def _run_demo(store: Store, config: ConfigName) -> None:
    request = MaterializeRequest(
        config=config,
        data_dir="demo",
        store=str(store.root),
        workers=1,
        selection=Selection.of(max_speakers=1),
        clips={"video_size": 32} if config == "audio-visual" else {},
    )
    materialize(request, retry=True, wait=False)


def test_a_kill_at_some_operations_and_a_lost_ledger(runner: Runner, tmp_path: Path) -> None:
    """Of what is finished nothing is cropped again: its media are gone."""
    _kill_everywhere(runner, tmp_path, range(3, 10_000, 23))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_kill_at_each_operation_and_a_lost_ledger(
    part: int, runner: Runner, tmp_path: Path
) -> None:
    _kill_everywhere(runner, tmp_path, range(part, 10_000, 10))


def _kill_everywhere(runner: Runner, tmp_path: Path, places: range) -> None:
    media = [0, 1, 4, 5, 6]
    whole = Runner(runner.corpus, tmp_path / "whole")
    whole.run(media)
    after = cli_process.shards(whole.store)
    for at in places:
        killed = Runner(runner.corpus, tmp_path / f"killed{at}")
        killed.add(media)
        store = Store(killed.store)
        store.root.mkdir()
        disk = FaultyDisk(store.root, "killed", at)
        with disk.installed():
            try:
                killed.run()
            except KilledError:
                assert disk.is_dead
        planned = [*store.shards("audio").glob("*.outcomes.parquet")]
        finished = {path.stem.split("_")[1] for path in store.parts("audio").glob("*/*.arrow")}
        remove_ledger(store)
        if planned:
            rebuild_ledger(store)
        for name in finished:
            next(killed.media.rglob(f"{name}.wav")).unlink()
        killed.run()
        place = f"after {disk.operations[-1:]}"
        if len(planned) == 4:
            assert cli_process.shards(killed.store) == after, place
        assert sorted(chain(*killed.shards().values())) == media, place
        assert not killed.problems(), place
        if not disk.is_reached:
            assert at > 100, "the operations were not seen"
            return
        shutil.rmtree(killed.store)


# -- What the damaged one still gives --------------------------------------------------------------


def _answer(store: Store, keys: Sequence[VideoKey], status: Status = "transient") -> None:
    with Ledger(store.ledger, "audio") as ledger:
        for key in keys:
            ledger.verdicts("youtube").record(Outcome(key, status, "timed out"))


@pytest.fixture
def big(tmp_path: Path) -> Store:
    """A store of an open job with many videos, whose files know of no answer yet."""
    store = Store(tmp_path / "big")
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([_many()])
        write_stale_outcomes(store, ledger)
    return store


def _many() -> list[VideoKey]:
    return [VideoKey("id000001", f"video{number:06}") for number in range(3000)]


def _pages(path: Path) -> int:
    return path.stat().st_size // 4096


def _break_page(path: Path, page: int) -> None:
    with open(path, "r+b") as file:
        file.seek(4096 * page)
        file.write(random.Random(page).randbytes(4096))


def _broken(store: Store) -> list[int]:
    """Break the pages of the table of videos, one of ten; return which."""
    with closing(sqlite3.connect(store.ledger)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        sql = "select pageno from dbstat where name = 'videos' and pagetype = 'leaf'"
        try:
            pages = [page for (page,) in connection.execute(sql)]
        except sqlite3.OperationalError:
            pages = [*range(20, _pages(store.ledger))]  # this SQLite cannot say which they are
    broken = pages[5::10]
    for page in broken:
        _break_page(store.ledger, page - 1)
    return broken


def test_later_answers_are_read_around_what_is_broken(big: Store) -> None:
    _answer(big, _many()[:2000])
    assert _broken(big)
    with (
        pytest.raises(StoreDamagedError, match="database disk image is malformed"),
        Ledger(big.ledger, "audio", readonly=True) as ledger,
    ):
        ledger.planned_videos()
    rebuilt = rebuild_ledger(big)
    assert rebuilt.videos == 3000
    assert 1000 < rebuilt.later < 2000
    with Ledger(big.ledger, "audio", readonly=True) as ledger:
        statuses = ledger.planned_videos()["status"].to_pylist()
    assert statuses.count("transient") == rebuilt.later
    # Also those in broken pages that no source had answered for.
    assert 2000 - rebuilt.later <= rebuilt.unknown < 3000 - rebuilt.later
    assert rebuilt.kept_in is not None
    assert rebuilt.kept_in.parent == big.lost_and_found


def test_what_cannot_be_read_is_in_the_copy(big: Store) -> None:
    _answer(big, _many()[:1500])
    back_up_ledger(big)
    _answer(big, _many()[1500:2000])
    _broken(big)
    dry = rebuild_ledger(big, dry_run=True)
    rebuilt = rebuild_ledger(big)
    assert dry == rebuilt
    assert rebuilt.later > 1900
    _answer(big, _many()[2000:2001])
    with Ledger(big.ledger, "audio") as ledger:
        write_stale_outcomes(big, ledger)


def test_the_copy_alone_is_read_if_that_is_asked_for(big: Store) -> None:
    _answer(big, _many()[:10])
    back_up_ledger(big)
    _answer(big, _many()[10:30])
    rebuilt = rebuild_ledger(big, from_backup=True)
    assert (rebuilt.later, rebuilt.unknown) == (10, 3000)
    with Ledger(big.ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"planned": 2990, "transient": 10}


def test_nothing_is_changed_in_a_dry_run(big: Store) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in big.root.rglob("*")
        }

    _answer(big, _many()[:10])
    _broken(big)
    before = state()
    assert rebuild_ledger(big, dry_run=True).kept_in is None
    assert state() == before


def test_a_store_without_files_of_outcomes_is_rebuilt_from_what_is_left(big: Store) -> None:
    _answer(big, _many()[:10])
    outcomes_path(big.shards("audio"), "audio", 0).unlink()
    before = ledger_tables.tables(big.ledger)
    rebuilt = rebuild_ledger(big)
    assert ledger_tables.tables(big.ledger) == before
    assert (rebuilt.jobs, rebuilt.videos, rebuilt.files, rebuilt.later) == (1, 3000, 0, 3000)
    with Ledger(big.ledger, "audio") as ledger:
        assert write_stale_outcomes(big, ledger) == 1


def test_a_damaged_file_is_named_and_the_others_count(runner: Runner) -> None:
    store = Store(runner.store)
    runner.run([0, 3, 6])
    damaged = outcomes_path(store.shards("audio"), "audio", 1)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    remove_ledger(store)
    rebuilt = rebuild_ledger(store)
    assert [str(damaged) in problem for problem in rebuilt.damaged_files] == [True]
    assert (rebuilt.jobs, rebuilt.videos, rebuilt.files) == (3, 9, 3)


def test_without_anything_left_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreDamagedError, match="cannot be rebuilt: there is no file of outcomes"):
        rebuild_ledger(Store(tmp_path))
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_second_ledger_in_the_same_second_does_not_replace_the_first(big: Store) -> None:
    kept = {rebuild_ledger(big).kept_in for _ in range(3)}
    assert len(kept) == 3
    assert all(path is not None and path.exists() for path in kept)


# -- What is said of a damaged ledger --------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def _no_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("drop table videos")


def _drop(path: Path) -> None:
    path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, r"is damaged \(database disk image is malformed\)"),
    "empty": (_empty, "has 3 shards and a ledger that lists none"),
    "other bytes": (_no_database, r"is damaged \(file is not a database\)"),
    "no table": (_no_table, r"is damaged \(it has no table videos\)"),
    "gone": (_drop, "has 3 shards and a ledger that lists none"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("command", ["materialize", "status"])
def test_both_ways_out_are_named(
    kind: str, command: str, runner: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "gone" and command == "status":
        pytest.skip("there is no store then")
    runner.store = runner.store.with_name("my store")
    store = Store(runner.store)
    runner.run([0, 3, 6])
    store.backup.touch()
    damage, words = DAMAGES[kind]
    damage(store.ledger)
    before = cli_process.shards(store.root)
    words_of_command = {
        "materialize": ["--data-dir", str(runner.corpus), "--source", str(runner.media)],
        "status": [],
    }
    assert main([command, "--store", str(store.root), *words_of_command[command]]) == 1
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert f"'voxblink2 repair --store \"{store.root}\"'" in error
    assert f"'voxblink2 repair --store \"{store.root}\" --from-backup'" in error
    assert cli_process.shards(store.root) == before
    assert not (store.root / "ledger.sqlite").exists() or kind != "gone"
