"""Crop every utterance of a video from its audio, decoded once, accurate to the sample."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxblink2_lib.errors import DependencyError, MediaError, first_line
from voxblink2_lib.media.container import demuxed, open_media
from voxblink2_lib.media.encoding import Samples, encode
from voxblink2_lib.media.timeline import (
    MAX_JITTER_SECONDS,
    Timeline,
    read_timeline,
    read_video_start,
)
from voxblink2_lib.media.tracks import audio_streams
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, AudioFormat, Clip, Utterance

# Audio streams often end some milliseconds before the video. An utterance may lack up to one
# frame (40 ms) of audio, which becomes silence; one that lacks more is missing.
MAX_FILLED_SAMPLES = SAMPLES_PER_FRAME

# Decoding continues past the last utterance, because the resampler looks ahead.
_DECODE_MARGIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """The decoded audio of a video, from time zero.

    Attributes:
        samples: 16 kHz mono, shape (n,); sample 0 is at time zero.
        covered: half-open ranges of samples that the media contain; silence elsewhere.
    """

    samples: Samples
    covered: tuple[tuple[int, int], ...]

    def missing_samples(self, start: int, stop: int) -> int:
        """Return how many samples of a half-open range the media do not contain."""
        overlaps = (min(stop, end) - max(start, begin) for begin, end in self.covered)
        return stop - start - sum(max(0, overlap) for overlap in overlaps)


class Cut(NamedTuple):
    """The audio clips of one video, and the utterances without one."""

    clips: tuple[Clip, ...]
    missing: tuple[MissingUtterance, ...]


def crop_audio(
    path: Path,
    utterances: Iterable[Utterance],
    *,
    audio_format: AudioFormat,
    video_path: Path | None = None,
) -> Cut:
    """Crop utterances from the audio of a media file.

    Args:
        path: the file with the audio.
        utterances: what to crop; ranges may overlap.
        audio_format: encoding of the clips.
        video_path: the file with the video stream, if that is another file.

    Returns:
        Clips in the order of the utterances, and the utterances that the audio does not cover.

    Raises:
        MediaError: the file cannot be decoded.
        DependencyError: FFmpeg's libraries are missing.
    """
    utterances = tuple(utterances)
    end_seconds = max((utterance.seconds[1] for utterance in utterances), default=0)
    audio = decode_audio(path, end_seconds=end_seconds, video_path=video_path)
    clips: list[Clip] = []
    missing: list[MissingUtterance] = []
    for utterance in utterances:
        start, stop = utterance.samples
        missing_samples = audio.missing_samples(start, stop)
        if missing_samples > MAX_FILLED_SAMPLES:
            reason = _reason(utterance, missing_samples, audio)
            missing.append(MissingUtterance(utterance.utterance_id, reason))
        else:
            data = encode(_slice(audio.samples, start, stop), audio_format=audio_format)
            clips.append(Clip(utterance, data))
    return Cut(tuple(clips), tuple(missing))


def _reason(utterance: Utterance, missing_samples: int, audio: DecodedAudio) -> str:
    start, end = utterance.seconds
    covered = ", ".join(
        f"{begin / SAMPLE_RATE_HZ:.2f}-{stop / SAMPLE_RATE_HZ:.2f} s"
        for begin, stop in audio.covered
    )
    return (
        f"spans {start:.2f}-{end:.2f} s, of which {missing_samples / SAMPLE_RATE_HZ:.2f} s "
        f"is missing from the audio (it covers {covered or 'nothing'})"
    )


def _slice(samples: Samples, start: int, stop: int) -> Samples:
    clip = samples[start:stop]
    return np.pad(clip, (0, stop - start - len(clip)))


def decode_audio(path: Path, *, end_seconds: float, video_path: Path | None = None) -> DecodedAudio:
    """Decode a file's first audio stream once, to 16 kHz mono, aligned with the video's time.

    Args:
        path: the file with the audio.
        end_seconds: how far audio is needed, from the start of the video.
        video_path: the file with the video stream, if that is another file.

    Raises:
        MediaError: no audio can be decoded.
        DependencyError: FFmpeg's libraries are missing.
    """
    audio = _read_plain(path, end_seconds)
    if audio is not None:
        return audio
    timeline = read_timeline(path, until_seconds=end_seconds + _DECODE_MARGIN_SECONDS)
    if video_path is not None and timeline.free_clock:
        # Two files of one broadcast share its clock; in other formats each file begins at zero.
        timeline = replace(timeline, video_start_seconds=read_video_start(video_path))
    if timeline.contiguous:
        try:
            return _place(timeline, [_decode_whole(path, timeline, end_seconds)])
        except (RuntimeError, ValueError):
            # torchcodec fails at the first damaged packet; the decoder below skips it.
            pass
    return _place(timeline, _decode_pieces(path, timeline.late_seconds + end_seconds))


def _read_plain(path: Path, end_seconds: float) -> DecodedAudio | None:
    """Read WAV that already is 16 kHz mono with 16 bits; it has no clock and needs no decoder.

    The result equals that of the decoder, in a tenth of the time and without PyTorch.
    """
    import soundfile

    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return None
    try:
        with soundfile.SoundFile(path) as wav:
            encoding = (wav.format, wav.subtype, wav.samplerate, wav.channels)
            if encoding != ("WAV", "PCM_16", SAMPLE_RATE_HZ, 1) or not wav.frames:
                return None
            stop = round((end_seconds + _DECODE_MARGIN_SECONDS) * SAMPLE_RATE_HZ)
            samples = wav.read(stop, dtype="float32")
    except soundfile.SoundFileError:
        return None  # FFmpeg reads more formats, and its message names the problem.
    return DecodedAudio(samples, ((0, len(samples)),))


def _place(timeline: Timeline, pieces: Iterable[tuple[float, Samples]]) -> DecodedAudio:
    """Join pieces of audio, each with the container's time of its first sample, on one axis."""
    pieces = [(start, samples) for start, samples in pieces if len(samples)]
    if not pieces:
        raise MediaError("the media file has no decodable audio")
    origin = timeline.origin_seconds(pieces[0][0])
    placed: list[tuple[int, Samples]] = []
    for start_seconds, samples in pieces:
        start = round((start_seconds - origin) * SAMPLE_RATE_HZ)
        placed.append((max(0, start), samples[max(0, -start) :]))
    if len(placed) == 1 and placed[0][0] == 0:
        return DecodedAudio(placed[0][1], ((0, len(placed[0][1])),))
    axis = np.zeros(max(start + len(samples) for start, samples in placed), np.float32)
    covered: list[tuple[int, int]] = []
    for start, samples in placed:
        stop = start + len(samples)
        axis[start:stop] = samples
        covered.append((max(start, covered[-1][1] if covered else 0), stop))
    return DecodedAudio(axis, tuple((start, stop) for start, stop in covered if stop > start))


@functools.cache
def audio_decoder() -> Any:
    """Return torchcodec's audio decoder.

    Raises:
        DependencyError: torchcodec, or the FFmpeg libraries that it needs, are missing.
    """
    try:
        decoders = importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        raise DependencyError(
            "Audio cannot be decoded: torchcodec or the FFmpeg libraries that it needs are "
            "missing. On Debian or Ubuntu run 'apt install ffmpeg'; elsewhere install FFmpeg "
            "4 to 8 with its shared libraries. The original error: " + first_line(error)
        ) from error
    return decoders.AudioDecoder


def _decode_whole(path: Path, timeline: Timeline, end_seconds: float) -> tuple[float, Samples]:
    decoder = audio_decoder()(path, sample_rate=SAMPLE_RATE_HZ, num_channels=1)
    # torchcodec cuts the end only; cutting the start by time would round it.
    stop = timeline.late_seconds + end_seconds + _DECODE_MARGIN_SECONDS
    audio = decoder.get_samples_played_in_range(0, stop)
    return audio.pts_seconds, audio.data[0].numpy()


def _decode_pieces(path: Path, end_seconds: float) -> Iterator[tuple[float, Samples]]:
    """Decode packet by packet; a new piece begins wherever timestamps jump."""
    with open_media(path) as container:
        piece: _Piece | None = None
        for frame in _frames(container, audio_streams(container)[0]):
            if float(frame.pts * frame.time_base) > end_seconds + _DECODE_MARGIN_SECONDS:
                break  # A damaged timestamp may be years ahead.
            if piece is None or not piece.is_continued_by(frame):
                if piece is not None:
                    yield piece.finish()
                piece = _Piece(frame)
            piece.add(frame)
            if piece.end_seconds > end_seconds + _DECODE_MARGIN_SECONDS:
                break
        if piece is not None:
            yield piece.finish()


class _Piece:
    """Audio without a jump in its timestamps, being resampled to 16 kHz mono."""

    def __init__(self, frame: Any) -> None:
        import av

        self._start_seconds = self.end_seconds = float(frame.pts * frame.time_base)
        self._layout = _layout(frame)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._arrays: list[Samples] = []

    def is_continued_by(self, frame: Any) -> bool:
        jump = float(frame.pts * frame.time_base) - self.end_seconds
        return abs(jump) <= MAX_JITTER_SECONDS and _layout(frame) == self._layout

    def add(self, frame: Any) -> None:
        self.end_seconds = float(frame.pts * frame.time_base) + frame.samples / frame.sample_rate
        frame.pts = None
        self._resample(frame)

    def finish(self) -> tuple[float, Samples]:
        self._resample(None)
        joined = np.concatenate(self._arrays) if self._arrays else np.zeros(0, np.float32)
        return self._start_seconds, joined

    def _resample(self, frame: Any) -> None:
        resampled = self._resampler.resample(frame)
        self._arrays += [audio_frame.to_ndarray()[0] for audio_frame in resampled]


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the audio frames; a damaged packet is skipped, a damaged container ends the loop."""
    import av

    for packet in demuxed(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from (frame for frame in frames if frame.pts is not None)


def _layout(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name
