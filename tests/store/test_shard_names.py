"""Names of shards sort as their numbers, as texts and by the key of the stores."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.store.shard_names import is_shard_name, shard_name, shard_order

numbers = st.integers(0, 2**62) | st.integers(99_000, 101_000) | st.integers(0, 99)


@given(numbers, numbers)
def test_names_sort_as_numbers(first: int, second: int) -> None:
    names = shard_name("audio", first), shard_name("audio", second)
    assert (names[0] < names[1]) == (first < second)
    assert (shard_order(names[0]) < shard_order(names[1])) == (first < second)
    assert (names[0] == names[1]) == (first == second)


@given(numbers)
def test_names_are_read_back(number: int) -> None:
    for config in ("audio", "audio-visual"):
        assert shard_order(shard_name(config, number)) == (config, number)
        assert is_shard_name(shard_name(config, number))


def test_names_of_small_numbers_stay() -> None:
    assert [shard_name("audio", number) for number in (0, 31, 99_999)] == [
        *("audio-00000.arrow", "audio-00031.arrow", "audio-99999.arrow")
    ]


def test_long_numbers_of_earlier_versions_are_in_order() -> None:
    names = ["audio-99999.arrow", "audio-100000.arrow", shard_name("audio", 100_001)]
    assert sorted(random.Random(1).sample(names, len(names)), key=shard_order) == names


def test_other_files_are_sorted_by_name() -> None:
    names = ["00.arrow", "a-1.arrow", "audio-00001.arrow", "audio-00002.arrow", "zz.arrow"]
    assert sorted(random.Random(1).sample(names, len(names)), key=shard_order) == names
    assert [is_shard_name(name) for name in names] == [False, False, True, True, False]
