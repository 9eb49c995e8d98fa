"""Convert the checkpoints of the four released models."""

from __future__ import annotations

import copy
import mmap
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxblink2_lib.errors import ModelError
from voxblink2_lib.foreign_files import as_own_error, scan_pickle, shortened
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
_ARCHIVE = b"PK\3\4"
_ADVICE = "weights_only"
# Before zip files: a number, a version, sizes of types, the tensors, and the names of their values.
_PICKLES_OF_OLD_FORM = 5
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
                f"The checkpoint {path} is not a state dict: {shortened(name)} is not the name of "
                "a tensor of real numbers."
            )
    return state_dict


def _load(path: Path) -> object:
    """Return the content of a checkpoint without running anything from it."""
    if not path.exists():
        raise ModelError(f"There is no checkpoint {path}.")
    place = f"The checkpoint {path} cannot be read; it may be incomplete"
    with as_own_error(ModelError, place, "Download it again."):
        _check_pickles(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # PyTorch's messages advise to run the file's code; of them, only its name is quoted.
            if _ADVICE not in str(error) and not isinstance(error, pickle.UnpicklingError):
                raise
            match = _NAMED_GLOBAL.search(str(error))
            problem = (
                f"contains more than tensors: it names {shortened(match[1], quoted=False)}"
                if match
                else "is damaged or not a checkpoint"
            )
            raise ModelError(f"The checkpoint {path} {problem}. Nothing in it was run.") from None


def _check_pickles(path: Path) -> None:
    """Check the instructions that tensors are made by, and that no file in it is compressed.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: it is no such file.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE  # as PyTorch decides it
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("what is in it is larger than the file")
            for member in members:
                if member.filename.endswith("/data.pkl"):
                    scan_pickle(archive.read(member), text_keys=False)
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = 0
        for _ in range(_PICKLES_OF_OLD_FORM):
            if end < len(data):
                end = scan_pickle(data, end, text_keys=False)


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
    # Shapes before values: a tensor may repeat one number more often than memory holds.
    fitting = [
        name
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape == expected[name].shape
    ]
    not_finite = sorted(name for name in fitting if not bool(tensors[name].isfinite().all()))
    problems = {
        "not finite": not_finite,
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": [
            f"{name} {_shape(tensors[name])} instead of {tuple(expected[name].shape)}"
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


def _shape(tensor: Tensor) -> str:
    return shortened(str(tuple(tensor.shape)), quoted=False)


def _listed(names: list[str]) -> str:
    shown = (shortened(name, quoted=False) for name in names[:_LISTED_NAMES])
    return ", ".join(shown) + (", ..." if len(names) > _LISTED_NAMES else "")


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
