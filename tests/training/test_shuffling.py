"""Random orders from sorted keys: permutations, each equally likely, within groups."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.training.shuffling import ranges, shuffle, shuffle_ranges, shuffle_within


@given(groups=st.lists(st.integers(0, 2**20), max_size=60), seed=st.integers(0, 2**64 - 1))
def test_indices_come_once_and_by_their_groups(groups: list[int], seed: int) -> None:
    values = np.array(groups, np.int32)
    order = shuffle_within(values, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(groups)))
    assert values[order].tolist() == sorted(groups)


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_keys_do_not_depend_on_how_many_are_made_at_a_time(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = np.arange(50) % 7
    expected = shuffle_within(groups, np.random.default_rng(5)).tolist()
    monkeypatch.setattr("voxblink2_lib.training.shuffling._BLOCK", block)
    assert shuffle_within(groups, np.random.default_rng(5)).tolist() == expected


@given(sizes=st.lists(st.integers(0, 9), max_size=30), seed=st.integers(0, 2**64 - 1))
def test_ranges_are_shuffled_as_groups_are(sizes: list[int], seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if sizes and not sizes[-1]:  # such a group is not there to be seen
        groups, sizes = np.append(groups, len(sizes) - 1), [*sizes[:-1], 1]
    order = shuffle_ranges(np.array(sizes, np.int64), np.random.default_rng(seed))
    assert order.tolist() == shuffle_within(groups, np.random.default_rng(seed)).tolist()


@pytest.mark.parametrize("cores", [1, 2])
def test_many_are_in_the_same_order_on_any_number_of_cores(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = (1 << 20) + 1
    monkeypatch.setattr("voxblink2_lib.training.shuffling.usable_cores", lambda: cores)
    order = shuffle(count, np.random.default_rng(3))
    keys = np.random.default_rng(3).bit_generator.random_raw(count) >> np.uint64(21)
    assert (order == np.argsort(keys, kind="stable")).all()


def test_every_permutation_of_a_group_is_equally_likely() -> None:
    # 24 permutations of each of two groups, in 24,000 draws of fixed seeds: 1,000 of each are
    # expected, with a standard deviation of 31.
    generator = np.random.default_rng(1)
    groups = np.tile(np.repeat([0, 1], 4), 12_000) + 2 * np.repeat(np.arange(12_000), 8)
    orders = shuffle_within(groups, generator).reshape(-1, 4) % 4
    counts = collections.Counter(map(tuple, orders.tolist()))
    assert set(counts) == set(itertools.permutations(range(4)))
    assert 870 < min(counts.values()) <= max(counts.values()) < 1_130


def test_a_shuffle_has_no_trace_of_the_order_before() -> None:
    order = shuffle(100_000, np.random.default_rng(0)).astype(np.int64)
    assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 12  # 2 by chance
    assert np.abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.015  # 5 deviations


def test_a_million_groups_leave_enough_random_bits() -> None:
    pairs = np.repeat(np.arange(1 << 20), 2)
    order = shuffle_within(pairs, np.random.default_rng(0))
    swapped = np.count_nonzero(order[::2] > order[1::2])
    assert abs(swapped - (1 << 19)) < 5 * 512  # five standard deviations


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=20))
def test_ranges_are_those_of_python(pairs: list[tuple[int, int]]) -> None:
    starts, sizes = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = [value for start, size in pairs for value in range(start, start + size)]
    assert ranges(starts, sizes).tolist() == expected
