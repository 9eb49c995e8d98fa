"""What each order promises, over made-up corpora, batch sizes, ranks, seeds and epochs."""

from __future__ import annotations

import collections
import copy
import itertools
import pickle
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support import corpus_builder
from support.corpus_builder import Make, epoch_of, keyed, ranks
from torch.utils.data import DataLoader, Dataset

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training import (
    BalancedSampler,
    BucketSampler,
    Corpus,
    EpochSampler,
    SeededRow,
    ShuffleSampler,
    SpeakerSampler,
    TrainingLoader,
)
from voxblink2_lib.training.shared_epochs import Epoch

WORLDS = st.integers(1, 5)
SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 1000)
# 24 utterances of 5 speakers in 3 shards: enough for unequal batches on up to five ranks.
SMALL = corpus_builder.corpus(
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4],
    samples=[1_000 * (1 + row * 7 % 24) for row in range(24)],
    shards=[10, 9, 5],
)
MAKES = {
    "shuffle": corpus_builder.shuffle(3),
    "shuffle, drop last": corpus_builder.shuffle(3, drop_last=True),
    "mixed": corpus_builder.shuffle(3, order="mixed-5"),
    "speaker": corpus_builder.by_speaker(2, 2),
    "balanced": corpus_builder.balanced(4),
    "bucket": corpus_builder.bucket(3.0),
}


def _of_all(batches: Sequence[Sequence[Sequence[SeededRow]]]) -> list[int]:
    """Return the utterances that all ranks together use."""
    return sorted(int(row) for rank in batches for batch in rank for row in batch)


def _padded(of: Corpus, batch: Sequence[int]) -> int:
    """Return how many samples a batch takes."""
    return int(of.samples[list(map(int, batch))].max()) * len(batch)


@st.composite
def _orders(draw: st.DrawFn) -> tuple[Corpus, Make, int]:
    """Draw a corpus, what makes a sampler, and a number of ranks for which it has enough."""
    of, world = draw(corpus_builder.corpora()), draw(WORLDS)
    kind, size = draw(st.sampled_from(sorted(MAKES))), draw(st.integers(1, 12))
    if kind in {"shuffle", "mixed"}:
        assume(len(of) >= world)
        name = "full" if kind == "shuffle" else f"mixed-{draw(st.integers(1, 70))}"
        return of, corpus_builder.shuffle(size, order=name), world
    if kind == "shuffle, drop last":
        assume(len(of) // size >= world)
        return of, corpus_builder.shuffle(size, drop_last=True), world
    if kind == "speaker":
        speakers = draw(st.integers(1, len(of.speakers)))
        make = corpus_builder.by_speaker(speakers, size)
        assume(len(make(of, 0, 0, 1)) >= world)
        return of, make, world
    if kind == "balanced":
        assume(size * len(of.speakers) >= world)
        return of, corpus_builder.balanced(draw(st.integers(1, 12)), size), world
    assume(len(of) >= world)
    return of, corpus_builder.bucket(draw(st.floats(10, 60)), draw(st.integers(1, 20))), world


# -- What all have ---------------------------------------------------------------------------------
@given(order=_orders(), seed=SEEDS, epochs=st.integers(1, 4))
def test_steps_that_are_left_are_those_that_come(
    order: tuple[Corpus, Make, int], seed: int, epochs: int
) -> None:
    of, make, world = order
    sampler = ranks(make, of, world, seed=seed)[-1]
    left, shares = [], []
    while sampler.epoch < epochs:
        if sampler.epoch == epochs - 1 or not isinstance(sampler, BucketSampler):
            left.append(sampler.steps_left(epochs))  # its epochs may differ by a few steps
        shares.append(sampler.share_done(epochs))
        sampler.advance()
    assert left == list(range(len(left), 0, -1))
    assert shares[0] == 0
    assert shares == sorted(set(shares))
    assert sampler.steps_left(epochs) == 0
    assert sampler.share_done(epochs) == 1


def test_the_share_that_is_done_does_not_depend_on_ranks() -> None:
    for position in range(0, 8, 2):
        shares = set()
        for sampler in (ranks(MAKES["shuffle"], SMALL, world)[0] for world in (1, 2)):
            sampler.load_state_dict({**sampler.state_dict(), "epoch": 1, "position": position})
            shares.add(sampler.share_done(2))
        assert shares == {(1 + position / 8) / 2}


def test_ranks_are_those_of_torchrun_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = ShuffleSampler(SMALL, batch_size=3, seed=1)
    assert sampler.ranks == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sampler.ranks == (1, 2)
    assert list(sampler) == list(ShuffleSampler(SMALL, batch_size=3, seed=1, rank=1, world_size=2))
    alone = ShuffleSampler(SMALL, batch_size=3, seed=1, rank=0, world_size=1)
    assert alone.ranks == (0, 1)


@given(order=_orders(), seed=SEEDS, epoch=EPOCHS)
def test_all_ranks_do_as_many_steps_as_the_length_says_and_none_is_empty(
    order: tuple[Corpus, Make, int], seed: int, epoch: int
) -> None:
    of, make, world = order
    samplers = ranks(make, of, world, seed=seed)
    for sampler, batches in zip(samplers, epoch_of(samplers, epoch), strict=True):
        assert len(batches) == len(sampler) > 0
        assert all(batches)


@given(order=_orders(), seed=SEEDS, epoch=EPOCHS)
def test_no_place_of_an_epoch_is_used_twice_and_the_order_does_not_depend_on_ranks(
    order: tuple[Corpus, Make, int], seed: int, epoch: int
) -> None:
    of, make, world = order
    together = [
        row for rank in epoch_of(ranks(make, of, world, seed=seed), epoch) for row in _flat(rank)
    ]
    alone = {row.key: int(row) for row in _flat(epoch_of(ranks(make, of, 1, seed=seed), epoch)[0])}
    assert len({row.key for row in together}) == len(together)
    for row in together:
        assert row.key[:2] == (seed, epoch)
        assert alone[row.key] == int(row)


def _flat(batches: Sequence[Sequence[SeededRow]]) -> Iterator[SeededRow]:
    return itertools.chain.from_iterable(batches)


@pytest.mark.parametrize("kind", MAKES)
def test_seeds_and_epochs_differ_and_the_same_ones_do_not(kind: str) -> None:
    orders: dict[tuple[int, int], list[list[int]]] = {}
    for seed, epoch in itertools.product((0, 1, 2**64 - 1), (0, 1, 2)):
        batches, again = (epoch_of(ranks(MAKES[kind], SMALL, 1, seed=seed), epoch) for _ in "ab")
        assert keyed(batches[0]) == keyed(again[0])
        orders[seed, epoch] = [[int(row) for row in batch] for batch in batches[0]]
    for row, other in itertools.combinations(orders.values(), 2):
        assert row != other


# -- Each order ------------------------------------------------------------------------------------
@given(of=corpus_builder.corpora(), size=st.integers(1, 12), world=WORLDS, seed=SEEDS, epoch=EPOCHS)
def test_a_shuffle_uses_every_utterance_once_in_even_batches(
    of: Corpus, size: int, world: int, seed: int, epoch: int
) -> None:
    assume(len(of) >= world)
    epoch_batches = epoch_of(ranks(corpus_builder.shuffle(size), of, world, seed=seed), epoch)
    assert _of_all(epoch_batches) == list(range(len(of)))
    sizes = [len(batch) for rank in epoch_batches for batch in rank]
    # Where batches are smaller than the number of ranks, a few utterances may be too many for one
    # more round and are added to the last.
    assert max(sizes) <= size + (size < world)
    if world == 1:
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-len(of) // size)


@given(of=corpus_builder.corpora(), size=st.integers(1, 12), world=WORLDS, seed=SEEDS)
def test_a_shuffle_that_drops_has_full_batches_only(
    of: Corpus, size: int, world: int, seed: int
) -> None:
    assume(len(of) // size >= world)
    batches = epoch_of(ranks(corpus_builder.shuffle(size, drop_last=True), of, world, seed=seed))
    assert {len(batch) for rank in batches for batch in rank} == {size}
    assert len(batches[0]) == len(of) // (size * world)
    used = _of_all(batches)
    assert len(set(used)) == len(used)


@given(
    of=corpus_builder.corpora(), each=st.integers(1, 5), world=WORLDS, seed=SEEDS, data=st.data()
)
def test_a_batch_of_speakers_has_so_many_of_each_and_uses_their_utterances_evenly(
    of: Corpus, each: int, world: int, seed: int, data: st.DataObject
) -> None:
    speakers = data.draw(st.integers(1, len(of.speakers)))
    make = corpus_builder.by_speaker(speakers, each)
    batches = epoch_of(ranks(make, of, 1, seed=seed))[0]
    for batch in batches:
        times = collections.Counter(of.speaker[list(map(int, batch))].tolist())
        assert list(times.values()) == [each] * speakers
    _assert_even(of, _of_all([batches]))
    # In a turn each speaker comes once at most; those that do not fill a batch miss it.
    in_turn = len(of.speakers) // speakers
    assert len(batches) % in_turn == 0
    for start in range(0, len(batches), in_turn):
        turn = [int(row) for row in _flat(batches[start : start + in_turn])]
        assert set(collections.Counter(of.speaker[turn].tolist()).values()) == {each}
    if len(of) >= speakers * each:
        assert abs(len(batches) * speakers * each - len(of)) <= in_turn * speakers * each
    if len(batches) >= world:
        for rank in epoch_of(ranks(make, of, world, seed=seed)):
            assert {len(batch) for batch in rank} == {speakers * each}


def _assert_even(of: Corpus, used: Sequence[int]) -> None:
    """Check that no utterance of a speaker was used twice more often than another."""
    times = np.bincount(used, minlength=len(of))
    for speaker in set(of.speaker[list(used)].tolist()):
        own = times[of.speaker == speaker]
        assert own.max() - own.min() <= 1


@given(
    of=corpus_builder.corpora(),
    size=st.integers(1, 12),
    per_speaker=st.none() | st.integers(1, 20),
    world=WORLDS,
    seed=SEEDS,
)
def test_every_speaker_comes_equally_often_in_balance_with_its_utterances_used_evenly(
    of: Corpus, size: int, per_speaker: int | None, world: int, seed: int
) -> None:
    each = -(-len(of) // len(of.speakers)) if per_speaker is None else per_speaker
    assume(each * len(of.speakers) >= world)
    batches = epoch_of(ranks(corpus_builder.balanced(size, per_speaker), of, world, seed=seed))
    used = _of_all(batches)
    assert np.bincount(of.speaker[used]).tolist() == [each] * len(of.speakers)
    _assert_even(of, used)
    assert max(len(batch) for rank in batches for batch in rank) <= size + (size < world)


@given(
    of=corpus_builder.corpora(),
    seconds=st.floats(10, 80),
    buckets=st.integers(1, 20),
    world=WORLDS,
    seed=SEEDS,
    epoch=EPOCHS,
)
def test_buckets_use_every_utterance_once_and_batches_fit(
    *, of: Corpus, seconds: float, buckets: int, world: int, seed: int, epoch: int
) -> None:
    assume(len(of) >= world)
    samplers = ranks(corpus_builder.bucket(seconds, buckets), of, world, seed=seed)
    batches = epoch_of(samplers, epoch)
    assert _of_all(batches) == list(range(len(of)))
    most = max(_padded(of, batch) for rank in batches for batch in rank)
    fewest = np.diff(samplers[0].epoch_batches(epoch).bounds).min()
    # Nothing more, but where batches have too few utterances to be shared out one by one.
    assert most <= seconds * 16_000 * (1 if fewest >= world else 2)


@pytest.mark.parametrize(
    ("seconds", "each", "batch_seconds", "most"),
    [
        # A batch of short ones; the long ones are alone, and two of them may come together.
        ([1.0, 20.0], 20, 20.0, 40.0),
        # Each batch has enough for all ranks: none takes more than it should.
        ([0.8, 5.0], 60, 50.0, 50.0),
    ],
)
def test_the_last_round_of_buckets_does_not_pad_short_utterances_to_long_ones(
    seconds: list[float], each: int, batch_seconds: float, most: float
) -> None:
    of = corpus_builder.corpus(
        np.zeros(2 * each), samples=np.repeat(np.array(seconds) * 16_000, each).astype(np.int32)
    )
    for world, epoch in itertools.product((2, 3, 4, 5), range(40)):
        batches = epoch_of(ranks(corpus_builder.bucket(batch_seconds, 2), of, world), epoch)
        assert _of_all(batches) == list(range(2 * each))
        assert max(_padded(of, batch) for rank in batches for batch in rank) <= most * 16_000


def test_buckets_pad_far_less_than_a_random_order() -> None:
    samples = np.random.default_rng(0).integers(16_000, 320_000, 4_000)
    of = corpus_builder.corpus(np.zeros(4_000), samples=samples)
    total = samples.sum()
    taken = {
        name: sum(_padded(of, batch) for batch in epoch_of(ranks(make, of, 1))[0])
        for name, make in {
            "bucket": corpus_builder.bucket(320.0, 20),
            "random": corpus_builder.shuffle(32),
        }.items()
    }
    assert taken["bucket"] < 1.08 * total
    assert taken["random"] > 1.6 * total


def test_buckets_are_shuffled_within_and_their_batches_too() -> None:
    of = corpus_builder.corpus(np.zeros(1_000), samples=range(16_000, 17_000))
    sampler = BucketSampler(of, batch_seconds=11.0, buckets=10)
    first = [frozenset(map(int, batch)) for batch in sampler]
    second = [frozenset(map(int, batch)) for batch in epoch_of([sampler], 1)[0]]
    assert not set(first) & set(second)  # others come together
    shortest = [min(batch) for batch in first]
    assert np.abs(np.corrcoef(np.arange(len(first)), shortest)[0, 1]) < 0.4


def test_speakers_are_mixed_in_balance_and_are_not_always_together() -> None:
    of = corpus_builder.corpus(np.repeat(np.arange(50), 20))
    balanced = BalancedSampler(of, batch_size=10)
    speaker = of.speaker[[int(row) for row in _flat(list(balanced))]]
    assert np.count_nonzero(speaker[1:] == speaker[:-1]) < 60  # 20 by chance
    groups = [
        frozenset(of.speaker[list(map(int, batch))].tolist())
        for batch in SpeakerSampler(of, speakers=10, utterances=2)
    ]
    assert len(set(groups)) == len(groups) == 50


class _Given(EpochSampler):
    """Has batches of given sizes."""

    def __init__(self, sizes: Sequence[int], rank: int, world: int) -> None:
        super().__init__(SMALL, seed=0, rank=rank, world_size=world)
        self._sizes = sizes

    def _batches(self, generator: np.random.Generator) -> Epoch:  # noqa: ARG002  # as others
        return Epoch(np.arange(sum(self._sizes)), np.cumsum([0, *self._sizes]))


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=20), world=WORLDS)
def test_batches_of_whatever_sizes_are_shared_by_the_ranks(sizes: list[int], world: int) -> None:
    assume(sum(sizes) >= world)
    samplers: list[EpochSampler] = [_Given(sizes, rank, world) for rank in range(world)]
    batches = epoch_of(samplers)
    assert {len(rank) for rank in batches} == {len(sampler) for sampler in samplers}
    assert all(map(all, batches))
    assert _of_all(batches) == list(range(sum(sizes)))


@pytest.mark.parametrize(
    ("sizes", "shared"),
    [
        ([3, 3, 1], [[2, 3], [1, 1]]),  # one batch is shared before, so that none grows
        ([2, 2, 2, 2], [[2, 2], [2, 2]]),
        ([2, 2, 2], [[2, 1], [2, 1]]),
        ([1, 1, 1], [[2], [1]]),  # here no other way is left
    ],
)
def test_what_does_not_fill_a_round_is_shared(sizes: list[int], shared: list[list[int]]) -> None:
    batches = epoch_of([_Given(sizes, rank, 2) for rank in range(2)])
    assert [[len(batch) for batch in rank] for rank in batches] == shared


# -- Going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", MAKES)
def test_from_the_state_after_any_batch_the_rest_of_the_epoch_is_the_same(
    kind: str, world: int
) -> None:
    for epoch in (0, 3):
        samplers = ranks(MAKES[kind], SMALL, world, seed=7)
        whole = epoch_of(samplers, epoch)
        following = epoch_of(samplers, epoch + 1)
        for sampler, batches, later in zip(samplers, whole, following, strict=True):
            sampler.set_epoch(epoch)
            for done in range(len(batches) + 1):
                other = MAKES[kind](SMALL, 1, samplers.index(sampler), world)  # of another seed
                other.load_state_dict(sampler.state_dict())
                expected = batches[done:] if done < len(batches) else later
                assert keyed(list(other)) == keyed(expected)
                assert other.epoch == sampler.epoch == epoch + (done == len(batches))
                sampler.advance()


@given(order=_orders(), seed=SEEDS, epoch=EPOCHS)
def test_from_the_state_after_any_batch_of_any_order_the_rest_is_the_same(
    order: tuple[Corpus, Make, int], seed: int, epoch: int
) -> None:
    of, make, world = order
    samplers = ranks(make, of, world, seed=seed)
    others = ranks(make, of, world)
    for sampler, other, batches in zip(samplers, others, epoch_of(samplers, epoch), strict=True):
        for done in range(len(batches)):
            other.load_state_dict(sampler.state_dict())
            assert keyed(list(other)) == keyed(batches[done:])
            sampler.advance()
        assert (sampler.epoch, sampler.state_dict()["position"]) == (epoch + 1, 0)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", MAKES)
def test_an_iterator_has_a_state_of_its_own(kind: str, world: int) -> None:
    samplers = ranks(MAKES[kind], SMALL, world)
    for sampler, batches, later in zip(
        samplers, epoch_of(samplers), epoch_of(samplers, 1), strict=True
    ):
        sampler.set_epoch(0)
        iterator: Any = iter(sampler)
        for done in range(len(batches) + 1):
            fresh = copy.deepcopy(sampler)
            fresh.set_epoch(0)
            other: Any = iter(fresh)
            other.load_state_dict(iterator.state_dict())
            assert keyed(list(other)) == keyed(batches[done:])
            another: Any = iter(MAKES[kind](SMALL, 1, samplers.index(sampler), world))
            another.load_state_dict(iterator.state_dict())  # of another seed
            assert keyed(list(another)) == keyed(batches[done:])
            assert keyed(list(fresh)) == keyed(later)  # it was read to its end
            next(iterator, None)


@given(
    order=_orders().filter(
        lambda drawn: isinstance(drawn[1](drawn[0], 0, 0, 1), ShuffleSampler | BucketSampler)
    ),
    worlds=st.tuples(WORLDS, WORLDS),
    data=st.data(),
)
def test_another_number_of_ranks_in_the_middle_of_an_epoch_uses_every_utterance_once(
    order: tuple[Corpus, Make, int], worlds: tuple[int, int], data: st.DataObject
) -> None:
    of, make, _ = order
    first = ranks(make, of, 1)[0]
    total = len(first.epoch_batches(0).rows)
    size = total // (len(first.epoch_batches(0).bounds) - 1)
    drops = first._drop_last
    assume((total // size if drops else total) >= max(worlds))
    before = ranks(make, of, worlds[0])
    steps = data.draw(st.integers(0, len(before[0]) - 1))
    used = [rank[:steps] for rank in epoch_of(before)]
    for sampler in before:
        for _ in range(steps):
            sampler.advance()
    states = [sampler.state_dict() for sampler in before]
    assert all(state == states[0] for state in states)
    after = ranks(make, of, worlds[1])
    for sampler in after:
        sampler.load_state_dict(states[0])
    left = total - len(_of_all(used))
    if after[0].epoch == 0:
        used += [list(sampler) for sampler in after]
    else:  # not one for each of more ranks: they go on with the next epoch
        assert left // size < worlds[1] if drops else left < worlds[1]
    rows = _of_all(used)
    assert len(set(rows)) == len(rows)
    if not drops:
        assert len(rows) == (len(of) if after[0].epoch == 0 else len(of) - left)


def test_a_state_is_the_order_and_three_numbers_that_count_the_batches_of_all_ranks() -> None:
    sampler = ShuffleSampler(SMALL, batch_size=3, seed=5, rank=1, world_size=3)
    for position in (0, 3, 6):
        assert sampler.state_dict() == {
            "seed": 5,
            "epoch": 0,
            "position": position,
            "order": "full",
        }
        sampler.advance()
    assert sampler.state_dict() == {"seed": 5, "epoch": 1, "position": 0, "order": "full"}
    sampler.set_epoch(8)
    assert sampler.epoch == 8
    assert sampler.state_dict() == {"seed": 5, "epoch": 8, "position": 0, "order": "full"}


# -- Draws -----------------------------------------------------------------------------------------
@given(row=st.integers(0, 2**40), key=st.tuples(SEEDS, st.integers(0, 2**32), EPOCHS))
def test_a_draw_is_a_number_that_keeps_its_key(row: int, key: tuple[int, int, int]) -> None:
    seeded = SeededRow(row, key)
    for other in (pickle.loads(pickle.dumps(seeded)), copy.copy(seeded), copy.deepcopy(seeded)):
        assert type(other) is SeededRow
        assert (other, other.key) == (row, key)
        assert other.generator().random() == seeded.generator().random()
    assert range(2**41)[seeded] == row
    assert np.arange(9)[SeededRow(4, key)] == 4
    assert torch.arange(9)[SeededRow(4, key)] == 4


def test_draws_of_any_other_seed_epoch_or_place_have_other_numbers() -> None:
    keys = [
        *itertools.product((0, 1, 2**63, 2**63 + 1, 2**64 - 1), (0, 1, 2), (0, 1, 2, 10**9)),
    ]
    numbers = {key: SeededRow(3, key).generator().random(4).tolist() for key in keys}
    assert len({tuple(values) for values in numbers.values()}) == len(keys)
    # What is drawn does not depend on which utterance it is for.
    assert SeededRow(4, keys[0]).generator().random(4).tolist() == numbers[keys[0]]


def test_numbers_of_neighbouring_places_do_not_meet() -> None:
    long = SeededRow(0, (1, 2, 3)).generator().random(100_000)
    other = SeededRow(0, (1, 2, 4)).generator().random(100)
    assert not np.isin(other, long).any()


# -- Epochs one after the other --------------------------------------------------------------------


class _Numbers(Dataset[int]):
    """Returns the number of a row; fails in every worker while ``is_failing`` is set."""

    def __init__(self, *, is_failing: bool = False) -> None:
        self.is_failing = torch.tensor(is_failing).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(SMALL)

    def __getitem__(self, row: int) -> int:
        if self.is_failing:
            raise OSError("the disk is away")
        return int(row)


def _list(batch: Sequence[int]) -> list[int]:
    return list(batch)


def _rows(kind: str, epoch: int) -> list[list[int]]:
    return [
        [int(row) for row in batch] for batch in epoch_of([MAKES[kind](SMALL, 0, 0, 1)], epoch)[0]
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", MAKES)
def test_a_plain_loader_has_the_next_epoch_in_its_next_pass(kind: str, workers: int) -> None:
    loader: DataLoader[int] = DataLoader(
        _Numbers(),
        batch_sampler=MAKES[kind](SMALL, 0, 0, 1),
        num_workers=workers,
        collate_fn=_list,
    )
    for epoch in range(3):
        assert len(loader) == len(_rows(kind, epoch))
        assert list(loader) == _rows(kind, epoch)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", MAKES)
def test_a_training_loader_has_the_next_epoch_in_its_next_pass(kind: str, workers: int) -> None:
    loader = _loader(MAKES[kind](SMALL, 0, 0, 1), workers)
    for epoch in range(3):
        assert loader.epoch == epoch
        assert list(loader) == _rows(kind, epoch)


def _loader(
    sampler: EpochSampler, workers: int, *, is_failing: bool = False, **options: Any
) -> TrainingLoader:
    numbers = _Numbers(is_failing=is_failing)
    return TrainingLoader(numbers, sampler, num_workers=workers, collate_fn=_list, **options)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_pass_that_was_left_goes_on_where_it_was(workers: int, persistent: bool) -> None:
    loader = _loader(MAKES["shuffle"](SMALL, 0, 0, 1), workers, persistent_workers=persistent)
    expected = _rows("shuffle", 0)
    for used in (1, 2):
        assert list(itertools.islice(loader, used)) == expected[:used]
        expected = expected[used:]
    assert loader.state_dict() == {"seed": 0, "epoch": 0, "position": 3, "order": "full"}
    assert list(loader) == expected
    assert list(loader) == _rows("shuffle", 1)


def test_an_epoch_is_not_skipped_where_its_first_batch_failed() -> None:
    # Two workers ask for four batches ahead: the sampler is read to its end by then.
    loader = _loader(ShuffleSampler(SMALL, batch_size=12), 2, is_failing=True)
    with pytest.raises(OSError, match="the disk is away") as error:
        next(iter(loader))
    # The error and its frames keep the workers, which take 10 s to end in a garbage collection.
    traceback.clear_frames(error.tb)
    loader.dataset.is_failing.zero_()  # type: ignore[attr-defined]
    assert loader.epoch == 0
    assert sorted(itertools.chain(*loader)) == list(range(24))
    assert loader.epoch == 1


def test_an_epoch_that_is_set_again_is_read_again() -> None:
    sampler = MAKES["shuffle"](SMALL, 0, 0, 1)
    once = keyed(list(sampler))
    sampler.set_epoch(0)
    assert keyed(list(sampler)) == once
    assert keyed(list(sampler)) != once


# -- What is not allowed ---------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (1, 1)])
@pytest.mark.parametrize("kind", MAKES)
def test_a_rank_must_be_one_of_the_ranks(kind: str, rank: int, world: int) -> None:
    with pytest.raises(TrainingError, match=rf"rank is {rank}; expected is 0 to {world - 1}"):
        MAKES[kind](SMALL, 0, rank, world)


@pytest.mark.parametrize("world", [0, -1])
def test_there_is_a_rank_at_least(world: int) -> None:
    words = rf"world_size is {world}; expected is 1 or more"
    with pytest.raises(TrainingError, match=words):
        ShuffleSampler(SMALL, batch_size=3, world_size=world)


@pytest.mark.parametrize("kind", MAKES)
def test_seeds_are_64_bits(kind: str) -> None:
    with pytest.raises(TrainingError, match="seed is -1; expected is 0 or more"):
        MAKES[kind](SMALL, -1, 0, 1)
    with pytest.raises(TrainingError, match=rf"seed is {2**64}; expected is less than 2\*\*64"):
        MAKES[kind](SMALL, 2**64, 0, 1)
    assert list(MAKES[kind](SMALL, 2**64 - 1, 0, 1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ShuffleSampler(SMALL, batch_size=0), "batch_size is 0; expected is 1 or more"),
        (
            lambda: ShuffleSampler(SMALL, batch_size=1, order="mixed"),
            "order is 'mixed'; expected is 'full' or 'mixed-N', with N pieces",
        ),
        (lambda: BalancedSampler(SMALL, batch_size=-3), "batch_size is -3; expected is 1 or more"),
        (lambda: BalancedSampler(SMALL, batch_size=1, per_speaker=0), "per_speaker is 0; expected"),
        (lambda: SpeakerSampler(SMALL, speakers=0, utterances=1), "speakers is 0; expected is 1"),
        (lambda: SpeakerSampler(SMALL, speakers=1, utterances=0), "utterances is 0; expected is 1"),
        (
            lambda: SpeakerSampler(SMALL, speakers=6, utterances=1),
            "Batches of 6 different speakers were requested; the corpus has 5",
        ),
        (lambda: BucketSampler(SMALL, batch_seconds=9, buckets=0), "buckets is 0; expected is 1"),
        (
            # The longest has 24,000 samples, which is row 17 of speaker 2.
            lambda: BucketSampler(SMALL, batch_seconds=1.25),
            r"batch_seconds is 1\.25; .* id000002/video000017/00017, takes 1\.5 s",
        ),
    ],
)
def test_bad_arguments_are_told(make: Any, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (corpus_builder.shuffle(24), "24 utterances in 1 batches"),
        (corpus_builder.shuffle(8, drop_last=True), "24 utterances in 3 batches"),
        (corpus_builder.by_speaker(5, 4), "20 utterances in 1 batches"),
        (corpus_builder.balanced(100, 4), "20 utterances in 1 batches"),
        (corpus_builder.bucket(1000, 1), "24 utterances in 1 batches"),
    ],
)
def test_too_few_utterances_for_the_ranks_are_told(make: Make, size: str) -> None:
    with pytest.raises(
        TrainingError, match=rf"{size} has nothing for each of 25 ranks\. Use smaller batches"
    ):
        list(make(SMALL, 0, 0, 25))


@pytest.mark.parametrize(
    "state",
    [
        "seed",
        {},
        {"seed": 0, "epoch": 0},
        {"seed": 0, "epoch": 0, "position": 0, "more": 0},
        {"seed": "0", "epoch": 0, "position": 0},
        {"seed": 0, "epoch": 0.0, "position": 0},
        {"seed": 0, "epoch": 0, "position": True},
        {"seed": 0, "epoch": None, "position": 0},
        {"seed": 0, "epoch": 0, "position": 0, "order": 1},
        {"seed": 0, "epoch": 0, "order": "full"},
    ],
)
def test_what_is_no_state_is_told(state: Any) -> None:
    sampler = MAKES["shuffle"](SMALL, 3, 0, 1)
    words = re.escape(f"has whole numbers seed, epoch, position and the text order; got {state!r}")
    with pytest.raises(TrainingError, match=words):
        sampler.load_state_dict(state)
    assert sampler.state_dict() == {"seed": 3, "epoch": 0, "position": 0, "order": "full"}


@pytest.mark.parametrize("name", ["seed", "epoch", "position"])
def test_a_state_of_negative_numbers_is_told(name: str) -> None:
    sampler = MAKES["shuffle"](SMALL, 3, 0, 1)
    state = {"seed": 0, "epoch": 0, "position": 0, name: -1}
    with pytest.raises(TrainingError, match=f"{name} is -1; expected is 0 or more"):
        sampler.load_state_dict(state)
    assert sampler.state_dict() == {"seed": 3, "epoch": 0, "position": 0, "order": "full"}


def test_a_state_with_more_than_64_bits_of_seed_is_told() -> None:
    sampler = MAKES["shuffle"](SMALL, 3, 0, 1)
    with pytest.raises(TrainingError, match=rf"seed is {2**64}; expected is less than"):
        sampler.load_state_dict({"seed": 2**64, "epoch": 0, "position": 0})
    assert sampler.state_dict() == {"seed": 3, "epoch": 0, "position": 0, "order": "full"}


def test_a_state_for_too_many_ranks_is_told_and_changes_nothing() -> None:
    sampler = MAKES["shuffle"](SMALL, 3, 0, 25)
    with pytest.raises(TrainingError, match="has nothing for each of 25 ranks"):
        sampler.load_state_dict({"seed": 0, "epoch": 4, "position": 0})
    assert sampler.state_dict() == {"seed": 3, "epoch": 0, "position": 0, "order": "full"}


@pytest.mark.parametrize("kind", MAKES)
def test_a_state_of_another_order_is_told_and_changes_nothing(kind: str) -> None:
    sampler = MAKES[kind](SMALL, 3, 0, 1)
    before = keyed(list(copy.deepcopy(sampler)))
    words = (
        f"of the order 'mixed-7'; this sampler has '{sampler.order}'. Use the sampler that saved "
        "it; a ShuffleSampler as ShuffleSampler(..., order='mixed-7')."
    )
    with pytest.raises(TrainingError, match=re.escape(words)):
        sampler.load_state_dict({"seed": 0, "epoch": 4, "position": 1, "order": "mixed-7"})
    assert keyed(list(sampler)) == before


@pytest.mark.parametrize("kind", sorted(MAKES.keys() - {"bucket"}))
def test_a_state_of_an_earlier_version_in_the_midst_of_an_epoch_is_told(kind: str) -> None:
    sampler = MAKES[kind](SMALL, 3, 0, 1)
    words = (
        f"at batch 1 of epoch 4, is of an earlier version; the order '{sampler.order}' is another "
        "since. Begin the epoch again: set position to 0 in the state."
    )
    early = {"seed": 0, "epoch": 4, "position": 1}
    with pytest.raises(TrainingError, match=re.escape(words)):
        sampler.load_state_dict(early)
    sampler.load_state_dict({**early, "position": 0})  # as the message says
    assert keyed(list(sampler)) == keyed(epoch_of([MAKES[kind](SMALL, 0, 0, 1)], 4)[0])


def test_a_state_of_an_earlier_version_is_taken_where_the_order_is_the_same() -> None:
    sampler = MAKES["bucket"](SMALL, 3, 0, 1)
    sampler.load_state_dict({"seed": 0, "epoch": 4, "position": 1})
    assert keyed(list(sampler)) == keyed(epoch_of([MAKES["bucket"](SMALL, 0, 0, 1)], 4)[0][1:])


@pytest.mark.parametrize("position", [8, 9, 10**9])
def test_a_state_beyond_the_end_is_told_and_changes_nothing(position: int) -> None:
    sampler = MAKES["shuffle"](SMALL, 3, 0, 1)
    before = keyed(list(copy.deepcopy(sampler)))
    with pytest.raises(
        TrainingError, match=rf"at batch {position} of epoch 4, which has 8\. Was it saved with"
    ):
        sampler.load_state_dict({"seed": 0, "epoch": 4, "position": position, "order": "full"})
    assert keyed(list(sampler)) == before


@pytest.mark.parametrize(
    "option", [{"batch_size": 2}, {"shuffle": True}, {"drop_last": True, "shuffle": False}]
)
def test_a_loader_leaves_the_order_to_the_sampler(option: dict[str, Any]) -> None:
    words = ", ".join(sorted(option))
    with pytest.raises(TrainingError, match=f"{words}: set by the sampler"):
        _loader(MAKES["shuffle"](SMALL, 0, 0, 1), 0, **option)
