"""What leaves a node while it works on a job: clips and outcomes, so that its loss costs little.

::

    URL/jobs/audio/00007/<attempt>/id000001_video000012.arrow            a part file of a video
    URL/jobs/audio/00007/<attempt>/000003/audio-00007.outcomes.parquet   what is known of all videos

A part file has its outcome inside; the other outcomes leave in a file of their own after each
failure. Whoever begins the job again reads what all attempts before have left. A file may be cut
short where its node died: each proves by its own checksum that it is whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.published.fetching import AT_ONCE
from voxblink2_lib.published.manifest import new_attempt
from voxblink2_lib.published.place import FileGoneError, Place
from voxblink2_lib.published.uploads import job_folder
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_path, read_outcomes, write_file
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import read_part, read_part_outcome

# So many finished videos, or seconds after the first of them, begin to leave the node. If the
# network is slower than the cropping, the job waits before more than the most are only here.
SAVE_VIDEOS, SAVE_SECONDS = 8, 150.0
MOST_UNSAVED = 24


class Checkpoints:
    """What has left the nodes of one job.

    As a context manager it ends its threads.

    Args:
        place: the published store.
        store: where the job is done: of a node, or the driver's.
        ledger: of that store.
        job: number of the job.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        place: Place,
        store: Store,
        ledger: Ledger,
        job: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._store, self._ledger, self._job = place, store, ledger, job
        self._clock = clock
        self._at_url = job_folder(ledger.config, job)
        self._attempt = new_attempt()
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._present: set[str] = set()
        self._unsaved = self._failures = self._written = 0
        self._since = 0.0
        self._leaving: list[Future[None]] = []
        self._number_leaving = 0

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    # -- On the way out ----------------------------------------------------------------------------

    def note(self, *, has_clips: bool) -> None:
        """Take note that a video is finished."""
        if not self._unsaved:
            self._since = self._clock()
        self._unsaved += 1
        self._failures += not has_clips

    def save_if_due(self) -> None:
        """Begin to save what is finished if it is time; wait if too much of it is only here.

        Raises:
            StoreError, StoreDiskError: the URL cannot be written to.
        """
        is_leaving = not all(upload.done() for upload in self._leaving)
        if is_leaving and self._number_leaving + self._unsaved < MOST_UNSAVED:
            return
        self._wait()
        is_old = self._clock() - self._since >= SAVE_SECONDS
        if self._unsaved >= SAVE_VIDEOS or (self._unsaved and is_old):
            self._begin()

    def save(self) -> None:
        """Save all that is finished, and wait until it is.

        Raises:
            StoreError, StoreDiskError: the URL cannot be written to.
        """
        self._wait()
        self._begin()
        self._wait()

    def _wait(self) -> None:
        for upload in self._leaving:
            upload.result()
        self._leaving, self._number_leaving = [], 0

    def _begin(self) -> None:
        folder = self._store.job_parts(self._ledger.config, self._job)
        parts = [path for path in sorted(folder.glob("*.arrow")) if path.name not in self._present]
        self._present.update(path.name for path in parts)
        files = {path.name: path for path in parts}
        if self._failures:
            self._written += 1
            path = self._outcomes_path(f"{self._written:06}")
            outcomes = self._ledger.outcomes.read(self._job)
            assert outcomes is not None  # for mypy: the job is in its ledger
            write_file(path, outcomes, None)
            files[f"{path.parent.name}/{path.name}"] = path
        self._number_leaving, self._unsaved, self._failures = self._unsaved, 0, 0
        self._leaving = [self._threads.submit(self._upload, *file) for file in files.items()]

    def _outcomes_path(self, folder: str) -> Path:
        """Return the path for a file of outcomes, whose name says of which job it is."""
        path = outcomes_path(self._store.tmp / folder, self._ledger.config, self._job)
        path.parent.mkdir(exist_ok=True)
        return path

    def _upload(self, name: str, path: Path) -> None:
        # A job that was sealed meanwhile has its clips in the shard.
        with suppress(FileNotFoundError), open(path, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            self._place.upload(file, f"{self._at_url}/{self._attempt}/{name}", size_bytes)

    # -- On the way back ---------------------------------------------------------------------------

    def restore(self, digests: Mapping[VideoKey, int]) -> int:
        """Take what attempts before have left: first the clips, then what the ledger has of them.

        Args:
            digests: hash of the annotations of each video of the job; clips of others are left.

        Returns:
            The number of videos whose clips are here now.

        Raises:
            StoreError, StoreDiskError: the URL cannot be read.
        """
        names = [*self._place.sizes(self._at_url).items()]
        parts = [(name, size) for name, size in names if name.endswith(".arrow")]
        self._store.tmp.mkdir(parents=True, exist_ok=True)
        kept = list(self._threads.map(lambda part: self._fetch_part(part, digests), parts))
        self._present.update(name for name in kept if name)
        self._restore_outcomes({name: size for name, size in names if name.endswith(".parquet")})
        return len(self._present)

    def _fetch_part(self, part: tuple[str, int], digests: Mapping[VideoKey, int]) -> str:
        """Download a part file; return its name here, or an empty text if it is of no use."""
        name, size_bytes = part
        with suppress(StoreDamagedError, FileGoneError):
            path = self._store.tmp / "-".join(name.split("/")[-2:])
            self._download(name, size_bytes, path)
            for _ in read_part(path, arrow_schema(self._ledger.config)):
                pass
            outcome = read_part_outcome(path)
            if outcome is not None and digests.get(outcome.key) == outcome.digest:
                target = self._store.part(self._ledger.config, self._job, outcome.key)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
                return target.name
        return ""

    def _restore_outcomes(self, sizes: Mapping[str, int]) -> None:
        attempts: dict[str, list[str]] = {}
        for name in sorted(sizes, reverse=True):
            attempts.setdefault(str(PurePosixPath(name).parents[1]), []).append(name)
        for names in attempts.values():
            self._take_first_whole(names, sizes)

    def _take_first_whole(self, names: Iterable[str], sizes: Mapping[str, int]) -> None:
        """Take the last file of an attempt that is whole."""
        for name in names:
            with suppress(StoreDamagedError, FileGoneError):
                path = self._outcomes_path("-".join(name.split("/")[-3:-1]))
                self._download(name, sizes[name], path)
                self._ledger.elsewhere.take(read_outcomes(path, with_digests=False))
                return

    def _download(self, name: str, size_bytes: int, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(self._place.read_block(name, 0, size_bytes))
