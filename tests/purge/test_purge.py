"""What is purged from a store is in none of its files any more, and never comes back."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import store_damage
from support.disk_faults import FaultyDisk, KilledError
from support.store_damage import DamagedCorpus

from voxblink2_lib.errors import StoreError, UsageError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.purge.ids import read_purged_ids
from voxblink2_lib.purge.run import Purge, plan_purge, purge_store
from voxblink2_lib.records import ConfigName
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.repair.run import repair_store
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.rebuild import rebuild_ledger
from voxblink2_lib.store.verify import verify_store

pytestmark = pytest.mark.usefixtures("inline_workers")

SPEAKER = "id990002"
VIDEOS = ("demoChess_1", "demoKitchen")
UTTERANCE = "id990001/demoHarbour/00002"
# What is purged, and what must be nowhere afterwards.
CASES = {
    "speaker": ([SPEAKER], (SPEAKER, *VIDEOS)),
    "video": (["-demoSailor", "demoHarbour"], ("-demoSailor", "demoHarbour")),
    "utterance": ([UTTERANCE], (UTTERANCE,)),
}
ALL = (
    [name for named, _ in CASES.values() for name in named],
    (*(SPEAKER, *VIDEOS, "-demoSailor", "demoHarbour", UTTERANCE),),
)
Names = dict[str, list[str]]
CONFIGS: tuple[ConfigName, ...] = ("audio", "audio-visual")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DamagedCorpus:
    return store_damage.make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def store(corpus: DamagedCorpus, tmp_path: Path) -> Store:
    return Store(corpus.copy(tmp_path / "store"))


def names_of(rows: list[dict[str, str]]) -> list[str]:
    return [f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}" for row in rows]


def names_in(store: Store) -> Names:
    """Names of the utterances that the ledger's shards have, by configuration."""
    names: Names = {}
    for config in CONFIGS:
        with Ledger(store.ledger, config, readonly=True) as ledger:
            paths = [store.shards(config) / shard.name for shard in ledger.shards()]
        batches = [batch for path in paths for batch in open_stream(path).batches()]
        names[config] = sorted(
            name
            for batch in batches
            for name in names_of(batch.drop_columns(["audio"]).to_pylist())
        )
    return names


def without(names: Names, ids: tuple[str, ...]) -> Names:
    return {
        config: [name for name in each if not any(text in name for text in ids)]
        for config, each in names.items()
    }


def contents(path: Path) -> bytes:
    """All that is in a file; of Parquet also what it packs, with rows as names."""
    data = path.read_bytes()
    if path.suffix != ".parquet":
        return data
    with pq.ParquetFile(path) as file:
        rows = file.read().to_pylist()
        data += repr((file.metadata.metadata, rows)).encode()
    for row in rows:
        key = (row.get("speaker_id"), row.get("video_id"))
        inner = [*row.get("missing", ()), *(row.get("clip_digests") or ()), row]
        names = ["/".join(map(str, (*key, each.get("utterance_id")))) for each in inner]
        data += "\n".join(names).encode()
    return data


def files_with(store: Store, ids: tuple[str, ...]) -> list[str]:
    """Files in whose names or bytes an id is."""
    found = []
    for path in sorted(store.root.rglob("*")):
        name = str(path.relative_to(store.root))
        data = name.encode() + (contents(path) if path.is_file() else b"")
        if any(text.encode() in data for text in ids):
            found.append(name)
    return found


def purge(store: Store, *ids: str) -> Purge:
    return purge_store(store, read_purged_ids(ids), reason="asked")


def assert_is_purged(store: Store, before: Names, ids: tuple[str, ...]) -> None:
    assert files_with(store, ids) == []
    assert names_in(store) == without(before, ids)
    assert verify_store(store, sample=1).problems == ()


@pytest.mark.parametrize("case", CASES)
def test_nothing_of_it_is_left(store: Store, case: str) -> None:
    named, ids = CASES[case]
    before = names_in(store)
    (store.root / "archive-differences.csv").write_text(f"utterance\n{UTTERANCE}\na,{ids[0]}\nb\n")
    (store.root / "report.html").write_text(f"<p>{ids[0]}</p>")
    lost = store.lost_and_found / "audio-00000.arrow"
    lost.parent.mkdir()
    lost.write_bytes(b"anything")
    (store.root / "archive" / "000").mkdir(parents=True)
    (store.root / "archive" / "000" / "000.json").write_text("a window")
    dry = plan_purge(store, read_purged_ids(named))
    assert names_in(store) == before
    assert files_with(store, ids)
    result = purge(store, *named)
    assert (dry.clips, dry.unknown) == (result.clips, result.unknown)
    assert [shard.before for shard in dry.shards] == [shard.before for shard in result.shards]
    assert result.clips == sum(map(len, before.values())) - sum(
        map(len, without(before, ids).values())
    )
    assert_is_purged(store, before, ids)
    assert (store.root / "archive-differences.csv").read_text().splitlines()[-1] == "b"
    assert not lost.exists()
    assert not (store.root / "archive").exists()


def test_no_run_brings_it_back(corpus: DamagedCorpus, store: Store) -> None:
    named, ids = ALL
    purge(store, *named)
    shutil.rmtree(store.index)  # it is made again from the release
    for config in CONFIGS:
        materialize(
            MaterializeRequest(
                config=config,
                data_dir="demo",
                source=str(corpus.media),
                store=str(store.root),
                workers=1,
            ),
            retry=True,
            wait=False,
        )
    assert files_with(store, ids) == []
    assert verify_store(store, sample=1).problems == ()
    names = names_in(store)
    assert all(names.values())
    store.ledger.unlink()
    repair_store(store, data_dir="demo")
    assert names_in(store) == names
    assert files_with(store, ids) == []


def test_an_index_made_again_is_the_one_that_was_rewritten(store: Store) -> None:
    purge(store, UTTERANCE, "demoKitchen")
    again = build_index(open_release("demo"), store.root / "again")
    assert again.info == Index(store.index).info


def test_an_old_ledger_brings_nothing_back(store: Store, tmp_path: Path) -> None:
    before = names_in(store)
    old = shutil.copy(store.ledger, tmp_path)
    shutil.copy(f"{store.ledger}-wal", tmp_path)
    outcomes = [
        shutil.copy(path, tmp_path) for path in store.root.glob("shards/audio/*.outcomes.parquet")
    ]
    purge(store, SPEAKER)
    shutil.copy(old, store.backup)
    store.ledger.unlink()
    for path in outcomes:
        shutil.copy(path, store.shards("audio"))
    rebuild_ledger(store)
    with Ledger(store.ledger, "audio", readonly=True) as ledger:
        assert SPEAKER not in ledger.planned_videos()["speaker_id"].to_pylist()
    # The old files name shards that are gone: those jobs have nothing left to crop again.
    repair_store(store, data_dir="demo")
    assert names_in(store) == without(before, (SPEAKER,))
    # What lies about is found again without any id.
    purge(store)
    assert files_with(store, (SPEAKER, *VIDEOS)) == []
    assert names_in(store) == without(before, (SPEAKER,))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("damaged")])
def test_tombstones_that_are_lost_are_in_the_ledger(store: Store, damage: Any) -> None:
    purge(store, SPEAKER, UTTERANCE)
    path = store.root / "tombstones.json"
    before = path.read_bytes()
    damage(path)
    (problem,) = verify_store(store, sample=0).problems
    assert "tombstones.json" in problem
    (mend,) = repair_store(store, data_dir="demo").mends
    assert (mend.kind, path.read_bytes()) == ("tombstones", before)
    store.ledger.unlink()
    repair_store(store, data_dir="demo")
    path.unlink()
    assert repair_store(store, data_dir="demo").mends
    assert path.read_bytes() == before


def check_kills(
    corpus: DamagedCorpus, folder: Path, case: tuple[list[str], tuple[str, ...]], places: range
) -> None:
    """Kill a purge at operations: all is there or nothing is, and another purge ends it."""
    named, ids = case
    for at in places:
        store = Store(corpus.copy(folder / f"store{at}"))
        before = names_in(store)
        disk = FaultyDisk(store.root, "killed", at)
        with disk.installed(), contextlib.suppress(KilledError):
            purge(store, *named)
        where = disk.operations[-1:]
        assert names_in(store) in (before, without(before, ids)), where
        purge(store, *(named if at % 2 or names_in(store) == before else ()))
        assert_is_purged(store, before, ids)
        shutil.rmtree(store.root)
        if not disk.is_reached:
            assert at > 100, "the operations were not seen"
            return


def test_killed_at_some_operations(corpus: DamagedCorpus, tmp_path: Path) -> None:
    check_kills(corpus, tmp_path, ALL, range(7, 10_000, 37))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("case", CASES)
def test_killed_at_each_operation(
    corpus: DamagedCorpus, tmp_path: Path, case: str, part: int
) -> None:
    check_kills(corpus, tmp_path, CASES[case], range(part, 10_000, 4))


def test_a_store_that_is_half_purged_takes_no_run(corpus: DamagedCorpus, store: Store) -> None:
    disk = FaultyDisk(store.root, "killed", 40)
    with disk.installed(), contextlib.suppress(KilledError):
        purge(store, SPEAKER)
    with pytest.raises(StoreError, match="voxblink2 purge --store"):
        materialize(corpus.request(store.root, "audio"), retry=True, wait=False)
    purge(store)
    materialize(corpus.request(store.root, "audio"), retry=True, wait=False)


def test_what_cannot_be_purged(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing to purge"):
        purge(store)
    with pytest.raises(StoreError, match="no store at"):
        purge(Store(tmp_path / "none"), SPEAKER)
    everybody = Index(store.index).videos()["speaker_id"].to_pylist()
    with pytest.raises(StoreError, match="leave nothing"):
        purge(store, *everybody)
    assert not (store.root / "tombstones.json").exists()
