"""Where the check of an archive was stopped, so that the next one goes on there."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from voxblink2_lib.archive.contents import Contents
from voxblink2_lib.archive.gzip_stream import SeekPoint
from voxblink2_lib.archive.parts import Archive, Part
from voxblink2_lib.archive.reader import Place
from voxblink2_lib.archive.remote import stamp_of
from voxblink2_lib.files import atomic_write, home_folder, short_digest

_SAVE_SECONDS = 30.0
_FORMAT = 1


class CheckMemory:
    """Where a check of these very parts was, in a file.

    Args:
        archive: its parts, known by path, size, and time of the last change or version.
    """

    def __init__(self, archive: Archive) -> None:
        stamps = [(_full_name(part), stamp_of(part)) for part in archive.parts]
        digest = short_digest(json.dumps([_FORMAT, stamps]).encode())
        self._file = home_folder() / "archive-checks" / f"{digest}.json"
        self._saved_at = time.monotonic()
        self._saved_point: SeekPoint | None = None

    def load(self) -> tuple[Place, Contents]:
        """Return where to go on, and what was counted until then."""
        try:
            record = json.loads(self._file.read_bytes())
            return Place.from_dict(record["place"]), Contents.from_dict(record["contents"])
        except (OSError, ValueError, KeyError, TypeError):  # none, or a half of one
            return Place(), Contents()

    def save_now_and_then(self, place: Place, contents: Contents) -> None:
        """Save where the check is, if that is new and some time has passed."""
        if place.point is self._saved_point and place.point is not None:
            return
        if time.monotonic() - self._saved_at < _SAVE_SECONDS:
            return
        record = {"place": place.as_dict(), "contents": contents.as_dict()}
        # What is saved is for comfort: a disk that takes nothing ends no check.
        with contextlib.suppress(OSError), atomic_write(self._file) as file:
            file.write(json.dumps(record).encode())
        self._saved_at, self._saved_point = time.monotonic(), place.point

    def forget(self) -> None:
        """Remove the file: the next check begins at the start."""
        self._file.unlink(missing_ok=True)


def _full_name(part: Part) -> str:
    return str(part.absolute() if isinstance(part, Path) else part)
