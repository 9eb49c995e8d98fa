"""The four released models: what they are made of, and how to read their checkpoints."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_LISTED = 8
_ASKED = re.compile(r"GLOBAL (\S+) (?:whose module|was not)")
_STAGES = {"model_pt.pt": "pretrained", "model_ft.pt": "finetuned"}

# The checkpoints hold their front end as well. Ours is computed; it must be the same one.
_FRONT_END = ("featCal.fbankCal.spectrogram.window", "featCal.fbankCal.mel_scale.fb")
_FRONT_END_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Released:
    """One of the released models.

    Attributes:
        title: as the authors call it.
        pretrained: published result of ``model_pt.pt``.
        finetuned: published result of ``model_ft.pt``.
        config: its configuration.
        normalization: of the waveform.
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
    arch: Released(*PUBLISHED[arch], *made_of) for arch, made_of in _ARCHITECTURES.items()
}


def convert(path: str | Path, *, arch: str) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    """Read a released checkpoint.

    Args:
        path: ``model_pt.pt`` or ``model_ft.pt`` of a released model.
        arch: which model it is: a key of ``RELEASED``.

    Returns:
        The model and its feature extractor, both with ``save_pretrained``.

    Raises:
        ModelError: the file cannot be read without running code from it, or a tensor is missing,
            unexpected or of another shape. The message lists them.
    """
    if arch not in RELEASED:
        raise ModelError(f"There is no released model {arch!r}. Available: {', '.join(RELEASED)}.")
    released = RELEASED[arch]
    tensors = _renamed(_checkpoint(Path(path)))
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


def _checkpoint(path: Path) -> Mapping[str, Tensor]:
    try:
        said: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no checkpoint {path}.") from error
    except pickle.UnpicklingError as error:
        # PyTorch's own text advises to run what is in the file; only what it asks for is quoted.
        asked = _ASKED.search(str(error))
        problem = (
            f"holds more than tensors: it asks for {asked[1]}" if asked else "is damaged, or none"
        )
        raise ModelError(f"The checkpoint {path} {problem}. Nothing in it was run.") from error
    except Exception as error:  # damaged bytes end in nearly any error
        said = first_line(error).rstrip(".")
        raise ModelError(
            f"The checkpoint {path} cannot be read; it may be cut short: {said}. Download it again."
        ) from error
    if not isinstance(said, Mapping):
        raise ModelError(f"The checkpoint {path} is no state dict but a {type(said).__name__}.")
    for name, tensor in said.items():
        if not (isinstance(name, str) and _is_plain(tensor)):
            raise ModelError(
                f"The checkpoint {path} is no state dict: {name!r} is not the name of a tensor of "
                "real numbers."
            )
    return said


def _is_plain(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_complex()
    )


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefix of parallel training; call all shortcuts the same."""
    renamed = {
        name.removeprefix("module.").replace(".shortcut.", ".downsample."): tensor
        for name, tensor in tensors.items()
    }
    if len(renamed) != len(tensors):
        raise ModelError("The checkpoint has tensors with and without 'module.' of one name.")
    return renamed


def _check(
    path: Path, arch: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    problems = {
        "not finite": [name for name, one in found.items() if not bool(one.isfinite().all())],
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in sorted(wanted.keys() & found.keys())
            if found[name].shape != wanted[name].shape
        ],
    }
    said = [
        f"{len(names)} {what}: {', '.join(names[:_LISTED])}{', ...' * (len(names) > _LISTED)}"
        for what, names in problems.items()
        if names
    ]
    if said:
        raise ModelError(
            f"The checkpoint {path} is not one of {arch}. Tensors {'; '.join(said)}. "
            f"Name the right architecture: {', '.join(RELEASED)}."
        )


def _check_front_end(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        apart = float((found[name].float() - tensor).abs().max())
        if not apart <= _FRONT_END_TOLERANCE:
            raise ModelError(
                f"The checkpoint {path} was made with another front end: {name} differs by up to "
                f"{apart:.3g} from ours. Its embeddings would be wrong."
            )
