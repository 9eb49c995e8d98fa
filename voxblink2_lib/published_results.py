"""What the authors of VoxBlink2 published about their models; loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Where the configuration of a converted model says which release it was.
RELEASE_KEY = "voxblink2_release"


class PublishedResult(NamedTuple):
    """A result on Vox1-O: EER in percent, minDCF at a prior of 0.01."""

    eer_percent: float
    min_dcf: float


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


def published_results(config: Mapping[str, Any]) -> dict[str, PublishedResult]:
    """Return what was published about a converted model.

    Args:
        config: what ``config.json`` of the model says.

    Returns:
        Results by what was trained on; both stages if the checkpoint's name did not tell which it
        was, and none for a model that was not converted from a release.

    Example:
        >>> published_results({"voxblink2_release": {"arch": "resnet34", "stage": "finetuned"}})
        {'ResNet34-GSP, VoxBlink2 + VoxCeleb2': Result(eer_percent=0.553, min_dcf=0.056)}
    """
    said = config.get(RELEASE_KEY) or {}
    if said.get("arch") not in PUBLISHED:
        return {}
    published = PUBLISHED[said["arch"]]
    return {
        f"{published.title}, {trained}": result
        for stage, trained, result in (
            ("pretrained", "VoxBlink2", published.pretrained),
            ("finetuned", "VoxBlink2 + VoxCeleb2", published.finetuned),
        )
        if said.get("stage") in {stage, None}
    }
