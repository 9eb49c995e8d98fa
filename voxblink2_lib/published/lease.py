"""The right to publish to a URL: a lease as :mod:`voxblink2_lib.store.lease` has it, at the URL.

Of two processes it keeps the later one from doing work for nothing. Where a store has no puts under
a condition, it also guards the manifest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voxblink2_lib.published.remote_errors import tried
from voxblink2_lib.store.lease import Lease


class UrlLease(Lease):
    """The right to publish to a URL, as a file there that its holder renews.

    Args:
        system: of fsspec.
        path: of the file in it.
        place: the URL of the store, without secrets.
        clock: seconds that never run backwards.
        sleep: waits for some seconds.
    """

    # Each beat is two requests.
    beat_seconds = 15.0

    def __init__(
        self,
        system: Any,
        path: str,
        place: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(Path(path), clock=clock, sleep=sleep)
        self._system, self._name, self._place = system, path, place

    def renew(self) -> None:
        """Write that the holder lives, unless the lease is lost."""
        # Whatever a server answers: it may be back before long.
        with self._writing, contextlib.suppress(Exception):
            self._is_lost |= not self._is_ours()
            if not self._is_lost and not self._ended.is_set():
                self._overwrite()
                self._renewed_at = self._clock()

    def _create(self) -> bool:
        try:
            self._make_folder()
            tried(lambda: self._system.pipe_file(self._name, self._record(), mode="create"))
        except FileExistsError:
            # Also if an answer was lost and the next try met our own file.
            return self._is_ours()
        return True

    def _make_folder(self) -> None:
        if "file" in self._system.protocol:
            self._path.parent.mkdir(parents=True, exist_ok=True)

    def _overwrite(self) -> None:
        self._system.pipe_file(self._name, self._record())

    def _read(self) -> bytes | None:
        try:
            return bytes(tried(lambda: self._system.cat_file(self._name)))
        except FileNotFoundError:
            return None

    def _remove(self) -> None:
        tried(lambda: self._system.rm_file(self._name))
