"""Begin a stage with the network of another one, and a head for its own speakers.

A speaker is a corpus and an id: VoxBlink1, VoxCeleb1 and VoxCeleb2 use the same ids for other
people. A row of the head is taken over only for the same speaker, at the same speed::

    head before     (VoxBlink2, id000001)  (VoxBlink2, id000002)  ...
                              |
    head after      (VoxBlink2, id000001)  (VoxBlink2, id000009)  ...
                    taken over             new, at random
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

from voxblink2_lib.errors import ModelError, TrainingError, first_line
from voxblink2_lib.models import SpeakerFeatureExtractor, SpeakerModel
from voxblink2_lib.recipes.checkpoints import RunFolder
from voxblink2_lib.training import SpeakerLabels

_VOXBLINK2, _VOXBLINK2_ID = "VoxBlink2", re.compile(r"id[0-9]{6}")
_HEAD = "head."


def corpus_name(speakers: Sequence[str], named: str | None = None) -> str:
    """Return the name of the corpus that ids are of.

    Args:
        speakers: the ids.
        named: what the user says; by default, ids of six digits tell that it is VoxBlink2.

    Raises:
        TrainingError: the user says nothing, and neither do the ids.

    >>> corpus_name(["id000002", "id000007"]), corpus_name(["id00012"], "VoxCeleb2")
    ('VoxBlink2', 'VoxCeleb2')
    """
    if named:
        return named
    if all(map(_VOXBLINK2_ID.fullmatch, speakers)):
        return _VOXBLINK2
    other = next(speaker for speaker in speakers if not _VOXBLINK2_ID.fullmatch(speaker))
    raise TrainingError(
        f"Whose people the speakers of the store are is not known: {other} is an id of VoxBlink1, "
        "VoxCeleb1 and VoxCeleb2, each for somebody else. Say which corpus it is, as with "
        "--corpus VoxCeleb2."
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stage begins.

    Attributes:
        model: folder of the model.
        labels: classes of its head; ``None`` if they are not known.
    """

    model: Path
    labels: SpeakerLabels | None

    @classmethod
    def at(cls, path: str | Path) -> Origin:
        """Return what is in the folder of a finished stage, or in that of a model.

        Args:
            path: the folder.

        Raises:
            TrainingError: the stage is unfinished, or there is no model.
        """
        folder = Path(path)
        run = RunFolder(folder)
        if run.is_finished:
            return cls(run.model, SpeakerLabels.load(run.labels))
        if (folder / "config.json").is_file():
            inside = folder.parent if RunFolder(folder.parent).is_finished else folder
            labels = RunFolder(inside).labels
            return cls(folder, SpeakerLabels.load(labels) if labels.is_file() else None)
        if run.is_begun:
            raise TrainingError(
                f"The stage in {folder} is unfinished: it stands at step {run.last_step:,}. Run "
                "its own command again until it ends; then go on from it."
            )
        raise TrainingError(
            f"There is no model in {folder}. Name the --out of a finished stage, or the folder of "
            "a model that voxblink2 convert wrote."
        )

    def class_rows(self, labels: SpeakerLabels) -> npt.NDArray[np.int64]:
        """Return the class of its head that each class of other labels is; -1 for none.

        Args:
            labels: the classes of the new head.

        Shape: [classes].
        """
        before = self.labels
        if before is None or not _is_same_corpus(before, labels):
            return np.full(labels.classes, -1)
        places = {speaker: place for place, speaker in enumerate(before.speakers)}
        rows = np.array([places.get(speaker, -1) for speaker in labels.speakers])
        return np.concatenate([_at_speed(rows, before, speed) for speed in labels.speeds])


def _is_same_corpus(before: SpeakerLabels, now: SpeakerLabels) -> bool:
    """Return whether both are known to be of one corpus; files of earlier versions name none."""
    if before.corpus is None and not all(map(_VOXBLINK2_ID.fullmatch, before.speakers)):
        return False
    ours, theirs = (corpus_name(each.speakers, each.corpus).casefold() for each in (before, now))
    return ours == theirs


def _at_speed(
    rows: npt.NDArray[np.int64], labels: SpeakerLabels, speed: float
) -> npt.NDArray[np.int64]:
    if speed not in labels.speeds:
        return np.full(len(rows), -1)
    return np.where(rows < 0, -1, rows + labels.speeds.index(speed) * len(labels.speakers))


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train.

    Attributes:
        model: the network, with a head of one class for each label.
        extractor: its feature extractor.
        kept_classes: number of classes that the head before had, too.
    """

    model: SpeakerModel
    extractor: SpeakerFeatureExtractor
    kept_classes: int


def start_from(
    origin: Origin, labels: SpeakerLabels, *, seed: int, head: Mapping[str, Any] | None = None
) -> Start:
    """Return the network of another stage, with a head for some labels.

    Args:
        origin: where it is.
        labels: the classes.
        seed: of the rows of the head that are new.
        head: options of the head in its configuration that are other than before.

    Raises:
        TrainingError: it is no speaker model of this library.
    """
    before = _load(origin.model)
    settings = {**before.config.to_dict(), **(head or {}), "num_speakers": labels.classes}
    torch.manual_seed(seed)
    model = type(before)(_config_like(before, settings))
    extractor = AutoFeatureExtractor.from_pretrained(origin.model)
    weights = before.state_dict()
    network = {name: value for name, value in weights.items() if not name.startswith(_HEAD)}
    model.load_state_dict({**model.state_dict(), **network})
    rows = origin.class_rows(labels)
    return Start(model, extractor, _copy_head(before, model, rows))


def _config_like(model: SpeakerModel, settings: Mapping[str, Any]) -> Any:
    # Names of the classes are those of the head before.
    kept = {name: value for name, value in settings.items() if name not in {"id2label", "label2id"}}
    return type(model.config).from_dict(kept)


def _load(folder: Path) -> SpeakerModel:
    try:
        model: Any = AutoModelForAudioXVector.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, ModelError) as error:
        raise TrainingError(
            f"The model in {folder} cannot be loaded: {first_line(error)}"
        ) from error
    if not isinstance(model, SpeakerModel):
        raise TrainingError(
            f"The model in {folder} is of the type {type(model).__name__}; expected is a network "
            "of this library, from a stage or from voxblink2 convert."
        )
    return model


@torch.no_grad()
def _copy_head(before: SpeakerModel, model: SpeakerModel, rows: npt.NDArray[np.int64]) -> int:
    """Copy rows of the head; return of how many classes. A class has as many rows as centres."""
    kept = np.flatnonzero(rows >= 0)
    if before.head is None or model.head is None or not len(kept):
        return 0
    old, new = (_by_class(each) for each in (before, model))
    if old.shape[1:] != new.shape[1:]:
        return 0
    new[torch.from_numpy(kept)] = old[torch.from_numpy(rows[kept])]
    return len(kept)


def _by_class(model: SpeakerModel) -> torch.Tensor:
    """Return a view of the head's weight, shape (classes, centres, dimensions)."""
    assert model.head is not None
    weight = model.head.weight.detach()
    return weight.view(model.config.num_speakers, -1, weight.shape[1])
