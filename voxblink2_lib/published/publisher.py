"""Publish what a scratch store holds: files under names of their own, then the manifest.

::

    copy of the ledger    names the sealed shards and the open jobs of one moment
    listing               these shards, the parts of these jobs, index, catalogue, outcomes
    uploads               what the manifest before does not have
    manifest              only now are they part of the store

A run works on the store meanwhile. If a file that is to be published goes, or a job is sealed, it
is begun again with another copy of the ledger; what was uploaded is not uploaded again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.files import link_file
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.fetching import AT_ONCE
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import (
    LEDGER,
    TOMBSTONES,
    Manifest,
    PublishedFile,
    is_own_name,
    new_attempt,
)
from voxblink2_lib.published.place import Place, Published
from voxblink2_lib.published.scratch import FOLDER, note_next, note_published
from voxblink2_lib.published.uploads import (
    finished_jobs_of,
    forget_uploads,
    read_uploads,
    upload_catalogues,
)
from voxblink2_lib.records import CONFIG_NAMES, SealedShard
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.store.backup import copy_ledger
from voxblink2_lib.store.catalogue import update_catalogue
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.lock import this_process
from voxblink2_lib.store.outcome_files import SUFFIX
from voxblink2_lib.store.status import summary_of
from voxblink2_lib.store.summary import Summary
from voxblink2_lib.store.tombstone_checks import unfinished_purge

# So long readers of an earlier manifest may go on: with a shard, or to open the other files.
_SHARD_GRACE_SECONDS, _GRACE_SECONDS = 86_400.0, 900.0
_TRIES = 8
_BLOCK_BYTES = 1 << 20


class _Stamp(NamedTuple):
    """What shows that a file is the one that was hashed."""

    inode: int
    size_bytes: int
    modified_ns: int


class _Local(NamedTuple):
    """A file here, which is published under another attempt's name if it is new.

    Attributes:
        path: the file.
        sha256: of a sealed shard, which is not to be published if it has another one.
    """

    path: Path
    sha256: str = ""


class _ChangedError(Exception):
    """A run has changed the store while it was listed."""


class Publisher:
    """Publishes a scratch store, which a run may be at work on.

    Args:
        store: the scratch store.
        place: where it is published.
        lease: the right to publish.
        base: what is published now, which the scratch store has grown from.
    """

    def __init__(self, store: Store, place: Place, lease: UrlLease, base: Published) -> None:
        self._store = store
        self._place = place
        self._lease = lease
        self._base = base
        # What is published and still there, as far as is known.
        self._present = dict(base.manifest.files) if base.manifest else {}
        self._uploaded: dict[tuple[str, str], PublishedFile] = {}
        self._hashes: dict[Path, tuple[_Stamp, str]] = {}
        self._summaries: dict[str, Summary] = {}  # of what was listed last

    @property
    def generation(self) -> int:
        """Number of the present manifest; 0 before the first."""
        return self._base.manifest.generation if self._base.manifest else 0

    def has_jobs(self) -> bool:
        """Return whether anything was planned in the scratch store."""
        if not self._store.ledger.exists():
            return False
        with Ledger(self._store.ledger, "", readonly=True) as ledger:
            return bool(ledger.configs())

    def publish(self, *, is_purge: bool = False, progress: Progress = no_progress) -> bool:
        """Publish what has changed; return whether anything has.

        Args:
            is_purge: remove what is not part of the store any more at once, whoever reads it.
            progress: counts bytes.

        Raises:
            StoreBusyError: another process has published, or has the lease.
            StoreDamagedError: a shard is not as it was sealed.
            StoreError, StoreDiskError: the URL cannot be written to; or a purge of the scratch
                store has not ended.
        """
        if not self._store.ledger.exists():
            return False
        self._check_is_purged()
        for _ in range(_TRIES - 1):
            try:
                return self._publish(progress, is_purge=is_purge)
            except (_ChangedError, FileNotFoundError):
                continue
        return self._publish(progress, is_purge=is_purge)

    def _check_is_purged(self) -> None:
        """Refuse a store of which half is purged: readers have all of it or nothing."""
        if problem := unfinished_purge(self._store):
            raise StoreError(f"Nothing was published. {problem}")

    def sweep(self) -> list[str]:
        """Remove what no manifest names: uploads of processes that were killed, or came too late.

        Returns:
            Their names.
        """
        named = self._base.manifest.names() if self._base.manifest else set()
        sizes = self._place.sizes()
        kept = named | {file.name for file in read_uploads(self._store).values()}
        strangers = [name for name in sizes if is_own_name(name) and name not in kept]
        strangers += finished_jobs_of(self._store, sizes)
        self._lease.check()
        self._place.remove(strangers)
        # What somebody has removed, or put in its place, is published again.
        self._present = {
            path: file
            for path, file in self._present.items()
            if sizes.get(file.name) == file.size_bytes
        }
        return strangers

    def _publish(self, progress: Progress, *, is_purge: bool) -> bool:
        files = self._upload(self._listed(), progress)
        before = self._base.manifest.files if self._base.manifest else {}
        if files == before and not is_purge:
            return False
        # Also if the scratch store was purged as any folder is, and is published by a run.
        is_purge |= before.get(TOMBSTONES) != files.get(TOMBSTONES)
        self._commit(files, is_purge=is_purge)
        return True

    # -- What is published -------------------------------------------------------------------------

    def _listed(self) -> dict[str, _Local | PublishedFile]:
        """Return the files of one moment by their paths; those that are only at the URL as such."""
        work = self._store.root / FOLDER
        work.mkdir(parents=True, exist_ok=True)
        snapshot = work / LEDGER
        _copy_ledger(self._store.ledger, snapshot)
        # By other machines: they were noted before the ledger had them.
        self._uploaded |= read_uploads(self._store)
        index = self._index()
        listed: dict[str, _Local | PublishedFile] = {LEDGER: _Local(snapshot)}
        # What was purged must not come back, wherever the store is taken up.
        listed |= self._paths(self._store.root.glob(TOMBSTONES))
        for config in CONFIG_NAMES:
            with Ledger(snapshot, config, readonly=True) as ledger:
                shards, jobs = ledger.shards(), ledger.open_jobs()
                cut, position = set(ledger.cut.open_jobs()), ledger.cut.position()
                self._summaries[config] = summary_of(self._store, ledger)
            listed |= self._shards(config, shards)
            for job in jobs:
                listed |= self._parts(config, job, is_cut=job in cut)
            listed |= self._paths(self._store.shards(config).glob(f"*{SUFFIX}"))
            with Ledger(self._store.ledger, config, readonly=True) as ledger:
                # A job was sealed, and its parts are gone; or more was cut.
                if not set(jobs) <= set(ledger.open_jobs()) or ledger.cut.position() != position:
                    raise _ChangedError
        for name in ("index", "archive"):
            folder = self._store.root / name
            listed |= self._paths(path for path in folder.rglob("*") if path.is_file())
        if self._index() != index:
            raise _ChangedError
        return listed

    def _index(self) -> bytes:
        try:
            return (self._store.index / "index.json").read_bytes()
        except FileNotFoundError:
            return b""

    def _paths(self, paths: Iterator[Path]) -> dict[str, _Local | PublishedFile]:
        root = self._store.root
        shown = (path for path in paths if not path.name.startswith("."))
        return {path.relative_to(root).as_posix(): _Local(path) for path in shown}

    def _parts(self, config: str, job: int, *, is_cut: bool) -> dict[str, _Local | PublishedFile]:
        listed = self._paths(self._store.job_parts(config, job).glob("*.arrow"))
        if not is_cut:
            return listed
        # These are replaced and added to at each commit: what is there now is kept by a link.
        kept = self._store.root / FOLDER / "cut" / config
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for path, file in listed.items():
            if isinstance(file, _Local) and link_file(file.path, target := kept / file.path.name):
                listed[path] = _Local(target)
        return listed

    def _shards(self, config: str, shards: list[SealedShard]) -> dict[str, _Local | PublishedFile]:
        """Return the shards, and the catalogue of them."""
        if not shards:
            return {}
        folder = self._store.shards(config)
        catalogue = self._store.root / FOLDER / f"{config}.arrow"
        try:
            sizes = {shard.name: shard.size_bytes for shard in shards}
            others = upload_catalogues(self._store, config)
            update_catalogue(catalogue, folder, sizes, others=others)
        except StoreDamagedError:
            if all((folder / shard.name).exists() for shard in shards):
                raise
            self._check_lost(config, shards)
            raise _ChangedError from None
        listed = {f"catalogue/{config}.arrow": _Local(catalogue)}
        return listed | {
            f"shards/{config}/{shard.name}": self._shard(config, shard) for shard in shards
        }

    def _check_lost(self, config: str, shards: list[SealedShard]) -> None:
        """Tell a shard that a run has superseded from one that is lost: that is still sealed."""
        with Ledger(self._store.ledger, config, readonly=True) as ledger:
            if ledger.shards() != shards:
                return
        for shard in shards:
            self._shard(config, shard)

    def _shard(self, config: str, shard: SealedShard) -> _Local | PublishedFile:
        """Return a shard here, or else at the URL."""
        path = self._store.shards(config) / shard.name
        key = (f"shards/{config}/{shard.name}", shard.sha256)
        entry = self._uploaded.get(key) or self._present.get(key[0])
        if entry is not None and entry.sha256 == shard.sha256:
            return entry
        if not path.exists():
            with Ledger(self._store.ledger, config, readonly=True) as ledger:
                if shard in ledger.shards():
                    raise StoreDamagedError(
                        f"The shard {path} is missing, and was not published yet."
                    )
            raise _ChangedError
        return _Local(path, shard.sha256)

    # -- Uploads -----------------------------------------------------------------------------------

    def _upload(
        self, listed: Mapping[str, _Local | PublishedFile], progress: Progress
    ) -> dict[str, PublishedFile]:
        files = {path: file for path, file in listed.items() if isinstance(file, PublishedFile)}
        here = {path: file for path, file in listed.items() if isinstance(file, _Local)}
        sizes = {path: file.path.stat().st_size for path, file in here.items()}
        with ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
            total = sum(sizes.values())
            advance = stack.enter_context(progress("Publishing", unit="B", total=total))
            try:
                uploads = threads.map(self._uploaded_file, here, here.values())
                for path, entry in zip(here, uploads, strict=True):
                    files[path] = entry
                    advance(sizes[path])
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return files

    def _uploaded_file(self, path: str, local: _Local) -> PublishedFile:
        """Return a file at the URL with the content of one here; it is uploaded if there is none.

        All is read through one handle: a run may put another file in its place, or add to it.
        """
        with open(local.path, "rb") as source:
            state = os.fstat(source.fileno())
            stamp = _Stamp(state.st_ino, state.st_size, state.st_mtime_ns)
            sha256 = local.sha256 or self._sha256(local.path, source, stamp)
            entry = self._uploaded.get((path, sha256)) or self._present.get(path)
            if entry is None or entry.sha256 != sha256:
                entry = PublishedFile(path, new_attempt(), stamp.size_bytes, sha256)
                self._lease.check()
                sent = self._place.upload(source, entry.name, stamp.size_bytes)
                if sent != sha256:
                    raise StoreDamagedError(
                        f"The file {local.path} is damaged: its SHA-256 is {sent}, expected is "
                        f"{sha256}. It was not published. {repair_advice(local.path)}"
                    )
                self._uploaded[path, sha256] = entry
        return entry

    def _sha256(self, path: Path, source: BinaryIO, stamp: _Stamp) -> str:
        known = self._hashes.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        digest, left = hashlib.sha256(), stamp.size_bytes
        while left:
            block = source.read(min(_BLOCK_BYTES, left))
            if not block:
                raise _ChangedError
            digest.update(block)
            left -= len(block)
        self._hashes[path] = stamp, digest.hexdigest()
        return digest.hexdigest()

    # -- The manifest ------------------------------------------------------------------------------

    def _commit(self, files: Mapping[str, PublishedFile], *, is_purge: bool) -> None:
        now = time.time()
        former = self._former(files, now)
        expired = {name for name, since in former.items() if is_purge or now - since > _grace(name)}
        manifest = Manifest(
            generation=self.generation + 1,
            attempt=new_attempt(),
            writer=this_process(),
            written_at=now,
            files=files,
            former={name: since for name, since in former.items() if name not in expired},
            store_id=self._store_id(),
            summaries=dict(self._summaries),
        )
        self._lease.check()
        if is_purge and self._place.removes_with_commit:
            self._place.remove(expired)
        note_next(self._store, manifest)
        self._base = self._place.commit(manifest, self._base)
        note_published(self._store, manifest)
        self._present = dict(files)
        self._uploaded.clear()
        self._place.remove(expired)
        for folder in forget_uploads(self._store, files):
            self._place.remove_folder(folder)

    def _store_id(self) -> str:
        with Ledger(self._store.ledger, "", readonly=True) as ledger:
            return ledger.store_id

    def _former(self, files: Mapping[str, PublishedFile], now: float) -> dict[str, float]:
        """Return what was part of the store before, and since when it is not."""
        before = self._base.manifest
        if before is None:
            return {}
        names = {file.name for file in files.values()}
        dropped = {file.name for file in before.files.values()} - names
        return {**before.former, **dict.fromkeys(sorted(dropped), now)}


def _copy_ledger(ledger: Path, copy: Path) -> None:
    """Copy a ledger to one file, without a log beside it."""
    for name in (copy.name, f"{copy.name}-wal", f"{copy.name}-shm"):
        copy.with_name(name).unlink(missing_ok=True)
    copy_ledger(ledger, copy)
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("pragma journal_mode = delete")


def _grace(name: str) -> float:
    return _SHARD_GRACE_SECONDS if name.startswith("shards/") else _GRACE_SECONDS
