"""A published store, read anew from its URL to be verified: a shard at a time is on disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import home_folder
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.fetching import fetch_files
from voxblink2_lib.published.manifest import ALL_BUT_SHARDS, Manifest, PublishedFile
from voxblink2_lib.published.opening import open_place
from voxblink2_lib.published.place import Place
from voxblink2_lib.published.reading import no_store
from voxblink2_lib.published.union import read_generation
from voxblink2_lib.store.checksums import write_checksum
from voxblink2_lib.store.layout import Store


class UrlCheck(NamedTuple):
    """A copy of a published store without its shards, in a temporary folder.

    Attributes:
        store: the copy.
        place: the URL.
        manifest: what is checked.
        problems: files that are not what the manifest names, or gone.
    """

    store: Store
    place: Place
    manifest: Manifest
    problems: tuple[str, ...]

    @contextlib.contextmanager
    def shard(self, path: Path) -> Iterator[str]:
        """Have a shard on disk within a ``with`` block.

        Args:
            path: where it would be in the copy.

        Yields:
            What is wrong with it at the URL; an empty text if it is there as it was sealed.
        """
        shards = self.manifest.shards(path.parent.name)
        if path.name not in shards:
            yield f"The manifest of {self.place} lacks the shard {path.name} of its ledger."
            return
        problem = _fetch(self.place, shards[path.name], path)
        try:
            yield problem
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def url_check(url: str, *, progress: Progress = no_progress) -> Iterator[UrlCheck]:
    """Read a published store to be verified.

    Args:
        url: of the published store.
        progress: counts bytes.

    Raises:
        StoreError: there is no store, or its URL cannot be read.
        StoreDamagedError: its ledger is damaged.
    """
    place = open_place(url)
    generation = read_generation(place)
    if generation is None:
        raise no_store(url)
    manifest = generation.manifest
    home_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=home_folder()) as folder:
        root, problems = Path(folder), []
        files = generation.files(root, ALL_BUT_SHARDS)
        total = sum(file.size_bytes for file in files.values())
        with progress("Downloading tables", unit="B", total=total) as advance:
            for target, file in files.items():
                problems.append(_fetch(place, file, target))
                advance(file.size_bytes)
        generation.join(root)
        yield UrlCheck(Store(root, str(place)), place, manifest, tuple(filter(None, problems)))


def _fetch(place: Place, file: PublishedFile, target: Path) -> str:
    """Download a file anew; return what is wrong with it."""
    try:
        fetch_files(place, {target: file})
    except StoreDamagedError as error:
        return str(error)
    if target.suffix == ".arrow":
        write_checksum(target, file.sha256)
    return ""
