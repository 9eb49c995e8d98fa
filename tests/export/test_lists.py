"""Lists over all shards are sorted without all of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.export.lists import SortedPart, merged, spk2utt

lines = st.lists(st.text("ab/-", min_size=1, max_size=4), min_size=1, max_size=8)


@given(st.lists(lines, max_size=6))
def test_merged_parts_are_sorted(parts: list[list[str]]) -> None:
    parts = [sorted(part) for part in parts]
    given_parts = [SortedPart(part[0], partial(list, part)) for part in parts]
    assert list(merged(given_parts)) == sorted(line for part in parts for line in part)


def test_a_part_is_read_when_it_is_due() -> None:
    events = []

    def read(number: int) -> Sequence[str]:
        events.append(f"read {number}")
        return [f"{number}{place}" for place in "ab"]

    for line in merged([SortedPart(f"{number}a", partial(read, number)) for number in (2, 1, 3)]):
        events.append(line)
    assert events == ["read 1", "1a", "1b", "read 2", "2a", "2b", "read 3", "3a", "3b"]


def test_speakers_of_five_and_six_digits_stay_apart() -> None:
    """As ``sort`` has them: a slash is before all digits."""
    names = sorted(["id00001/v/1", "id000010/v/1", "id00001/w/1"])
    pairs = [f"{name} {name.split('/')[0]}" for name in names]
    assert list(spk2utt(sorted(pairs))) == [
        "id00001 id00001/v/1 id00001/w/1",
        "id000010 id000010/v/1",
    ]
