"""The order in which utterances are used: a function of (seed, epoch, position) alone.

An epoch is a sequence of batches, the same for all ranks, which take them in rounds; see
:mod:`voxblink2_lib.training.rounds`. ``position`` counts batches of the epoch that all ranks
together have done. It does not depend on the number of workers, and a run may continue with another
number of ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch.utils import data

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.corpus import Corpus, Rows
from voxblink2_lib.training.epoch_state import EpochState, at_least, check_seed, checked_state
from voxblink2_lib.training.ranks import Ranks, process_ranks
from voxblink2_lib.training.rounds import Rounds, plan_rounds
from voxblink2_lib.training.seeded_row import SeededRow
from voxblink2_lib.training.shared_epochs import Epoch, shared_epoch
from voxblink2_lib.training.statistics import OrderStatistics, order_statistics

# Shorter epochs take less time to make than to write.
_LEAST_SHARED_ROWS = 1 << 20
_ORDERS_VERSION = 1

_DEALT_TWICE = (
    "A sampler of voxblink2_lib.training deals the batches to the processes itself, and something "
    "is about to deal them out once more. Make a TrainingLoader(dataset, sampler) without rank and "
    "world_size: accelerator.prepare, transformers.Trainer and Lightning take it as it is."
)


class _Step(NamedTuple):
    """A batch of one rank, and the state after it."""

    batch: list[SeededRow]
    after: EpochState


class _PlannedEpoch(NamedTuple):
    """The batches of an epoch of some seed, and their rounds for a number of ranks."""

    key: tuple[int, int, int]
    epoch: Epoch
    rounds: Rounds


class EpochSampler(data.Sampler[list[SeededRow]]):
    """Base of all samplers: rounds of ranks, the state, and iterators that have a state, too.

    Give it to a ``DataLoader`` as ``batch_sampler``. Its state is moved on by :meth:`advance` after
    each batch that was used, not by iterating: workers read ahead.

    Args:
        corpus: the utterances.
        seed: of all that is random.
        rank: of this process; by default as it is in its process group whenever it is needed, so
            that a sampler may be made before the group.
        world_size: number of processes that train together; by default likewise.

    Attributes:
        corpus: the utterances.
        order: name of the order, which is in the state: one of another order is refused.
    """

    order = "custom"
    _drop_last = False
    _has_new_order = False  # since states have its name
    # All that the order depends on, besides corpus, seed and epoch. Ranks share it where known.
    _parameters: tuple[int, ...] = ()

    def __init__(
        self, corpus: Corpus, *, seed: int, rank: int | None, world_size: int | None
    ) -> None:
        check_seed(seed)
        self.corpus = corpus
        self._ranks = _checked_ranks(rank, world_size)
        self._state = EpochState(seed, 0, 0)
        self._planned: _PlannedEpoch | None = None
        self._exhausted: EpochState | None = None

    @property
    def ranks(self) -> Ranks:
        """Rank of this process, and number of processes."""
        return process_ranks() if self._ranks is None else self._ranks

    @property
    def _rank(self) -> int:
        return self.ranks.rank

    @property
    def _world(self) -> int:
        return self.ranks.world_size

    @property
    def batch_size(self) -> int:
        """Not told: wrappers that ask for it deal batches to the ranks, which is done here.

        Raises:
            TrainingError: always.
        """
        raise TrainingError(_DEALT_TWICE)

    @property
    def drop_last(self) -> bool:
        """Not told, as :attr:`batch_size`.

        Raises:
            TrainingError: always.
        """
        raise TrainingError(_DEALT_TWICE)

    @abstractmethod
    def _batches(self, generator: np.random.Generator) -> Epoch:
        """Return the batches of an epoch."""

    def epoch_batches(self, epoch: int, seed: int | None = None) -> Epoch:
        """Return the batches of an epoch, of all ranks together; by default with its own seed.

        Args:
            epoch: its number, from 0.
            seed: of the order, in place of the sampler's own.

        Raises:
            TrainingError: there are too few utterances for the number of ranks.
        """
        return self._plan(self._state.seed if seed is None else seed, epoch).epoch

    def statistics(self, epoch: int = 0) -> OrderStatistics:
        """Return how well an epoch mixes speakers, beside a uniform order of its utterances.

        Args:
            epoch: its number, from 0.
        """
        return order_statistics(self.corpus.speaker, self.epoch_batches(epoch))

    def __len__(self) -> int:
        """Return the number of batches of this rank in the present epoch."""
        return self._rounds(self._state).count()

    def __iter__(self) -> Iterator[list[SeededRow]]:
        if self._exhausted == self._state:
            # Read to its end by a loader that does not call advance(): the next epoch begins.
            self.set_epoch(self._state.epoch + 1)
        return _Batches(self._state, self.order, self._step, self._note_end)

    def rest(self) -> Iterator[list[SeededRow]]:
        """Return the batches from the state on, for a reader that calls :meth:`advance`."""
        return _Batches(self._state, self.order, self._step)

    def whole(self) -> Iterator[list[SeededRow]]:
        """Return all batches of the epoch, for a reader that does not call :meth:`advance`."""
        start = self._state._replace(position=0)
        return _Batches(start, self.order, self._step, self._note_end)

    def begin_pass(self) -> None:
        """Go to the next epoch if this one was read to its end without :meth:`advance`."""
        if self._exhausted is not None and self._exhausted[:2] == self._state[:2]:
            self.set_epoch(self._state.epoch + 1)

    def advance(self) -> None:
        """Count one more batch of each rank as done. After the last one the next epoch begins."""
        end = self._rounds(self._state).end(self._state.position)
        self._stand_at(self._state._replace(position=end))

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch.

        Args:
            epoch: its number, from 0.
        """
        self._state = EpochState(self._state.seed, epoch, 0)
        self._exhausted = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._state.epoch

    @property
    def epochs_done(self) -> float:
        """Epochs that are done, with the fraction of the present one, whatever the ranks were."""
        if not self._state.position:
            return float(self._state.epoch)
        batches = len(self._rounds(self._state).bounds) - 1
        return self._state.epoch + self._state.position / batches

    def steps_left(self, epochs: int) -> int:
        """Return the steps of each rank from the state to the end of so many epochs.

        Args:
            epochs: of the whole run.
        """
        if self._state.epoch >= epochs:
            return 0
        rounds = self._rounds(self._state)
        return rounds.count(self._state.position) + rounds.count() * (
            epochs - self._state.epoch - 1
        )

    def share_done(self, epochs: int) -> float:
        """Return which share of so many epochs is done, from 0 to 1, whatever the ranks were.

        Args:
            epochs: of the whole run.
        """
        return min(1.0, self.epochs_done / epochs)

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, and position after the batches that were used, and the order."""
        return {**self._state._asdict(), "order": self.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state was saved.

        If more ranks than before would not have an utterance each in the rest of the epoch, they
        continue with the next one.

        Args:
            state: what :meth:`state_dict` returned.

        Raises:
            TrainingError: it is no such state, or of another order, utterances or batches.
        """
        loaded = checked_state(state)
        self._check_order(loaded, state.get("order"))
        batches = len(self.epoch_batches(loaded.epoch, loaded.seed).bounds) - 1
        if loaded.position >= batches:
            raise TrainingError(
                f"The state is at batch {loaded.position} of epoch {loaded.epoch}, which has "
                f"{batches}. Was it saved with other utterances or batches?"
            )
        self._exhausted = None
        self._stand_at(loaded)

    def _check_order(self, state: EpochState, order: str | None) -> None:
        """Refuse a state in the midst of an epoch of another order."""
        if order is None and (not self._has_new_order or state.position == 0):
            return
        if order is None:
            raise TrainingError(
                f"The state, at batch {state.position} of epoch {state.epoch}, is of an earlier "
                f"version; the order {self.order!r} is another since. Begin the epoch again: "
                "set position to 0 in the state."
            )
        if order != self.order:
            raise TrainingError(
                f"The state is of the order {order!r}; this sampler has {self.order!r}. Use the "
                f"sampler that saved it; a ShuffleSampler as ShuffleSampler(..., order={order!r})."
            )

    def _stand_at(self, state: EpochState) -> None:
        """Take a state; the start of the next epoch if no round is left in this one."""
        self._state = state
        if self._rounds(state).end(state.position) == state.position:
            self.set_epoch(state.epoch + 1)

    def _rounds(self, state: EpochState) -> Rounds:
        return self._plan(state.seed, state.epoch).rounds

    def _plan(self, seed: int, epoch: int) -> _PlannedEpoch:
        """Return the batches and rounds of an epoch; the last one is cached."""
        key = (seed, epoch, self._world)
        if self._planned is None or self._planned.key != key:
            batches = self._epoch((seed, epoch))
            rounds = plan_rounds(batches.bounds, self._world, drop_last=self._drop_last)
            if not rounds.end(0):
                raise TrainingError(
                    f"An epoch of {len(batches.rows)} utterances in {len(batches.bounds) - 1} "
                    f"batches has nothing for each of {self._world} ranks. Use smaller batches, or "
                    "fewer ranks."
                )
            self._planned = _PlannedEpoch(key, batches, rounds)
        return self._planned

    def _epoch(self, key: tuple[int, int]) -> Epoch:
        """Return an epoch; of a large one, that which another rank of this machine has made."""
        identity = self.corpus.identity if self._world > 1 and self._parameters else ""
        if not identity or len(self.corpus) < _LEAST_SHARED_ROWS:
            return self._batches(np.random.default_rng(key))
        name = repr((_ORDERS_VERSION, np.__version__, identity, self.order, self._parameters, key))
        return shared_epoch(name, lambda: self._batches(np.random.default_rng(key)))

    def _step(self, state: EpochState) -> _Step | None:
        """Return this rank's batch at a state; ``None`` at the end of the epoch."""
        _, epoch, rounds = self._plan(state.seed, state.epoch)
        end = rounds.end(state.position)
        if end == state.position:
            return None
        places = self._places(epoch, state.position, end)
        batch = [
            SeededRow(row, (state.seed, state.epoch, place))
            for place, row in zip(places.tolist(), epoch.rows[places].tolist(), strict=True)
        ]
        return _Step(batch, state._replace(position=end))

    def _places(self, epoch: Epoch, start: int, end: int) -> Rows:
        """Return the places of this rank's batch in the round from ``start`` to ``end``."""
        if end - start == self._world:
            batch = start + self._rank
            return np.arange(epoch.bounds[batch], epoch.bounds[batch + 1])
        places = np.arange(epoch.bounds[start], epoch.bounds[end])
        return self._shares(places, epoch)[self._rank]

    def _shares(self, places: Rows, epoch: Epoch) -> list[Rows]:  # noqa: ARG002  # others do
        """Return what each rank gets of a round that is split, at least one utterance each."""
        return np.array_split(places, self._world)

    def _note_end(self, start: EpochState) -> None:
        """Remember that an iterator which started at a state has given its last batch."""
        self._exhausted = start


class _Batches(Iterator[list[SeededRow]]):
    """Batches from a state to the end of the epoch.

    ``StatefulDataLoader`` saves and restores the state of the iterator by itself.

    Args:
        start: where to begin.
        order: its name.
        step: returns the batch at a state, ``None`` at the end.
        on_end: is called with ``start`` when there are no more batches; by default nothing is.
    """

    def __init__(
        self,
        start: EpochState,
        order: str,
        step: Callable[[EpochState], _Step | None],
        on_end: Callable[[EpochState], None] = lambda _: None,
    ) -> None:
        self._start, self._state = start, start
        self._order = order
        self._step, self._on_end = step, on_end

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> list[SeededRow]:
        step = self._step(self._state)
        if step is None:
            self._on_end(self._start)
            raise StopIteration
        self._state = step.after
        return step.batch

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, and position after the batches given so far, and the order."""
        return {**self._state._asdict(), "order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._state = EpochState(*(state[name] for name in EpochState._fields))
        if self._step(self._state) is None:
            self._on_end(self._start)


def _checked_ranks(rank: int | None, world_size: int | None) -> Ranks | None:
    """Return the ranks that were given, if any."""
    if rank is None and world_size is None:
        return None
    ranks = Ranks(rank or 0, 1 if world_size is None else world_size)
    at_least("world_size", ranks.world_size, 1)
    if not 0 <= ranks.rank < ranks.world_size:
        raise TrainingError(
            f"rank is {ranks.rank}; expected is 0 to {ranks.world_size - 1} (world_size)."
        )
    return ranks
