"""The networks whose checkpoints are converted: the four that were released, and WeSpeaker's."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from voxblink2_lib.models.base import SpeakerModel
from voxblink2_lib.models.configuration import EcapaTdnnConfig, SpeakerConfig, SpeakerResNetConfig
from voxblink2_lib.models.ecapa import EcapaTdnn
from voxblink2_lib.models.features import FrontEnd, Normalization, SpeakerFeatureExtractor
from voxblink2_lib.models.resnet import SpeakerResNet
from voxblink2_lib.published_results import PUBLISHED, PublishedResult

KINDS: dict[type[SpeakerConfig], type[SpeakerModel]] = {
    EcapaTdnnConfig: EcapaTdnn,
    SpeakerResNetConfig: SpeakerResNet,
}

# Names of tensors: ours, as a pattern, and those of the checkpoints.
Renaming = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network as its checkpoints hold it.

    Attributes:
        title: its name in the project that it is of.
        config: its configuration.
        normalization: normalization of the waveform; ``None`` with Kaldi's front end.
        renaming: how names of tensors in checkpoints differ from ours.
    """

    title: str
    config: SpeakerConfig
    normalization: Normalization | None = None
    renaming: Renaming = ()

    @property
    def front_end(self) -> FrontEnd:
        """The recipe of its front end."""
        return "kaldi" if self.normalization is None else "voxblink2"

    def model(self) -> SpeakerModel:
        """Return a new network, of random weights."""
        return KINDS[type(self.config)](copy.deepcopy(self.config))

    def extractor(self) -> SpeakerFeatureExtractor:
        """Return its feature extractor."""
        return SpeakerFeatureExtractor(
            front_end=self.front_end,
            normalization=self.normalization,
            num_mel_bins=self.config.num_mel_bins,
        )

    def name_in_checkpoints(self, name: str) -> str:
        """Return the name that checkpoints have for a tensor of ours."""
        for pattern, replacement in self.renaming:
            name, count = re.subn(pattern, replacement, name)
            if count:
                break
        return name

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each tensor of a checkpoint, by its name there."""
        with torch.device("meta"):
            tensors = self.model().state_dict()
        return {self.name_in_checkpoints(name): tensor.shape for name, tensor in tensors.items()}


_WESPEAKER_RESNET: Renaming = ((r"^front\.", ""), (r"^bottleneck\.", "seg_1."))
_WESPEAKER_ECAPA: Renaming = (
    (r"^(conv|bn)1\.", r"layer1.\1."),
    *(
        (rf"^layer{block}\.{ours}\.", f"layer{block + 1}.se_res2block.{theirs}.")
        for block in (1, 2, 3)
        for ours, theirs in (
            *(("conv1", "0.conv"), ("bn1", "0.bn"), ("convs", "1.convs"), ("bns", "1.bns")),
            *(("conv3", "2.conv"), ("bn3", "2.bn")),
            *((r"se\.se\.1", "3.linear1"), (r"se\.se\.3", "3.linear2")),
        )
    ),
    (r"^layer4\.", "conv."),
    (r"^attention\.0\.", "pool.linear1."),
    (r"^attention\.2\.", "pool.linear2."),
    (r"^bn5\.", "bn."),
    (r"^fc6\.", "linear."),
)
_ECAPA_OF_WESPEAKER = functools.partial(
    EcapaTdnnConfig,
    attention_channels=128,
    sum_inputs=False,
    attention_norm=False,
    embedding_norm=False,
    variance_floor=1e-7,
)
_SIMAM_RESNET = functools.partial(SpeakerResNetConfig, block="simam", pooling="asp")

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "ecapa_tdnn": Architecture("ECAPA-TDNN", EcapaTdnnConfig(), "std"),
        "resnet34": Architecture("ResNet34-GSP", SpeakerResNetConfig(), "std"),
        "resnet100": Architecture(
            "ResNet100-TSP",
            SpeakerResNetConfig(depths=(6, 16, 24, 3), block="bottleneck", pooling="tsp"),
            "max",
        ),
        "resnet293": Architecture(
            "SimAM-ResNet293-ASP", _SIMAM_RESNET(depths=(10, 20, 64, 3)), "max"
        ),
        "wespeaker_simam_resnet34": Architecture("SimAM_ResNet34_ASP", _SIMAM_RESNET()),
        "wespeaker_simam_resnet100": Architecture(
            "SimAM_ResNet100_ASP", _SIMAM_RESNET(depths=(6, 16, 24, 3))
        ),
        "wespeaker_resnet34": Architecture(
            "ResNet34",
            SpeakerResNetConfig(base_channels=32, pooling="tsp"),
            renaming=_WESPEAKER_RESNET,
        ),
        "wespeaker_ecapa_c512": Architecture(
            "ECAPA_TDNN_GLOB_c512", _ECAPA_OF_WESPEAKER(channels=512), renaming=_WESPEAKER_ECAPA
        ),
        "wespeaker_ecapa_c1024": Architecture(
            "ECAPA_TDNN_GLOB_c1024", _ECAPA_OF_WESPEAKER(), renaming=_WESPEAKER_ECAPA
        ),
    }
)
"""The networks whose checkpoints are converted, by name."""


@dataclass(frozen=True, slots=True)
class Released:
    """One of the four released models.

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


def _released(arch: str) -> Released:
    architecture = ARCHITECTURES[arch]
    assert architecture.normalization is not None
    return Released(*PUBLISHED[arch], architecture.config, architecture.normalization)


RELEASED: dict[str, Released] = {arch: _released(arch) for arch in PUBLISHED}
"""The released networks by name, each with its published results, configuration and front end."""
