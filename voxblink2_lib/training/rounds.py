"""Rounds: how several ranks go through the batches of an epoch together.

In each round rank r of W takes the r-th of the next W batches. The last rounds may have fewer
batches; then their utterances are split, so that every rank does as many steps and no utterance is
left out or used twice:

    batches   0 1 2 3 | 4 5 6 7 | 8 9          W = 4: rounds of four, the last of two batches
    ranks     0 1 2 3 | 0 1 2 3 | 0123         whose utterances are split in four

A position counts batches of the epoch that all ranks together have done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voxblink2_lib.training.corpus import Rows


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of an epoch. Made by :func:`plan_rounds`.

    A round depends on the position where it starts and on nothing before it, so that a run may
    continue with another number of ranks.

    Attributes:
        bounds: of the batches, shape (batches + 1,).
        world_size: number of ranks.
        drop_last: whether only rounds of ``world_size`` batches exist.
        last_end: the last position that leaves an utterance for each rank; 0 if none does.
    """

    bounds: Rows
    world_size: int
    drop_last: bool
    last_end: int

    def end(self, position: int) -> int:
        """Return where the round that starts at a position ends; there if the epoch is over."""
        batches = len(self.bounds) - 1
        full = position + self.world_size
        if position >= batches or (self.drop_last and full > batches):
            return position
        if self.drop_last:
            return full
        if full >= batches:
            return batches if self._serves_all(position, batches) else position
        # So many that this round, and what remains, have an utterance for each rank.
        end = min(full, self.last_end)
        return end if self._serves_all(position, end) else batches

    def count(self, position: int = 0) -> int:
        """Return the number of rounds from a position to the end of the epoch."""
        batches = len(self.bounds) - 1 - position
        rounds = max(0, batches // self.world_size - 2)  # all but the last are full
        position += rounds * self.world_size
        while (end := self.end(position)) > position:
            position = end
            rounds += 1
        return rounds

    def _serves_all(self, start: int, end: int) -> bool:
        """Return whether the batches between two positions have an utterance for each rank."""
        return bool(self.bounds[end] - self.bounds[start] >= self.world_size)


def plan_rounds(bounds: Rows, world_size: int, *, drop_last: bool = False) -> Rounds:
    """Plan the rounds of an epoch.

    Args:
        bounds: batch i has the utterances from bounds[i] to bounds[i + 1], shape (batches + 1,).
        world_size: number of ranks.
        drop_last: leave out batches that do not fill a round.

    Example:
        Batches of 3, 3 and 1 utterances for two ranks. The last one is too small for both of them,
        so the second is split with it:

        >>> rounds = plan_rounds(np.array([0, 3, 6, 7]), 2)
        >>> rounds.end(0), rounds.end(1), rounds.count()
        (1, 3, 2)
    """
    last_end = int(np.searchsorted(bounds, bounds[-1] - world_size, side="right")) - 1
    return Rounds(bounds, world_size, drop_last, max(0, last_end))
