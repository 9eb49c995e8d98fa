"""What a model is: a hash that is the same for the same network and front end, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import ModelError
from voxblink2_lib.files import sha256_of
from voxblink2_lib.foreign_files import as_own_error

_WEIGHTS = {".safetensors", ".bin"}
_FILES = {".json", *_WEIGHTS}
_CONFIG, _FRONT_END = "config.json", "preprocessor_config.json"
# They differ between copies of one model.
_NOT_OF_THE_MODEL = ("transformers_version", "_name_or_path", "auto_map")


class ModelIdentity(NamedTuple):
    """A model, for the files of its embeddings.

    Attributes:
        model: hash of its weights, configuration and front end.
        front_end: its front end, for people.
    """

    model: str
    front_end: str


def model_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model, by its name."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _FILES)
    return {path.name: sha256_of(path) for path in files}


def identify_model(folder: Path, hashes: Mapping[str, str] | None = None) -> ModelIdentity:
    """Return the identity of a model.

    Args:
        folder: of the model.
        hashes: of its files, if they are known: those of the weights take seconds.

    Raises:
        ModelError: a configuration in the folder cannot be read.
    """
    digest = hashlib.sha256()
    for name, sha256 in (model_hashes(folder) if hashes is None else hashes).items():
        if Path(name).suffix in _WEIGHTS:
            digest.update(sha256.encode())
    front_end = _settings(folder / _FRONT_END)
    for settings in (_settings(folder / _CONFIG), front_end):
        digest.update(json.dumps(settings, sort_keys=True).encode())
    return ModelIdentity(digest.hexdigest(), _description(front_end))


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with as_own_error(ModelError, f"{path} cannot be read"):
        settings = dict(json.loads(path.read_text("utf-8")))
    return {name: value for name, value in settings.items() if name not in _NOT_OF_THE_MODEL}


def _description(front_end: dict[str, Any]) -> str:
    """Return a front end for people: its kind, and of ours the recipe."""
    values = [front_end.get("feature_extractor_type"), front_end.get("front_end")]
    values += [front_end.get("normalization"), front_end.get("window_type")]
    return " ".join(str(value)[:80] for value in values if value) or "unknown"
