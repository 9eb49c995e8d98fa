"""About how much space a run still needs: enough to warn by, not to plan by."""

from __future__ import annotations

from typing import NamedTuple

from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import select
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

# Bytes of an hour of clips, measured on the demo's shards; WAV follows from the sampling rate.
_HOUR_BYTES = {"flac": 77e6, "opus": 15e6, "wav": 3600 * 2 * SAMPLE_RATE_HZ}

# The demo's drawn faces take 27 MB at 112 x 112 pixels; real skin and hair take about twice that.
_FACE_HOUR_BYTES = 60e6
_FACE_PIXELS = 112**2

# Media of one worker on their way, and what is there twice while a job is being sealed.
_FLIGHT_BYTES = {"audio": 32e6, "audio-visual": 256e6}
_SEAL_BYTES = 1e9

# What decides about the size of a clip, as the ledger calls it.
_SIZING = ("audio_format", "video_size")


class SpaceEstimate(NamedTuple):
    """What is still to come into a store.

    Attributes:
        hour_bytes: about what an hour of clips takes.
        hours: how many are selected and not there yet; ``None`` without an index.
        needed_bytes: for all of them, and for what is on its way; ``None`` without an index.
    """

    hour_bytes: float
    hours: float | None = None
    needed_bytes: float | None = None


def estimate_space(request: MaterializeRequest, store: Store, index: Index | None) -> SpaceEstimate:
    """Estimate the space that a run still needs. Quick: hours are shared out by videos.

    Args:
        request: what would be done.
        store: where; it need not be there yet.
        index: the store's index, if it has one.

    Raises:
        SelectionError: the selection is not possible.
        StoreError: the ledger cannot be read.
    """
    done, held = 0.0, dict[str, str | None]()
    if store.ledger.exists():
        with Ledger(store.ledger, request.config, readonly=True) as ledger:
            done = ledger.statistics.totals().samples / SAMPLE_RATE_HZ / 3600
            held = {name: ledger.setting(name) for name in _SIZING}
    hour_bytes = _hour_bytes(request, held)
    if index is None:
        return SpaceEstimate(hour_bytes)
    part = len(select(index, request.selection)[0]) / index.info.videos
    hours = max(0.0, index.info.hours * part - done)
    if not hours:
        return SpaceEstimate(hour_bytes, 0.0, 0.0)
    clips = hours * hour_bytes
    flight = request.worker_count * _FLIGHT_BYTES[request.config]
    return SpaceEstimate(hour_bytes, hours, clips + min(clips, _SEAL_BYTES) + flight)


def _hour_bytes(request: MaterializeRequest, held: dict[str, str | None]) -> float:
    """Return the size of an hour: as asked for, else as the store holds it, else by default."""
    new, clips = ClipOptions(), request.clips
    sound = _HOUR_BYTES[clips.get("audio_format") or held.get("audio_format") or new.audio_format]
    if not request.with_faces:
        return sound
    pixels = int(clips.get("video_size") or held.get("video_size") or new.video_size) ** 2
    return sound + _FACE_HOUR_BYTES * pixels / _FACE_PIXELS
