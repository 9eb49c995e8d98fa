"""Convert checkpoints of the released models and of WeSpeaker's to models of ``transformers``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from voxblink2_lib.errors import ModelError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.models.architectures import ARCHITECTURES, Architecture
from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.checkpoint import Checkpoint, listed, read_checkpoint
from voxblink2_lib.models.features import SpeakerFeatureExtractor, window_and_filters
from voxblink2_lib.models.wespeaker import CONFIG_FILE, read_wespeaker
from voxblink2_lib.published_results import RELEASE_KEY, WESPEAKER

_STAGES = {"model_pt.pt": "pretrained", "model_ft.pt": "finetuned"}

# Checkpoints of the released models may contain their front end. Ours is computed; it must be the
# same.
_FRONT_END = ("featCal.fbankCal.spectrogram.window", "featCal.fbankCal.mel_scale.fb")
_FRONT_END_TOLERANCE = 1e-3
_COUNTER = "num_batches_tracked"  # of training steps; many checkpoints are saved without
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted checkpoint.

    Attributes:
        model: the network.
        extractor: its feature extractor.
        arch: its name among ``ARCHITECTURES``.
        left_out: names of what the checkpoint holds besides the network.
    """

    model: SpeakerModel
    extractor: SpeakerFeatureExtractor
    arch: str
    left_out: tuple[str, ...]


def convert(
    path: str | Path, *, arch: str | None = None
) -> tuple[SpeakerModel, SpeakerFeatureExtractor]:
    """Convert a checkpoint to a model and its feature extractor.

    Args:
        path: a checkpoint, such as ``model_pt.pt`` or ``model_ft.pt`` of a released model, or a
            folder with ``config.yaml`` and ``avg_model.pt`` of WeSpeaker's.
        arch: which model it is, a key of ``ARCHITECTURES``; by default found by the names and
            shapes of its tensors.

    Returns:
        The model and its feature extractor, both with ``save_pretrained``.

    Raises:
        ModelError: the file is damaged or cannot be read without running code from it, or tensors
            are missing, unexpected or of another shape; the message lists them.
    """
    conversion = convert_checkpoint(path, arch=arch)
    return conversion.model, conversion.extractor


def convert_checkpoint(path: str | Path, *, arch: str | None = None) -> Conversion:
    """Convert as :func:`convert`; return also which model it is and what was left out."""
    path = Path(path)
    if arch is not None and arch not in ARCHITECTURES:
        raise ModelError(f"There is no model {arch!r}. Available: {', '.join(ARCHITECTURES)}.")
    if path.is_dir():
        folder = read_wespeaker(path)
        if arch not in {None, folder.arch}:
            raise ModelError(
                f"The model in {path} is {folder.arch}, not {arch}. Leave out the architecture "
                "(--arch)."
            )
        arch, architecture = folder.arch, folder.architecture
        checkpoint = read_checkpoint(folder.checkpoint)
    else:
        checkpoint = read_checkpoint(path)
        arch = _detected(checkpoint) if arch is None else arch
        architecture = ARCHITECTURES[arch]
    model = _filled(checkpoint, arch, architecture)
    setattr(model.config, RELEASE_KEY, {"arch": arch, "stage": _STAGES.get(path.name)})
    return Conversion(model, architecture.extractor(), arch, checkpoint.left_out)


def _filled(checkpoint: Checkpoint, arch: str, architecture: Architecture) -> SpeakerModel:
    """Return the network with the weights of a checkpoint, ready to embed.

    Raises:
        ModelError: a tensor that it uses does not fit, or there is one that it does not have.
    """
    tensors = checkpoint.tensors
    front_end = _front_end(checkpoint, arch, architecture)
    shapes = architecture.shapes() | {name: each.shape for name, each in front_end.items()}
    problems = _problems(tensors, shapes)
    if problems:
        listing = "; ".join(
            f"{len(names)} {what}: {listed(names)}" for what, names in problems.items()
        )
        raise ModelError(
            f"The checkpoint {checkpoint.path} is not one of {arch}. Tensors {listing}. "
            f"{_advice(checkpoint, arch, architecture, problems)}"
        )
    _check_front_end(checkpoint.path, tensors, front_end)
    model = architecture.model()
    state = model.state_dict()
    for name, initial in state.items():
        tensor = tensors.get(architecture.name_in_checkpoints(name))
        if tensor is not None:
            state[name] = tensor.reshape(initial.shape)
    model.load_state_dict(state)
    model.train(mode=False)
    return model


# -- Tensors that do not fit -----------------------------------------------------------------------


def _problems(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, list[str]]:
    """Return the names of tensors that do not fit a network, by what is wrong."""
    common = sorted(tensors.keys() & shapes.keys())
    # Shapes before values: a tensor may repeat one number more often than memory holds.
    fitting = [name for name in common if _fits(tensors[name], shapes[name])]
    floats = [name for name in fitting if not name.endswith(_COUNTER)]
    of_type = [name for name in floats if tensors[name].dtype in _FLOATS]
    required = {name for name in shapes if not name.endswith(_COUNTER)}
    problems = {
        "not finite": [
            name for name in of_type if not bool(tensors[name].float().isfinite().all())
        ],
        "missing": sorted(required - tensors.keys()),
        "unexpected": sorted(tensors.keys() - shapes.keys()),
        "of another shape": [
            f"{name} {_shape(tensors[name].shape)} instead of {_shape(shapes[name])}"
            for name in common
            if name not in fitting
        ],
        "of another type": [
            f"{name} {tensors[name].dtype}" for name in floats if name not in of_type
        ],
    }
    return {problem: names for problem, names in problems.items() if names}


def _fits(tensor: Tensor, shape: torch.Size) -> bool:
    # A convolution over single frames may have been a linear layer.
    return tensor.shape == shape or (len(shape) == 3 and (*tensor.shape, 1) == shape)


def _shape(shape: torch.Size) -> str:
    return shortened(str(tuple(shape)), quoted=False)


def _advice(
    checkpoint: Checkpoint, arch: str, architecture: Architecture, problems: Mapping[str, list[str]]
) -> str:
    if problems.keys() == {"not finite"}:
        return "Training diverged, or the file is damaged: take another checkpoint."
    if architecture is not ARCHITECTURES[arch]:
        return (
            f"It is incomplete, or of another network than the {CONFIG_FILE} beside it describes."
        )
    nearest = _nearest(checkpoint)
    if nearest is None:
        return f"No model that is converted is near to it: {', '.join(ARCHITECTURES)}."
    if nearest != arch:
        return f"It is nearest to {nearest}: name that one (--arch {nearest}), or none."
    if "of another shape" in problems and arch in WESPEAKER:
        return f"For other sizes, name the folder that has the checkpoint and its {CONFIG_FILE}."
    return (
        "It is another network, or holds more than one: save its own state dict only."
        if "unexpected" in problems
        else "It is incomplete, or of a changed network: save it again, whole."
    )


# -- Which architecture it is ----------------------------------------------------------------------


@functools.cache
def _shapes_of(arch: str) -> Mapping[str, torch.Size]:
    return ARCHITECTURES[arch].shapes()


def _nearest(checkpoint: Checkpoint) -> str | None:
    """Return the architecture that most tensors fit; ``None`` if less than half of them do."""

    def score(arch: str) -> tuple[int, int]:
        shapes = _shapes_of(arch)
        tensors = checkpoint.tensors
        fitting = sum(_fits(tensors[name], shapes[name]) for name in tensors.keys() & shapes.keys())
        return fitting, -len(shapes)

    nearest = max(ARCHITECTURES, key=score)
    return nearest if 2 * score(nearest)[0] > len(_shapes_of(nearest)) else None


def _detected(checkpoint: Checkpoint) -> str:
    """Return the architecture of a checkpoint by the names and shapes of its tensors.

    Raises:
        ModelError: it is none that is converted.
    """
    if (nearest := _nearest(checkpoint)) is not None:
        return nearest
    names = sorted(checkpoint.tensors)
    raise ModelError(
        f"The checkpoint {checkpoint.path} is of no model that is converted. It has {len(names)} "
        f"tensors: {listed(names)}. Available: {', '.join(ARCHITECTURES)}."
    )


# -- The front end in a checkpoint -----------------------------------------------------------------


def _front_end(checkpoint: Checkpoint, arch: str, architecture: Architecture) -> dict[str, Tensor]:
    """Return our front end, by the names that the checkpoint has for it, as far as it has it.

    Raises:
        ModelError: it has one, but the architecture is used with another.
    """
    names = [name for name in _FRONT_END if name in checkpoint.tensors]
    if names and architecture.front_end != "voxblink2":
        raise ModelError(
            f"The checkpoint {checkpoint.path} was trained with the front end of VoxBlink2's "
            f"scripts: it has {listed(names)}. {arch} is used with Kaldi's; embeddings would be "
            "wrong."
        )
    computed = window_and_filters(architecture.config.num_mel_bins)
    ours = dict(zip(_FRONT_END, computed, strict=True))
    return {name: ours[name] for name in names}


def _check_front_end(
    path: Path, tensors: Mapping[str, Tensor], front_end: Mapping[str, Tensor]
) -> None:
    for name, expected in front_end.items():
        difference = float((tensors[name].float() - expected).abs().max())
        # Half precision rounds by more than the tolerance.
        rounding = torch.finfo(tensors[name].dtype).eps
        if not difference <= max(_FRONT_END_TOLERANCE, rounding):
            raise ModelError(
                f"The checkpoint {path} was trained with another front end: {name} differs by up "
                f"to {difference:.3g} from ours. Its embeddings would be wrong."
            )
