"""In what order utterances are used: functions of (seed, epoch, position), and of nothing else.

An epoch is a sequence of batches, the same for all ranks. In each round rank r of W takes the r-th
of the next W batches. The last rounds may have fewer; then their utterances are shared out, so
that every rank does as many steps and nothing is left out or used twice:

    batches   0 1 2 3 | 4 5 6 7 | 8 9 .        W = 4: rounds of four, the last of two batches
    ranks     0 1 2 3 | 0 1 2 3 | 0123         whose utterances are split in four

``position`` counts batches of the epoch that all ranks together have done. It does not depend on
the number of workers, and a run may go on with another number of ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from torch.utils import data

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.corpus import Corpus, Rows

_STATE = ("seed", "epoch", "position")


class SeededRow(int):
    """The number of a row, and what all random choices about its use are drawn from.

    Attributes:
        key: seed, epoch, and place in the epoch.
    """

    key: tuple[int, int, int]

    def __new__(cls, row: int, key: tuple[int, int, int]) -> SeededRow:
        """Return the number with its key."""
        draw = super().__new__(cls, row)
        draw.key = key
        return draw

    def __reduce__(self) -> tuple[type[SeededRow], tuple[int, tuple[int, int, int]]]:
        return SeededRow, (int(self), self.key)

    def generator(self) -> np.random.Generator:
        """Return random numbers that are the same whenever and wherever this draw is used."""
        seed, epoch, place = self.key
        # Counters of different places are so far apart that their numbers never meet.
        key = np.array([seed, epoch], np.uint64)  # a list with a large number would be rounded
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, place]))


class Epoch(NamedTuple):
    """The batches of an epoch.

    Attributes:
        rows: of all batches, one after the other, shape (n,).
        bounds: batch i has rows[bounds[i]:bounds[i + 1]], shape (batches + 1,).
    """

    rows: Rows
    bounds: Rows


class EpochSampler(data.Sampler[list[SeededRow]]):
    """What all samplers have: rounds, the state, and an iterator that has a state, too.

    To be given to a ``DataLoader`` as ``batch_sampler``. Where it stands is moved on by
    :meth:`advance`, after each batch that was used, not by iterating: workers are ahead.

    Args:
        corpus: the utterances.
        seed: of all that is random.
        rank: of this process.
        world_size: number of processes that train together.
    """

    _drop_last = False

    def __init__(self, corpus: Corpus, *, seed: int, rank: int, world_size: int) -> None:
        at_least("world_size", world_size, 1)
        if not 0 <= rank < world_size:
            raise TrainingError(f"rank is {rank}; expected is 0 to {world_size - 1} (world_size).")
        _check_seed(seed)
        self.corpus = corpus
        self._rank, self._world = rank, world_size
        self._seed, self._epoch, self._position = seed, 0, 0
        self._made: tuple[tuple[int, int], Epoch] | None = None
        self._exhausted: tuple[int, int] | None = None

    @abstractmethod
    def _batches(self, generator: np.random.Generator) -> Epoch:
        """Return the batches of an epoch."""

    def epoch_batches(self, epoch: int, seed: int | None = None) -> Epoch:
        """Return the batches of an epoch, of all ranks together; by default with its own seed.

        Raises:
            TrainingError: there are too few utterances for the number of ranks.
        """
        key = (self._seed if seed is None else seed, epoch)
        if self._made is None or self._made[0] != key:
            found = self._batches(np.random.default_rng(key))
            if not self._round(0, found):
                raise TrainingError(
                    f"An epoch of {len(found.rows)} utterances in {len(found.bounds) - 1} batches "
                    f"has nothing for each of {self._world} ranks. Use smaller batches, or fewer "
                    "ranks."
                )
            self._made = key, found
        return self._made[1]

    def __len__(self) -> int:
        """Return the number of batches of this rank in the present epoch."""
        found = self.epoch_batches(self._epoch)
        total = len(found.bounds) - 1
        rounds = max(0, total // self._world - 2)  # the rounds before the last ones are full
        position = rounds * self._world
        while taken := self._round(position, found):
            position += taken
            rounds += 1
        return rounds

    def __iter__(self) -> Iterator[list[SeededRow]]:
        if self._exhausted == (self._epoch, self._position):
            # Read to its end by a loader that does not call advance(): the next epoch begins.
            self.set_epoch(self._epoch + 1)
        return _Batches(self, self._epoch, self._position)

    def advance(self) -> None:
        """Count one more batch of each rank as done. After the last one the next epoch begins."""
        found = self.epoch_batches(self._epoch)
        self._position += self._round(self._position, found)
        if not self._round(self._position, found):
            self.set_epoch(self._epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch."""
        self._epoch, self._position, self._exhausted = epoch, 0, None

    @property
    def epoch(self) -> int:
        """The epoch in which the next batch is."""
        return self._epoch

    def state_dict(self) -> dict[str, int]:
        """Return three numbers: where it stands after the batches that were used."""
        return dict(zip(_STATE, (self._seed, self._epoch, self._position), strict=True))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a state was saved.

        Where more ranks than before would not have an utterance each in what is left of the epoch,
        they go on with the next one.

        Raises:
            TrainingError: it is no such state, or of other utterances or batches.
        """
        if set(state) != set(_STATE) or not all(type(state[name]) is int for name in _STATE):
            raise TrainingError(
                f"The state of a sampler has whole numbers {', '.join(_STATE)}; got {state!r}."
            )
        for name in _STATE:
            at_least(name, state[name], 0)
        _check_seed(state["seed"])
        found = self.epoch_batches(state["epoch"], state["seed"])
        if state["position"] >= len(found.bounds) - 1:
            raise TrainingError(
                f"The state stands at batch {state['position']} of epoch {state['epoch']}, which "
                f"has {len(found.bounds) - 1}. Was it saved with other utterances or batches?"
            )
        self._seed = state["seed"]
        self.set_epoch(state["epoch"])
        self._position = state["position"]
        if not self._round(self._position, found):
            self.set_epoch(self._epoch + 1)

    def _round(self, position: int, epoch: Epoch) -> int:
        """Return how many batches the round at a position takes; 0 at the end."""
        bounds = epoch.bounds
        left = len(bounds) - 1 - position
        if left <= 0 or self._drop_last:
            return self._world if left >= self._world else 0
        if left <= self._world:
            return left if bounds[-1] - bounds[position] >= self._world else 0
        # So many that this round, and what remains, have an utterance for each rank.
        taken = self._world
        while taken and bounds[-1] - bounds[position + taken] < self._world:
            taken -= 1
        return taken if bounds[position + taken] - bounds[position] >= self._world else left

    def _of_rank(self, position: int, taken: int, epoch: Epoch) -> Rows:
        """Return the places of this rank's batch in a round."""
        if taken == self._world:
            batch = position + self._rank
            return np.arange(epoch.bounds[batch], epoch.bounds[batch + 1])
        places = np.arange(epoch.bounds[position], epoch.bounds[position + taken])
        return self._shares(places, epoch)[self._rank]

    def _shares(self, places: Rows, epoch: Epoch) -> list[Rows]:  # noqa: ARG002  # others do
        """Return what each rank gets of the last round, at least one utterance each."""
        return np.array_split(places, self._world)


class _Batches(Iterator[list[SeededRow]]):
    """Batches from a position to the end of the epoch, with the state of their own iteration.

    ``StatefulDataLoader`` saves and restores that state by itself.
    """

    def __init__(self, sampler: EpochSampler, epoch: int, position: int) -> None:
        self._sampler = sampler
        self._seed = sampler.state_dict()["seed"]
        self._from = (epoch, position)
        self._epoch, self._position = epoch, position

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> list[SeededRow]:
        sampler = self._sampler
        found = sampler.epoch_batches(self._epoch, self._seed)
        taken = sampler._round(self._position, found)
        if not taken:
            sampler._exhausted = self._from
            raise StopIteration
        places = sampler._of_rank(self._position, taken, found)
        self._position += taken
        return [
            SeededRow(row, (self._seed, self._epoch, place))
            for place, row in zip(places.tolist(), found.rows[places].tolist(), strict=True)
        ]

    def state_dict(self) -> dict[str, int]:
        """Return where the iteration stands."""
        return dict(zip(_STATE, (self._seed, self._epoch, self._position), strict=True))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there."""
        self._seed, self._epoch, self._position = (state[name] for name in _STATE)
        sampler = self._sampler
        if not sampler._round(self._position, sampler.epoch_batches(self._epoch, self._seed)):
            sampler._exhausted = self._from


def _check_seed(seed: int) -> None:
    at_least("seed", seed, 0)
    if seed >= 1 << 64:
        raise TrainingError(f"seed is {seed}; expected is less than 2**64.")


def at_least(name: str, value: int, least: int) -> int:
    """Return a number, or say what it must be."""
    if value < least:
        raise TrainingError(f"{name} is {value}; expected is {least} or more.")
    return value
