"""Folders of WeSpeaker's models: ``config.yaml`` beside ``avg_model.pt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from voxblink2_lib.errors import ModelError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.models.architectures import ARCHITECTURES, Architecture

CONFIG_FILE, CHECKPOINT_FILE = "config.yaml", "avg_model.pt"

# Models of WeSpeaker that are not taken begin with one of these.
_KNOWN_FAMILIES = (
    *("CAMPPlus", "ECAPA_TDNN", "ERes2Net", "Gemini_DF_ResNet", "ReDimNet", "REPVGG", "Res2Net"),
    *("ResNet", "SimAM_ResNet", "W2VBert", "XI_VEC", "XVEC", "whisper_PMFA"),
)
_LARGEST_CONFIG_BYTES = 1 << 20
_LARGEST_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The arguments of a model of WeSpeaker.

    Attributes:
        sizes: ours by theirs.
        fixed: those that must have one value, with it and their default.
        ignored: those that matter only in training.
    """

    sizes: Mapping[str, str]
    fixed: Mapping[str, tuple[Any, Any]]
    ignored: tuple[str, ...] = ()


_SIMAM_ARGUMENTS = _Arguments(
    {
        "in_planes": "base_channels",
        "embed_dim": "xvector_output_dim",
        "acoustic_dim": "num_mel_bins",
    },
    {},
    ("dropout",),
)
_SIZES = {"feat_dim": "num_mel_bins", "embed_dim": "xvector_output_dim"}
_RESNET_ARGUMENTS = _Arguments(
    _SIZES, {"pooling_func": ("TSTP", "TSTP"), "two_emb_layer": (False, True)}
)
_ECAPA_ARGUMENTS = _Arguments(_SIZES, {"pooling_func": ("ASTP", "ASTP"), "emb_bn": (False, False)})
_ARGUMENTS: Mapping[str, _Arguments] = {
    "wespeaker_simam_resnet34": _SIMAM_ARGUMENTS,
    "wespeaker_simam_resnet100": _SIMAM_ARGUMENTS,
    "wespeaker_resnet34": _RESNET_ARGUMENTS,
    "wespeaker_ecapa_c512": _ECAPA_ARGUMENTS,
    "wespeaker_ecapa_c1024": _ECAPA_ARGUMENTS,
}
_NAMES = {ARCHITECTURES[arch].title: arch for arch in _ARGUMENTS}

# What the front end must be: place in the configuration, its value and its default.
_FRONT_END: Mapping[tuple[str, ...], tuple[Any, Any]] = {
    ("dataset_args", "frontend"): ("fbank", "fbank"),
    ("dataset_args", "resample_rate"): (16_000, 16_000),
    ("dataset_args", "fbank_args", "frame_length"): (25, 25),
    ("dataset_args", "fbank_args", "frame_shift"): (10, 10),
    ("dataset_args", "cmvn"): (True, True),
    ("dataset_args", "cmvn_args", "norm_mean"): (True, True),
    ("dataset_args", "cmvn_args", "norm_var"): (False, False),
}


@dataclass(frozen=True, slots=True)
class WeSpeakerFolder:
    """A model of WeSpeaker.

    Attributes:
        checkpoint: the file of its weights.
        arch: its name among ``ARCHITECTURES``.
        architecture: its network, with the sizes of its configuration.
    """

    checkpoint: Path
    arch: str
    architecture: Architecture


def read_wespeaker(folder: Path) -> WeSpeakerFolder:
    """Read the configuration of a model of WeSpeaker.

    Raises:
        ModelError: a file is missing, or the model or its front end is not one that is taken.
    """
    config, checkpoint = folder / CONFIG_FILE, folder / CHECKPOINT_FILE
    if missing := [path.name for path in (config, checkpoint) if not path.is_file()]:
        raise ModelError(
            f"There is no {' and no '.join(missing)} in the folder {folder}. Name a checkpoint, or "
            f"a folder of WeSpeaker's with {CONFIG_FILE} and {CHECKPOINT_FILE}."
        )
    settings = _read_yaml(config)
    arch = _arch(config, settings.get("model"))
    arguments = settings.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise ModelError(f"{config}: model_args is {shortened(arguments)}, not names and values.")
    sizes = _sizes(config, _ARGUMENTS[arch], arguments)
    architecture = ARCHITECTURES[arch]
    of_config = type(architecture.config).from_dict({**architecture.config.to_dict(), **sizes})
    _check_front_end(config, settings, of_config.num_mel_bins)
    return WeSpeakerFolder(checkpoint, arch, replace(architecture, config=of_config))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _LARGEST_CONFIG_BYTES:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes: no configuration is as large.")
    with as_own_error(ModelError, f"{path} cannot be read as YAML"):
        settings = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(settings, Mapping):
        raise ModelError(f"{path} has no settings: it is {shortened(settings)}.")
    return settings


def _arch(config: Path, name: object) -> str:
    if isinstance(name, str) and name in _NAMES:
        return _NAMES[name]
    if isinstance(name, str) and name.startswith(_KNOWN_FAMILIES):
        problem = "one of WeSpeaker's that is known, but not converted"
    else:
        problem = "not known"
    raise ModelError(
        f"{config}: the model {shortened(name)} is {problem}. Available: {', '.join(_NAMES)}."
    )


def _sizes(config: Path, known: _Arguments, arguments: Mapping[Any, Any]) -> dict[str, int]:
    """Return the sizes of a network, by their names in our configuration."""
    names = [*known.sizes, *known.fixed, *known.ignored]
    for name in arguments:
        if name not in names:
            raise ModelError(
                f"{config}: model_args has {shortened(name)}, which would change the network in an "
                f"unknown way. Known: {', '.join(names)}."
            )
    for name, (allowed, default) in known.fixed.items():
        _check_setting(config, f"model_args.{name}", arguments.get(name, default), allowed)
    sizes = {}
    for name, ours in known.sizes.items():
        if name in arguments:
            size = arguments[name]
            if type(size) is not int or not 0 < size < _LARGEST_SIZE:
                raise ModelError(
                    f"{config}: model_args.{name} is {shortened(size)}; expected is a whole number "
                    f"from 1 to {_LARGEST_SIZE - 1:,}."
                )
            sizes[ours] = size
    return sizes


def _check_front_end(config: Path, settings: Mapping[str, Any], bands: int) -> None:
    expected = {
        **_FRONT_END,
        ("dataset_args", "fbank_args", "num_mel_bins"): (bands, bands),
    }
    for place, (allowed, default) in expected.items():
        value: Any = settings
        for name in place:
            value = value.get(name, default) if isinstance(value, Mapping) else default
        _check_setting(config, ".".join(place), value, allowed)


def _check_setting(config: Path, name: str, value: object, allowed: object) -> None:
    if value != allowed:
        raise ModelError(
            f"{config}: {name} is {shortened(value)}; only {allowed!r} is taken. With another, "
            "embeddings would be wrong."
        )
