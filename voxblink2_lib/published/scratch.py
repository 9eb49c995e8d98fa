"""The scratch store: the local folder in which a store at a URL is made, and what is at the URL.

::

    SCRATCH/                        a store, with all that a run needs
      published/manifest.json       the last manifest that was published from here, or taken up
      published/next.json           the one that is being published
      published/<config>.arrow      the catalogue of all shards, also of those that are not here

A shard that is published need not be in the scratch store any more; it is fetched where its rows
are needed.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from voxblink2_lib.errors import StoreBusyError, StoreDamagedError
from voxblink2_lib.files import atomic_write, home_folder, short_digest
from voxblink2_lib.published.manifest import MANIFEST, Manifest, read_manifest
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.store.layout import Store, named_store

FOLDER = "published"
_NEXT = "next.json"


def cache_name(url: str) -> str:
    """Return the name of the folder of a URL, the same whatever secrets are in it.

    >>> cache_name("s3://bucket/corpora/store/")
    'store-3251947b'
    """
    shown = redacted_source(url.rstrip("/"))
    name = shown.rpartition("/")[2].replace("*", "_")
    return f"{name}-{short_digest(os.fsencode(shown))[:8]}"


def scratch_store(url: str, folder: str | None) -> Store:
    """Return the scratch store of a URL.

    Args:
        url: of the published store.
        folder: where it is; by default below ``$VOXBLINK2_HOME`` or the user's cache folder.
    """
    root = str(home_folder() / "scratch" / cache_name(url)) if folder is None else folder
    return Store(named_store(root).root, redacted_source(url.rstrip("/")))


def last_manifest(store: Store) -> Manifest | None:
    """Return the last manifest that was published from a scratch store, or taken up."""
    return _read(store.root / FOLDER / MANIFEST)


def _read(path: Path) -> Manifest | None:
    try:
        return read_manifest(path.read_bytes(), str(path))
    except (FileNotFoundError, StoreDamagedError):
        return None


def _write(path: Path, manifest: Manifest) -> None:
    # The store knows the rest better, and a purge has no text here to look through.
    with atomic_write(path) as file:
        file.write(replace(manifest, summaries={}).as_json())


def note_next(store: Store, manifest: Manifest) -> None:
    """Write what is going to be published: a run that is killed then knows it for its own."""
    _write(store.root / FOLDER / _NEXT, manifest)


def note_published(store: Store, manifest: Manifest) -> None:
    """Write what is published."""
    _write(store.root / FOLDER / MANIFEST, manifest)
    (store.root / FOLDER / _NEXT).unlink(missing_ok=True)


def check_base(store: Store, present: Manifest | None, url: str) -> None:
    """Make sure that a scratch store is what is published, and what was done in it since.

    Args:
        store: the scratch store, which has a ledger.
        present: what is published now.
        url: of the published store, without secrets.

    Raises:
        StoreBusyError: something else was published.
    """
    if present is None:
        return
    going = _read(store.root / FOLDER / _NEXT)
    if going is not None and going.attempt == present.attempt:
        note_published(store, going)
    last = last_manifest(store)
    if last is None or last.attempt != present.attempt:
        raise StoreBusyError(
            f"The scratch store {store.root} is not what is published at {url}: generation "
            f"{present.generation} was written by {present.writer}. Nothing was changed. Name "
            "another folder with --scratch NEW_FOLDER (scratch=...): it takes up what is published."
        )


def published_catalogue(store: Store, config: str) -> Path:
    """Return the catalogue of all shards, also of those that are not here, if there is one.

    Args:
        store: a scratch store, or a copy of what is at a URL.
        config: the configuration.
    """
    path = store.root / FOLDER / f"{config}.arrow"
    return path if path.exists() else store.root / "catalogue" / path.name
