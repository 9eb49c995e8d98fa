"""Time zero of a media file, and how far its audio reaches.

Annotations count from the start of the video. In a file with a video stream that is the first
video frame; containers often start their clock elsewhere (MPEG-TS at 1.4 s, Matroska a few
milliseconds late, because the muxer makes room for the audio encoder's delay). In a file with
audio only it is the container's zero, less the encoder's delay if the decoder drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.media.container import open_media, read_only
from voxblink2_lib.media.tracks import audio_streams, has_video, video_stream

# Encoder delays are below this (AAC 48 ms at 44.1 kHz with SBR, MP3 50 ms); in a file with audio
# only, a first sample later than this means that the audio really begins late.
_MAX_ENCODER_DELAY_SECONDS = 0.1

# Container clocks tick in milliseconds at worst; a lost packet is 20 ms or more.
MAX_JITTER_SECONDS = 0.005

# Formats whose clock begins at an arbitrary value.
_FREE_CLOCKS = {"mpegts", "mpeg"}


@dataclass(frozen=True, slots=True)
class Timeline:
    """Times of the audio of a media file, on the container's clock.

    Attributes:
        audio_start_seconds: timestamp of the first audio packet, encoder delay included.
        video_start_seconds: timestamp of the first video frame; ``None`` for audio only.
        free_clock: the container's clock begins at an arbitrary value.
        end_seconds: end of the last audio packet read.
        contiguous: each packet begins where the one before it ends.
    """

    audio_start_seconds: float
    video_start_seconds: float | None
    free_clock: bool
    end_seconds: float
    contiguous: bool

    @property
    def late_seconds(self) -> float:
        """The latest time on the container's clock at which the video may start."""
        return max(0.0, self.audio_start_seconds, self.video_start_seconds or 0.0)

    def origin_seconds(self, first_sample_seconds: float) -> float:
        """Return the container's time at which the video starts.

        Args:
            first_sample_seconds: timestamp of the first decoded sample.
        """
        if self.video_start_seconds is not None:
            return self.video_start_seconds
        if self.free_clock or abs(first_sample_seconds) <= _MAX_ENCODER_DELAY_SECONDS:
            return first_sample_seconds
        return 0.0


def read_timeline(path: Path, *, until_seconds: float = float("inf")) -> Timeline:
    """Read the timestamps of a file's first audio stream without decoding.

    Args:
        path: a media file, which may be truncated.
        until_seconds: read packets up to this many seconds after the start of the video.

    Raises:
        MediaError: the file is not a media file, or has no audio.
    """
    with open_media(path) as container:
        return _read(container, until_seconds)


def read_video_start(path: Path) -> float | None:
    """Return the start of a file's video on the container's clock; ``None`` for audio only.

    Raises:
        MediaError: the file is not a media file.
    """
    with open_media(path) as container:
        return _video_start(container)


def _video_start(container: Any) -> float | None:
    if not has_video(container):
        return None
    stream = video_stream(container)
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


def _read(container: Any, until_seconds: float) -> Timeline:
    audio = audio_streams(container)[0]
    video_start = _video_start(container)
    formats = set(container.format.name.split(","))
    audio_start = float((audio.start_time or 0) * (audio.time_base or 0))
    late_seconds = max(0.0, audio_start, video_start or 0.0)
    read_only(container, audio)
    packets = _Packets(container, audio, until_seconds + late_seconds)
    if video_start is not None and "matroska" in formats:
        video_start = _matroska_start(video_start, packets, tick=float(audio.time_base))
    return Timeline(
        audio_start_seconds=packets.first_seconds,
        video_start_seconds=video_start,
        free_clock=bool(_FREE_CLOCKS & formats),
        end_seconds=packets.end_seconds,
        contiguous=packets.contiguous,
    )


def _matroska_start(video_seconds: float, packets: _Packets, *, tick: float) -> float:
    """Undo the shift of the video's start that Matroska applies for the audio encoder's delay.

    FFmpeg's muxer shifts all streams by the delay, and its demuxer shifts only the audio back:
    the shift equals a negative first timestamp. Other muxers do not shift.
    """
    shifted = video_seconds + min(0.0, packets.first_seconds)
    if shifted < -tick:
        return video_seconds
    # AAC's delay is one frame; the clock rounds it to a whole millisecond.
    exact = packets.first_seconds + packets.frame_seconds
    return exact if abs(shifted - exact) <= tick / 2 else shifted


class _Packets:
    """The timestamps of a stream's packets, up to a time.

    Attributes:
        first_seconds: timestamp of the first packet.
        end_seconds: end of the last packet.
        contiguous: each packet begins where the one before it ends.
        frame_seconds: duration of a packet, or 0 if the codec does not fix it.
    """

    def __init__(self, container: Any, audio: Any, until_seconds: float) -> None:
        import av

        self.first_seconds = self.end_seconds = 0.0
        self.contiguous = True
        tick = float(audio.time_base or 0)
        codec = audio.codec_context
        self.frame_seconds = codec.frame_size / codec.sample_rate if codec.sample_rate else 0.0
        first = True
        expected: float | None = None
        try:
            for packet in container.demux(audio):
                if packet.pts is None:
                    continue
                start = packet.pts * tick
                if first:
                    self.first_seconds, first = start, False
                if expected is not None and abs(start - expected) > MAX_JITTER_SECONDS:
                    self.contiguous = False
                seconds = (packet.duration or 0) * tick
                if self.frame_seconds and seconds > self.frame_seconds + MAX_JITTER_SECONDS:
                    # MP4's table has no gaps: the packet before one lasts until its end.
                    self.contiguous, seconds = False, self.frame_seconds
                # The first packet of some files states no duration.
                expected = start + seconds if seconds else None
                self.end_seconds = max(self.end_seconds, start + seconds)
                if self.end_seconds > until_seconds:
                    break
        except (av.error.FFmpegError, IndexError):  # IndexError: a stream that appears late
            # Truncated or damaged from here on; the packets before are valid.
            self.contiguous = False
