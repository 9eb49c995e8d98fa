"""A ``DataLoader`` whose state counts the batches that were used."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch.utils import data

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.training.dataset import DamagedClip, DecodedBatch, UtteranceDataset, collate
from voxblink2_lib.training.epoch_sampler import EpochSampler
from voxblink2_lib.training.frameworks import LoaderOrder, RankedSampler, accelerated
from voxblink2_lib.training.lent_memory import NOTHING_KNOWN, KnownBlocks
from voxblink2_lib.training.worker_signals import WorkerStart, signals_held

_log = logging.getLogger(__name__)
Collate = Callable[[Sequence[Any]], Any]
_OF_THE_SAMPLER = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last")


class TrainingLoader(data.DataLoader[Any]):
    """Batches of a dataset in the order of a sampler, from the position in its state.

    Workers prepare batches ahead; the state counts those that the loop was given. Save it after
    the step that uses a batch, and a new run continues with the next one. A pass over the loader
    is the rest of an epoch; the next pass is the next epoch, without ``set_epoch``.

    ``accelerator.prepare``, ``transformers.Trainer`` and Lightning take the loader as it is, since
    its batches are those of this rank already; see :mod:`voxblink2_lib.training.frameworks`.

    Workers ignore SIGINT, SIGTERM and SIGUSR1, so that a run whose whole process group is signalled
    can save; they end with the loader and with this process.

    Args:
        dataset: an :class:`UtteranceDataset`, or any map-style dataset.
        sampler: the order.
        num_workers: processes that decode; 0 decodes in this one.
        collate_fn: makes a batch of those examples that could be decoded.
        options: further options of ``DataLoader``, such as ``pin_memory``.

    Attributes:
        damaged: clips that were skipped so far.

    Raises:
        TrainingError: an option would change the order.

    Example:
        One step of training, then the state::

            loader = TrainingLoader(dataset, ShuffleSampler(corpus, batch_size=64), num_workers=2)
            loader.load_state_dict(saved)
            for batch in loader:
                train(batch["waveforms"], batch["labels"])
                save(loader.state_dict())  # {"seed": 0, "epoch": 3, "position": 812, ...}
    """

    # Read by accelerate: `prepare` returns the loader itself, `save_state` saves its state.
    _is_accelerate_prepared = True
    use_stateful_dataloader = True

    def __init__(
        self,
        dataset: UtteranceDataset | data.Dataset[Any],
        sampler: EpochSampler,
        *,
        num_workers: int = 0,
        collate_fn: Collate = collate,
        **options: Any,
    ) -> None:
        _check_options(options)
        self._loader_order = LoaderOrder(sampler)
        self._collator = _Collator(collate_fn, is_alone=type(dataset) is UtteranceDataset)
        self._kept_blocks = KnownBlocks() if options.get("persistent_workers") else None
        super().__init__(
            dataset,
            batch_sampler=self._loader_order,
            num_workers=num_workers,
            collate_fn=self._collator,
            worker_init_fn=WorkerStart(options.pop("worker_init_fn", None)),
            **options,
        )
        # DataLoader puts one here that is not used, and lets no other be set.
        vars(self)["sampler"] = RankedSampler(self._loader_order)
        self.damaged: list[DamagedClip] = []

    @property
    def order(self) -> EpochSampler:
        """The sampler of the constructor."""
        return self._loader_order.order

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator serves as well
        # An attribute of the instance: accelerate's `prepare` had it.
        is_prepared = "_is_accelerate_prepared" in vars(self)
        return accelerated(self) if is_prepared else self.batches()

    def batches(self) -> Iterator[Any]:
        """Yield the batches of the rest of the epoch, each when the one before was used."""
        self.order.begin_pass()
        context = self.multiprocessing_context or multiprocessing
        blocks = KnownBlocks() if self._kept_blocks is None else self._kept_blocks
        with (
            signals_held(context.get_start_method()),
            self._loader_order.from_the_state(),
            self._collator.for_workers_that_know(blocks),
        ):
            read_ahead = super().__iter__()
        try:
            for batch in read_ahead:
                self.order.advance()
                yield self._as_collated(batch)
        finally:
            del read_ahead  # its workers end, and only then are their blocks forgotten
            del blocks

    def _as_collated(self, batch: Any) -> Any:
        """Count the damaged clips of a batch; return it as collate_fn did."""
        if not isinstance(batch, _WithDamaged | _DictWithDamaged):
            return batch
        self._count(batch.damaged)
        return batch.batch if isinstance(batch, _WithDamaged) else dict(batch)

    def _count(self, damaged: Sequence[DamagedClip]) -> None:
        for clip in damaged:
            self.damaged.append(clip)
            _log.warning("Skipped, %d so far: %s", len(self.damaged), clip.message)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self.order.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless the next batch is of it anyway.

        Frameworks call this before each epoch, also before the rest of one that is resumed.

        Args:
            epoch: its number, from 0.
        """
        self._loader_order.set_epoch(epoch)

    def steps_left(self, epochs: int) -> int:
        """Return the steps of each rank from here to the end of so many epochs.

        A run that is resumed with another number of ranks has another number of them left.

        Args:
            epochs: of the whole run.
        """
        return self.order.steps_left(epochs)

    def share_done(self, epochs: int) -> float:
        """Return which share of so many epochs is done, from 0 to 1.

        It does not depend on the number of ranks: the time axis of a schedule that goes on as
        planned if a run is resumed with another number of them.

        Args:
            epochs: of the whole run.
        """
        return self.order.share_done(epochs)

    def state_dict(self) -> dict[str, Any]:
        """Return seed, epoch, and position after the batches given so far, and the order's name."""
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, with the next pass over the loader.

        Args:
            state: what :meth:`state_dict` returned, here or in another process.

        Raises:
            TrainingError: it is of other utterances or batches.
        """
        self.order.load_state_dict(state)


def _check_options(options: Mapping[str, Any]) -> None:
    taken = sorted(set(_OF_THE_SAMPLER) & set(options))
    if taken:
        raise TrainingError(f"{', '.join(taken)}: set by the sampler; give it to the sampler.")
    if not options.get("in_order", True):
        raise TrainingError(
            "in_order is False; expected is True. Batches that overtake each other cannot be "
            "counted: a resumed run would leave out some and repeat others."
        )


class _WithDamaged(NamedTuple):
    """A batch, and the clips left out of it."""

    batch: Any
    damaged: list[DamagedClip]


class _DictWithDamaged(dict[Any, Any]):
    """A batch that is a dictionary, also to a reader other than the loader, and the damaged clips.

    The trainer of transformers reads the rest of an epoch that it resumes in by a loader of its
    own.
    """

    damaged: list[DamagedClip]


class _Collator:
    """Calls a function with the good examples only, and passes on the damaged ones.

    Args:
        collate_fn: the function.
        is_alone: nobody else sees the examples, who might keep them.

    Attributes:
        known: number of the :class:`KnownBlocks` of the pass that workers are started for.
    """

    known = NOTHING_KNOWN

    def __init__(self, collate_fn: Collate, *, is_alone: bool) -> None:
        self._collate = collate_fn
        self._lends = is_alone and collate_fn is collate

    @contextmanager
    def for_workers_that_know(self, blocks: KnownBlocks) -> Iterator[None]:
        """Let workers that are started meanwhile, and no others, send numbers of blocks."""
        self.known = blocks.number
        try:
            yield
        finally:
            self.known = NOTHING_KNOWN

    def __call__(self, examples: Sequence[Any]) -> Any:
        damaged = [clip for clip in examples if isinstance(clip, DamagedClip)]
        if not damaged:
            batch = self._collate(examples)
            if self._lends and isinstance(examples, DecodedBatch):
                return examples.lend(batch, self.known)
            return batch
        if len(damaged) == len(examples):
            return collate(examples)  # raises
        good = [example for example in examples if not isinstance(example, DamagedClip)]
        batch = self._collate(good)
        if type(batch) is not dict:
            return _WithDamaged(batch, damaged)
        marked = _DictWithDamaged(batch)
        marked.damaged = damaged
        return marked
