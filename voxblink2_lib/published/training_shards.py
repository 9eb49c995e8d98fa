"""Where shards and catalogue of a published store are, for training that reads by ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.published.manifest import MANIFEST, Manifest, PublishedFile
from voxblink2_lib.published.opening import open_place

__all__ = ["MANIFEST", "PublishedFile", "TrainingShards", "open_place", "training_shards"]


class TrainingShards(NamedTuple):
    """The shards of a configuration at one moment.

    Attributes:
        names: of their files at the URL, by the names of the shards.
        catalogue: of the clips in them.
    """

    names: Mapping[str, str]
    catalogue: PublishedFile


def training_shards(url: str, config: str) -> TrainingShards | None:
    """Return the shards of a published store; ``None`` if there is no manifest at the URL.

    Raises:
        StoreError: it has no shard of the configuration, or the URL cannot be read.
    """
    manifest = open_place(url).read().manifest
    return None if manifest is None else _of(manifest, url, config)


def _of(manifest: Manifest, url: str, config: str) -> TrainingShards:
    catalogue = manifest.files.get(f"catalogue/{config}.arrow")
    if catalogue is None:
        raise StoreError(
            f"The store {open_place(url)} has no shard of the configuration {config!r} yet."
        )
    names = {name: file.name for name, file in manifest.shards(config).items()}
    return TrainingShards(names, catalogue)
