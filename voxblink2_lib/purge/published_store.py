"""Entry point: purge a store at a URL, such that a kill at any moment leaves all of it or nothing.

    scratch store   takes up what is published, and the shards that have to be rewritten
    purge           of the scratch store, as of any folder, see run.py
    uploads         of what is left, under names of their own
    manifest        from here on nobody who opens the store reads anything of it
    removal         of the old files, and of former generations: a takedown waits for no reader
    caches          of this user on this machine

A kill before the manifest leaves all of it at the URL, and the same command is run again. After it,
the next run of whatever kind removes what no manifest names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.fetching import fetch_files
from voxblink2_lib.published.manifest import ALL_BUT_SHARDS, PublishedFile
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import (
    cache_of,
    clear_purged,
    fetch_shards,
    no_store,
    open_published,
    published_manifest,
)
from voxblink2_lib.published.scratch import last_manifest, scratch_store
from voxblink2_lib.published.session import publisher_of
from voxblink2_lib.published.training_shards import (
    clear_purged_pieces,
    pieces_of,
    training_shards,
)
from voxblink2_lib.published.uploads import JOBS
from voxblink2_lib.published.versions import kept_versions
from voxblink2_lib.purge.ids import all_ids
from voxblink2_lib.purge.run import Purge, plan_purge, purge_store
from voxblink2_lib.purge.shard_files import shards_elsewhere
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.tombstones import PurgedIds, Tombstones
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.layout import Store


@dataclass(frozen=True, slots=True)
class PublishedPurge:
    """What was purged from a store at a URL.

    Attributes:
        purge: of its scratch store.
        generation: number of the manifest that has nothing of it.
        removed: names of the files that were removed at the URL, sorted.
        cleared: files and folders that were removed from caches on this machine, sorted.
        kept: what the place keeps of removed files, and how that is deleted; empty if nothing.
    """

    purge: Purge
    generation: int
    removed: tuple[str, ...]
    cleared: tuple[str, ...]
    kept: str

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 purge --json`` writes."""
        return {
            **self.purge.as_dict(),
            "generation": self.generation,
            "removed": list(self.removed),
            "cleared": list(self.cleared),
            "kept": self.kept,
        }


def purge_published(
    url: str,
    ids: PurgedIds,
    *,
    reason: str = "",
    scratch: str | None = None,
    progress: Progress = no_progress,
) -> PublishedPurge:
    """Take speakers, videos and utterances out of a store at a URL.

    Args:
        url: of the store.
        ids: what to purge; none ends a purge that was stopped.
        reason: kept with the tombstones.
        scratch: folder of the scratch store, if not the one that belongs to the URL.
        progress: counts bytes, utterances, shards and files.

    Raises:
        StoreError: there is no store at the URL, it cannot be written to, or nothing would be left.
        StoreBusyError: another process publishes to the URL.
        Exception: see :func:`voxblink2_lib.purge.run.purge_store`.
    """
    if published_manifest(url) is None:
        raise no_store(url)
    store, place = scratch_store(url, scratch), open_place(url)
    with publisher_of(url, store, progress=progress) as publisher:
        before = set(place.sizes())
        # What open jobs have uploaded is made again; it may have something of it.
        place.remove_folder(JOBS)
        _fetch_concerned(place, store, ids, progress)
        purge = purge_store(store, ids, reason=reason, progress=progress)
        publisher.publish(is_purge=True, progress=progress)
        publisher.sweep()
        removed = before - set(place.sizes())
    return PublishedPurge(
        purge,
        publisher.generation,
        tuple(sorted(removed)),
        clear_caches(url),
        kept_versions(place),
    )


def plan_published_purge(url: str, ids: PurgedIds, *, progress: Progress = no_progress) -> Purge:
    """Return what :func:`purge_published` would do, and change nothing at the URL.

    The shards that would be rewritten are downloaded to the cache of published stores.

    Raises:
        Exception: see :func:`purge_published`.
    """
    store = open_published(url, ALL_BUT_SHARDS, progress=progress)
    for config, names in _concerned(store, ids, progress).items():
        fetch_shards(url, store, config, names, progress=progress)
    return plan_purge(store, ids, progress=progress)


def _concerned(store: Store, ids: PurgedIds, progress: Progress) -> dict[str, list[str]]:
    """Return the shards that are only at the URL and may have anything of it."""
    tombstones = Tombstones.of(store.root).added(all_ids(store, ids), reason="")
    names = {}
    for config in CONFIG_NAMES:
        elsewhere = shards_elsewhere(store, config, tombstones, progress=progress)
        names[config] = [name for name, is_clean in elsewhere.items() if not is_clean]
    return names


def _fetch_concerned(place: Place, store: Store, ids: PurgedIds, progress: Progress) -> None:
    """Download those shards to the scratch store."""
    last = last_manifest(store)
    targets: dict[Path, PublishedFile] = {}
    for config, names in _concerned(store, ids, progress).items():
        published = last.shards(config) if last else {}
        targets |= {store.shards(config) / name: published[name] for name in names}
    if targets:
        fetch_files(place, targets, progress=progress)
    for path, file in targets.items():
        write_checksum(path, file.sha256)


def clear_caches(url: str) -> tuple[str, ...]:
    """Remove what copies on this machine have of it, those that trainings read included.

    Args:
        url: of the store, from which something was purged.

    Returns:
        What was removed, sorted.
    """
    manifest = published_manifest(url)
    removed = clear_purged(cache_of(url), manifest) if manifest else []
    for config in CONFIG_NAMES:
        if manifest and manifest.shards(config):
            removed += _clear_pieces(url, config)
    return tuple(sorted(map(str, removed)))


def _clear_pieces(url: str, config: str) -> list[Path]:
    published = training_shards(url, config)
    return clear_purged_pieces(pieces_of(url, config), published) if published else []
