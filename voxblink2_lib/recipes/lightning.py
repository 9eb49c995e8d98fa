"""What Lightning needs beside a :class:`TrainingLoader`: exact resume, and stops that save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as lightning

from voxblink2_lib.recipes.stopping import StopSignals


class LoaderCallback(lightning.Callback):
    """Keeps the position of the loader in checkpoints, and saves one after a signal.

    Lightning itself saves and loads the state of a loader, but does not load it where something
    asked for ``estimated_stepping_batches`` before, as schedules of the learning rate do.

    Args:
        folder: of checkpoints ``step=NUMBER.ckpt`` that are saved after SIGINT, SIGTERM or SIGUSR1.

    Attributes:
        is_stopped: whether a signal ended the training.

    Example:
        With a ``train_dataloader`` that returns a :class:`TrainingLoader`::

            stops = LoaderCallback("runs/d")
            Trainer(callbacks=[stops, ModelCheckpoint("runs/d", filename="{step}")]).fit(module)
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._signals = StopSignals()
        self._position: dict[str, int] | None = None
        self._loader: Any = None
        self.is_stopped = False

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the loader, if there is one."""
        return {} if self._loader is None else {"position": self._loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a position until there is a loader.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self._position = state_dict.get("position")

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Load the position, and note signals: after Lightning, whose handlers do not save.

        Args:
            trainer: Lightning's.
        """
        self._loader = trainer.train_dataloader
        if self._position is not None:
            self._loader.load_state_dict(self._position)
        self._signals.__enter__()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Save and stop if there was a signal.

        Args:
            trainer: Lightning's.
        """
        if not self.is_stopped and self._signals.must_stop(trainer.global_step):
            trainer.save_checkpoint(self._folder / f"step={trainer.global_step}.ckpt")
            self.is_stopped = trainer.should_stop = True

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave signals as they were."""
        self._signals.__exit__(None, None, None)
