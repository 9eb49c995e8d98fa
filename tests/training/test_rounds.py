"""Rounds of ranks over the batches of an epoch, against a plan made by trying all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.training.rounds import Rounds, plan_rounds

SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=20)
WORLDS = st.integers(1, 7)


def plan(sizes: list[int], world: int, *, drop_last: bool = False) -> Rounds:
    return plan_rounds(np.cumsum([0, *sizes]), world, drop_last=drop_last)


def ends(rounds: Rounds, position: int = 0) -> list[int]:
    """Return where each round from a position on ends."""
    visited = []
    while (end := rounds.end(position)) > position:
        visited.append(end)
        position = end
    return visited


@given(sizes=SIZES, world=WORLDS, drop_last=st.booleans(), data=st.data())
def test_rounds_end_at_the_last_batch(
    sizes: list[int], world: int, drop_last: bool, data: st.DataObject
) -> None:
    rounds = plan(sizes, world, drop_last=drop_last)
    position = data.draw(st.integers(0, len(sizes)))
    visited = ends(rounds, position)
    if drop_last:
        assert visited == list(range(position + world, len(sizes) + 1, world))
    elif sum(sizes[position:]) >= world:
        assert visited[-1] == len(sizes)
    else:
        assert visited == []
    assert rounds.count() == len(ends(rounds))
    assert all(type(end) is int for end in visited)


@given(sizes=SIZES, world=WORLDS, data=st.data())
def test_a_round_is_the_largest_that_leaves_an_utterance_for_each_rank(
    sizes: list[int], world: int, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(sizes)))
    left = sizes[position:]
    if len(left) <= world:
        expected = len(left) if sum(left) >= world else 0
    else:
        possible = [
            size
            for size in range(1, world + 1)
            if sum(left[:size]) >= world and sum(left[size:]) >= world
        ]
        # The size is chosen by what is left after the round; if then the round itself has too
        # few, no other way is left than to end the epoch with it.
        largest = max((n for n in range(world + 1) if sum(left[n:]) >= world), default=0)
        expected = largest if largest in possible else len(left)
    assert plan(sizes, world).end(position) == position + expected


@pytest.mark.parametrize("drop_last", [False, True])
def test_there_is_no_round_beyond_the_last_batch(drop_last: bool) -> None:
    rounds = plan([2, 2, 2], 2, drop_last=drop_last)
    assert [rounds.end(position) for position in (3, 4, 9)] == [3, 4, 9]


def test_too_few_utterances_have_no_round() -> None:
    assert plan([1, 1], 3).count() == 0
    assert plan([3], 2, drop_last=True).count() == 0
