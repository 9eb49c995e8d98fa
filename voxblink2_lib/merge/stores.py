"""The stores that are merged: folders, which nobody may change meanwhile, and copies of URLs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError, StoreError, StoreReadOnlyError, UsageError
from voxblink2_lib.files import HashingWriter, atomic_write
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.fetching import fetch_files
from voxblink2_lib.published.manifest import ALL_BUT_SHARDS, PublishedFile
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.reading import open_published
from voxblink2_lib.published.scratch import last_manifest
from voxblink2_lib.records import CONFIG_NAMES, SealedShard
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.backup import copy_ledger
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shards import gone_message

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoreToMerge:
    """One of the stores that are merged.

    Attributes:
        store: the folder, or a copy of what is at a URL, without its shards.
        ledger: a copy of its ledger, in the present format.
        url: with its secrets; empty of a folder.
        published: the shards at the URL, by configuration and name.
    """

    store: Store
    ledger: Path
    url: str = field(default="", repr=False)
    published: Mapping[tuple[str, str], PublishedFile] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        """What its user calls it."""
        return self.store.place

    def provide(
        self, config: str, shards: Mapping[Path, SealedShard], progress: Progress = no_progress
    ) -> None:
        """Give shards further names, or copies, byte for byte; they appear when they are whole.

        Args:
            config: the configuration.
            shards: what is needed, by where it goes.
            progress: counts bytes.

        Raises:
            StoreDamagedError: a shard is missing, or not as it was sealed.
            StoreFullError: the disk is full.
        """
        if self.url:
            files = {path: self._file(config, shard) for path, shard in shards.items()}
            fetch_files(open_place(self.url), files, progress=progress)
            return
        folder = self.store.shards(config)
        total = sum(shard.size_bytes for shard in shards.values())
        with progress("Taking over shards", unit="B", total=total) as advance:
            for path, shard in shards.items():
                take_file(folder / shard.name, path, size_bytes=shard.size_bytes)
                advance(shard.size_bytes)

    def _file(self, config: str, shard: SealedShard) -> PublishedFile:
        file = self.published.get((config, shard.name))
        if file is None or file.sha256 != shard.sha256:
            raise StoreDamagedError(
                f"The manifest of {self.place} lacks the shard {shard.name} of its ledger."
            )
        return file


def take_file(source: Path, target: Path, *, size_bytes: int | None = None) -> None:
    """Give a file a further name, or make a copy where its file system allows none.

    Args:
        source: the file, which nobody changes any more.
        target: its name; what is there is replaced.
        size_bytes: what it should have.

    Raises:
        StoreDamagedError: it is missing, or has another size.
    """
    source = source.resolve()
    try:
        size = source.stat().st_size
    except FileNotFoundError as error:
        raise StoreDamagedError(gone_message(source)) from error
    if size_bytes not in {None, size}:
        raise StoreDamagedError(
            f"The shard {source} is damaged: it has {size:,} bytes, sealed were {size_bytes:,}."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with atomic_write(target) as file, open(source, "rb") as content:
            shutil.copyfileobj(content, HashingWriter(file), _COPY_BYTES)


@contextlib.contextmanager
def opened_stores(
    named: Sequence[str], work: Path, *, progress: Progress = no_progress
) -> Iterator[list[StoreToMerge]]:
    """Open stores to be merged; those in folders are locked until the end of the body.

    Args:
        named: folders and URLs.
        work: folder for copies of ledgers.
        progress: counts bytes that are downloaded.

    Raises:
        StoreError: there is no store; or something was purged from it, and the purge not ended.
        StoreBusyError: another process works on one.
        UsageError: one is named twice.
    """
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        _check_names(named)
        stores: list[StoreToMerge] = []
        for place, name in enumerate(named):
            store = _opened(name, stack, progress)
            published = {}
            if is_url(name) and (manifest := last_manifest(store)):
                published = {
                    (config, shard): file
                    for config in CONFIG_NAMES
                    for shard, file in manifest.shards(config).items()
                }
            copy = _ledger_copy(store, work / f"{place}.sqlite")
            stores.append(StoreToMerge(store, copy, name if is_url(name) else "", published))
        yield stores


def _check_names(named: Sequence[str]) -> None:
    places = [str(open_place(name) if is_url(name) else named_store(name).root) for name in named]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise UsageError(f"The store {twice[0]} is named twice. Name each store once.")


def _opened(name: str, stack: contextlib.ExitStack, progress: Progress) -> Store:
    if is_url(name):
        return open_published(name, ALL_BUT_SHARDS, progress=progress)
    store = named_store(name)
    if not store.ledger.exists():
        raise StoreError(f"There is no store at {store.root}: it has no ledger. Check its name.")
    with contextlib.suppress(StoreReadOnlyError):  # then nobody else changes it either
        stack.enter_context(store.locked(wait=False))
    return store


def _ledger_copy(store: Store, copy: Path) -> Path:
    for path in copy.parent.glob(f"{copy.name}*"):
        path.unlink()
    copy_ledger(store.ledger, copy)
    with Ledger(copy, "") as ledger, ledger.together():
        pass  # brings one of an earlier format to the present one
    return copy


def digest_of(stores: Sequence[StoreToMerge]) -> str:
    """Return a digest of what stores have: another one means that they were changed."""
    digest = hashlib.sha256()
    for each in stores:
        for config in CONFIG_NAMES:
            with Ledger(each.ledger, config, readonly=True) as ledger:
                digest.update(repr([each.place, config, ledger.shards()]).encode())
                for batch in ledger.planned_videos().to_batches():
                    for row in batch.to_pylist():
                        digest.update(repr(row).encode())
        digest.update(repr(Tombstones.of(each.store.root).stones).encode())
    return digest.hexdigest()
