"""Downloads staged until they are cropped, so a crash in between does not download twice.

The folder of a video holds ``media``, perhaps ``sound``, and ``fetched.json``. It gets its name
when everything in it is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.files import named_system_errors, sync_folder
from voxblink2_lib.outcomes import NO_FACTS, MediaFacts
from voxblink2_lib.sources import Media

_RECORD = "fetched.json"


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """What reading or downloading a video took.

    Attributes:
        bytes_fetched: bytes that were downloaded, or the size of the file.
        seconds_taken: wall time.
        route: name of the route; empty for media on this machine.
        facts: which renditions they are.
    """

    bytes_fetched: int
    seconds_taken: float
    route: str
    facts: MediaFacts = NO_FACTS


def stage(media: Media, target: Path, record: FetchRecord) -> None:
    """Move downloaded media to the folder where they wait to be cropped.

    Args:
        media: files on the same file system.
        target: the folder to make. An existing one is replaced.
        record: what the download took.

    Raises:
        StoreFullError: the disk is full.
    """
    with named_system_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=media.path.parent) as folder:
            fresh = Path(folder) / "staged"
            fresh.mkdir()
            media.path.rename(fresh / "media")
            if media.audio_path is not None:
                media.audio_path.rename(fresh / "sound")
            (fresh / _RECORD).write_text(_encode(record))
            for path in fresh.iterdir():
                _sync(path)
            fresh.rename(target)
        sync_folder(target.parent)


def _encode(record: FetchRecord) -> str:
    # The file calls the route by the name of its first version, which knew no facts.
    values: dict[str, Any] = {
        "bytes_fetched": record.bytes_fetched,
        "seconds_taken": record.seconds_taken,
        "address": record.route,
    }
    if record.facts != NO_FACTS:
        values["facts"] = record.facts.as_dict()
    return json.dumps(values)


def _decode(text: str) -> FetchRecord:
    stored = json.loads(text)
    return FetchRecord(
        stored["bytes_fetched"],
        stored["seconds_taken"],
        stored["address"],
        MediaFacts.from_dict(stored.get("facts", {})),
    )


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def open_staged(folder: Path) -> tuple[Media, FetchRecord] | None:
    """Return the media that are staged in a folder, or ``None``."""
    try:
        record = _decode((folder / _RECORD).read_text())
        path, audio = folder / "media", folder / "sound"
        has_audio = audio.exists()
        size_bytes = path.stat().st_size + (audio.stat().st_size if has_audio else 0)
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return Media(path, size_bytes, audio if has_audio else None, record.facts), record


def discard(folder: Path) -> None:
    """Remove staged media."""
    with contextlib.suppress(FileNotFoundError):
        # The record goes first, so that half a folder counts as none.
        (folder / _RECORD).unlink()
    shutil.rmtree(folder, ignore_errors=True)
