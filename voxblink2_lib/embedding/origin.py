"""What embeddings were made of, to be written beside them: the model, and the corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.embedding.back_ends import back_end_of
from voxblink2_lib.embedding.block_worker import EmbedOptions
from voxblink2_lib.embedding.model_identity import identify_model

# Ids of six digits are of VoxBlink2 alone; VoxBlink1, VoxCeleb1 and VoxCeleb2 share those of five.
_VOXBLINK2, _VOXBLINK2_NAME = "VoxBlink2", r"(^|/)id[0-9]{6}[/-]"


def model_text(name: str, options: EmbedOptions, hashes: Mapping[str, str]) -> str:
    """Return as JSON what made embeddings: the model, its front end, and how it was used.

    Args:
        name: the model as its user named it; of a folder or file, only its own name is written.
        options: how it was used, with the place of the model.
        hashes: see :func:`~voxblink2_lib.embedding.model_identity.model_hashes`.
    """
    identity, back_end = identify_model(Path(options.model), hashes), back_end_of(options.model)
    settings = back_end.settings()
    record = {
        "name": Path(name).name if Path(name).expanduser().exists() else name,
        "back_end": back_end.name,
        "sha256": identity.model,
        "files": dict(hashes),
        "front_end": identity.front_end,
        "front_end_settings": settings[-1] if settings else {},
        "window_seconds": options.window_seconds,
        "dtype": options.dtype,
    }
    return json.dumps(record)


def corpus_of_names(names: pa.ChunkedArray) -> str | None:
    """Return the corpus that names of utterances are of, if the ids of their speakers tell it.

    >>> corpus_of_names(pa.chunked_array([["id000002/-JUT3czS6OI/00001"]]))
    'VoxBlink2'
    """
    is_voxblink2 = pc.all(pc.match_substring_regex(names, _VOXBLINK2_NAME)).as_py()
    return _VOXBLINK2 if is_voxblink2 else None
