"""Paths in a store, its lock, and the default store of a release.

STORE/
  index/                    see index.py
  ledger.sqlite             see ledger.py
  ledger.backup.sqlite      see backup.py
  parts/<config>/<job>/     clips of finished videos whose shard is not sealed yet
  shards/<config>/          sealed shards, each with its sha256 and its outcomes beside it
  media/<config>/           downloaded media, staged until they are cropped
  lost+found/               what repair took out of the store; nothing reads it
  tmp/                      partial downloads; emptied by the next run
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from voxblink2_lib.errors import StoreBusyError, StoreError, StoreReadOnlyError
from voxblink2_lib.files import TEMP_GLOB, home_folder, named_if_disk_full, short_digest
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.location import Release

_SHORT_WAIT_SECONDS = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Store:
    """A folder and the places in it."""

    root: Path

    @property
    def index(self) -> Path:
        """Folder of the index."""
        return self.root / "index"

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.root / "ledger.sqlite"

    @property
    def backup(self) -> Path:
        """The last copy of the ledger."""
        return self.root / "ledger.backup.sqlite"

    @property
    def lost_and_found(self) -> Path:
        """Folder of what was taken out of the store."""
        return self.root / "lost+found"

    @property
    def tmp(self) -> Path:
        """Folder of partial downloads."""
        return self.root / "tmp"

    def shards(self, config: str) -> Path:
        """Folder of sealed shards."""
        return self.root / "shards" / config

    def parts(self, config: str) -> Path:
        """Folder of the parts of all jobs."""
        return self.root / "parts" / config

    def job_parts(self, config: str, job: int) -> Path:
        """Folder of the parts of one job."""
        return self.parts(config) / f"{job:05}"

    def part(self, config: str, job: int, key: VideoKey) -> Path:
        """Part file of one video."""
        return self.job_parts(config, job) / f"{key.speaker_id}_{key.video_id}.arrow"

    def fetched(self, config: str, key: VideoKey) -> Path:
        """Folder of the media of one video, staged until they are cropped."""
        return self.root / "media" / config / f"{key.speaker_id}_{key.video_id}"

    @contextlib.contextmanager
    def locked(self, *, wait: bool) -> Iterator[None]:
        """Hold the store's lock.

        Args:
            wait: wait for another holder, with a message; otherwise raise.

        Raises:
            StoreBusyError: another process holds it.
            StoreError: the folder cannot be created or written to.
            StoreFullError: the disk is full, or becomes so while the lock is held.
        """
        try:
            with named_if_disk_full(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock")
            try:
                # Another load that has nothing to download holds the lock for a moment only.
                lock.acquire(timeout=_SHORT_WAIT_SECONDS if wait else 0)
            except Timeout:
                self._report_busy(wait=wait)
                lock.acquire()
            try:
                with named_if_disk_full(self.root):
                    self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise StoreReadOnlyError(
                    f"The store {self.root} cannot be written to ({error.strerror}), and it lacks "
                    "something that was requested. Leave out data_dir to load it as it is."
                ) from error
            raise StoreError(f"The store {self.root} cannot be used: {error}.") from error
        try:
            with named_if_disk_full(self.root):
                yield
        finally:
            lock.release()

    def run_began(self) -> float | None:
        """Return the Unix time at which the run that is at work began; ``None`` if none is."""
        try:
            with self.locked(wait=False):
                return None
        except StoreBusyError:
            return self._holder.stat().st_mtime if self._holder.exists() else 0.0
        except StoreError:  # one that cannot be written to
            return None

    @property
    def _holder(self) -> Path:
        return self.root / ".lock-holder"

    def _report_busy(self, *, wait: bool) -> None:
        try:
            holder = self._holder.read_text()
        except OSError:
            holder = "another process"
        if not wait:
            raise StoreBusyError(
                f"{holder} is working on the store {self.root}. Nothing was changed. "
                "Run this again when it is done, or name another store."
            )
        _log.warning("%s is working on the store %s; waiting for it to finish.", holder, self.root)

    def clear_leftovers(self, config: str, *, open_jobs: Collection[int]) -> None:
        """Remove what killed runs left behind. Requires the lock.

        Args:
            config: the configuration.
            open_jobs: jobs that are not sealed, whose parts are kept.
        """
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True, exist_ok=True)
        for path in self.shards(config).glob(TEMP_GLOB):
            path.unlink(missing_ok=True)
        kept = {self.job_parts(config, job) for job in open_jobs}
        for folder in self.parts(config).glob("*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        if not open_jobs:
            # Nothing is left to crop: these are of videos that are no longer selected.
            shutil.rmtree(self.root / "media" / config, ignore_errors=True)


def named_store(path: str | os.PathLike[str]) -> Store:
    """Return the store in a folder, which need not exist yet.

    Raises:
        StoreError: a file is in its place, or the system does not take its name.
    """
    if not os.fspath(path):
        raise StoreError("store is an empty text. Leave it out, or name a folder.")
    root = Path(path).expanduser().absolute()
    try:
        is_file = root.exists() and not root.is_dir()
    except OSError as error:  # a name that is too long, a folder above it that may not be read
        raise StoreError(f"The store {root} cannot be used: {error.strerror}.") from error
    if is_file:
        raise StoreError(f"The store {root} is a file; it must be a folder.")
    return Store(root)


def open_store(path: str | None, release: Release) -> Store:
    """Return the store that a user named, or the default one of a release.

    Args:
        path: a local folder, or ``None``.
        release: gives the default store its name, so that two releases never share one.
    """
    if path is not None:
        return named_store(path)
    base = home_folder()
    if release.default_source is not None:  # the built-in one, whose path each install changes
        return Store(base / "demo")
    path_of_release = release.path.resolve()
    is_in_folder = path_of_release.name.startswith(("meta", "vb2_meta"))
    name = path_of_release.parent.name if is_in_folder else path_of_release.name
    tag = short_digest(os.fsencode(path_of_release))[:8]
    return Store(base / f"{name or 'release'}-{tag}")
