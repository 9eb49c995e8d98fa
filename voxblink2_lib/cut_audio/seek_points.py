"""The points at which a compressed archive can be entered, each in a file of the store.

STORE/archive/<archive>/<offset>.json    an offset in the tar, in bytes
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from pathlib import Path

from voxblink2_lib.archive.gzip_stream import SeekPoint
from voxblink2_lib.files import atomic_write

FOLDER = "archive"


class SeekPoints:
    """The points of the archives of one store.

    Args:
        store: the folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self._folder = store / FOLDER

    def save(self, archive: int, point: SeekPoint) -> None:
        """Write a point, unless it is there and can be read.

        Args:
            archive: place of the archive among all, from 0.
            point: the point.
        """
        if self._read(archive, point.offset) != point:
            text = json.dumps(point.as_dict())
            with atomic_write(self._path(archive, point.offset)) as file:
                file.write(json.dumps({"point": text, "digest": _digest(text)}).encode())

    def before(self, archive: int, offset: int) -> SeekPoint | None:
        """Return the last point up to an offset; ``None`` if there is only the archive's start.

        Args:
            archive: place of the archive among all, from 0.
            offset: in bytes of the tar.
        """
        paths = self._path(archive, 0).parent.glob("*.json")
        offsets = sorted((int(path.stem) for path in paths if path.stem.isdigit()), reverse=True)
        for candidate in offsets:
            if candidate <= offset and (point := self._read(archive, candidate)):
                return point
        return None

    def forget(self) -> None:
        """Remove all points: they are of another archive."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, archive: int, offset: int) -> SeekPoint | None:
        try:
            record = json.loads(self._path(archive, offset).read_bytes())
            if record["digest"] != _digest(record["point"]):
                return None
            return SeekPoint.from_dict(json.loads(record["point"]))
        # Damaged, or of another version: the one before serves as well.
        except (OSError, ValueError, LookupError, TypeError, AttributeError, zlib.error):
            return None

    def _path(self, archive: int, offset: int) -> Path:
        return self._folder / f"{archive:03}" / f"{offset:015}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
