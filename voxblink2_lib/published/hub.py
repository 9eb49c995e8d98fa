"""A store in a data set of the Hugging Face Hub: each generation is one commit.

Files are uploaded as they come and are part of the repository with the commit, which also has the
manifest and what is removed. It names the commit before, so two processes cannot both be right.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, BinaryIO

from voxblink2_lib.errors import StoreError
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import MANIFEST, read_manifest
from voxblink2_lib.published.place import Place, Published
from voxblink2_lib.published.remote_errors import store_errors

_DATA_SET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:/(.+))?")
# The Hub has larger files elsewhere; they are uploaded at once, and read where they are.
_SMALL_BYTES = 10 << 20


class HubPlace(Place):
    """A data set of the Hub, or a folder in one. A new one is private.

    Args:
        url: as ``hf://datasets/USER/NAME`` or ``hf://datasets/USER/NAME/folder``.

    Raises:
        StoreError: the URL is of something else.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        match = _DATA_SET.fullmatch(self.url)
        if match is None:
            raise StoreError(
                f"The store {self} is no data set of the Hub. Name hf://datasets/USER/NAME, or a "
                "folder in it."
            )
        from huggingface_hub import HfApi

        self._api = HfApi()
        self._repo, folder = match[1], match[2]
        self._prefix = f"{folder}/" if folder else ""
        self._added: dict[str, Any] = {}
        self._removed: set[str] = set()

    def lease(self) -> UrlLease:
        """Return a lease that everybody has: a commit is refused if another one was before it."""
        return _NoLease(self._system, f"{self._path}/publisher.lease", str(self))

    def _read(self) -> Published:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            commit = str(self._api.repo_info(self._repo, repo_type="dataset").sha)
        except RepositoryNotFoundError:
            return Published(None)
        self._system.invalidate_cache()
        try:
            path = f"datasets/{self._repo}@{commit}/{self._prefix}{MANIFEST}"
            content = self._system.cat_file(path)
        except FileNotFoundError:
            return Published(None, commit)
        return Published(read_manifest(content, f"{self}/{MANIFEST}"), commit)

    def _upload(self, source: BinaryIO, name: str, size_bytes: int) -> str:
        from huggingface_hub import CommitOperationAdd

        source.seek(0)
        # Parts may grow, or go, before they are read again.
        is_held = size_bytes <= _SMALL_BYTES or name.startswith("parts/")
        content: Any = source.read(size_bytes) if is_held else source
        addition = CommitOperationAdd(self._prefix + name, content)
        self._api.create_repo(self._repo, repo_type="dataset", private=True, exist_ok=True)
        self._api.preupload_lfs_files(self._repo, [addition], repo_type="dataset")
        self._added[name] = addition
        return str(addition.upload_info.sha256.hex())

    def _put(self, content: bytes, base: Published) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        parent = base.version
        if not parent:  # the data set was made just now
            present = self._read()
            if present.manifest is not None:
                raise self._conflict(present.manifest)
            parent = present.version
        gone = self._removed & self.sizes().keys() if self._removed else set()
        operations = [
            *self._added.values(),
            *(CommitOperationDelete(self._prefix + name) for name in sorted(gone)),
            CommitOperationAdd(self._prefix + MANIFEST, content),
        ]
        answer = self._api.create_commit(
            self._repo,
            operations,
            commit_message="Publish a generation of the store",
            repo_type="dataset",
            parent_commit=parent,
        )
        self._added.clear()
        self._removed.clear()
        return str(answer.oid)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the sizes of all files at the URL, see :class:`Place`; of no data set, none."""
        with store_errors(self.url, "read"):
            self._system.invalidate_cache()
            is_there = self.read().version and self._system.exists(self._path)
        return super().sizes(below) if is_there else {}

    def remove(self, names: Collection[str]) -> None:
        """Remove files with the next commit."""
        self._removed.update(names)


class _NoLease(UrlLease):
    def acquire(self) -> bool:
        """Return true."""
        return True

    def keep(self) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Do nothing: the commit is checked."""

    def release(self) -> None:
        """Do nothing."""
