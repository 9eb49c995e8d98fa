"""The model that embeddings are of: those of two models have nothing to do with each other."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.scoring.embedding_files import written_model


class SourceModel(NamedTuple):
    """The model that embeddings are of: its hash, and its front end for people."""

    model: str
    front_end: str


def model_of_file(path: Path) -> SourceModel | None:
    """Return the model that a file of embeddings is of, or a folder of Parquet, if that is known.

    Raises:
        ScoringError: files of the folder are of several models.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    models: dict[SourceModel, Path] = {}
    for file in files:
        if written := written_model(file):
            model = SourceModel(str(written.get("sha256")), str(written.get("front_end")))
            models.setdefault(model, file)
    if len(models) > 1:
        check_same_model(*list(zip(models, map(str, models.values()), strict=True))[:2])
    return next(iter(models), None)


def check_same_model(
    first: tuple[SourceModel | None, str], other: tuple[SourceModel | None, str]
) -> None:
    """Refuse embeddings of two models, each given with its file; unknown models pass.

    Raises:
        ScoringError: they are of different models. Names both.
    """
    if first[0] and other[0] and first[0].model != other[0].model:
        described = (
            f"{source} ({model.model[:12]}, front end {shortened(model.front_end, quoted=False)})"
            for model, source in (first, other)
            if model
        )
        raise ScoringError(
            f"These embeddings are of different models: {' and '.join(described)}. Their cosines "
            "mean nothing. Embed the audio of both with one model."
        )
