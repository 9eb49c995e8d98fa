"""Decode an audio stream once, to 16 kHz mono, each frame where its own time stamp says.

Frames that follow each other without a jump form a piece, which is resampled as a whole. A jump, a
damaged packet or another format begins a new piece; what is between two pieces is silence. Files
with and without damage go the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.clock import Clock, unstated_delay_samples
from voxblink2_lib.media.container import demuxed, open_media, read_only
from voxblink2_lib.media.damage import is_of_the_machine
from voxblink2_lib.media.encoding import Samples
from voxblink2_lib.media.mixing import Levels, Mixer
from voxblink2_lib.media.pieces import PieceBoundaries, TimedFrame
from voxblink2_lib.media.tracks import audio_streams
from voxblink2_lib.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

# Decoding continues past the last utterance, because the resampler looks ahead.
DECODE_MARGIN_SECONDS = 0.5

# Time stamps of a recording that were taken from another clock than that of its samples: a drift
# of a part in a thousand is common. Codecs and rates that are wrong are further away.
_MAX_DRIFT = 0.02

# A damaged time stamp may be years ahead; so many frames in a row are no accident.
_FRAMES_BEYOND = 8


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """The decoded audio of a video, from time zero.

    Attributes:
        samples: 16 kHz mono; sample 0 is at time zero. Shape: [samples].
        covered: half-open ranges of samples that the media contain; silence elsewhere.
        tracks: audio streams in the file.
        track: the one that was decoded, counted from 0.
        louder_channel: the channel that was taken alone, counted from 1, since the channels cancel
            each other; 0 if they do not.
    """

    samples: Samples
    covered: tuple[tuple[int, int], ...]
    tracks: int = 1
    track: int = 0
    louder_channel: int = 0

    def missing_samples(self, start: int, stop: int) -> int:
        """Return how many samples of a half-open range the media do not contain."""
        overlaps = (min(stop, end) - max(start, begin) for begin, end in self.covered)
        return stop - start - sum(max(0, overlap) for overlap in overlaps)


def is_silent(samples: Samples) -> bool:
    """Return whether samples are digital silence: all zero at 16 bits."""
    half_step = 0.5 / 32768
    return not len(samples) or bool(samples.max() < half_step and samples.min() > -half_step)


def decode_audio(
    media: Path | bytes,
    *,
    end_seconds: float,
    video_path: Path | None = None,
    track: int | None = None,
) -> DecodedAudio:
    """Decode a file's audio, aligned with the video's time.

    Where the first choice of :func:`audio_streams` is digital silence, the next one that is not is
    taken; where channels cancel each other, the louder one.

    Args:
        media: the file with the audio, on disk or in memory.
        end_seconds: how far audio is needed, from the start of the video.
        video_path: the file with the video stream, if that is another file.
        track: the audio stream to take, counted from 0; then no other is tried.

    Raises:
        MediaError: no audio can be decoded.
    """
    with open_media(media) as container:
        streams = list(container.streams.audio)
        numbers = [streams.index(stream) for stream in audio_streams(container, track=track)]
        request = _Request(media, end_seconds, video_path, len(streams))
        chosen = _decode(container, request, numbers[0])
    if is_silent(chosen.samples):
        for number in numbers[1:]:
            # A track that nobody asked for may be damaged.
            with contextlib.suppress(MediaError), open_media(media) as container:
                other = _decode(container, request, number)
                if not is_silent(other.samples):
                    return other
    return chosen


class _Request(NamedTuple):
    """What to decode, whichever the track.

    Attributes:
        media: the file.
        end_seconds: how far audio is needed, from the start of the video.
        video_path: the file with the video stream, if that is another file.
        tracks: audio streams in the file.
    """

    media: Path | bytes
    end_seconds: float
    video_path: Path | None
    tracks: int


def _decode(container: Any, request: _Request, track: int) -> DecodedAudio:
    levels = Levels()
    audio = _decode_channels(container, request, track, levels)
    louder = levels.cancelled_channel()
    if louder is None:
        return audio
    with open_media(request.media) as again:
        audio = _decode_channels(again, request, track, Levels(), channel=louder)
    return replace(audio, louder_channel=louder + 1)


def _decode_channels(
    container: Any, request: _Request, track: int, levels: Levels, *, channel: int | None = None
) -> DecodedAudio:
    stream = container.streams.audio[track]
    read_only(container, stream)
    clock = Clock.of(container, stream, video_path=request.video_path)
    decoder = _StreamDecoder(container, stream, levels, channel)
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    limit = clock.late_seconds(start) + request.end_seconds + DECODE_MARGIN_SECONDS
    pieces = [piece for piece in decoder.pieces(limit) if len(piece.samples)]
    if not pieces:
        raise MediaError("the media file has no decodable audio")
    origin = decoder.origin_seconds(clock, pieces[0].start_seconds)
    # A damaged time stamp must not ask for memory: what is not needed is left out.
    last = origin + request.end_seconds + DECODE_MARGIN_SECONDS
    pieces = [piece for piece in pieces if piece.start_seconds <= last]
    return _placed(pieces, origin, request.tracks, track)


class _Piece(NamedTuple):
    """Audio without a jump in its time stamps.

    Attributes:
        start_seconds: the container's time of its first sample.
        samples: 16 kHz mono. Shape: [samples].
    """

    start_seconds: float
    samples: Samples


class _StreamDecoder:
    """Decodes one stream of an open file.

    Args:
        container: the file.
        stream: the stream.
        levels: where the energies of the channels are added.
        channel: take this channel alone, counted from 0.
    """

    def __init__(self, container: Any, stream: Any, levels: Levels, channel: int | None) -> None:
        self._container = container
        self._stream = stream
        self._levels = levels
        self._channel = channel
        self._tick = float(stream.time_base or 0)
        self._first_packet_seconds: float | None = None
        self._stated_delay = 0
        # Threads would cost memory, and workers use all cores already.
        stream.codec_context.thread_count = 1

    def pieces(self, limit_seconds: float) -> Iterator[_Piece]:
        """Decode up to a time on the container's clock."""
        mixer: Mixer | None = None
        start = 0.0
        for frame, begins_at in self._timed(limit_seconds):
            if mixer is None or begins_at is not None:
                if mixer is not None:
                    yield _Piece(start, mixer.finish())
                mixer = Mixer(frame, self._levels, channel=self._channel)
                start = begins_at or 0.0
            mixer.add(frame)
        if mixer is not None:
            yield _Piece(start, mixer.finish())

    def _timed(self, limit_seconds: float) -> Iterator[TimedFrame]:
        """Yield the frames up to a time, each with the time of the piece that it begins, if any."""
        boundaries = PieceBoundaries()
        beyond = 0
        for frame in self._frames():
            stamp = None if frame.pts is None else frame.pts * self._tick
            if stamp is not None and stamp > limit_seconds:
                beyond += 1
                if beyond == _FRAMES_BEYOND:
                    break
                continue
            beyond = 0
            yield from boundaries.add(frame, stamp)
            if boundaries.end_seconds > limit_seconds:
                break
        yield from boundaries.finish()

    def _frames(self) -> Iterator[Any]:
        """Yield the frames; a damaged packet is skipped, a damaged container ends the loop."""
        import av

        for packet in demuxed(self._container, self._stream):
            if self._first_packet_seconds is None and packet.pts is not None:
                self._first_packet_seconds = packet.pts * self._tick
                self._stated_delay = _stated_delay(packet)
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                if is_of_the_machine(error):
                    raise

    def origin_seconds(self, clock: Clock, first_sample_seconds: float) -> float:
        """Return the container's time at which the video starts; after the decoding."""
        context = self._stream.codec_context
        rate = context.sample_rate or SAMPLE_RATE_HZ
        origin = clock.origin_seconds(
            self._first_packet_seconds or 0.0,
            first_sample_seconds,
            frame_seconds=(context.frame_size or 0) / rate,
        )
        if "mp4" not in self._container.format.name.split(","):
            return origin
        return (
            origin
            + unstated_delay_samples(context.name, context.profile, self._stated_delay) / rate
        )


def _stated_delay(packet: Any) -> int:
    """Return how many samples of its beginning the file tells the decoder to drop."""
    for side_data in packet.iter_sidedata():
        if side_data.data_type == "skip_samples":
            return int.from_bytes(bytes(side_data)[:4], "little")
    return 0


def _placed(pieces: list[_Piece], origin: float, tracks: int, track: int) -> DecodedAudio:
    """Put pieces on one axis. Where damaged time stamps make them overlap, the longer one counts.

    Raises:
        MediaError: nearly all of them overlap, by more than a clock drifts.
    """
    placed: list[tuple[int, Samples]] = []
    for start_seconds, samples in pieces:
        start = round((start_seconds - origin) * SAMPLE_RATE_HZ)
        if start + len(samples) > 0:
            placed.append((max(0, start), samples[max(0, -start) :]))
    if len(placed) == 1 and placed[0][0] == 0:
        samples = placed[0][1]
        return DecodedAudio(samples, ((0, len(samples)),), tracks, track)
    _check_lengths(placed)
    length = max((start + len(samples) for start, samples in placed), default=0)
    axis = np.zeros(length, np.float32)
    for start, samples in sorted(placed, key=lambda piece: len(piece[1])):
        axis[start : start + len(samples)] = samples
    return DecodedAudio(axis, _covered(placed), tracks, track)


def _check_lengths(placed: list[tuple[int, Samples]]) -> None:
    """Refuse what decodes to more than its packets hold; a clock that drifts is no such case."""
    overlaps = [
        start + len(samples) - following
        for (start, samples), (following, _) in pairwise(placed)
        if start <= following < start + len(samples)
    ]
    decoded = sum(len(samples) for _, samples in placed)
    is_more = sum(overlaps) > max(SAMPLES_PER_FRAME, _MAX_DRIFT * decoded)
    if is_more and len(overlaps) > len(placed) / 2 > 1:
        surplus = sum(overlaps) / SAMPLE_RATE_HZ
        raise MediaError(
            f"the media file's audio decodes to pieces that overlap by {surplus:.2f} s in all; its "
            "codec or sample rate is not what the file states, or its time stamps are wrong"
        )


def _covered(placed: list[tuple[int, Samples]]) -> tuple[tuple[int, int], ...]:
    """Return the ranges that the pieces cover, in order, without overlaps."""
    covered: list[tuple[int, int]] = []
    for start, stop in sorted((start, start + len(samples)) for start, samples in placed):
        if covered and start <= covered[-1][1]:
            covered[-1] = covered[-1][0], max(covered[-1][1], stop)
        else:
            covered.append((start, stop))
    return tuple(covered)
