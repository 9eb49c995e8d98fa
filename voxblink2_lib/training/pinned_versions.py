r"""The version of each remote shard that a store was opened with: what was read first is kept to.

All processes that share a cache append to one file for each catalogue, and the first line about a
shard counts. Lines are JSON::

    ["audio-00000.arrow", "\"5d41402abc4b2a76b9719d911017c592\""]
    ["audio-00000.arrow", null]             the shard has another version now

After the second, nobody reads the shard until the store is opened again.
"""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from voxblink2_lib.training.locked_files import locked

FOLDER = "versions"
_FORMER_KEPT = 8  # of former catalogues, which others may have open


class ChangedError(Exception):
    """A shard has another version than was read before."""


class PinnedVersions:
    """Versions of shards by their names.

    Args:
        path: of the file. Where it cannot be written, each process has its own versions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._versions: dict[str, str | None] = {}
        self._read_bytes = 0
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[PinnedVersions], tuple[Path]]:
        return PinnedVersions, (self._path,)

    @classmethod
    def opened(cls, cache: Path, catalogue: str) -> PinnedVersions:
        """Return those for a store that is opened now: without what has changed meanwhile.

        Args:
            cache: folder of the pieces.
            catalogue: a text that changes with the catalogue of the store.
        """
        folder = cache / FOLDER
        number = max((int(path.suffix[1:]) for path in folder.glob(f"{catalogue}.*")), default=0)
        last = cls(folder / f"{catalogue}.{number}")
        with contextlib.suppress(OSError):
            last._refresh()
        kept = {shard: version for shard, version in last._versions.items() if version is not None}
        if len(kept) == len(last._versions):
            return last
        anew = cls(folder / f"{catalogue}.{number + 1}")
        for shard, version in kept.items():
            anew.pin(shard, version)
        _remove_former(folder)
        return anew

    def of(self, shard: str) -> str | None:
        """Return the version of a shard; ``None`` if it was not read yet.

        Raises:
            ChangedError: it has another one now.
        """
        with self._lock:
            if shard not in self._versions:
                with contextlib.suppress(OSError):
                    self._refresh()
            version = self._versions.get(shard)
            if version is None and shard in self._versions:
                raise ChangedError
            return version

    def pin(self, shard: str, version: str) -> None:
        """Keep to the version that was read.

        Raises:
            ChangedError: it is another one than before.
        """
        with self._lock:
            if self._versions.get(shard) == version:
                return
            self._append(shard, version)
            if self._versions[shard] != version:
                self.mark_changed(shard)
                raise ChangedError

    def mark_changed(self, shard: str) -> None:
        """Let nobody read a shard until the store is opened again."""
        with self._lock:
            self._append(shard, None)
            self._versions[shard] = None

    def _append(self, shard: str, version: str | None) -> None:
        """Append a line, unless another process has one about this shard."""
        # Before it, the part of a line that a killed process has left ends.
        line = f"\n{json.dumps([shard, version])}\n"
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._path):
                self._refresh()
                if shard not in self._versions or version is None:
                    with open(self._path, "ab", buffering=0) as file:
                        file.write(line.encode())
        self._versions.setdefault(shard, version)

    def _refresh(self) -> None:
        """Read what was appended since."""
        with open(self._path, "rb") as file:
            file.seek(self._read_bytes)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(end)
        for line in whole.split(b"\n"):
            shard, version = _parsed(line)
            if version is None:
                self._versions[shard] = None
            else:
                self._versions.setdefault(shard, version)
        self._versions.pop("", None)


def _parsed(line: bytes) -> tuple[str, str | None]:
    """Return the shard and the version of a line; no shard of one that was not written whole."""
    with contextlib.suppress(ValueError):
        match json.loads(line):
            case [str(shard), str() | None as version]:
                return shard, version
    return "", None


def _remove_former(folder: Path) -> None:
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-_FORMER_KEPT]:
            path.unlink()
