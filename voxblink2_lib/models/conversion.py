"""Convert the checkpoints of the four released models."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxblink2_lib.errors import ModelError, first_line
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.configuration import EcapaTdnnConfig, SpeakerConfig, SpeakerResNetConfig
from voxblink2_lib.models.ecapa import EcapaTdnn
from voxblink2_lib.models.features import (
    Normalization,
    SpeakerFeatureExtractor,
    window_and_filters,
)
from voxblink2_lib.models.resnet import SpeakerResNet
from voxblink2_lib.published_results import PUBLISHED, RELEASE_KEY, PublishedResult

KINDS: dict[type[SpeakerConfig], type[SpeakerModel]] = {
    EcapaTdnnConfig: EcapaTdnn,
    SpeakerResNetConfig: SpeakerResNet,
}
_LISTED_NAMES = 8
_NAMED_GLOBAL = re.compile(r"GLOBAL (\S+) (?:whose module|was not)")
_STAGES = {"model_pt.pt": "pretrained", "model_ft.pt": "finetuned"}

# The checkpoints contain their front end. Ours is computed; it must be the same.
_FRONT_END = ("featCal.fbankCal.spectrogram.window", "featCal.fbankCal.mel_scale.fb")
_FRONT_END_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Released:
    """One of the released models.

    Attributes:
        title: the authors' name for it.
        pretrained: published result of ``model_pt.pt``.
        finetuned: published result of ``model_ft.pt``.
        config: its configuration.
        normalization: normalization of the waveform.
    """

    title: str
    pretrained: PublishedResult
    finetuned: PublishedResult
    config: SpeakerConfig
    normalization: Normalization


_ARCHITECTURES: dict[str, tuple[SpeakerConfig, Normalization]] = {
    "ecapa_tdnn": (EcapaTdnnConfig(), "std"),
    "resnet34": (SpeakerResNetConfig(), "std"),
    "resnet100": (
        SpeakerResNetConfig(depths=(6, 16, 24, 3), block="bottleneck", pooling="tsp"),
        "max",
    ),
    "resnet293": (
        SpeakerResNetConfig(depths=(10, 20, 64, 3), block="simam", pooling="asp"),
        "max",
    ),
}
RELEASED: dict[str, Released] = {
    arch: Released(*PUBLISHED[arch], *architecture) for arch, architecture in _ARCHITECTURES.items()
}


def convert(path: str | Path, *, arch: str) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    """Convert a released checkpoint to a model and its feature extractor.

    Args:
        path: ``model_pt.pt`` or ``model_ft.pt`` of a released model.
        arch: which model it is, a key of ``RELEASED``.

    Returns:
        The model and its feature extractor, both with ``save_pretrained``.

    Raises:
        ModelError: the file is damaged or cannot be read without running code from it, or tensors
            are missing, unexpected or of another shape; the message lists them.
    """
    if arch not in RELEASED:
        raise ModelError(f"There is no released model {arch!r}. Available: {', '.join(RELEASED)}.")
    released = RELEASED[arch]
    tensors = _renamed(_read_checkpoint(Path(path)))
    model = KINDS[type(released.config)](copy.deepcopy(released.config))
    extractor = SpeakerFeatureExtractor(normalization=released.normalization)
    front_end = dict(zip(_FRONT_END, window_and_filters(extractor.num_mel_bins), strict=True))
    _check(Path(path), arch, tensors, {**model.state_dict(), **front_end})
    _check_front_end(Path(path), tensors, front_end)
    model.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if name not in _FRONT_END}
    )
    model.train(mode=False)
    setattr(model.config, RELEASE_KEY, {"arch": arch, "stage": _STAGES.get(Path(path).name)})
    return model, extractor


def _read_checkpoint(path: Path) -> Mapping[str, Tensor]:
    state_dict = _load(path)
    if not isinstance(state_dict, Mapping):
        kind = type(state_dict).__name__
        raise ModelError(f"The checkpoint {path} is not a state dict but a {kind}.")
    for name, tensor in state_dict.items():
        if not (isinstance(name, str) and _is_plain(tensor)):
            raise ModelError(
                f"The checkpoint {path} is not a state dict: {name!r} is not the name of a tensor "
                "of real numbers."
            )
    return state_dict


def _load(path: Path) -> object:
    """Return the content of a checkpoint without running anything from it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no checkpoint {path}.") from error
    except pickle.UnpicklingError as error:
        # PyTorch's message advises to run the file's code; only the name of that code is quoted.
        match = _NAMED_GLOBAL.search(str(error))
        problem = (
            f"contains more than tensors: it names {match[1]}"
            if match
            else "is damaged or not a checkpoint"
        )
        raise ModelError(f"The checkpoint {path} {problem}. Nothing in it was run.") from error
    except Exception as error:  # damaged bytes cause nearly any error
        message = first_line(error).rstrip(".")
        raise ModelError(
            f"The checkpoint {path} cannot be read; it may be incomplete: {message}. Download it "
            "again."
        ) from error


def _is_plain(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_complex()
    )


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix of parallel training, and give all shortcuts the same name."""
    renamed = {
        name.removeprefix("module.").replace(".shortcut.", ".downsample."): tensor
        for name, tensor in tensors.items()
    }
    if len(renamed) != len(tensors):
        raise ModelError("The checkpoint has a tensor both with and without the prefix 'module.'.")
    return renamed


def _check(
    path: Path, arch: str, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    not_finite = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    problems = {
        "not finite": not_finite,
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & tensors.keys())
            if tensors[name].shape != expected[name].shape
        ],
    }
    parts = [f"{len(names)} {what}: {_listed(names)}" for what, names in problems.items() if names]
    if parts:
        raise ModelError(
            f"The checkpoint {path} is not one of {arch}. Tensors {'; '.join(parts)}. "
            f"Name the right architecture: {', '.join(RELEASED)}."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED_NAMES]) + (", ..." if len(names) > _LISTED_NAMES else "")


def _check_front_end(
    path: Path, tensors: Mapping[str, Tensor], front_end: Mapping[str, Tensor]
) -> None:
    for name, expected in front_end.items():
        difference = float((tensors[name].float() - expected).abs().max())
        if not difference <= _FRONT_END_TOLERANCE:
            raise ModelError(
                f"The checkpoint {path} was trained with another front end: {name} differs by up "
                f"to {difference:.3g} from ours. Its embeddings would be wrong."
            )
