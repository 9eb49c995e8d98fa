"""A store in a data set of the Hugging Face Hub: each generation is one commit.

Files are uploaded as they come and are part of the repository with the commit, which also has the
manifest and what is removed. It names the commit before, so two processes cannot both be right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

from voxblink2_lib.errors import StoreError
from voxblink2_lib.published.lease import UrlLease
from voxblink2_lib.published.manifest import MANIFEST, read_manifest
from voxblink2_lib.published.place import Place, Published
from voxblink2_lib.published.remote_errors import store_errors
from voxblink2_lib.published.repository import SMALL_BYTES, Repository, data_set_of

# A data set for others has this file at its root: see hub/record.py.
DATA_SET_RECORD = "voxblink2-dataset.json"


class HubPlace(Place):
    """A data set of the Hub, or a folder in one. A new one is private.

    Args:
        url: as ``hf://datasets/USER/NAME`` or ``hf://datasets/USER/NAME/folder``.

    Raises:
        StoreError: the URL is of something else.
    """

    removes_with_commit = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        place = data_set_of(self.url)
        if place is None:
            raise StoreError(
                f"The store {self} is no data set of the Hub. Name hf://datasets/USER/NAME, or a "
                "folder in it."
            )
        self._repository = Repository(place.name)
        self._prefix = place.prefix

    @property
    def data_set(self) -> str:
        """Its name, ``USER/NAME``."""
        return self._repository.name

    def lease(self) -> UrlLease:
        """Return a lease that everybody has: a commit is refused if another one was before it."""
        return _NoLease(self._system, f"{self._path}/publisher.lease", str(self))

    def _read(self) -> Published:
        state = self._repository.state()
        if state is None:
            return Published(None)
        self._system.invalidate_cache()
        content = self._repository.read(self._prefix + MANIFEST, state.commit)
        if content is not None:
            return Published(read_manifest(content, f"{self}/{MANIFEST}"), state.commit)
        if self._repository.read(DATA_SET_RECORD, state.commit) is not None:
            name = self._repository.name
            raise StoreError(
                f"{self} is no store: {name} is a data set that was published for others, which "
                f'load_dataset("{name}") reads. Name another data set for the store.'
            )
        return Published(None, state.commit)

    def _upload(self, source: BinaryIO, name: str, size_bytes: int) -> str:
        source.seek(0)
        # Parts may grow, or go, before they are read again.
        is_held = size_bytes <= SMALL_BYTES or name.startswith("parts/")
        content: Any = source.read(size_bytes) if is_held else source
        self._repository.create()
        return self._repository.upload(self._prefix + name, content)

    def _create(self, name: str, content: bytes) -> None:
        repository = Repository(self._repository.name)  # a commit of this file alone
        repository.create()
        state = repository.state()
        if self._read_small(name) is not None:
            raise FileExistsError(name)
        repository.upload(self._prefix + name, content)
        repository.commit("Begin a store in slices", parent=state.commit if state else None)

    def _put(self, content: bytes, base: Published) -> str:
        parent = base.version
        if not parent:  # the data set was made just now
            present = self._read()
            if present.manifest is not None:
                raise self._conflict(present.manifest)
            parent = present.version
        self._repository.upload(self._prefix + MANIFEST, content)
        return self._repository.commit("Publish a generation of the store", parent=parent)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the sizes of all files at the URL, see :class:`Place`; of no data set, none."""
        with store_errors(self.url, "read"):
            self._system.invalidate_cache()
            is_there = self.read().version and self._system.exists(self._path)
        return super().sizes(below) if is_there else {}

    def remove(self, names: Collection[str]) -> None:
        """Remove files with the next commit."""
        self._repository.remove([self._prefix + name for name in names])


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
