"""Download files of a published store, a few at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.published.manifest import PublishedFile
from voxblink2_lib.published.place import Place

AT_ONCE = 4


def fetch_files(
    place: Place,
    targets: Mapping[Path, PublishedFile],
    *,
    task: str = "Downloading",
    progress: Progress = no_progress,
) -> None:
    """Download files; each appears under its name when it is whole.

    Args:
        place: of the published store.
        targets: what to download, by where it goes.
        task: what is done, for the progress.
        progress: counts bytes.

    Raises:
        FileGoneError: a file is not there any more.
        StoreDamagedError: a file is not what the manifest names.
        StoreError, StoreDiskError, StoreFullError: it cannot be read, or written.
    """

    def fetch(target: Path) -> int:
        file = targets[target]
        place.download(file.name, target, size_bytes=file.size_bytes, sha256=file.sha256)
        return file.size_bytes

    total = sum(file.size_bytes for file in targets.values())
    with (
        progress(task, unit="B", total=total) as advance,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        try:
            for size_bytes in threads.map(fetch, targets):
                advance(size_bytes)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
