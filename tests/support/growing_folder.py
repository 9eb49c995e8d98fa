"""Runs over one store, and a folder of media that grows between them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from support import shard_builder
from support.plain_corpus import make_corpus, video_ids
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.verify import verify_store

VIDEOS = video_ids(12)
# Videos of a shard.
FULL = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, and the media of all its videos. Not to be changed."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), VIDEOS)


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    """Shards of :data:`FULL` videos, in the modules that import this."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.jobs.MAX_VIDEOS_PER_JOB", FULL)
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 1)
        yield


class Runner:
    """Runs over one store, and a folder of media that grows between them.

    Args:
        corpus: the release, and the media of :data:`VIDEOS`.
        folder: of the media that have come, and of the store by default.
        store: the store.
    """

    def __init__(self, corpus: Path, folder: Path, store: Path | None = None) -> None:
        self.corpus = corpus
        self.media = folder / "media"
        self.store = store or folder / "store"

    def copy(self, store: Path) -> Self:
        """Return a runner over a copy of the store; the media are the same."""
        shutil.copytree(self.store, store)
        return type(self)(self.corpus, self.media.parent, store)

    def add(self, numbers: Sequence[int]) -> None:
        """Let media come."""
        for number in numbers:
            (path,) = (self.corpus / "media").glob(f"*/{VIDEOS[number]}.wav")
            target = self.media / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    def run(self, numbers: Sequence[int] = (), **options: object) -> None:
        """Run after some videos have come."""
        self.add(numbers)
        request = {
            **{"data_dir": str(self.corpus), "store": str(self.store), "workers": 1},
            **{"source": str(self.media), **options},
        }
        materialize(MaterializeRequest.of(**request), retry=True, wait=False)

    def shards(self) -> dict[str, list[int]]:
        """Videos of each shard that the ledger lists, in the order of the rows."""
        folder = self.store / "shards" / "audio"
        with Ledger(self.store / "ledger.sqlite", "audio", readonly=True) as ledger:
            return {
                shard.name: [
                    VIDEOS.index(row["video_id"])
                    for row in shard_builder.rows_of(folder / shard.name)
                ]
                for shard in ledger.shards()
            }

    def problems(self) -> tuple[str, ...]:
        """Return what ``verify`` finds."""
        return verify_store(Store(self.store), "audio", sample=1).problems
