"""An export to a data set of the Hugging Face Hub: one commit for each shard.

The Hub limits the commits of an hour, and a file that is written by itself is one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from voxblink2_lib.errors import ExportError
from voxblink2_lib.export.target import ChecksumWriter, Target
from voxblink2_lib.published.hub import DATA_SET_RECORD
from voxblink2_lib.published.repository import (
    SMALL_BYTES,
    Repository,
    data_set_of,
    no_bars,
)


@contextlib.contextmanager
def prepared(target: Target) -> Iterator[None]:
    """Make the data set of a target on the Hub, if it is on the Hub; a new one is private.

    Raises:
        ExportError: it is public, or published for others; or it cannot be made.
    """
    place = data_set_of(target.url)
    if place is None:
        yield
        return
    repository = Repository(place.name)
    with target.named():
        state = repository.state()
        is_for_others = state and repository.read(DATA_SET_RECORD, state.commit) is not None
        if state is None:
            repository.create()
            target.forget()
    if state is not None and not state.is_private:
        raise ExportError(
            f"{target.shown} is in a public data set: everybody would see the clips. Make it "
            "private on the Hub, or publish them with voxblink2 publish --public."
        )
    if is_for_others:
        raise ExportError(
            f"{target.shown} is in a data set that was published for others, with voxblink2 "
            "publish. Name another data set."
        )
    with no_bars():  # of each file
        yield


@contextlib.contextmanager
def bundled(target: Target, unit: str) -> Iterator[Target]:
    """Give a target for the files of a unit; on the Hub, all of them are one commit."""
    place = data_set_of(target.url)
    if place is None:
        yield target
        return
    repository = Repository(place.name)
    with target.named(), tempfile.TemporaryDirectory(prefix="voxblink2-export-") as folder:
        yield _Bundle(target.url, repository, place.prefix, Path(folder, "file"))
        repository.commit(f"Export {unit}", parent=None)
        target.forget()


@dataclass(frozen=True, slots=True)
class _Bundle(Target):
    """Uploads files, which are there with the next commit.

    Attributes:
        repository: the data set.
        prefix: of paths in it.
        scratch: where a large file is written first.
    """

    repository: Repository
    prefix: str
    scratch: Path

    @contextlib.contextmanager
    def file(self, path: str, *, is_flushed: bool = True) -> Iterator[ChecksumWriter]:
        del is_flushed
        with open(self.scratch, "wb") as file:
            writer = ChecksumWriter(file)
            yield writer
        is_small = writer.size_bytes <= SMALL_BYTES
        self._upload(path, self.scratch.read_bytes() if is_small else self.scratch)

    def put(self, path: str, data: Any) -> str:
        self._upload(path, bytes(data))
        return xxhash.xxh3_128_hexdigest(data)

    def remove(self, path: str) -> None:
        self.repository.withdraw(self.prefix + path)

    def _upload(self, path: str, content: bytes | Path) -> None:
        self.repository.upload(self.prefix + path, content)
