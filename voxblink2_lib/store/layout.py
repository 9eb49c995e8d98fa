"""Paths in a store, its lock, and the default store of a release.

STORE/
  index/                    see index.py
  index.new/                an index that is being written, where the next run goes on
  ledger.sqlite             see ledger.py
  ledger.backup.sqlite      see backup.py
  parts/<config>/<job>/     clips of finished videos whose shard is not sealed yet
  shards/<config>/          sealed shards, each with its sha256 and its outcomes beside it
  archive/                  where an archive of cut audio can be entered, see cut_audio
  media/<config>/           downloaded media, staged until they are cropped
  tombstones.json           hashes of what was purged, see release/tombstones.py
  published/                of a scratch store, see published/scratch.py
  summary/                  of a copy of a published store, see summary.py
  lost+found/               what repair took out of the store; nothing reads it
  tmp/                      partial downloads; emptied by the next run
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from voxblink2_lib.errors import (
    StoreBusyError,
    StoreError,
    StoreReadOnlyError,
    next_command,
)
from voxblink2_lib.files import (
    TEMP_GLOB,
    home_folder,
    named_system_errors,
    short_digest,
    system_error,
)
from voxblink2_lib.records import VideoKey
from voxblink2_lib.redaction import redacted_source
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.lock import HOLDER, LOCK, hold_lock


@dataclass(frozen=True, slots=True)
class Store:
    """A folder and the places in it.

    Attributes:
        root: the folder.
        url: of the published store that the folder is a scratch store or a copy of, without
            secrets; empty for any other.
    """

    root: Path
    url: str = ""

    @property
    def place(self) -> str:
        """What its user calls it: the URL, or the folder."""
        return self.url or str(self.root)

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
        return self.job_parts(config, job) / f"{self._file_name(key)}.arrow"

    def fetched(self, config: str, key: VideoKey) -> Path:
        """Folder of the media of one video, staged until they are cropped."""
        return self.root / "media" / config / self._file_name(key)

    def _file_name(self, key: VideoKey) -> str:
        """Return a name that no other video has, on a disk that ignores case (FAT, CIFS) too."""
        name = f"{key.speaker_id}_{key.video_id}"
        capitals = sum(1 << place for place, letter in enumerate(name) if letter.isupper())
        ignores_case = capitals and os.path.exists(self.root / LOCK.upper())
        return f"{name}.{capitals:x}" if ignores_case else name

    @contextlib.contextmanager
    def locked(self, *, wait: bool, is_half_purged: bool = False) -> Iterator[None]:
        """Hold the store's lock.

        Args:
            wait: wait for another holder, with a message; otherwise raise.
            is_half_purged: also of a store from which a purge was begun that has not ended.

        Raises:
            StoreBusyError: another process holds it.
            StoreError: the folder cannot be created or written to, or the disk is full or fails
                while the lock is held; see :func:`voxblink2_lib.files.named_system_errors`.
        """
        with contextlib.ExitStack() as stack:
            with self._named_if_unusable():
                self.root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(self.root, wait=wait))
            with named_system_errors(self.root):
                if not is_half_purged:
                    self.check_purged()
                yield

    def check_purged(self) -> None:
        """Check that nothing is left in it of what was purged.

        Raises:
            StoreError: a purge was begun that has not ended.
        """
        if not Tombstones.of(self.root).is_finished:
            raise StoreError(
                f"Something was purged from the store {self.root}, and the purge was stopped "
                "before its end. Nothing was changed. Finish it first with "
                f"{next_command('purge', store=self.root)}."
            )

    @contextlib.contextmanager
    def _named_if_unusable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise StoreReadOnlyError(
                    f"The store {self.root} cannot be written to ({error.strerror}), and it lacks "
                    "something that was requested. Leave out data_dir to load it as it is."
                ) from error
            named = system_error(error, self.root)
            raise named or StoreError(f"The store {self.root} cannot be used: {error}.") from error

    def run_began(self) -> float | None:
        """Return the Unix time at which the run that is at work began; ``None`` if none is."""
        try:
            with self.locked(wait=False):
                return None
        except StoreBusyError:
            holder = self.root / HOLDER
            return holder.stat().st_mtime if holder.exists() else 0.0
        except StoreError:  # one that cannot be written to
            return None

    def clear_leftovers(self, config: str, *, open_jobs: Collection[int]) -> None:
        """Remove what killed runs left behind. Requires the lock.

        Args:
            config: the configuration.
            open_jobs: jobs that are not sealed, whose parts are kept.
        """
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True, exist_ok=True)
        for path in (*self.root.glob(TEMP_GLOB), *self.shards(config).glob(TEMP_GLOB)):
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
        StoreError: it is a URL, a file is in its place, or the system does not take its name.
    """
    if not os.fspath(path):
        raise StoreError("store is an empty text. Leave it out, or name a folder.")
    if "://" in os.fspath(path):
        raise StoreError(
            f"The store {redacted_source(os.fspath(path))} is a URL, which is not possible here. "
            "Name a folder."
        )
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
    if release.default_source is not None:  # the built-in one, whose path each install changes
        return Store(home_folder() / "demo")
    place = release.path.resolve() if isinstance(release.path, Path) else release.path
    is_in_folder = place.name.startswith(("meta", "vb2_meta", "timestamp"))
    name = str(place.parent).rpartition("/")[2] if is_in_folder else place.name
    return _default_store(str(place), name)


def open_store_of(path: str | None, place: str) -> Store:
    """Return the store that a user named, or the default one of cut audio without annotations.

    Args:
        path: a local folder, or ``None``.
        place: where the cut audio is.
    """
    if path is not None:
        return named_store(path)
    if "://" in place:
        shown = redacted_source(place)
        name = shown.partition("?")[0].rstrip("/").rpartition("/")[2].replace("*", "_")
        return _default_store(shown, name)
    resolved = Path(place).resolve()
    return _default_store(str(resolved), resolved.name)


def _default_store(place: str, name: str) -> Store:
    tag = short_digest(os.fsencode(place))[:8]
    return Store(home_folder() / f"{name or 'release'}-{tag}")
