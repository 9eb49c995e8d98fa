"""A store that was damaged is mended: its shards are, byte for byte, those it had before."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import release_builder, shard_builder, store_damage
from support.disk_faults import FaultyDisk, KilledError
from support.store_damage import DamagedCorpus, damages, files_of

from voxblink2_lib.errors import StoreBusyError, StoreError
from voxblink2_lib.materialize import pipeline
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.records import ConfigName
from voxblink2_lib.repair.run import Repair, plan_repair, repair_store
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.verify import verify_store

pytestmark = pytest.mark.usefixtures("inline_workers")

CONFIGS = ("audio", "audio-visual")
# Of the 200 damages, those of the default tier.
FEW = range(0, 200, 8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DamagedCorpus:
    return store_damage.make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def store(corpus: DamagedCorpus, tmp_path: Path) -> Store:
    return Store(corpus.copy(tmp_path / "store"))


def sealed(store: Path) -> dict[str, bytes]:
    """Every sealed shard and its checksum, of all configurations."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.glob("shards/*/*.arrow*"))
    }


def repair(corpus: DamagedCorpus, store: Store, *, source: Path | None = None) -> Repair:
    """Repair a store as the command does, in this process."""

    def request_of(config: ConfigName) -> MaterializeRequest:
        media = str(source or corpus.media)
        return MaterializeRequest(config=config, store=str(store.root), source=media, workers=1)

    return repair_store(store, data_dir="demo", request_of=request_of)


def assert_is_whole(store: Store, shards: dict[str, bytes]) -> None:
    assert sealed(store.root).keys() == shards.keys()
    assert sealed(store.root) == shards
    assert not verify_store(store, sample=0).problems


def check_seed(corpus: DamagedCorpus, store: Store, seed: int) -> None:
    shards = sealed(store.root)
    done = damages(store.root, seed)
    result = repair(corpus, store)
    assert not result.problems, done
    assert not result.lost
    assert result.stopped is None
    assert result.mends
    assert_is_whole(store, shards)


@pytest.mark.parametrize("seed", FEW)
def test_damages_are_mended(corpus: DamagedCorpus, store: Store, seed: int) -> None:
    check_seed(corpus, store, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", sorted(set(store_damage.SEEDS) - set(FEW)))
def test_all_damages_are_mended(corpus: DamagedCorpus, store: Store, seed: int) -> None:
    check_seed(corpus, store, seed)


def test_a_whole_store_is_left_as_it_is(corpus: DamagedCorpus, store: Store) -> None:
    before = sealed(store.root)
    result = repair(corpus, store)
    assert (result.mends, result.hurt, result.problems) == ((), (), ())
    assert_is_whole(store, before)
    files = files_of(store.root)
    repair(corpus, store)
    assert files_of(store.root) == files


# -- Each kind of damage by itself -----------------------------------------------------------------


def flip_clip(store: Store, shard: str, row: int = 0) -> tuple[str, str]:
    """Damage the audio of a row of a shard; return its video and its utterance."""
    path = store.root / shard
    data = path.read_bytes()
    values = pa.ipc.open_stream(data).read_all().slice(row, 1).to_pylist()[0]
    shard_builder.overwrite(path, data.index(values["audio"]["bytes"]) + 2000, b"damaged")
    return values["video_id"], values["utterance_id"]


def test_only_the_hurt_video_is_fetched(
    corpus: DamagedCorpus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = sealed(store.root)
    video, _ = flip_clip(store, "shards/audio/audio-00000.arrow", 4)
    damaged = (store.root / "shards/audio/audio-00000.arrow").read_bytes()
    cropped: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pipeline, "_crop", spied(pipeline._crop, cropped))
    result = repair(corpus, store)
    assert [task.key.video_id for task, _ in cropped] == [video]
    assert [(hurt.video_id, hurt.status, hurt.lost) for hurt in result.hurt] == [
        (video, "done", ())
    ]
    assert_is_whole(store, shards)
    kept = store.root / "lost+found/shards/audio/audio-00000.arrow"
    assert kept.read_bytes() == damaged
    assert not list(store.parts("audio").glob("*/*.arrow.*"))


def spied(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Callable[..., Any]:
    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    return spy


def test_a_recovered_shard_comes_back_too(corpus: DamagedCorpus, store: Store) -> None:
    shards = sealed(store.root)
    (recovered,) = [name for name in shards if store_damage.LATE.split(".")[0] in rows(store, name)]
    (store.root / recovered).unlink()
    result = repair(corpus, store)
    assert [hurt.video_id for hurt in result.hurt] == [store_damage.LATE.split(".")[0]]
    assert_is_whole(store, shards)


def rows(store: Store, shard: str) -> set[str]:
    """The videos of a shard."""
    if shard.endswith(".sha256"):
        return set()
    return {row["video_id"] for row in shard_builder.rows_of(store.root / shard)}


def test_other_bytes_take_another_name(corpus: DamagedCorpus, store: Store, tmp_path: Path) -> None:
    """Whoever has the former shard in a cache must not take the new one for it."""
    shards = sealed(store.root)
    video, _ = flip_clip(store, "shards/audio/audio-00000.arrow")
    others = rows(store, "shards/audio/audio-00000.arrow")
    media = Path(shutil.copytree(corpus.media, tmp_path / "media"))
    (hurt,) = media.rglob(f"{video}.*")
    shutil.copy(next(media.rglob("-demoSailor.mp4")), hurt.with_name(f"{video}.mp4"))
    if hurt.suffix != ".mp4":
        hurt.unlink()
    result = repair(corpus, store, source=media)
    assert (result.problems, result.lost, result.stopped) == ((), [], None)
    after = sealed(store.root)
    gone, new = sorted(shards.keys() - after.keys()), sorted(after.keys() - shards.keys())
    assert gone == ["shards/audio/audio-00000.arrow", "shards/audio/audio-00000.arrow.sha256"]
    assert len(new) == 2
    assert rows(store, new[0]) == others
    assert all(after[name] == shards[name] for name in shards.keys() - set(gone))
    assert not verify_store(store, sample=100).problems
    # What the next run does is nothing, and the open job is sealed as ever.
    materialize(corpus.request(store.root, "audio"), retry=True, wait=False)
    assert not verify_store(store, sample=100).problems
    assert after.items() <= sealed(store.root).items()


def test_what_is_gone_is_named_and_the_rest_kept(
    corpus: DamagedCorpus, store: Store, tmp_path: Path
) -> None:
    video, _ = flip_clip(store, "shards/audio/audio-00000.arrow")
    before = rows(store, "shards/audio/audio-00000.arrow")
    media = Path(shutil.copytree(corpus.media, tmp_path / "media"))
    for path in media.rglob(f"{video}.*"):
        path.unlink()
    result = repair(corpus, store, source=media)
    (lost,) = result.lost
    assert (lost.config, lost.video_id, lost.status) == ("audio", video, "gone")
    assert lost.lost == ("00001", "00002", "00003")
    assert (result.problems, result.left) == ((), [])
    assert not verify_store(store, sample=100).problems
    kept = {name for shard in sealed(store.root) for name in rows(store, shard)}
    assert before - {video} <= kept
    assert video not in {
        name for shard in sealed(store.root) if "visual" not in shard for name in rows(store, shard)
    }


def test_strangers_go_to_lost_and_found(corpus: DamagedCorpus, store: Store) -> None:
    """Nothing of the user's is removed, nor replaced there."""
    shards = sealed(store.root)
    strangers = {
        "shards/audio/notes.txt": b"mine",
        "shards/audio/audio-00077.arrow": b"no shard",
        "parts/audio/holiday/picture.png": b"blue",
        "parts/audio/readme": b"mine, too",
    }
    (job,) = (path.name for path in store.parts("audio").iterdir())
    strangers[f"parts/audio/{job}/id990004_none.arrow"] = b"no part"
    before = {"lost+found/shards/audio/notes.txt": b"of an earlier repair"}
    for name, data in {**strangers, **before}.items():
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_bytes(data)
    result = repair(corpus, store)
    assert {mend.kind for mend in result.mends} == {"stranger"}
    for name in strangers:
        assert not (store.root / name).exists()
    found = sorted(path.read_bytes() for path in store.lost_and_found.rglob("*") if path.is_file())
    assert found == sorted([*strangers.values(), *before.values()])
    assert_is_whole(store, shards)


def test_shards_without_digests_are_proven_by_flac(corpus: DamagedCorpus, store: Store) -> None:
    shards = sealed(store.root)
    for path in store.root.glob("shards/*/*.outcomes.parquet"):
        path.unlink()
    video, _ = flip_clip(store, "shards/audio/audio-00000.arrow")
    faces, _ = flip_clip(store, "shards/audio-visual/audio-visual-00000.arrow")
    all_faces = rows(store, "shards/audio-visual/audio-visual-00000.arrow")
    result = repair(corpus, store)
    hurt = {(entry.config, entry.video_id) for entry in result.hurt}
    # Of faces, nothing can be proven.
    assert hurt == {("audio", video), *(("audio-visual", name) for name in all_faces)}
    assert faces in all_faces
    assert_is_whole(store, shards)


def test_a_shard_of_which_nothing_is_known_is_taken_up_again(
    corpus: DamagedCorpus, store: Store
) -> None:
    """The ledger, its copy and the outcomes beside a shard are lost: it still says what it has."""
    shards = sealed(store.root)
    for path in store.root.glob("ledger.*"):
        path.unlink()
    (store.shards("audio") / "audio-00001.outcomes.parquet").unlink()
    result = repair(corpus, store)
    assert [mend.path for mend in result.mends if mend.kind == "shard"] == [
        "shards/audio/audio-00001.arrow"
    ]
    assert_is_whole(store, shards)
    materialize(corpus.request(store.root, "audio"), retry=True, wait=False)
    assert shards.items() <= sealed(store.root).items()
    assert not verify_store(store, sample=0).problems


def test_without_its_release_an_index_is_not_made_again(
    corpus: DamagedCorpus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.index / "videos.parquet").unlink()
    monkeypatch.setattr("voxblink2_lib.repair.index_repair.read_last_run", lambda *_: ("audio", {}))
    result = repair_store(store)
    (problem,) = result.problems
    assert f"voxblink2 repair --store {store.root} --data-dir RELEASE" in problem
    assert repair(corpus, store).problems == ()
    assert not verify_store(store, sample=0).problems


def test_an_index_of_another_release_is_refused(
    corpus: DamagedCorpus, store: Store, tmp_path: Path
) -> None:
    (store.index / "videos.parquet").unlink()
    other = release_builder.write_release(tmp_path / "other", release_builder.small_release())
    before = files_of(store.index)
    result = repair_store(store, data_dir=str(other))
    assert "missing in it or annotated otherwise" in result.problems[0]
    assert files_of(store.index) == before


# -- What changes nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 14, 4))
def test_a_dry_run_changes_nothing(corpus: DamagedCorpus, store: Store, seed: int) -> None:
    damages(store.root, seed)
    (store.shards("audio") / "stranger").write_bytes(b"mine")
    before = files_of(store.root)
    planned = plan_repair(store, data_dir="demo")
    assert files_of(store.root) == before
    done = repair_store(store, data_dir="demo")
    assert [(mend.kind, mend.path) for mend in planned.mends] == [
        (mend.kind, mend.path) for mend in done.mends
    ]
    assert planned.hurt == done.hurt
    assert not any(str(store.root) + "/tmp" in mend.text for mend in planned.mends)


def test_without_fetching_the_videos_are_named(corpus: DamagedCorpus, store: Store) -> None:
    shards = sealed(store.root)
    video, _ = flip_clip(store, "shards/audio/audio-00000.arrow")
    result = repair_store(store)
    assert [hurt.video_id for hurt in result.left] == [video]
    assert not verify_store(store, sample=0).problems
    again = repair_store(store)
    assert again.left == result.left
    assert again.mends == ()
    assert [hurt.video_id for hurt in repair(corpus, store).hurt] == [video]
    assert_is_whole(store, shards)


def test_materialize_finishes_what_was_not_fetched(corpus: DamagedCorpus, store: Store) -> None:
    shards = sealed(store.root)
    flip_clip(store, "shards/audio/audio-00000.arrow")
    repair_store(store)
    materialize(corpus.request(store.root, "audio"), retry=True, wait=False)
    assert shards.items() <= sealed(store.root).items()
    assert not verify_store(store, sample=0).problems


def test_a_run_at_work_is_not_disturbed(corpus: DamagedCorpus, store: Store) -> None:
    damages(store.root, 0)
    with store.locked(wait=False):
        before = files_of(store.root)
        with pytest.raises(StoreBusyError, match="is working on the store"):
            repair(corpus, store)
        assert files_of(store.root) == before


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store at"):
        repair_store(Store(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="There is no store at"):
        plan_repair(Store(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


# -- Kills -----------------------------------------------------------------------------------------


def damage_much(store: Store) -> None:
    """Damage one file of each kind but the index, and put a stranger in."""
    flip_clip(store, "shards/audio/audio-00000.arrow")
    (store.root / "shards/audio-visual/audio-visual-00000.arrow.sha256").unlink()
    chooser = random.Random(1)
    for kind in ("ledger", "outcomes", "part", "catalogue"):
        pattern, _ = store_damage.TARGETS[kind]
        path = sorted(store.root.glob(pattern))[-1]
        store_damage.damage_file(store.root, path, "truncated", chooser)
    (store.shards("audio") / "stranger").write_bytes(b"mine")


def check_kills(corpus: DamagedCorpus, folder: Path, first: int, step: int) -> None:
    """Kill a repair at each operation in turn: the next one ends the same."""
    damaged = Store(corpus.copy(folder / "damaged"))
    shards = sealed(damaged.root)
    damage_much(damaged)
    at = first
    while True:
        store = Store(Path(shutil.copytree(damaged.root, folder / f"store{at}")))
        disk = FaultyDisk(store.root, "killed", at)
        with disk.installed(), contextlib.suppress(KilledError):
            repair(corpus, store)
        result = repair(corpus, store)
        assert (result.problems, result.lost, result.left) == ((), [], []), disk.operations[-1]
        assert_is_whole(store, shards)
        strangers = list(store.lost_and_found.rglob("stranger"))
        assert [path.read_bytes() for path in strangers] == [b"mine"], disk.operations[-1]
        shutil.rmtree(store.root)
        if not disk.is_reached:
            break
        at += step
    assert at > 100, "the operations were not seen"


@pytest.mark.parametrize("part", range(2))
def test_a_killed_repair_is_repeated(corpus: DamagedCorpus, tmp_path: Path, part: int) -> None:
    check_kills(corpus, tmp_path, 19 * part, 38)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_repair_may_be_killed_anywhere(corpus: DamagedCorpus, tmp_path: Path, part: int) -> None:
    check_kills(corpus, tmp_path, part, 16)
