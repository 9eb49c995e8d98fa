"""Read a published store: copies of its files in a cache, each of which is downloaded once.

::

    $VOXBLINK2_HOME/published/<name>-<digest>/      of one URL
      files/<sha256>                                the content of a file
      <generation>-<attempt>/                       a store of one manifest: links to these

Who opens a store again reads its present manifest; a store that is open stays what it was. Shards
are downloaded where all of their rows are needed, and streamed otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from voxblink2_lib.errors import StoreError, StoreFullError, next_command
from voxblink2_lib.files import HOME_VARIABLE, atomic_write, home_folder, link_file, sha256_of
from voxblink2_lib.progress import Progress, no_progress, size_text
from voxblink2_lib.published.fetching import fetch_files
from voxblink2_lib.published.manifest import (
    MANIFEST,
    TABLES,
    TOMBSTONES,
    Manifest,
    PublishedFile,
)
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import FileGoneError, Place
from voxblink2_lib.published.scratch import cache_name, last_manifest, note_published, scratch_store
from voxblink2_lib.published.union import Generation, read_generation
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.summary import summary_file

_KEPT_SECONDS = 86_400.0
_log = logging.getLogger(__name__)


def published_manifest(url: str) -> Manifest | None:
    """Return what is published at a URL now; ``None`` if nothing is.

    Raises:
        StoreError, StoreDiskError: it cannot be read.
    """
    generation = read_generation(open_place(url))
    return generation.manifest if generation else None


def open_published(
    url: str, needs: Collection[str] = TABLES, *, progress: Progress = no_progress
) -> Store:
    """Return a store with the present ledger, and other files, of a published one. No shards.

    Args:
        url: of the published store.
        needs: paths of files, and of folders with a slash.
        progress: counts bytes.

    Raises:
        StoreError: there is no store at the URL.
        StoreDamagedError: a file is not what the manifest names.
    """
    store = find_published(url, needs, progress=progress)
    if store is not None:
        return store
    raise no_store(url)


def no_store(url: str) -> StoreError:
    """Return the error of a URL without a manifest."""
    place = redacted_source(url)
    command = next_command("materialize", data_dir="RELEASE", store=place)
    return StoreError(
        f"There is no store at {place}: it has no {MANIFEST}. Check the address, or make one with "
        f"{command}."
    )


def find_published(
    url: str, needs: Collection[str] = TABLES, *, progress: Progress = no_progress
) -> Store | None:
    """Return the same, or ``None`` if there is no store at the URL."""
    place = open_place(url)
    present = read_generation(place)
    while present is not None:
        try:
            return _copy(place, present, needs, progress)
        except FileGoneError:
            before, present = present, read_generation(place)
            if present is not None and present.manifest.attempt == before.manifest.attempt:
                raise
            # A later manifest has left it out.
    return None


def _copy(place: Place, present: Generation, needs: Collection[str], progress: Progress) -> Store:
    manifest = present.manifest
    cache = cache_of(place.url)
    store = Store(cache / f"{manifest.generation}-{manifest.attempt}", str(place))
    _clear_former(store, manifest)
    _provide(place, store, present.files(store.root, needs), progress)
    present.join(store.root, progress=progress)
    if last_manifest(store) is None:
        for config, summary in manifest.summaries.items():
            with atomic_write(summary_file(store.root, config)) as file:
                file.write(json.dumps(summary.as_record()).encode())
        note_published(store, manifest)
    os.utime(store.root)
    return store


def cache_of(url: str) -> Path:
    """Return the folder of the copies of a published store."""
    return home_folder() / "published" / cache_name(url)


def _clear_former(present: Store, manifest: Manifest) -> None:
    """Remove copies of earlier generations, a day after they were last opened, and their files.

    Those from which something was purged since are removed at once.
    """
    cache = present.root.parent
    folders = [folder for folder in cache.glob("*-*") if folder != present.root]
    if any(_is_purged_since(Store(folder), manifest) for folder in folders):
        clear_purged(cache, manifest)
        _log.warning(
            "Something was purged from %s since it was last read here: the copies of its files "
            "were removed. The cache of datasets, exports and embeddings may still have it.",
            present.place,
        )
        return
    now, has_former = time.time(), False
    for folder in folders:
        if now - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            has_former = True
    if has_former:
        links = (path for path in cache.glob("*-*/**/*") if path.is_symlink())
        linked = {path.resolve().name for path in links}
        for file in (cache / "files").glob("*"):
            # Neither a copy nor a cache of datasets has it.
            if file.stat().st_nlink == 1 and file.name not in linked:
                file.unlink(missing_ok=True)


def _is_purged_since(store: Store, manifest: Manifest) -> bool:
    last = last_manifest(store)
    return last is not None and last.files.get(TOMBSTONES) != manifest.files.get(TOMBSTONES)


def clear_purged(cache: Path, manifest: Manifest) -> list[Path]:
    """Remove from the copies of a published store all that is not part of it any more.

    Args:
        cache: see :func:`cache_of`.
        manifest: what is published now.

    Returns:
        What was removed.
    """
    present = f"{manifest.generation}-{manifest.attempt}"
    kept = {file.sha256 for file in manifest.files.values()}
    folders = [folder for folder in cache.glob("*-*") if folder.name != present]
    files = [file for file in (cache / "files").glob("*") if file.name not in kept]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for file in files:
        file.unlink(missing_ok=True)
    return [*folders, *files]


def _provide(
    place: Place, store: Store, files: Mapping[Path, PublishedFile], progress: Progress
) -> None:
    """Give a copy of a store some more of its files, by their paths in it."""
    missing = {path: file for path, file in files.items() if not path.exists()}
    pool = store.root.parent / "files"
    needed = {pool / file.sha256: file for file in missing.values()}
    lacking = {path: file for path, file in needed.items() if not path.exists()}
    lacking = {path: file for path, file in lacking.items() if not _is_at_hand(place, path, file)}
    if any(file.path.startswith("shards/") for file in lacking.values()):
        _check_space(place, pool, lacking.values())
    fetch_files(place, lacking, progress=progress)
    for path, file in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was faster
            if not link_file(pool / file.sha256, path):
                shutil.copyfile(pool / file.sha256, path)
        if file.path.endswith(".arrow"):
            write_checksum(path, file.sha256)


def _check_space(place: Place, pool: Path, files: Collection[PublishedFile]) -> None:
    """Say what will be downloaded, and refuse what the disk has no room for."""
    pool.mkdir(parents=True, exist_ok=True)
    needed, free = sum(file.size_bytes for file in files), shutil.disk_usage(pool).free
    where = f"{len(files):,} files of {place}, {size_text(needed)}, to {pool}"
    if needed > free:
        raise StoreFullError(
            f"There is no room to download {where}: {size_text(free)} are free. Free some space, "
            f"set {HOME_VARIABLE} to a folder on another disk, or use streaming=True."
        )
    _log.warning("Downloading %s, where %s are free.", where, size_text(free))


def _is_at_hand(place: Place, path: Path, file: PublishedFile) -> bool:
    """Take a file from the scratch store that it was published from, if that is here."""
    local = scratch_store(place.url_of(file.folder), None).root / file.path
    try:
        if local.stat().st_size != file.size_bytes or sha256_of(local) != file.sha256:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        return link_file(local, path)
    except OSError:
        return path.exists()


# -- Shards ----------------------------------------------------------------------------------------


def fetch_shards(
    url: str, store: Store, config: str, names: Iterable[str], *, progress: Progress = no_progress
) -> None:
    """Download shards of a published store to its copy, unless they are there.

    Args:
        url: of the published store, with its secrets.
        store: what :func:`open_published` returned.
        config: the configuration.
        names: of the shards.
        progress: counts bytes.

    Raises:
        StoreDamagedError: a shard is not what the manifest names, or gone.
        StoreFullError: the disk has no room for them; nothing was downloaded.
    """
    manifest = last_manifest(store)
    shards = manifest.shards(config) if manifest else {}
    files = [shards[name] for name in names]
    _provide(open_place(url), store, {store.root / file.path: file for file in files}, progress)
