"""Time zero of a media file, on the clock of its container.

Annotations count from the start of the video. In a file with a video stream that is the first
video frame; containers often start their clock elsewhere (MPEG-TS at 1.4 s, Matroska a few
milliseconds late, because the muxer makes room for the audio encoder's delay). In a file with
audio only it is the container's zero, less the encoder's delay if the decoder drops it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.media.container import open_media
from voxblink2_lib.media.tracks import has_video, video_stream

# Encoder delays are below this (AAC 48 ms at 44.1 kHz with SBR, MP3 50 ms); in a file with audio
# only, a first sample later than this means that the audio really begins late.
_MAX_ENCODER_DELAY_SECONDS = 0.1

# Formats whose clock begins at an arbitrary value, and those whose clock is that of a presentation:
# a site's renditions of one video share it.
_FREE_CLOCKS = {"mpegts", "mpeg"}
_PRESENTATION_CLOCKS = {"mp4", "matroska"}

# Edit lists and Matroska count milliseconds.
_ROUNDING_SECONDS = 0.0005

# FFmpeg's muxer of Matroska up to this major version shifted all streams by the encoder's delay,
# of which its demuxer takes back only the audio's part.
_LAST_SHIFTING_LAVF = 59
_LAVF = re.compile(r"Lavf([0-9]+)\.")

# HE-AAC: the decoder's own delay in samples of the output, and a number that no whole delay of an
# encoder is below: two frames of 1,024 samples at half the rate.
_SBR_DECODER_DELAY = 962
_LEAST_WHOLE_DELAY = 4096


@dataclass(frozen=True, slots=True)
class Clock:
    """What a file says of its time zero.

    Attributes:
        video_start_seconds: time stamp of the first video frame; ``None`` for audio only.
        is_free: the container's clock begins at an arbitrary value.
        tick_seconds: unit of the audio's time stamps.
        matroska_muxer: name and version of the muxer of a Matroska file; else ``None``.
        frame_period_seconds: time between two video frames; 0 if unknown.
    """

    video_start_seconds: float | None = None
    is_free: bool = False
    tick_seconds: float = 0.0
    matroska_muxer: str | None = None
    frame_period_seconds: float = 0.0

    @classmethod
    def of(cls, container: Any, audio: Any, *, video_path: Path | None = None) -> Clock:
        """Read the clock of an open file.

        Args:
            container: the file.
            audio: its audio stream.
            video_path: the file with the video, if that is another one.
        """
        kind = _kind(container)
        start, period = _video_start(container)
        muxer = container.metadata.get("ENCODER", "") if kind == "matroska" else None
        if video_path is not None:
            with open_media(video_path) as film:
                if kind and (kind == "free") == (_kind(film) == "free"):
                    muxer = None
                    start, period = _video_start(film)
        return cls(start, kind == "free", float(audio.time_base or 0), muxer, period)

    def late_seconds(self, audio_start_seconds: float) -> float:
        """Return the latest time on the container's clock at which the video may start."""
        return max(0.0, audio_start_seconds, self.video_start_seconds or 0.0)

    def origin_seconds(
        self, first_packet_seconds: float, first_sample_seconds: float, *, frame_seconds: float
    ) -> float:
        """Return the container's time at which the video starts.

        Args:
            first_packet_seconds: time stamp of the first audio packet, encoder delay included.
            first_sample_seconds: time stamp of the first decoded sample.
            frame_seconds: duration of an audio packet, or 0 if the codec does not fix it.
        """
        if self.video_start_seconds is None:
            is_delay = abs(first_sample_seconds) <= _MAX_ENCODER_DELAY_SECONDS
            return first_sample_seconds if self.is_free or is_delay else 0.0
        stated = self.video_start_seconds
        if first_packet_seconds < 0:
            shifted = stated + first_packet_seconds
            return shifted if self._is_shifted(stated, shifted) else stated
        # Without a stated delay, both streams move by AAC's, one frame; the clock rounds it.
        exact = first_packet_seconds + frame_seconds
        return exact if abs(stated - exact) <= _ROUNDING_SECONDS else stated

    def _is_shifted(self, stated: float, shifted: float) -> bool:
        """Return whether the muxer moved the video by the encoder's delay.

        Older ones did where they had encoded the audio as well, not where they copied it. The file
        does not say which; but video rarely begins between two of its own frames.
        """
        version = _LAVF.match(self.matroska_muxer or "")
        if not version or int(version[1]) > _LAST_SHIFTING_LAVF or shifted < -self.tick_seconds:
            return False
        if shifted <= self.tick_seconds:
            return True
        return self._is_on_grid(shifted) and not self._is_on_grid(stated)

    def _is_on_grid(self, seconds: float) -> bool:
        period = self.frame_period_seconds
        return bool(period) and abs(seconds - round(seconds / period) * period) <= self.tick_seconds


def _kind(container: Any) -> str:
    """Return what is known of a format's clock; empty if each file begins at zero."""
    formats = set(container.format.name.split(","))
    if formats & _FREE_CLOCKS:
        return "free"
    return next(iter(formats & _PRESENTATION_CLOCKS), "")


def _video_start(container: Any) -> tuple[float | None, float]:
    """Return when a file's video starts, and the time between two of its frames; or ``None``, 0."""
    if not has_video(container):
        return None, 0.0
    stream = video_stream(container)
    rate = stream.average_rate
    period = float(1 / rate) if rate else 0.0
    start = stream.start_time
    return None if start is None else float(start * stream.time_base), period


def unstated_delay_samples(codec: str, profile: str | None, stated_samples: int) -> int:
    """Return how many more samples of an MP4 file's beginning are the delay of HE-AAC's encoder.

    HE-AAC codes half the rate, and some encoders state the delay in samples of that rate, without
    what the decoder of the upper band adds. FFmpeg drops as many samples of the full rate.

    Args:
        codec: name of the codec.
        profile: its profile.
        stated_samples: the delay that FFmpeg drops.

    >>> unstated_delay_samples("aac", "HE-AAC", 2048)  # 2 * 2048 + 962 in all
    3010
    """
    is_he_aac = codec == "aac" and (profile or "").startswith("HE-AAC")
    if not is_he_aac or not 0 < stated_samples < _LEAST_WHOLE_DELAY:
        return 0
    return stated_samples + _SBR_DECODER_DELAY
