"""Published results of models that were trained on VoxBlink2; imports no other module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Key of a converted model's configuration for the released model that it was made from.
RELEASE_KEY = "voxblink2_release"


class PublishedResult(NamedTuple):
    """A result on a list of trials: EER in percent, minDCF at a prior of 0.01 if published."""

    eer_percent: float
    min_dcf: float | None = None


class Published(NamedTuple):
    """A released model: its name, the results of ``model_pt.pt`` and of ``model_ft.pt``."""

    title: str
    pretrained: PublishedResult
    finetuned: PublishedResult


# The authors' table for Vox1-O (VoxBlink2, Interspeech 2024, and their repository).
PUBLISHED: dict[str, Published] = {
    "ecapa_tdnn": Published(
        "ECAPA-TDNN", PublishedResult(1.728, 0.177), PublishedResult(0.675, 0.053)
    ),
    "resnet34": Published(
        "ResNet34-GSP", PublishedResult(1.728, 0.176), PublishedResult(0.553, 0.056)
    ),
    "resnet100": Published(
        "ResNet100-TSP", PublishedResult(1.132, 0.113), PublishedResult(0.457, 0.049)
    ),
    "resnet293": Published(
        "SimAM-ResNet293-ASP", PublishedResult(0.707, 0.075), PublishedResult(0.228, 0.013)
    ),
}

LISTS = ("Vox1-O", "Vox1-E", "Vox1-H")

# EER in percent on each of LISTS, by model and what was done to its scores: WeSpeaker's table for
# VoxCeleb, of its models that were trained on VoxBlink2 and fine-tuned on VoxCeleb2. Those that
# WeSpeaker has trained on other corpora only are here without results.
WESPEAKER: dict[str, dict[str, tuple[float, float, float]]] = {
    "wespeaker_simam_resnet34": {
        "WeSpeaker SimAM_ResNet34_ASP, AS-norm and quality measures": (0.372, 0.559, 0.997),
    },
    "wespeaker_simam_resnet100": {
        "WeSpeaker SimAM_ResNet100_ASP": (0.229, 0.458, 0.868),
        "WeSpeaker SimAM_ResNet100_ASP, AS-norm and quality measures": (0.202, 0.421, 0.795),
    },
    "wespeaker_resnet34": {},
    "wespeaker_ecapa_c512": {},
    "wespeaker_ecapa_c1024": {},
}

# The architectures whose checkpoints are converted.
ARCHITECTURE_NAMES = (*PUBLISHED, *WESPEAKER)


def published_results(config: Mapping[str, Any]) -> dict[str, PublishedResult]:
    """Return the published results of a converted model.

    Args:
        config: content of the model's ``config.json``.

    Returns:
        Results by list of trials, model, and training data; of both stages if the checkpoint's
        name did not show its stage; of an architecture of WeSpeaker, its results after training
        on VoxBlink2, with what was done to the scores; and none for a model that was not converted.

    Example:
        >>> release = {"arch": "resnet34", "stage": "finetuned"}
        >>> for name, result in published_results({RELEASE_KEY: release}).items():
        ...     print(name, *result)
        Vox1-O: ResNet34-GSP, VoxBlink2 + VoxCeleb2 0.553 0.056
    """
    release = config.get(RELEASE_KEY) or {}
    arch = str(release.get("arch"))
    if arch not in PUBLISHED:
        return {
            f"{trials}: {name}": PublishedResult(eer)
            for name, eers in WESPEAKER.get(arch, {}).items()
            for trials, eer in zip(LISTS, eers, strict=True)
        }
    published = PUBLISHED[arch]
    return {
        f"Vox1-O: {published.title}, {trained}": result
        for stage, trained, result in (
            ("pretrained", "VoxBlink2", published.pretrained),
            ("finetuned", "VoxBlink2 + VoxCeleb2", published.finetuned),
        )
        if release.get("stage") in {stage, None}
    }


HOMEPAGE = "https://VoxBlink2.github.io"
LICENSE = "Annotations: CC BY-NC-SA 4.0. Media: their owners'."
CITATION = """\
@inproceedings{lin24voxblink2,
  title = {VoxBlink2: A 100K+ Speaker Recognition Corpus and the Open-Set Speaker-Identification
           Benchmark},
  author = {Lin, Yuke and Cheng, Ming and Zhang, Fulin and Gao, Yingying and Zhang, Shilei and
            Li, Ming},
  booktitle = {Interspeech},
  year = {2024}
}
"""
