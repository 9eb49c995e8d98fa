"""How frameworks take a loader that deals its batches to the ranks itself.

accelerate
    ``prepare`` returns the loader itself. Then a pass moves batches to the process's device and
    tells which batch is the last, so that ``accumulate`` ends an epoch with a step;
    ``save_state`` and ``load_state`` save and load the position.
transformers.Trainer
    calls ``set_epoch``, and where it resumes in an epoch skips the batches that were used, by
    iterating the loader's batch sampler: that begins at the start of the epoch.
Lightning
    leaves loaders alone that have a ``DistributedSampler``, calls its ``set_epoch``, and saves the
    state of loaders that have one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from torch.utils import data

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.epoch_sampler import EpochSampler
from voxblink2_lib.training.ranks import Ranks
from voxblink2_lib.training.seeded_row import SeededRow


class _Loader(Protocol):
    """What this module needs of a ``TrainingLoader``."""

    @property
    def order(self) -> EpochSampler: ...

    def batches(self) -> Iterator[Any]: ...


class LoaderOrder(data.Sampler[list[SeededRow]]):
    """A sampler as its loader gives it to ``DataLoader``.

    The loader itself reads it from the state on. Others, such as ``accelerate``'s
    ``skip_first_batches``, get all batches of the epoch, since they count those that were used
    themselves.

    Args:
        order: the sampler.
    """

    def __init__(self, order: EpochSampler) -> None:
        self.order = order
        self._is_from_the_state = False

    @contextlib.contextmanager
    def from_the_state(self) -> Iterator[None]:
        """Let iterators that are made meanwhile begin at the state."""
        self._is_from_the_state = True
        try:
            yield
        finally:
            self._is_from_the_state = False

    def __iter__(self) -> Iterator[list[SeededRow]]:
        return self.order.rest() if self._is_from_the_state else self.order.whole()

    def __len__(self) -> int:
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless the next batch is of it anyway."""
        self.order.begin_pass()
        if epoch != self.order.epoch:
            self.order.set_epoch(epoch)

    @property
    def batch_size(self) -> int:
        """Not told; see :attr:`EpochSampler.batch_size`."""
        return self.order.batch_size

    @property
    def drop_last(self) -> bool:
        """Not told; see :attr:`EpochSampler.batch_size`."""
        return self.order.drop_last


class RankedSampler(data.DistributedSampler[Any]):
    """Stands for the order where Lightning looks for a sampler of this rank; gives no rows itself.

    Args:
        order: whose epoch it sets.
    """

    def __init__(self, order: LoaderOrder) -> None:
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the order."""
        self._order.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        raise TrainingError(
            "A TrainingLoader has batches of rows, not rows. Iterate over the loader, or over the "
            "sampler that it was made with."
        )

    def __len__(self) -> int:
        return len(self._order)


class _Pass:
    """A pass over a loader, as accelerate sees it.

    Attributes:
        end_of_dataloader: whether the batch in use is the last of the epoch.
        remainder: 0, since no utterance is repeated to fill a batch.
    """

    end_of_dataloader = False
    remainder = 0


def accelerated(loader: _Loader) -> Iterator[Any]:
    """Yield the batches of a loader that was prepared by accelerate, on its device.

    Raises:
        TrainingError: the sampler was made for other ranks than those of accelerate.
    """
    from accelerate.state import GradientState, PartialState
    from accelerate.utils import send_to_device

    process, gradients, current = PartialState(), GradientState(), _Pass()
    _check_ranks(loader.order.ranks, Ranks(process.process_index, process.num_processes))
    gradients._add_dataloader(current)
    try:
        for batch in loader.batches():
            current.end_of_dataloader = _is_last(loader)
            yield send_to_device(batch, process.device)
    finally:
        gradients._remove_dataloader(current)


def _is_last(loader: _Loader) -> bool:
    """Return whether the batch that was just given ended an epoch."""
    return bool(loader.order.state_dict()["position"] == 0)


def _check_ranks(ours: Ranks, theirs: Ranks) -> None:
    if ours != theirs:
        raise TrainingError(
            f"The sampler was made for rank {ours.rank} of {ours.world_size}; this process is "
            f"{theirs.rank} of {theirs.world_size}. Leave out rank and world_size."
        )
