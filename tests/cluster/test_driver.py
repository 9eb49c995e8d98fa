"""Jobs on nodes that die, are refused or are stopped: what the driver makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.inline_nodes import InlineCluster, KilledError, node
from support.inline_pool import InlinePool

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.published.manifest import Manifest
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import fetch_shards, open_published
from voxblink2_lib.store.ledger import Ledger


class CountingPool(InlinePool):
    """Counts how often each video is cropped, and may kill its node before one of them."""

    crops: Counter[str] = Counter()
    fatal: set[int] = set()

    def submit(self, call: Any) -> None:
        if call[0].__name__ == "run_video":
            CountingPool.crops[call[1].key.video_id] += 1
            if CountingPool.crops.total() in CountingPool.fatal:
                CountingPool.fatal.discard(CountingPool.crops.total())
                raise KilledError
        super().submit(call)


@pytest.fixture(autouse=True)
def counted() -> None:
    CountingPool.crops, CountingPool.fatal = Counter(), set()


def request_of(corpus: Path, url: str) -> MaterializeRequest:
    return MaterializeRequest.of(data_dir=corpus, source=corpus / "media", store=url)


def manifest_at(url: str) -> Manifest:
    manifest = Place(url).read().manifest
    assert manifest is not None
    return manifest


def shards_at(url: str) -> dict[str, bytes]:
    copy = open_published(url)
    fetch_shards(url, copy, "audio", [*manifest_at(url).shards("audio")])
    return {path.name: path.read_bytes() for path in copy.shards("audio").glob("*.arrow")}


def check_whole(url: str, alone: dict[str, bytes]) -> None:
    """Every video has one outcome, and the shards are those of one machine."""
    assert shards_at(url) == alone
    with Ledger(open_published(url).ledger, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos() == {"done": 60}
        shards = [shard.job for shard in ledger.shards()]
        assert shards == sorted(set(shards))
    names = [name.partition(".")[0] for name in Place(url).sizes() if name.endswith(".arrow")]
    assert not [name for name in names if name.startswith(("jobs/", "parts/"))]


def test_nodes_make_the_shards_of_one_machine(
    corpus: Path, alone: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    cluster = InlineCluster(request_of(corpus, s3), tmp_path, [node("a"), node("b")])
    store = cluster.materialize(CountingPool)
    check_whole(s3, alone)
    assert CountingPool.crops.total() == 60
    assert not [*store.shards("audio").glob("*.arrow")]
    assert {name for name, _ in cluster.used[0].done} == {"a", "b"}


def test_a_killed_node_costs_at_most_the_videos_that_had_not_left_it(
    corpus: Path, alone: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    CountingPool.fatal = {19}
    cluster = InlineCluster(request_of(corpus, s3), tmp_path, [node("a"), node("b")])
    cluster.materialize(CountingPool)
    check_whole(s3, alone)
    assert 60 < CountingPool.crops.total() <= 60 + 32
    assert max(CountingPool.crops.values()) == 2
