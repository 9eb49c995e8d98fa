"""``verify`` names every damage, knows a run that is at work, and goes on where it was stopped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.inline_pool import InlinePool
from support.plain_corpus import make_corpus, video_ids
from support.recorded_progress import RecordedProgress
from support.store_damage import Damage, DamagedCorpus, damages, files_of
from support.store_damage import make_corpus as make_damaged_corpus

from voxblink2_lib.cli import _parser, main
from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store import verify
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shard_verification import ShardResult, ShardTask, verify_shard
from voxblink2_lib.store.verify import verify_store

VIDEOS = video_ids(4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DamagedCorpus:
    """A store of both configurations. Not to be changed."""
    return make_damaged_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two shards of WAV. Not to be changed."""
    folder = tmp_path_factory.mktemp("plain")
    make_corpus(folder, VIDEOS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VOXBLINK2_HOME", str(folder / "home"))
        patched.setattr("voxblink2_lib.materialize.scheduler.WorkerPool", InlinePool)
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 2)
        request = MaterializeRequest(
            data_dir=str(folder),
            source=str(folder / "media"),
            store=str(folder / "store"),
            workers=1,
        )
        materialize(request, retry=True, wait=False)
    return folder / "store"


@pytest.fixture
def store(plain: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(plain, tmp_path / "store")))


def problems(store: Store) -> list[str]:
    return list(verify_store(store, sample=1).problems)


# -- Damages ---------------------------------------------------------------------------------------


def unnamed(corpus: DamagedCorpus, folder: Path, seed: int) -> list[Damage]:
    """Return the damages of a seed that are not named."""
    copy = corpus.copy(folder / "store")
    done = damages(copy, seed)
    found = problems(Store(copy))
    shutil.rmtree(copy)
    return [damage for damage in done if not any(damage.path in problem for problem in found)]


def test_an_undamaged_store_has_no_problem(corpus: DamagedCorpus, tmp_path: Path) -> None:
    copy = corpus.copy(tmp_path / "store")
    before = files_of(copy)
    result = verify_store(Store(copy), sample=2)
    assert result.problems == ()
    assert result.configs.keys() == {"audio", "audio-visual"}
    assert all(config.shards and config.rows for config in result.configs.values())
    assert files_of(copy).items() >= before.items()


@pytest.mark.parametrize("seed", range(30))
def test_each_damage_is_named(seed: int, corpus: DamagedCorpus, tmp_path: Path) -> None:
    assert not unnamed(corpus, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 200))
def test_every_damage_is_named(seed: int, corpus: DamagedCorpus, tmp_path: Path) -> None:
    assert not unnamed(corpus, tmp_path, seed)


def test_the_problems_of_a_store_without_a_ledger(plain: Path, store: Store) -> None:
    store.ledger.unlink()
    shard = store.shards("audio") / "audio-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-9])
    lost, sums, damaged = problems(store)
    assert sums.startswith("The ledger") or lost.startswith("The ")
    assert any(f"{store.ledger} is missing" in problem for problem in (lost, sums))
    assert f"The shard {shard} is damaged" in damaged


@pytest.mark.parametrize("command", ["verify", "status", "report", "status --missing"])
@pytest.mark.parametrize("damage", ["no SQLite", "truncated", "deleted", "empty", "no table"])
def test_a_damaged_ledger_is_one_sentence_and_a_command(
    command: str, damage: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage == "deleted":
        store.ledger.unlink()
    elif damage == "no table":
        with closing(sqlite3.connect(store.ledger)) as database:
            database.execute("drop table videos")
    else:
        data = store.ledger.read_bytes()
        changed = {"no SQLite": b"x" * 5000, "truncated": data[:4096], "empty": b""}
        store.ledger.write_bytes(changed[damage])
    assert main([*command.split(), "--store", str(store.root)]) == 1
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown
    assert str(store.ledger) in shown or "a ledger that lists none" in shown
    assert f"voxblink2 repair --store {store.root}" in shown
    assert main([*command.split(), "--store", str(store.root), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert "repair --store" in record.get("message", record.get("advice"))


@pytest.mark.parametrize("name", ["videos.parquet", "utterances.parquet", "index.json"])
def test_a_damaged_index_is_one_sentence(
    name: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.index / name).write_bytes(b"x" * 500)
    assert main(["verify", "--store", str(store.root)]) == 1
    shown = capsys.readouterr().out
    assert "1 problem in" in shown
    assert str(store.index) in shown
    assert f"Mend the store with 'voxblink2 repair --store {store.root}'" in shown
    code = main(["report", "--store", str(store.root), "--out", str(tmp_path / "page.html")])
    assert code == (1 if name == "utterances.parquet" else 0)


def test_an_index_of_an_earlier_version_is_read_whole(store: Store) -> None:
    path = store.index / "index.json"
    record = json.loads(path.read_text())
    del record["files"], record["digest"]
    path.write_text(json.dumps(record))
    assert problems(store) == []
    boxes = store.index / "boxes.parquet"
    data = bytearray(boxes.read_bytes())
    data[40:48] = b"\xff" * 8
    boxes.write_bytes(data)
    (problem,) = problems(store)
    assert f"The file {boxes} of the index is damaged" in problem


def test_every_flip_in_a_log_is_found(corpus: DamagedCorpus) -> None:
    from voxblink2_lib.store.ledger_checksums import _log_problem

    log = Path(f"{corpus.store / 'ledger.sqlite'}-wal").read_bytes()
    assert not _log_problem(log)
    size = 24 + int.from_bytes(log[8:12])
    last = len(log) - size
    # Within a frame, its number of pages and page are summed; the header of each has six words.
    for place in [*range(32), *range(32, 56), *range(last, last + 24), last + 500, len(log) - 1]:
        flipped = bytearray(log)
        flipped[place] ^= 1
        is_counter = 12 <= place < 16  # of checkpoints: it is in the checksum of the header
        assert _log_problem(bytes(flipped)), (place, is_counter)
    assert "is not whole" in _log_problem(log[:-1])


# -- What there is to check ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "status", "report"])
def test_a_check_that_finds_nothing_ends_with_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(tmp_path / "ledger.sqlite", "audio").close()
    (tmp_path / "index").mkdir()
    assert main([command, "--store", str(tmp_path)]) == 1
    assert "othing" in capsys.readouterr().out or command == "verify"
    assert main([command, "--store", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["configs"] == {}


def test_a_configuration_without_shards_has_nothing_to_check(store: Store) -> None:
    with Ledger(store.ledger, "audio-visual") as ledger:
        ledger.add_jobs([[]])
    result = verify_store(store, "audio-visual", sample=1)
    assert result.problems == (
        f"Nothing to check: the store {store.root} has no sealed shard of the configuration "
        "'audio-visual'.",
    )
    assert result.advice == ""


@pytest.mark.parametrize("command", ["verify", "status", "report"])
def test_a_configuration_that_the_store_lacks(
    command: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--store", str(store.root), "--config", "audio-visual"]) == 2
    words = "has nothing of the configuration 'audio-visual'; it has audio."
    assert words in capsys.readouterr().err


def test_all_configurations_are_looked_at(
    corpus: DamagedCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = str(corpus.copy(tmp_path / "store"))
    for command in ("verify", "status"):
        assert main([command, "--store", copy]) == 0
        shown = capsys.readouterr().out
        assert "audio-visual" in shown
        assert main([command, "--store", copy, "--json"]) == 0
        configs = json.loads(capsys.readouterr().out)["configs"]
        assert configs.keys() == {"audio", "audio-visual"}
        for name, values in configs.items():
            assert main([command, "--store", copy, "--json", "--config", name]) == 0
            record = json.loads(capsys.readouterr().out)
            assert record.items() >= values.items()
            assert "configs" not in record
    page = tmp_path / "page.html"
    assert main(["report", "--store", copy, "--out", str(page)]) == 0
    text = page.read_text()
    assert text.count("<h2>") == 2
    rows = (tmp_path / "missing.csv").read_text().splitlines()
    assert {row.rpartition(",")[2] for row in rows} == {"config", "audio", "audio-visual"}


# -- A run beside it -------------------------------------------------------------------------------


def put_fresh_shard(store: Store) -> Path:
    """Put a shard that the ledger does not have into its folder."""
    fresh = store.shards("audio") / shard_name("audio", 7)
    for suffix in ("", ".sha256"):
        path = store.shards("audio") / f"audio-00000.arrow{suffix}"
        shutil.copyfile(path, fresh.with_name(f"{fresh.name}{suffix}"))
    return fresh


def test_a_shard_of_a_run_at_work_is_no_stranger(store: Store) -> None:
    with store.locked(wait=False):
        old = put_fresh_shard(store)
        result = verify_store(store, sample=1)
        assert result.problems == ()
        assert result.configs["audio"].notes[0] == f"{old} is of the run that is at work."
        for path in old.parent.glob(f"{old.name}*"):
            os.utime(path, (1e9, 1e9))  # long before the run began
        assert len(problems(store)) == 2
    first, second = problems(store)
    assert first.startswith(f"{old} is in the folder and not in the ledger.")
    assert second.startswith(f"{old}.sha256 is in the folder")


def test_a_shard_that_is_sealed_meanwhile_is_no_stranger(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run seals it, and ends, after the check has read the ledger."""
    with Ledger(store.ledger, "audio") as ledger:
        shards = ledger.shards()
    listed = verify._ConfigCheck._shards

    def before_the_last(self: Any) -> Any:
        return listed(self)[:-1]

    monkeypatch.setattr(verify._ConfigCheck, "_shards", before_the_last)
    result = verify_store(store, sample=1)
    assert result.problems == ()
    assert result.configs["audio"].shards == len(shards) - 1


def test_a_shard_that_is_superseded_meanwhile_is_not_missing(
    corpus: DamagedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(corpus.copy(tmp_path / "store"))
    with Ledger(store.ledger, "audio", readonly=True) as ledger:
        tail = ledger.recovered.tail(full=1000)
    assert tail is not None

    def superseded(task: ShardTask) -> ShardResult:
        """A run puts the shard's rows into a fuller one, while it is being read."""
        if task.path.name == tail.shard.name:
            task.path.unlink()
            with Ledger(store.ledger, "audio") as ledger, ledger._database.transaction() as writing:
                writing.execute(
                    "update jobs set shard = '', sha256 = '', rows = 0, bytes = 0 "
                    "where config = 'audio' and job = ?",
                    (tail.shard.job,),
                )
        return verify_shard(task)

    monkeypatch.setattr(verify, "verify_shard", superseded)
    assert not [problem for problem in problems(store) if tail.shard.name in problem]


# -- Interruptions ---------------------------------------------------------------------------------


@contextmanager
def stopped_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Interrupt a check after so many shards; yields the names of those that it begins with."""
    names: list[str] = []

    def counted(task: ShardTask) -> ShardResult:
        names.append(task.path.name)
        if len(names) > count:
            raise KeyboardInterrupt
        return verify_shard(task)

    with monkeypatch.context() as patched:
        patched.setattr(verify, "verify_shard", counted)
        yield names


def test_an_interrupted_check_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", "--store", str(store.root), "--sample", "1"]
    with stopped_after(1, monkeypatch):
        assert main(words) == 3
    command = capsys.readouterr().err.partition("go on with '")[2].partition("'")[0]
    assert command == f"voxblink2 verify --store {store.root} --sample 1 --resume"
    before = len([*store.shards("audio").glob("*.arrow")])
    with stopped_after(9, monkeypatch) as names:
        assert main([*shlex.split(command)[1:], "--json"]) == 0
    assert len(names) == before - 1
    record = json.loads(capsys.readouterr().out)["configs"]["audio"]
    assert (record["verified_before"], record["shards"]) == (1, before - 1)
    # A complete check is forgotten.
    with stopped_after(9, monkeypatch) as names:
        assert main([*words, "--resume"]) == 0
    assert len(names) == before


@pytest.mark.parametrize("change", ["bytes", "time", "sample", "no resume"])
def test_what_has_changed_since_is_checked_again(
    change: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_after(1, monkeypatch) as names, pytest.raises(KeyboardInterrupt):
        verify_store(store, sample=1)
    shard = store.shards("audio") / names[0]
    if change == "bytes":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif change == "time":
        os.utime(shard, ns=(0, 1))
    with stopped_after(9, monkeypatch) as names:
        result = verify_store(
            store, sample=2 if change == "sample" else 1, resume=change != "no resume"
        )
    assert shard.name in names
    assert bool(result.problems) == (change == "bytes")


def test_the_total_and_what_was_done_before_are_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_after(1, monkeypatch), pytest.raises(KeyboardInterrupt):
        verify_store(store, sample=1)
    progress = RecordedProgress()
    verify_store(store, sample=1, resume=True, progress=progress)
    tasks = {task.task: task for task in progress.tasks}
    hashed, task = tasks["Hashing the index"], tasks["Verifying audio"]
    names = json.loads((store.index / "index.json").read_text())["files"]
    sizes = [(store.index / name).stat().st_size for name in names]
    assert (hashed.unit, hashed.total) == ("B", sum(sizes))
    shards = len([*store.shards("audio").glob("*.arrow")])
    assert (task.unit, task.total, task.done) == ("shard", shards, 1)
    assert sum(task.counts) == shards - 1
    assert all(task.done + sum(task.counts) == task.total for task in progress.tasks)


# -- Processes -------------------------------------------------------------------------------------


def test_processes_find_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_BYTES_PER_WORKER", 1)
    for path in store.shards("audio").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:-1])
    here = verify_store(store, sample=2)
    assert verify_store(store, sample=2, workers=2) == here
    assert len(here.problems) == here.configs["audio"].shards > 1


def test_the_command_is_one_of_ours() -> None:
    options = _parser().parse_args(["verify", "--store", "x", "--resume"])
    assert options.resume
    assert options.config is None


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at"):
        verify_store(Store(tmp_path), sample=1)
