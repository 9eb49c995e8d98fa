"""A ``DataLoader`` whose state counts the batches that were used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch.utils import data

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.dataset import DamagedClip, UtteranceDataset, collate
from voxblink2_lib.training.epoch_sampler import EpochSampler

_log = logging.getLogger(__name__)
Collate = Callable[[Sequence[Any]], Any]


class TrainingLoader(data.DataLoader[Any]):
    """Batches of a dataset in the order of a sampler, from the position in its state.

    Workers prepare batches ahead; the state counts those that the loop was given. Save it after
    the step that uses a batch, and a new run continues with the next one. A pass over the loader
    is the rest of an epoch; the next pass is the next epoch, without ``set_epoch``.

    Args:
        dataset: an :class:`UtteranceDataset`, or any map-style dataset.
        sampler: the order.
        num_workers: processes that decode; 0 decodes in this one.
        collate_fn: makes a batch of those examples that could be decoded.
        options: further options of ``DataLoader``, such as ``pin_memory``.

    Attributes:
        damaged: clips that were skipped so far.

    Example:
        One step of training, then the state::

            loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=64), num_workers=2)
            loader.load_state_dict(saved)
            for batch in loader:
                train(batch["waveforms"], batch["labels"])
                save(loader.state_dict())  # {"seed": 0, "epoch": 3, "position": 812}
    """

    def __init__(
        self,
        dataset: UtteranceDataset | data.Dataset[Any],
        sampler: EpochSampler,
        *,
        num_workers: int = 0,
        collate_fn: Collate = collate,
        **options: Any,
    ) -> None:
        taken = {"batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"} & set(options)
        if taken:
            raise TrainingError(
                f"{', '.join(sorted(taken))}: set by the sampler; give it to the sampler."
            )
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            collate_fn=_Collator(collate_fn),
            **options,
        )
        self.damaged: list[DamagedClip] = []

    @property
    def _order(self) -> EpochSampler:
        return self.batch_sampler  # type: ignore[return-value]  # the sampler of the constructor

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator serves as well
        # Back to the position of the state: workers of an earlier pass may have read ahead.
        self._order.load_state_dict(self._order.state_dict())
        for batch in super().__iter__():
            self._order.advance()
            if isinstance(batch, _WithDamaged):
                self._count(batch.damaged)
                batch = batch.batch  # noqa: PLW2901  # as collate_fn returned it
            yield batch

    def _count(self, damaged: Sequence[DamagedClip]) -> None:
        for clip in damaged:
            self.damaged.append(clip)
            _log.warning("Skipped, %d so far: %s", len(self.damaged), clip.message)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._order.epoch

    def state_dict(self) -> dict[str, int]:
        """Return three numbers: seed, epoch, and position after the batches given so far."""
        return self._order.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state, with the next pass over the loader.

        Raises:
            TrainingError: it is of other utterances or batches.
        """
        self._order.load_state_dict(state)


class _WithDamaged(NamedTuple):
    """A batch, and the clips left out of it."""

    batch: Any
    damaged: list[DamagedClip]


class _Collator:
    """Calls a function with the good examples only, and passes on the damaged ones."""

    def __init__(self, collate_fn: Collate) -> None:
        self._collate = collate_fn

    def __call__(self, examples: Sequence[Any]) -> Any:
        damaged = [clip for clip in examples if isinstance(clip, DamagedClip)]
        if not damaged:
            return self._collate(examples)
        if len(damaged) == len(examples):
            return collate(examples)  # raises
        good = [example for example in examples if not isinstance(example, DamagedClip)]
        return _WithDamaged(self._collate(good), damaged)
