"""Media that are fetched and wait to be cut: a kill between the two costs no second fetch.

A folder of one video holds ``media``, perhaps ``sound``, and ``fetched.json``. It gets its name
when everything in it is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from voxblink2_lib.files import named_if_disk_full, sync_folder
from voxblink2_lib.sources import Media

_ABOUT = "fetched.json"


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """What fetching took.

    Attributes:
        bytes_fetched: bytes that came over the network.
        seconds_taken: wall time.
        address: name of the outgoing address.
    """

    bytes_fetched: int
    seconds_taken: float
    address: str


def stage(media: Media, target: Path, about: FetchRecord) -> None:
    """Move media to where they wait.

    Args:
        media: files on the same file system.
        target: the folder to make. One that is there is replaced.
        about: what it took.

    Raises:
        StoreFullError: the disk is full.
    """
    with named_if_disk_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=media.path.parent) as folder:
            fresh = Path(folder) / "kept"
            fresh.mkdir()
            media.path.rename(fresh / "media")
            if media.audio_path is not None:
                media.audio_path.rename(fresh / "sound")
            (fresh / _ABOUT).write_text(json.dumps(asdict(about)))
            for path in fresh.iterdir():
                _sync(path)
            fresh.rename(target)
        sync_folder(target.parent)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def open_staged(folder: Path) -> tuple[Media, FetchRecord] | None:
    """Return the media that wait in a folder, or ``None``."""
    try:
        about = FetchRecord(**json.loads((folder / _ABOUT).read_text()))
        media, sound = folder / "media", folder / "sound"
        has_audio = sound.exists()
        size = media.stat().st_size + (sound.stat().st_size if has_audio else 0)
    except (OSError, TypeError, ValueError):
        return None
    return Media(media, size, sound if has_audio else None), about


def discard(folder: Path) -> None:
    """Remove media that are cut."""
    with contextlib.suppress(FileNotFoundError):
        # What tells of it goes first, so that half a folder is none.
        (folder / _ABOUT).unlink()
    shutil.rmtree(folder, ignore_errors=True)
