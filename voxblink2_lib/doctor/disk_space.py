"""Estimate the disk space that a run still needs: good enough for a warning."""

from __future__ import annotations

from typing import NamedTuple

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import count_selected
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

# Bytes of an hour of clips, measured on the demo's shards; WAV follows from the sampling rate.
_HOUR_BYTES = {"flac": 77e6, "opus": 15e6, "wav": 3600 * 2 * SAMPLE_RATE_HZ}

# The demo's drawn faces take 27 MB at 112 x 112 pixels; real skin and hair about twice that.
_FACE_HOUR_BYTES = 60e6
_FACE_PIXELS = 112**2

# Partial downloads of one worker, and clips that exist twice while a job is being sealed.
_DOWNLOAD_BYTES = {"audio": 32e6, "audio-visual": 256e6}
_SEAL_BYTES = 1e9

# Settings in the ledger that determine the size of a clip.
_SIZE_SETTINGS = ("audio_format", "video_size")


class SpaceEstimate(NamedTuple):
    """Estimated space for what a store still lacks.

    Attributes:
        hour_bytes: size of an hour of clips.
        hours: hours that are selected and not in the store; ``None`` without an index.
        needed_bytes: for all of them and for partial downloads; ``None`` without an index.
    """

    hour_bytes: float
    hours: float | None = None
    needed_bytes: float | None = None


def estimate_space(request: MaterializeRequest, store: Store, index: Index | None) -> SpaceEstimate:
    """Estimate the space that a run still needs, assuming that all videos are equally long.

    Args:
        request: what would be done.
        store: where the clips go; it need not exist.
        index: the store's index, if it has one.

    Raises:
        SelectionError: the selection is not possible.
        StoreError: the ledger cannot be read.
    """
    done_hours, settings = 0.0, dict[str, str | None]()
    if store.ledger.exists():
        with Ledger(store.ledger, request.config, readonly=True) as ledger:
            done_hours = ledger.statistics.totals().samples / SAMPLE_RATE_HZ / 3600
            settings = {name: ledger.setting(name) for name in _SIZE_SETTINGS}
    hour_bytes = _hour_bytes(request, settings)
    if index is None:
        return SpaceEstimate(hour_bytes)
    selected_share = count_selected(index, request.selection) / index.info.videos
    hours = max(0.0, index.info.hours * selected_share - done_hours)
    if not hours:
        return SpaceEstimate(hour_bytes, 0.0, 0.0)
    clip_bytes = hours * hour_bytes
    download_bytes = request.worker_count * _DOWNLOAD_BYTES[request.config]
    needed_bytes = clip_bytes + min(clip_bytes, _SEAL_BYTES) + download_bytes
    return SpaceEstimate(hour_bytes, hours, needed_bytes)


def _hour_bytes(request: MaterializeRequest, settings: dict[str, str | None]) -> float:
    """Return the size of an hour with the requested options, else the store's, else defaults."""
    clips, defaults = request.clips, ClipOptions()
    audio_format = clips.get("audio_format") or settings.get("audio_format")
    audio_bytes = _HOUR_BYTES[audio_format or defaults.audio_format]
    if not request.with_faces:
        return audio_bytes
    pixels = int(clips.get("video_size") or settings.get("video_size") or defaults.video_size) ** 2
    return audio_bytes + _FACE_HOUR_BYTES * pixels / _FACE_PIXELS
