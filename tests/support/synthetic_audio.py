"""Synthetic media whose audio is a known function of time, so that any clip can be measured.

    seconds   0         1         2                    12
    video     |####|####|####|####|  ...  ####|####|####|
    audio     truth(0)  truth(1)  truth(2)  ...
                   ^ a clip that claims to start here must equal truth(t) from here on

FFmpeg encodes; each medium is made once and kept for the next sessions.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
from filelock import FileLock

from voxblink2_lib.records import SAMPLE_RATE_HZ, Clip, Utterance

DURATION_SECONDS = 12
SPEAKER = "id000001"
VIDEO = "-truth_0001"
Floats = npt.NDArray[np.float64]


def truth(seconds: Floats) -> Floats:
    """Return the signal at some times: a chirp, and a tone that varies fast over 1200 Hz."""
    chirp = np.sin(2 * np.pi * (700 * seconds + 90 * seconds**2))
    tone = np.sin(2 * np.pi * (1300 * seconds + 55 * np.sin(2 * np.pi * 1.7 * seconds)))
    return np.asarray(0.3 * chirp + 0.2 * tone, np.float64)


def measure_delay(samples: npt.NDArray[np.floating], *, start_sample: int) -> float:
    """Return by how much a clip lags behind the truth, in 16 kHz samples.

    Args:
        samples: shape (n,); claims to begin at ``start_sample``.
        start_sample: on the time axis of the truth.
    """
    count = len(samples)
    reference = truth((start_sample + np.arange(count)) / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(samples, 2 * count) * np.conj(np.fft.rfft(reference, 2 * count))
    correlation = np.fft.irfft(spectrum, 2 * count)
    peak = int(np.argmax(correlation))
    # A parabola through the three highest values finds the peak between samples.
    low, top, high = (correlation[(peak + step) % (2 * count)] for step in (-1, 0, 1))
    lag = peak if peak < count else peak - 2 * count
    return float(lag + (low - high) / (2 * (low - 2 * top + high)))


def utterance(first_frame: int, last_frame: int, name: str = "") -> Utterance:
    """Return an utterance of the video that all tests use."""
    name = name or f"{first_frame:05d}-{last_frame:05d}"
    return Utterance(SPEAKER, VIDEO, name, first_frame, last_frame)


def samples_of(clip: Clip) -> Floats:
    """Return the samples of a clip, as a user's decoder returns them."""
    samples, rate_hz = soundfile.read(io.BytesIO(clip.data), dtype="float64")
    # Opus decodes at 48 kHz by default; libsndfile keeps the rate that was written.
    assert rate_hz == SAMPLE_RATE_HZ
    return np.asarray(samples, np.float64)


def delays_of(clips: Iterable[Clip]) -> dict[str, float]:
    """Return the delay of each clip by its utterance's name."""
    return {
        clip.utterance.utterance_id: measure_delay(
            samples_of(clip), start_sample=clip.utterance.samples[0]
        )
        for clip in clips
    }


@dataclass(frozen=True)
class MediaSpec:
    """How to make a media file.

    Attributes:
        name: file name.
        rate_hz: sample rate of the audio.
        channels: 1 or 2.
        fps: frames a second of the video, or empty for audio only.
        options: FFmpeg's options before the output file.
        audio_late_seconds: shift of the audio's clock.
        video_late_seconds: shift of the video's clock.
        duration_seconds: duration of both.
        video_source: FFmpeg's source of the video.
    """

    name: str
    rate_hz: int = 48_000
    channels: int = 1
    fps: str = ""
    options: tuple[str, ...] = ()
    audio_late_seconds: float = 0.0
    video_late_seconds: float = 0.0
    duration_seconds: float = DURATION_SECONDS
    video_source: str = "testsrc2=size=64x48"


AAC = ("-c:a", "aac", "-b:a", "96k")
OPUS = ("-c:a", "libopus", "-b:a", "48k")
H264 = ("-c:v", "libx264", "-preset", "ultrafast")
VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime")
FASTSTART = ("-movflags", "+faststart")
FRAGMENTS = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof")

MP4 = MediaSpec("plain.mp4", 44_100, 1, "25", (*AAC, *H264, *FASTSTART))
M4A = MediaSpec("plain.m4a", 44_100, 2, "", (*AAC, *FASTSTART))
WEBM = MediaSpec("plain.webm", 48_000, 1, "", OPUS)
WAV = MediaSpec("plain.wav", 16_000, 1, "", ())


class MediaCache:
    """Makes media files, each once; sessions and their processes share them.

    Args:
        folder: where they are stored. Nothing in it may be changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _generation()

    def make(self, spec: MediaSpec) -> Path:
        """Return the path of a media file, which is made if it does not exist."""
        return self.keep(spec.name, spec, functools.partial(self._encode, spec))

    def keep(self, name: str, key: object, write: Callable[[Path], object]) -> Path:
        """Return the path of a file, which is written if it does not exist.

        Args:
            name: file name.
            key: what the file is made from; its ``repr`` distinguishes files of one name.
            write: writes the file; one of all processes calls it.
        """
        # Two specifications may have the same file name.
        folder = self._folder / hashlib.sha256(repr((name, key)).encode()).hexdigest()[:12]
        path = folder / name
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder) as scratch:
                if not path.exists():
                    write(Path(scratch) / name)
                    os.replace(Path(scratch) / name, path)
        return path

    def _encode(self, spec: MediaSpec, path: Path) -> None:
        key = (spec.rate_hz, spec.channels, spec.duration_seconds)
        audio = self.keep("audio.wav", key, functools.partial(_write_audio, spec))
        command = ["-itsoffset", str(spec.audio_late_seconds), "-i", str(audio)]
        if spec.fps:
            source = f"{spec.video_source}:rate={spec.fps}:duration={spec.duration_seconds}"
            offset = ["-itsoffset", str(spec.video_late_seconds)]
            command += [*offset, "-f", "lavfi", "-i", source, "-map", "0:a", "-map", "1:v"]
        ffmpeg(*command, *spec.options, str(path))


def _write_audio(spec: MediaSpec, path: Path) -> None:
    count = round(spec.duration_seconds * spec.rate_hz)
    samples = truth(np.arange(count) / spec.rate_hz)
    # The right channel is quieter; a mix of both has the same timing as either.
    both = np.stack([samples, 0.7 * samples][: spec.channels], axis=1)
    soundfile.write(path, both, spec.rate_hz, subtype="PCM_16")


@functools.cache
def _generation() -> str:
    """Return a digest of what media depend on besides their specification: encoders, this code."""
    version = subprocess.run(["ffmpeg", "-version"], capture_output=True, check=True).stdout
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("synthetic_*.py"))]
    parts = [version, av.__version__.encode(), *code]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:8]


def ffmpeg(*arguments: str) -> None:
    """Run FFmpeg, quietly unless it fails."""
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FFMPEG_MUXER = re.compile(rb"Lavf[0-9]{2}[.][0-9]{1,2}[.][0-9]{3}")


def drop_audio(source: Path, target: Path, *, from_seconds: float, to_seconds: float) -> None:
    """Copy a media file without the audio of an interval, counted from the first audio packet.

    The other packets keep their times.
    """
    first: float | None = None
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            seconds = float((packet.pts or 0) * Fraction(packet.time_base or 0))
            if packet.stream.type == "audio":
                first = seconds if first is None else first
                if from_seconds <= seconds - first < to_seconds:
                    continue
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    # The time stamps are still those of the first muxer, whose name tells how to read them.
    first_muxer = FFMPEG_MUXER.search(source.read_bytes())
    if first_muxer:
        target.write_bytes(FFMPEG_MUXER.sub(first_muxer[0], target.read_bytes()))


def damaged(data: bytes, positions: Sequence[int], values: Sequence[int]) -> bytes:
    """Return bytes with some of them replaced."""
    copy = bytearray(data)
    for position, value in zip(positions, values, strict=True):
        copy[position % len(copy)] = value
    return bytes(copy)
