"""Where shards and catalogue of a published store are, for training that reads by ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.published.manifest import LEDGER, Manifest, PublishedFile
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import as_url, has_published, is_url
from voxblink2_lib.published.reading import find_published
from voxblink2_lib.published.scratch import last_manifest
from voxblink2_lib.published.slices import common_plan

__all__ = [
    "PublishedFile",
    "TrainingShards",
    "as_url",
    "has_published",
    "is_url",
    "open_place",
    "training_shards",
]

_NEEDS = (LEDGER, "catalogue/")


class TrainingShards(NamedTuple):
    """The shards of a configuration at one moment.

    Attributes:
        names: of their files at the URL, by the names of the shards.
        catalogue: of the clips in them; of a store in slices, a copy of the joined one.
    """

    names: Mapping[str, str]
    catalogue: PublishedFile | Path


def training_shards(url: str, config: str) -> TrainingShards | None:
    """Return the shards of a published store; ``None`` if there is no manifest at the URL.

    Raises:
        StoreError: it has no shard of the configuration, or the URL cannot be read.
    """
    place = open_place(url)
    manifest = place.read().manifest
    if manifest is not None:
        return _of(manifest, manifest.files.get(f"catalogue/{config}.arrow"), url, config)
    if common_plan(place, config) is None:
        return None
    copy = find_published(url, _NEEDS)
    manifest = last_manifest(copy) if copy else None
    if copy is None or manifest is None:
        return None
    joined = copy.root / "catalogue" / f"{config}.arrow"
    return _of(manifest, joined if joined.exists() else None, url, config)


def _of(
    manifest: Manifest, catalogue: PublishedFile | Path | None, url: str, config: str
) -> TrainingShards:
    if catalogue is None:
        raise StoreError(
            f"The store {open_place(url)} has no shard of the configuration {config!r} yet."
        )
    names = {name: file.name for name, file in manifest.shards(config).items()}
    return TrainingShards(names, catalogue)
