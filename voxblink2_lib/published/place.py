"""The URL of a published store: its manifest is read and replaced there, and files are uploaded.

A manifest is replaced only if it still is the one that the new one follows: by a put under that
condition where the store has one (S3), else by who holds the lease. An answer that is lost or late
changes nothing: what is at the URL is read again, and says whose manifest it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from voxblink2_lib.archive.urls import is_final, system_of
from voxblink2_lib.errors import StoreBusyError, StoreDamagedError, StoreError
from voxblink2_lib.files import HashingWriter, atomic_write
from voxblink2_lib.published import remote_errors
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import MANIFEST, Manifest, new_attempt, read_manifest
from voxblink2_lib.published.remote_errors import store_errors, tried
from voxblink2_lib.redaction import redacted_source

SLICES = "slices"
_COPY_BYTES, _BLOCK_BYTES = 1 << 20, 32 << 20
_CONDITIONAL = {"s3", "s3a"}
_LOCAL = {"file", "local"}


class FileGoneError(StoreDamagedError):
    """A file that a manifest names is not there: perhaps a later manifest has left it out."""


def is_url(named: object) -> bool:
    """Return whether a store is named by a URL, or is a folder at which a store was published.

    >>> [is_url(store) for store in ("s3://bucket/store", "file:///data/x", "/data/x", None)]
    [True, True, False, False]
    """
    if not isinstance(named, str):
        return False
    return "://" in named or has_published(Path(named))


def has_published(folder: Path) -> bool:
    """Return whether a store was published at a folder, as by the slices of a corpus."""
    try:
        folder = folder.expanduser()
        return (folder / MANIFEST).is_file() or any((folder / SLICES).glob("*.json"))
    except (OSError, RuntimeError, ValueError):  # too long, not to be read, no home, a NUL in it
        return False


def as_url(named: str) -> str:
    """Return the URL of a published store, which a folder may be named by."""
    return named if "://" in named else f"file://{Path(named).expanduser().absolute()}"


class Published(NamedTuple):
    """What is at the URL of a store: its manifest, if any, and a text that changes with it."""

    manifest: Manifest | None
    version: str = ""


class Place:
    """Where a store is published.

    Args:
        url: with its secrets; or a folder.

    Raises:
        StoreError: fsspec cannot open such URLs, or a package that it needs is missing.
    """

    # What is removed goes with the next manifest, and stays in the history of the place.
    removes_with_commit = False

    def __init__(self, url: str) -> None:
        self.url = as_url(url).rstrip("/")
        if not self.url.partition("://")[2].strip("/"):
            raise StoreError(f"The store {url} has no name. Name a bucket, and a folder in it.")
        with store_errors(self.url, "opened"):
            self._system, self._path = system_of(self.url)
        protocols = self._system.protocol
        self._protocols = {protocols} if isinstance(protocols, str) else set(protocols)

    def __str__(self) -> str:
        return redacted_source(self.url)

    def url_of(self, name: str) -> str:
        """Return the URL of a file, with its secrets."""
        return f"{self.url}/{name}"

    def lease(self) -> UrlLease:
        """Return the right to publish, which is not acquired yet."""
        return UrlLease(self._system, f"{self._path}/publisher.lease", str(self))

    # -- The manifest ------------------------------------------------------------------------------

    def read(self) -> Published:
        """Return what is published now.

        Raises:
            StoreDamagedError: the manifest is none.
            StoreError, StoreDiskError: it cannot be read.
        """
        with store_errors(self.url, "read"):
            return tried(self._read)

    def _read(self) -> Published:
        path = f"{self._path}/{MANIFEST}"
        self._system.invalidate_cache()
        try:
            # Before the content: if that is newer, a put under this condition fails.
            version = str(self._system.info(path).get("ETag", ""))
            content = self._system.cat_file(path)
        except FileNotFoundError as error:
            if "bucket does not exist" in str(error):
                raise
            return Published(None)
        return Published(read_manifest(content, f"{self}/{MANIFEST}"), version)

    def commit(self, manifest: Manifest, base: Published) -> Published:
        """Replace the manifest, if it still is the one before.

        Args:
            manifest: the new one.
            base: what was published when it was made.

        Raises:
            StoreBusyError: another process has published meanwhile.
            StoreError, StoreDiskError: it cannot be written.
        """
        content = manifest.as_json()
        with store_errors(self.url, "published"):
            for pause in (*remote_errors.PAUSES_SECONDS, None):
                try:
                    return Published(manifest, self._put(content, base))
                except Exception as error:
                    present = self.read()
                    if _is_same(present.manifest, manifest):  # the answer was lost
                        return present
                    if not _is_same(present.manifest, base.manifest):
                        raise self._conflict(present.manifest) from error
                    if pause is None or is_final(error) or remote_errors.is_refusal(error):
                        raise
                    base = present  # of the Hub, something else in the same data set was changed
                    time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _put(self, content: bytes, base: Published) -> str:
        path = f"{self._path}/{MANIFEST}"
        if self._protocols & _CONDITIONAL:
            bucket, key, _ = self._system.split_path(path)
            condition = {"IfMatch": base.version} if base.manifest else {"IfNoneMatch": "*"}
            answer = self._system.call_s3(
                "put_object", Bucket=bucket, Key=key, Body=content, **condition
            )
            return str(answer["ETag"])
        present = self._read()
        if not _is_same(present.manifest, base.manifest):
            raise self._conflict(present.manifest)
        if self._protocols & _LOCAL:
            with atomic_write(Path(path)) as file:
                file.write(content)
        else:
            self._system.pipe_file(path, content)
        return self._read().version

    def _conflict(self, present: Manifest | None) -> StoreBusyError:
        what = (
            f"generation {present.generation} was written by {present.writer}"
            if present
            else "its manifest was removed"
        )
        return StoreBusyError(
            f"Another process publishes to {self}: {what} meanwhile. Nothing of it was "
            "overwritten; what was finished here is kept in the scratch store. Run this again when "
            "the other process is done, with another scratch store: --scratch NEW_FOLDER "
            "(scratch=...)."
        )

    # -- Files -------------------------------------------------------------------------------------

    def read_small(self, name: str) -> bytes | None:
        """Return the content of a small file that no manifest names; ``None`` if there is none.

        Raises:
            StoreError, StoreDiskError: it cannot be read.
        """
        with store_errors(self.url, "read"):
            return tried(lambda: self._read_small(name))

    def _read_small(self, name: str) -> bytes | None:
        path = f"{self._path}/{name}"
        self._system.invalidate_cache()
        try:
            self._system.info(path)  # what is not there is not read
            return bytes(self._system.cat_file(path))
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> bytes:
        """Write a small file, unless it is there; return what it has, whoever wrote it.

        Raises:
            StoreError, StoreDiskError: it cannot be written.
        """
        # It may exist also if an answer was lost and the next try met our own file.
        with store_errors(self.url, "published"), contextlib.suppress(FileExistsError):
            tried(lambda: self._create(name, content))
        return self.read_small(name) or b""

    def _create(self, name: str, content: bytes) -> None:
        path = f"{self._path}/{name}"
        if not self._protocols & _LOCAL:
            self._system.pipe_file(path, content, mode="create")
            return
        draft = Path(f"{path}.{new_attempt()}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(draft) as file:
            file.write(content)
        try:
            os.link(draft, path)  # another process sees all of it or nothing
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with open(path, "xb") as file:
                file.write(content)
        finally:
            draft.unlink()

    def upload(self, source: BinaryIO, name: str, size_bytes: int) -> str:
        """Upload the first bytes of a file, which may grow meanwhile; return their SHA-256.

        Raises:
            StoreError, StoreDiskError: it cannot be written.
        """
        with store_errors(self.url, "published"):
            return tried(lambda: self._upload(source, name, size_bytes))

    def _upload(self, source: BinaryIO, name: str, size_bytes: int) -> str:
        path = f"{self._path}/{name}"
        source.seek(0)
        if self._protocols & _LOCAL:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self._system.open(path, "wb") as file:
            hashing = HashingWriter(file)
            while left := size_bytes - hashing.size_bytes:
                block = source.read(min(_COPY_BYTES, left))
                if not block:
                    raise StoreError(f"{name} became shorter while it was published.")
                hashing.write(block)
        return hashing.sha256

    def download(self, name: str, target: Path, *, size_bytes: int, sha256: str) -> None:
        """Download a file, which appears under its name when it is whole.

        Raises:
            StoreDamagedError: it is not what the manifest names.
            StoreError, StoreDiskError: it cannot be read.
        """
        with store_errors(self.url, "read"), atomic_write(target) as file:
            hashing = HashingWriter(file)
            while left := size_bytes - hashing.size_bytes:
                hashing.write(self._block(name, hashing.size_bytes, min(_BLOCK_BYTES, left)))
            if hashing.sha256 != sha256:
                raise StoreDamagedError(
                    f"The file {name} of the published store {self} is damaged: its SHA-256 is "
                    f"{hashing.sha256}, its manifest has {sha256}."
                )

    def read_block(self, name: str, start: int, size: int) -> bytes:
        """Return some bytes of a file.

        Raises:
            FileGoneError: it is not there.
            StoreDamagedError: it has not so many bytes.
            StoreError, StoreDiskError: it cannot be read.
        """
        with store_errors(self.url, "read"):
            return self._block(name, start, size)

    def _block(self, name: str, start: int, size: int) -> bytes:
        path = f"{self._path}/{name}"
        try:
            block = tried(lambda: bytes(self._system.cat_file(path, start=start, end=start + size)))
        except FileNotFoundError as error:
            raise FileGoneError(
                f"The file {name} of the published store {self} is missing. If it was published "
                "anew just now, run the same command again."
            ) from error
        if len(block) != size:
            raise StoreDamagedError(
                f"The file {name} of the published store {self} is damaged: it has other bytes "
                f"than its manifest says, {len(block):,} of {size:,} came from byte {start:,}."
            )
        return block

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the sizes of all files at the URL, or below a folder there, by their names."""
        folder = f"{self._path}/{below}" if below else self._path
        with store_errors(self.url, "read"):
            self._system.invalidate_cache()
            entries = tried(lambda: self._system.find(folder, detail=True))
        start = len(self._path.rstrip("/")) + 1
        return {name[start:]: int(entries[name]["size"]) for name in sorted(entries)}

    def keeps_versions(self) -> bool | None:
        """Return whether the bucket keeps what is removed; ``None`` if that cannot be known."""
        if not self._protocols & _CONDITIONAL:
            return False if self._protocols & {*_LOCAL, "memory"} else None
        bucket = self._system.split_path(self._path)[0]
        try:
            answer = self._system.call_s3("get_bucket_versioning", Bucket=bucket)
        except Exception:  # its owner may keep that for himself; not every server has versions
            return None
        return "Status" in answer  # also of a bucket that has kept them before

    def remove(self, names: Collection[str]) -> None:
        """Remove files, whether or not they are there.

        Raises:
            StoreError, StoreDiskError: they cannot be removed.
        """
        with store_errors(self.url, "published"):
            for name in sorted(names):
                tried(lambda path=f"{self._path}/{name}": self._remove(path))  # type: ignore[misc]  # mypy takes no lambdas with defaults

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it, whether or not it is there.

        Raises:
            StoreError, StoreDiskError: it cannot be removed.
        """
        with store_errors(self.url, "published"):
            tried(lambda: self._remove(f"{self._path}/{name}", recursive=True))

    def _remove(self, path: str, *, recursive: bool = False) -> None:
        with contextlib.suppress(FileNotFoundError):
            if recursive:
                self._system.invalidate_cache()
                self._system.rm(path, recursive=True)
            else:
                self._system.rm_file(path)


def _is_same(first: Manifest | None, second: Manifest | None) -> bool:
    return (first and first.attempt) == (second and second.attempt)
