"""Where shards and catalogue of a published store are, for training that reads by ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.published.manifest import MANIFEST, TOMBSTONES, Manifest, PublishedFile
from voxblink2_lib.published.opening import open_place

__all__ = [
    "MANIFEST",
    "PublishedFile",
    "TrainingShards",
    "catalogue_name",
    "clear_purged_pieces",
    "open_place",
    "pieces_of",
    "training_shards",
]

# In the folder of pieces: the SHA-256 of the tombstones that it was last cleared by.
_CLEARED = "cleared"


class TrainingShards(NamedTuple):
    """The shards of a configuration at one moment.

    Attributes:
        names: of their files at the URL, by the names of the shards.
        catalogue: of the clips in them.
        tombstones: SHA-256 of what was purged; empty if nothing was.
    """

    names: Mapping[str, str]
    catalogue: PublishedFile
    tombstones: str = ""


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
    purged = manifest.files.get(TOMBSTONES)
    return TrainingShards(names, catalogue, purged.sha256 if purged else "")


def pieces_of(url: str, config: str, folder: Path | None = None) -> Path:
    """Return the folder of the pieces of a store's shards.

    Args:
        url: of the store.
        config: the configuration.
        folder: of the pieces of all stores; by default in the user's cache.
    """
    base = home_folder() / "pieces" if folder is None else folder
    return base / f"{short_digest(url.rstrip('/').encode())}-{config}"


def clear_purged_pieces(pieces: Path, published: TrainingShards) -> list[Path]:
    """Remove pieces of former shards, and former catalogues, once for each purge of a store.

    Returns:
        What was removed.
    """
    mark = pieces / _CLEARED
    if not (published.tombstones and pieces.is_dir()):
        return []
    if mark.exists() and mark.read_text(encoding="utf-8") == published.tombstones:
        return []
    shards = {PurePosixPath(name).name for name in published.names.values()}
    present = catalogue_name(published)
    # A piece has the name of its shard, the size of that, and its number.
    former = [
        path for path in pieces.glob("*.arrow.*") if path.name.rsplit(".", 2)[0] not in shards
    ]
    former += [path for path in pieces.glob("catalogue/*") if not path.name.startswith(present)]
    for path in former:
        path.unlink(missing_ok=True)
    with atomic_write(mark) as file:
        file.write(published.tombstones.encode())
    return former


def catalogue_name(published: TrainingShards) -> str:
    """Return the name of the copy of a catalogue, among those of a store."""
    return f"{published.catalogue.sha256[:16]}.arrow"
