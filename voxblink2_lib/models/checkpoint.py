"""Read the tensors of a checkpoint, however it was saved, without running code from it.

A checkpoint is a state dict, or has one beside an optimizer and more. Its names have prefixes of
what the network was wrapped in: parallel training, compilation, a module of Lightning, an average
of weights. Beside the network there are weights that only training uses.
"""

from __future__ import annotations

import mmap
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxblink2_lib.errors import ModelError
from voxblink2_lib.foreign_files import as_own_error, scan_pickle, shortened

LISTED_NAMES = 8
_ARCHIVE = b"PK\3\4"
_ADVICE = "weights_only"
# Before zip files: a number, a version, sizes of types, the tensors, and the names of their values.
_PICKLES_OF_OLD_FORM = 5
_NAMED_GLOBAL = re.compile(r"GLOBAL (\S+) (?:whose module|was not)")

# Under one of these, a checkpoint holds its state dict beside other things.
_STATE_DICTS = ("state_dict", "model", "model_state_dict")
# What networks are wrapped in; the attributes are those of a module that has a loss as well.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|encoder)\.)+")
_ATTRIBUTES = re.compile(r"\b(?:model|encoder)\.")
# Weights that only training uses, and the count of an average of weights.
_TRAINING_NAMES = re.compile(
    r"^(?:(?:projection|head|classifier|criterion|objective|loss\w*|optim\w*)(?:\.|$)|n_averaged$)"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of a checkpoint that may be a network's.

    Attributes:
        path: the file.
        tensors: tensors by their names without prefixes.
        left_out: names of what is no part of a network, sorted.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: the file is missing, damaged, holds more than numbers, or no state dict.
    """
    state_dict, beside = _state_dict(path, _load(path))
    tensors, left_out = _unwrapped(path, state_dict)
    return Checkpoint(path, tensors, tuple(sorted([*beside, *left_out])))


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Return the first names of a list, for a message."""
    shown = (shortened(name, quoted=False) for name in names[:LISTED_NAMES])
    return ", ".join(shown) + (", ..." if len(names) > LISTED_NAMES else "")


# -- What is in a file -----------------------------------------------------------------------------


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
            raise ModelError(
                f"The checkpoint {path} {problem}. Nothing in it was run. Save only "
                "model.state_dict() where it was made."
            ) from None


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


def _state_dict(path: Path, content: object) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the state dict of a checkpoint, and the names of what lies beside it."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ModelError(f"The checkpoint {path} is not a state dict but a {kind}.")
    inner = [name for name in _STATE_DICTS if isinstance(content.get(name), Mapping)]
    if len(inner) > 1:
        raise ModelError(
            f"The checkpoint {path} has several state dicts: {', '.join(inner)}. Save the one that "
            "is meant in a file of its own."
        )
    beside = [str(name)[:200] for name in content if name not in inner] if inner else []
    state_dict: Mapping[Any, Any] = content[inner[0]] if inner else content
    for name, tensor in state_dict.items():
        if not (isinstance(name, str) and _is_plain(tensor)):
            raise ModelError(
                f"The checkpoint {path} is not a state dict: {shortened(name)} is not the name of "
                "a tensor of real numbers. A state dict may also be under one of "
                f"{', '.join(_STATE_DICTS)}."
            )
    return state_dict, beside


def _is_plain(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_complex()
        and not tensor.is_quantized
    )


# -- Names -----------------------------------------------------------------------------------------


def _unwrapped(path: Path, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the network's tensors without prefixes, and the names of those beside it.

    All shortcuts get the same name.
    """
    prefixes = {name: _prefix(name) for name in state_dict}
    # Where the network is an attribute, what is outside of it is no part of it.
    is_attribute = any(_ATTRIBUTES.search(prefix) for prefix in prefixes.values())
    tensors: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in state_dict.items():
        bare = name.removeprefix(prefixes[name]).replace(".shortcut.", ".downsample.")
        is_outside = is_attribute and not _ATTRIBUTES.search(prefixes[name])
        if is_outside or _TRAINING_NAMES.match(bare):
            left_out.append(name)
        elif bare in tensors:
            raise ModelError(
                f"The checkpoint {path} has the tensor {shortened(bare)} under several prefixes, "
                "such as of two networks. Save the one that is meant in a file of its own."
            )
        else:
            tensors[bare] = tensor
    return tensors, left_out


def _prefix(name: str) -> str:
    match = _WRAPPERS.match(name)
    return match[0] if match else ""
