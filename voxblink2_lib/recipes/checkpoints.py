"""The folder of a run: settings, checkpoints, weights of the last epochs, and the model at its end.

    settings.json, labels.json       written at the beginning
    checkpoint-00000500/             all that a resumed run needs; the last two are kept
    half-checkpoint/                 one that is being written
    epochs/epoch-0148.safetensors    weights at the end of an epoch, to be averaged
    log.jsonl, log/, report.html     how it went
    model/                           appears last: the run is finished

Each appears under its name only when it is complete, so a kill leaves the one before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.training import SpeakerLabels

_CHECKPOINTS_KEPT = 2


class Processes(Protocol):
    """What is needed of an ``Accelerator``."""

    is_main_process: bool

    def wait_for_everyone(self) -> None:
        """Wait until all processes are here."""

    def save_state(self, output_dir: str) -> Any:
        """Write models, optimizers and all that is registered to a folder.

        Args:
            output_dir: the folder.
        """


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run, and its state on disk.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def model(self) -> Path:
        """Folder of the model, for ``voxblink2 embed --model`` and for the next stage."""
        return self.path / "model"

    @property
    def labels(self) -> Path:
        """File of the classes."""
        return self.path / "labels.json"

    @property
    def is_finished(self) -> bool:
        """Whether its model is there, whole."""
        return (self.model / "config.json").is_file() and self.labels.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether it was begun."""
        return self._settings.is_file()

    def checkpoints(self) -> list[Path]:
        """Return the whole checkpoints, in order."""
        return sorted(self.path.glob("checkpoint-*"), key=_number)

    @property
    def last_step(self) -> int:
        """The step of the last checkpoint; 0 without one."""
        return max(map(_number, self.checkpoints()), default=0)

    def save_checkpoint(self, processes: Processes, step: int) -> None:
        """Write a checkpoint, by all processes together, and remove older ones.

        Args:
            processes: an ``Accelerator``, or what saves as it does.
            step: how many steps are done.
        """
        unfinished, finished = self.path / "half-checkpoint", self.path / f"checkpoint-{step:08}"
        if finished.exists():
            return
        if processes.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        processes.wait_for_everyone()
        processes.save_state(str(unfinished))
        processes.wait_for_everyone()
        if processes.is_main_process:
            unfinished.rename(finished)
            for old in self.checkpoints()[:-_CHECKPOINTS_KEPT]:
                shutil.rmtree(old)
        processes.wait_for_everyone()

    def save_model(self, *parts: Any) -> None:
        """Write the model and its feature extractor; their folder appears when it is whole.

        Args:
            parts: what has a ``save_pretrained``.
        """
        unfinished = self.path / "half-model"
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in parts:
            part.save_pretrained(unfinished)
        unfinished.rename(self.model)

    # -- Settings ----------------------------------------------------------------------------------

    @property
    def _settings(self) -> Path:
        return self.path / "settings.json"

    def settings(self) -> dict[str, Any]:
        """Return what the run was begun with; empty if it was not.

        Raises:
            TrainingError: the file cannot be read.
        """
        if not self.is_begun:
            return {}
        try:
            return dict(json.loads(self._settings.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{self._settings} cannot be read: {error}. Name another --out."
            ) from error

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings.

        Args:
            settings: those of this call, by their names.

        Raises:
            TrainingError: the run was begun with others; names them.
        """
        before = self.settings()
        if before.get("stage") == "train":
            raise TrainingError(
                f"{self.path} was begun by an earlier version, whose steps were others: it cannot "
                "go on. Name another --out."
            )
        now = json.loads(json.dumps(dict(settings)))
        changes = [
            f"{name} {before.get(name)!r}, now {value!r}"
            for name, value in now.items()
            if before and before.get(name) != value
        ]
        if changes:
            raise TrainingError(
                f"{self.path} was begun with other settings: {', '.join(changes)}. "
                "Name another --out."
            )

    def check_labels(self, labels: SpeakerLabels) -> None:
        """Refuse to go on with other speakers.

        Args:
            labels: those of this call.

        Raises:
            TrainingError: the run was begun with others.
        """
        if self.is_begun and (before := SpeakerLabels.load(self.labels)) != labels:
            raise TrainingError(
                f"{self.path} was begun with {len(before.speakers):,} other speakers; the store "
                f"now has {len(labels.speakers):,} to train on. Name another --out."
            )

    def begin(self, settings: Mapping[str, Any], labels: SpeakerLabels) -> None:
        """Write settings and classes of a new run.

        Args:
            settings: those that the run keeps, by their names.
            labels: its classes.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        labels.save(self.labels)
        with atomic_write(self._settings.absolute()) as file:
            file.write(json.dumps(dict(settings), indent=1, sort_keys=True).encode())

    # -- Weights of the last epochs ----------------------------------------------------------------

    def save_epoch(self, epoch: int, weights: Mapping[str, Tensor], *, keep: int) -> None:
        """Write the weights at the end of an epoch; of earlier ones, keep so many less one.

        Args:
            epoch: how many epochs are done.
            weights: by their names in the model.
            keep: of how many epochs weights are kept.
        """
        folder = self.path / "epochs"
        folder.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        with atomic_write((folder / f"epoch-{epoch:04}.safetensors").absolute()) as file:
            file.write(safetensors.torch.save(contiguous))
        for old in self._epochs()[:-keep]:
            old.unlink()

    def average(self) -> dict[str, Tensor]:
        """Return the average of the weights of the last epochs."""
        return average_weights(self._epochs())

    def _epochs(self) -> list[Path]:
        return sorted((self.path / "epochs").glob("epoch-*.safetensors"), key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition(".")[0].rpartition("-")[2])


def average_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of each tensor of several files, running statistics of norms included.

    Means are computed in float64. Counts are those of the last file. Averages of the last epochs
    are of lower error than the last one alone (Izmailov et al., "Averaging Weights Leads to Wider
    Optima and Better Generalization", UAI 2018).

    Args:
        files: with the same tensors, in order.
    """
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for path in files:
        last = safetensors.torch.load_file(path)
        for name, tensor in last.items():
            if tensor.is_floating_point():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + tensor.double()
    means = {name: (total / len(files)).to(last[name].dtype) for name, total in sums.items()}
    return {**last, **means}
