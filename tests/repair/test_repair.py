"""A store that was damaged is mended: its shards are, byte for byte, those it had before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import cli_process, store_damage
from support.disk_faults import FaultyDisk, KilledError
from support.store_damage import DamagedCorpus, damages, files_of

from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
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


def repair(corpus: DamagedCorpus, store: Store) -> Repair:
    return repair_store(store, data_dir="demo", request_of=lambda config: request(store, config))


def request(store: Store, config: str) -> MaterializeRequest:
    return MaterializeRequest(config=config, store=str(store.root), workers=1)  # type: ignore[arg-type]


def assert_is_whole(store: Store, shards: dict[str, bytes]) -> None:
    assert sealed(store.root).keys() == shards.keys()
    assert sealed(store.root) == shards
    assert not verify_store(store, sample=0).problems


def check_seed(corpus: DamagedCorpus, store: Store, seed: int) -> None:
    shards = sealed(store.root)
    done = damages(store.root, seed)
    result = repair(corpus, store)
    print(done, result)  # shown if the test fails
    assert not result.problems
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
