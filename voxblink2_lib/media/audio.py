"""Cut every utterance of a video out of its audio, decoded once, exact to the sample."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxblink2_lib.errors import DependencyError, MediaError, first_line
from voxblink2_lib.media.encoding import Samples, encode
from voxblink2_lib.media.timeline import (
    MAX_JITTER_SECONDS,
    Timeline,
    demuxed,
    read_timeline,
    read_video_start,
)
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, AudioFormat, Clip, Utterance

# Audio tracks often end some milliseconds before their pictures. An utterance may lack up to
# one frame (40 ms) of audio, which becomes silence; one that lacks more is not cut.
MAX_FILLED_SAMPLES = SAMPLES_PER_FRAME

# Decoding goes on past the last utterance, so that the resampler has what it looks ahead to.
_DECODE_MARGIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Audio of a video from time zero on.

    Attributes:
        samples: 16 kHz mono, shape (n,); sample 0 is at time zero.
        covered: half-open ranges of samples that the media really had; silence elsewhere.
    """

    samples: Samples
    covered: tuple[tuple[int, int], ...]

    def missing_samples(self, start: int, stop: int) -> int:
        """Return how many samples of a half-open range the media did not have."""
        had = sum(max(0, min(stop, end) - max(start, begin)) for begin, end in self.covered)
        return stop - start - had


class Cut(NamedTuple):
    """All that came of one video."""

    clips: tuple[Clip, ...]
    missing: tuple[MissingUtterance, ...]


def crop_audio(
    path: Path,
    utterances: Iterable[Utterance],
    *,
    audio_format: AudioFormat,
    pictures: Path | None = None,
) -> Cut:
    """Cut utterances out of a media file.

    Args:
        path: the media file.
        utterances: what to cut; ranges may overlap.
        audio_format: how to encode the clips.
        pictures: the file with the video's pictures, where that is another one.

    Returns:
        Clips in the order asked for, and the utterances that the media does not cover.

    Raises:
        MediaError: the file cannot be decoded.
        DependencyError: FFmpeg's libraries are missing.
    """
    wanted = tuple(utterances)
    end_seconds = max((one.seconds[1] for one in wanted), default=0)
    audio = decode_audio(path, end_seconds=end_seconds, pictures=pictures)
    clips: list[Clip] = []
    missing: list[MissingUtterance] = []
    for utterance in wanted:
        start, stop = utterance.samples
        lacking = audio.missing_samples(start, stop)
        if lacking > MAX_FILLED_SAMPLES:
            missing.append(
                MissingUtterance(utterance.utterance_id, _why(utterance, lacking, audio))
            )
        else:
            data = encode(_slice(audio.samples, start, stop), audio_format=audio_format)
            clips.append(Clip(utterance, data))
    return Cut(tuple(clips), tuple(missing))


def _why(utterance: Utterance, lacking: int, audio: DecodedAudio) -> str:
    start, end = utterance.seconds
    had = ", ".join(
        f"{begin / SAMPLE_RATE_HZ:.2f}-{stop / SAMPLE_RATE_HZ:.2f} s"
        for begin, stop in audio.covered
    )
    return (
        f"lies at {start:.2f}-{end:.2f} s, of which {lacking / SAMPLE_RATE_HZ:.2f} s "
        f"are not in the media (its audio covers {had or 'nothing'})"
    )


def _slice(samples: Samples, start: int, stop: int) -> Samples:
    clip = samples[start:stop]
    return np.pad(clip, (0, stop - start - len(clip)))


def decode_audio(path: Path, *, end_seconds: float, pictures: Path | None = None) -> DecodedAudio:
    """Decode a file's first audio stream once, to 16 kHz mono, placed on the video's time.

    Args:
        path: the media file.
        end_seconds: how far audio is needed, from the start of the video.
        pictures: the file with the video's pictures, where that is another one.

    Raises:
        MediaError: nothing can be decoded.
        DependencyError: FFmpeg's libraries are missing.
    """
    plain = _read_plain(path, end_seconds)
    if plain is not None:
        return plain
    timeline = read_timeline(path, until_seconds=end_seconds + _DECODE_MARGIN_SECONDS)
    if pictures is not None and timeline.free_clock:
        # Cut from one broadcast, both files keep its clock; others begin at zero, each by itself.
        timeline = replace(timeline, video_start_seconds=read_video_start(pictures))
    if timeline.contiguous:
        try:
            return _place(timeline, [_decode_whole(path, timeline, end_seconds)])
        except (RuntimeError, ValueError):
            # torchcodec gives up at the first damaged packet; below, the rest is kept.
            pass
    return _place(timeline, _decode_pieces(path, timeline.late_seconds + end_seconds))


def _read_plain(path: Path, end_seconds: float) -> DecodedAudio | None:
    """Read WAV that already is 16 kHz mono with 16 bits; it has no clock and nothing to decode.

    The result is the same as by the long way, in a tenth of the time and without PyTorch.
    """
    import soundfile

    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return None
    try:
        with soundfile.SoundFile(path) as wav:
            kind = (wav.format, wav.subtype, wav.samplerate, wav.channels)
            if kind != ("WAV", "PCM_16", SAMPLE_RATE_HZ, 1) or not wav.frames:
                return None
            stop = round((end_seconds + _DECODE_MARGIN_SECONDS) * SAMPLE_RATE_HZ)
            samples = wav.read(stop, dtype="float32")
    except soundfile.SoundFileError:
        return None  # FFmpeg reads more, and says what is wrong.
    return DecodedAudio(samples, ((0, len(samples)),))


def _place(timeline: Timeline, pieces: Iterable[tuple[float, Samples]]) -> DecodedAudio:
    """Lay pieces of audio, each with the container's time of its first sample, on one axis."""
    found = [(start, samples) for start, samples in pieces if len(samples)]
    if not found:
        raise MediaError("the media file has no decodable audio")
    origin = timeline.origin_seconds(found[0][0])
    placed: list[tuple[int, Samples]] = []
    for start_seconds, samples in found:
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
    return DecodedAudio(axis, tuple(one for one in covered if one[1] > one[0]))


@functools.cache
def audio_decoder() -> Any:
    """Return torchcodec's decoder of sound.

    Raises:
        DependencyError: it, or the FFmpeg libraries that it needs, are missing.
    """
    try:
        decoders = importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        raise DependencyError(
            "Audio cannot be decoded: torchcodec or the FFmpeg libraries that it needs are "
            "missing. On Debian or Ubuntu run 'apt install ffmpeg'; elsewhere install FFmpeg "
            "4 to 8 with its shared libraries. What was said: " + first_line(error)
        ) from error
    return decoders.AudioDecoder


def _decode_whole(path: Path, timeline: Timeline, end_seconds: float) -> tuple[float, Samples]:
    decoder = audio_decoder()(path, sample_rate=SAMPLE_RATE_HZ, num_channels=1)
    # Only the end is cut by torchcodec; cutting the start by time would round it.
    stop = timeline.late_seconds + end_seconds + _DECODE_MARGIN_SECONDS
    audio = decoder.get_samples_played_in_range(0, stop)
    return audio.pts_seconds, audio.data[0].numpy()


def _decode_pieces(path: Path, end_seconds: float) -> Iterator[tuple[float, Samples]]:
    """Decode packet by packet; a new piece begins wherever time stamps jump."""
    import av

    with av.open(path, metadata_errors="replace") as container:
        piece: _Piece | None = None
        for frame in _frames(container, container.streams.audio[0]):
            if float(frame.pts * frame.time_base) > end_seconds + _DECODE_MARGIN_SECONDS:
                break  # A damaged time stamp may lie years ahead.
            if piece is None or not piece.goes_on_with(frame):
                if piece is not None:
                    yield piece.finish()
                piece = _Piece(frame)
            piece.add(frame)
            if piece.end_seconds > end_seconds + _DECODE_MARGIN_SECONDS:
                break
        if piece is not None:
            yield piece.finish()


class _Piece:
    """A stretch of audio without a jump in its time stamps, on its way to 16 kHz mono."""

    def __init__(self, frame: Any) -> None:
        import av

        self._start_seconds = self.end_seconds = float(frame.pts * frame.time_base)
        self._kind = _kind(frame)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._arrays: list[Samples] = []

    def goes_on_with(self, frame: Any) -> bool:
        jump = float(frame.pts * frame.time_base) - self.end_seconds
        return abs(jump) <= MAX_JITTER_SECONDS and _kind(frame) == self._kind

    def add(self, frame: Any) -> None:
        self.end_seconds = float(frame.pts * frame.time_base) + frame.samples / frame.sample_rate
        frame.pts = None
        self._arrays += [one.to_ndarray()[0] for one in self._resampler.resample(frame)]

    def finish(self) -> tuple[float, Samples]:
        self._arrays += [one.to_ndarray()[0] for one in self._resampler.resample(None)]
        joined = np.concatenate(self._arrays) if self._arrays else np.zeros(0, np.float32)
        return self._start_seconds, joined


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield frames that decode; a damaged packet is left out, a damaged container ends it."""
    import av

    for packet in demuxed(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        yield from (frame for frame in frames if frame.pts is not None)


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name
