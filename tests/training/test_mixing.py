"""The order for shards in buckets: which pieces are open together, and how often each is read."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import corpus_builder
from support.corpus_builder import keyed

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training import Corpus, ShuffleSampler
from voxblink2_lib.training.mixing import lane_columns, mixed_rows
from voxblink2_lib.training.remote_shards import RemoteShards

PIECE_BYTES = 1 << 20
CLIP_BYTES = 130_000
# 100 shards of 5,000 utterances, and so a twentieth of VoxBlink2.
CATALOGUE = corpus_builder.large_catalogue(5_618, 89)
LANES = 256


def local() -> Corpus:
    """Return the corpus as one of a local store."""
    return Corpus(CATALOGUE, Path("nowhere"))


def remote(cache_bytes: int) -> Corpus:
    """Return the corpus as one of a bucket."""
    return Corpus(CATALOGUE, remote_shards(cache_bytes))


def remote_shards(cache_bytes: int) -> RemoteShards:
    """Return shards of which none can be read."""
    nothing: Any = None
    return RemoteShards("s3://nowhere", "audio", Path("nowhere"), cache_bytes, *[nothing] * 4)


# -- Lanes -----------------------------------------------------------------------------------------
@given(rows=st.integers(1, 3_000), lanes=st.integers(1, 200))
def test_lanes_open_one_after_the_other_and_end_together(rows: int, lanes: int) -> None:
    columns = lane_columns(rows, lanes)
    assert len(columns) == rows
    begins = np.flatnonzero(np.diff(columns, prepend=columns[0] + 1) != 1)
    ends = np.append(begins[1:], rows) - 1
    assert len(begins) <= lanes
    last = columns.max()
    assert set((last - columns[ends]).tolist()) <= {0, 1}
    # A column has a row of each lane that is open; the last may lack some.
    per_column = np.bincount(columns)
    done = np.cumsum(per_column) - per_column
    expected = np.minimum(lanes, min(4, lanes) + done // 8)
    assert (per_column[:-1] == expected[:-1]).all()
    assert per_column[-1] <= expected[-1]


def test_the_first_batch_needs_few_requests() -> None:
    rows = ShuffleSampler(local(), batch_size=64, order=f"mixed-{LANES}").epoch_batches(0).rows
    first, last = (set(pieces_read(local(), batch)) for batch in (rows[:64], rows[-64:]))
    # Neighbours are one request.
    assert sum((shard, piece - 1) not in first for shard, piece in first) <= 15
    assert len(last) >= 60


# -- What a batch has, and what it costs -----------------------------------------------------------
def test_a_batch_has_nearly_as_many_speakers_as_of_a_uniform_order() -> None:
    sampler = ShuffleSampler(local(), batch_size=64, order=f"mixed-{LANES}")
    statistics = sampler.statistics()
    assert 0.99 < statistics.batch_speakers / statistics.uniform_batch_speakers <= 1.01
    # Rather than in one hundredth of the epoch, as in the shards; in a uniform order in 59.
    assert 7 < statistics.speaker_parts < statistics.uniform_speaker_parts


@pytest.mark.slow
def test_so_it_is_at_the_size_of_voxblink2() -> None:
    catalogue = corpus_builder.large_catalogue(111_284, 89)
    shards = remote_shards(8 << 30)
    for batch_size in (64, 256, 512):
        sampler = ShuffleSampler(Corpus(catalogue, shards), batch_size=batch_size)
        assert sampler.order == "mixed-4096"
        statistics = sampler.statistics()
        assert 0.9 < statistics.batch_speakers / statistics.uniform_batch_speakers <= 1.01


def pieces_read(corpus: Corpus, rows: npt.NDArray[np.integer]) -> list[tuple[int, int]]:
    """Return shard and number of each piece that is read for some clips, in order."""
    offsets = rows.astype(np.int64) % 5_000 * CLIP_BYTES
    first, last = offsets // PIECE_BYTES, (offsets + CLIP_BYTES - 1) // PIECE_BYTES
    places = zip(corpus.shard[rows].tolist(), first.tolist(), last.tolist(), strict=True)
    return [(shard, piece) for shard, low, high in places for piece in range(low, high + 1)]


def downloads(reads: list[tuple[int, int]], most: int) -> int:
    """Return how often a cache of so many pieces, the least recently used go first, lacks one."""
    cached: OrderedDict[tuple[int, int], None] = OrderedDict()
    lacked = 0
    for piece in reads:
        lacked += piece not in cached
        cached[piece] = None
        cached.move_to_end(piece)
        if len(cached) > most:
            cached.popitem(last=False)
    return lacked


def test_a_piece_is_downloaded_about_once_in_an_epoch() -> None:
    corpus = local().select(np.arange(100_000))
    rows = mixed_rows(corpus, 64, np.random.default_rng(0))
    assert sorted(rows.tolist()) == list(range(len(corpus)))
    reads = pieces_read(corpus, rows)
    # Once more for a run of four pieces, whose last clip ends in another run.
    assert 1.15 < downloads(reads, 2 * 64) / len(set(reads)) < 1.3


# -- Which order -----------------------------------------------------------------------------------
def test_the_default_order_depends_on_where_the_shards_are() -> None:
    size = remote(1 << 30).shard_bytes
    assert size == len(CATALOGUE.table) * CLIP_BYTES
    for corpus, order in (
        (local(), "full"),
        (remote(8 << 30), "mixed-4096"),
        (remote(PIECE_BYTES), "mixed-1"),
        (remote(size - 1), f"mixed-{(size - 1) // (2 << 20)}"),
        (remote(size), "full"),  # all of it is downloaded once, and stays
    ):
        sampler = ShuffleSampler(corpus, batch_size=64)
        assert sampler.order == sampler.state_dict()["order"] == order


def test_a_run_moves_from_a_bucket_to_a_disk_with_the_order_in_its_state() -> None:
    bucket = ShuffleSampler(remote(1 << 30), batch_size=1_000, seed=3)
    state = bucket.state_dict() | {"position": 4}
    words = "of the order 'mixed-512'; this sampler has 'full'. Use the sampler that saved it; a "
    with pytest.raises(TrainingError, match=re.escape(words)):
        ShuffleSampler(local(), batch_size=1_000).load_state_dict(state)
    disk = ShuffleSampler(local(), batch_size=1_000, order=state["order"])
    disk.load_state_dict(state)
    bucket.load_state_dict(state)
    batches = [next(iter(sampler)) for sampler in (bucket, disk)]
    assert keyed(batches[:1]) == keyed(batches[1:])


@pytest.mark.parametrize("order", ["", "mixed", "mixed-0", "mixed-1e3", "Full", "mixed--1"])
def test_an_order_that_does_not_exist_is_told(order: str) -> None:
    words = f"order is {order!r}; expected is 'full' or 'mixed-N', with N pieces of shards open"
    with pytest.raises(TrainingError, match=re.escape(words)):
        ShuffleSampler(local(), batch_size=64, order=order)


def test_an_order_that_the_cache_cannot_hold_is_told() -> None:
    words = "The order 'mixed-513' needs a cache of 1,075,838,976 bytes; the corpus was opened with"
    with pytest.raises(TrainingError, match=rf"{words} 1,073,741,824\. .*cache_bytes=1075838976"):
        ShuffleSampler(remote(1 << 30), batch_size=64, order="mixed-513")


# -- Selections ------------------------------------------------------------------------------------
def test_a_selection_in_any_order_is_read_piece_by_piece() -> None:
    generator = np.random.default_rng(0)
    chosen = generator.permutation(100_000)
    corpus = local().select(chosen)
    rows = mixed_rows(corpus, 64, generator)
    assert sorted(rows.tolist()) == list(range(len(corpus)))
    reads = pieces_read(local(), chosen[rows])
    assert 1.15 < downloads(reads, 2 * 64) / len(set(reads)) < 1.3


@given(of=corpus_builder.corpora(clip_bytes=3_000_000), piece_bytes=st.integers(1, 9_000_000))
def test_pieces_are_numbered_through_all_shards(of: Corpus, piece_bytes: int) -> None:
    before = {}
    for row in range(len(of)):
        place = of.place(row)
        before[place.shard] = -(-place.shard_bytes // piece_bytes)
    firsts = dict(zip(before, np.cumsum([0, *before.values()]).tolist(), strict=False))
    expected = [
        firsts[place.shard] + place.offset // piece_bytes for place in map(of.place, range(len(of)))
    ]
    assert of.pieces(piece_bytes).tolist() == expected
