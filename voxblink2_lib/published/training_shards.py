"""Where shards and catalogue of a published store are, for training that reads by ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.published.manifest import (
    LEDGER,
    MANIFEST,
    TOMBSTONES,
    Manifest,
    PublishedFile,
)
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import as_url, has_published, is_url
from voxblink2_lib.published.reading import find_published
from voxblink2_lib.published.scratch import last_manifest
from voxblink2_lib.published.slices import common_plan

__all__ = [
    "MANIFEST",
    "TrainingShards",
    "as_url",
    "catalogue_name",
    "clear_purged_pieces",
    "has_published",
    "is_url",
    "open_place",
    "pieces_of",
    "training_shards",
]

_NEEDS = (LEDGER, "catalogue/")
# In the folder of pieces: the SHA-256 of the tombstones that it was last cleared by.
_CLEARED = "cleared"


class TrainingShards(NamedTuple):
    """The shards of a configuration at one moment.

    Attributes:
        names: of their files at the URL, by the names of the shards.
        catalogue: of the clips in them; of a store in slices, a copy of the joined one.
        tombstones: SHA-256 of what was purged; empty if nothing was.
    """

    names: Mapping[str, str]
    catalogue: PublishedFile | Path
    tombstones: str = ""


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
    # A piece has the name of its shard, then size and version of that, and its number.
    former = [
        path
        for path in pieces.glob("*.arrow.*")
        if f"{path.name.partition('.arrow.')[0]}.arrow" not in shards
    ]
    former += [path for path in pieces.glob("catalogue/*") if not path.name.startswith(present)]
    for path in former:
        path.unlink(missing_ok=True)
    with atomic_write(mark) as file:
        file.write(published.tombstones.encode())
    return former


def catalogue_name(published: TrainingShards) -> str:
    """Return the name of the copy of a catalogue, among those of a store."""
    file = published.catalogue
    return file.name if isinstance(file, Path) else f"{file.sha256[:16]}.arrow"
