"""A ``transformers.Trainer`` that trains on a :class:`TrainingLoader` and resumes exactly."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.recipes.stopping import StopSignals
from voxblink2_lib.training import TrainingLoader


class LoaderTrainer(Trainer):
    """A trainer with the batches of a loader, in any number of processes.

    A checkpoint has the number of steps; after resuming, the trainer skips the batches of so many
    in the order of the loader. SIGINT, SIGTERM and SIGUSR1 save a checkpoint and end the training.

    Args:
        loader: made by each process without rank and world_size.
        options: of ``Trainer``, but for ``train_dataset`` and ``data_collator``.

    Attributes:
        is_stopped: whether a signal ended the training.

    Raises:
        TrainingError: ``train`` is to resume with other steps than those that were counted.
    """

    def __init__(self, *, loader: TrainingLoader, **options: Any) -> None:
        dataset: Any = loader.dataset
        super().__init__(train_dataset=dataset, **options)
        self._loader = loader
        self._stops = _StopOnSignals()
        self.add_callback(self._stops)
        self.add_callback(CountedSteps())

    @property
    def is_stopped(self) -> bool:
        """Whether a signal ended the training."""
        return self._stops.is_stopped

    def get_train_dataloader(self) -> TrainingLoader:
        """Return the loader."""
        return self._loader


class _StopOnSignals(TrainerCallback):
    """Saves and stops after a signal."""

    def __init__(self) -> None:
        self._signals = StopSignals()
        self.is_stopped = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Note signals from now on."""
        self._signals.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save and stop if there was one."""
        del args, others
        if self._signals.must_stop(state.global_step):
            self.is_stopped = control.should_save = control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave signals as they were."""
        self._signals.__exit__(None, None, None)


class CountedSteps(TrainerCallback, ExportableState):
    """Keeps in a checkpoint what a step is, and refuses to resume where it is something else.

    Attributes:
        facts: what decides which batches a number of steps are.
    """

    def __init__(self) -> None:
        self.facts: dict[str, int] = {}

    def state(self) -> dict[str, Any]:
        """Return what is saved, in the form that the trainer asks for."""
        return {"args": {}, "attributes": {"facts": self.facts}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Compare with the checkpoint that was loaded, if any.

        Args:
            args: of the trainer.
            state: of the trainer, with what the checkpoint kept.
            control: of the trainer; not used.
            others: of which ``train_dataloader`` is used.
        """
        del control
        loader: TrainingLoader = others["train_dataloader"]
        self.facts = {
            "seed": loader.state_dict()["seed"],
            "processes": loader.order.ranks.world_size,
            "batches of an epoch": len(loader),
            "batches of a step": args.gradient_accumulation_steps,
        }
        saved = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and saved is not None:
            _check_facts(saved["attributes"]["facts"], self.facts)


def _check_facts(saved: dict[str, int], present: dict[str, int]) -> None:
    changes = [
        f"{name} {saved.get(name)}, now {value}"
        for name, value in present.items()
        if saved.get(name) != value
    ]
    if changes:
        raise TrainingError(
            f"The checkpoint was saved with other numbers: {'; '.join(changes)}. A trainer counts "
            "steps, and so many steps would be another place. Resume with the same numbers, or "
            "train with examples/train_speaker.py, which saves the place itself."
        )
