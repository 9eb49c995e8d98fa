"""What a model is: a hash that is the same for the same network and front end, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.embedding.back_ends import back_end_of
from voxblink2_lib.files import sha256_of

# Of files of JSON, what counts is the settings in them.
_SETTINGS = ".json"


class ModelIdentity(NamedTuple):
    """A model, for the files of its embeddings.

    Attributes:
        model: hash of its weights, configuration and front end.
        front_end: its front end, for people.
    """

    model: str
    front_end: str


def model_hashes(model: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model, by its name.

    Raises:
        ModelError: a file of the model is missing.
    """
    return {name: sha256_of(path) for name, path in back_end_of(model).files().items()}


def identify_model(model: Path, hashes: Mapping[str, str] | None = None) -> ModelIdentity:
    """Return the identity of a model.

    Args:
        model: its folder or file.
        hashes: of its files, if they are known: those of the weights take seconds.

    Raises:
        ModelError: a configuration of the model cannot be read.
    """
    back_end, digest = back_end_of(model), hashlib.sha256()
    for name, sha256 in (model_hashes(model) if hashes is None else hashes).items():
        if Path(name).suffix != _SETTINGS:
            digest.update(sha256.encode())
    for settings in back_end.settings():
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return ModelIdentity(digest.hexdigest(), back_end.front_end())
