"""Make the media that benchmarks crop: speech-like audio and video, the same on every run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import (
    FRAMES_PER_SECOND,
    MAX_ANNOTATED_LINES,
    SAMPLE_RATE_HZ,
    FaceTrack,
    Utterance,
    VideoKey,
)
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.schema import arrow_schema

SECONDS = 60
# Five utterances of 6 s (150 frames), the last of which ends 0.4 s before the video does.
FIRST_FRAMES = (0, 335, 670, 1005, 1340)
FRAMES = 150
# The lengths of utterances with a face: 3 to 8 s.
FACE_FRAMES = (200, 75, 170, 110, 145)
SPEAKER = "id000001"
DISTINCT = 3


def speech_like(*, rate_hz: int, seed: int) -> npt.NDArray[np.float64]:
    """Return harmonics of a gliding voice and some noise, in syllables; shape (n,)."""
    rng = np.random.default_rng(seed)
    at = np.arange(SECONDS * rate_hz) / rate_hz
    pitch_hz = 120 + 20 * seed + 30 * np.sin(2 * np.pi * 0.3 * at)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 10))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * at + seed), 0, 1)
    return np.asarray(0.15 * syllables * voice + 0.01 * rng.standard_normal(len(at)))


def make_wav(path: Path, *, seed: int, rate_hz: int = SAMPLE_RATE_HZ) -> None:
    soundfile.write(path, speech_like(rate_hz=rate_hz, seed=seed), rate_hz, subtype="PCM_16")


def make_mp4(path: Path, *, seed: int) -> None:
    video = f"testsrc2=size=320x180:rate=25:duration={SECONDS}"
    encode(path, video, "-preset", "ultrafast", seed=seed)


def make_film(path: Path, *, seed: int, lines: int = 720, preset: str = "medium") -> None:
    """Make a file that costs about as much to decode as YouTube's of the same size.

    The cost of decoding depends on the bit rate and on how blocks are predicted. So: the bit rate
    and the keyframe interval (5 s) of YouTube's 720p, B-frames as x264 chooses them, and noise that
    differs from frame to frame, since without it most bits would go unused. Four of five blocks are
    copied unchanged from other frames, as in videos of people who sit and talk.
    """
    kilobits = 1500 * lines**2 // 720**2
    video = f"testsrc2=size={lines * 16 // 9}x{lines}:rate={FRAMES_PER_SECOND}:duration={SECONDS}"
    noise = f"noise=alls=6:allf=t:all_seed={seed + 1}"
    encode(path, f"{video},{noise}", "-preset", preset, "-b:v", f"{kilobits}k",
           "-g", f"{5 * FRAMES_PER_SECOND}", seed=seed)  # fmt: skip


def encode(path: Path, video: str, *options: str, seed: int) -> None:
    """Encode video, given as an FFmpeg source filter, and speech-like audio as H.264 and AAC."""
    audio = path.with_suffix(".audio.wav")
    make_wav(audio, seed=seed, rate_hz=44_100)
    ffmpeg("-f", "lavfi", "-i", video, "-i", audio, "-c:v", "libx264", *options,
           "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "128k", "-ac", "2", path)  # fmt: skip
    audio.unlink()


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-nostdin", *arguments], check=True)


class Videos:
    """A folder source of videos, and the tasks that crop them.

    Args:
        folder: where the media are written; it is created.
        extension: ``"wav"`` or ``"mp4"``.
        count: number of videos.
        distinct: number of different videos; the others are hard links to these.
        make: makes a file, given its path and a seed; by default according to the extension, with
            video that is cheap to decode.
    """

    def __init__(
        self,
        folder: Path,
        *,
        extension: str,
        count: int,
        distinct: int = DISTINCT,
        make: Callable[..., None] | None = None,
    ) -> None:
        self._folder = folder
        self._schema = arrow_schema("audio")
        self._written = 0
        make = make or (make_wav if extension == "wav" else make_mp4)
        (folder / SPEAKER).mkdir(parents=True)
        self.paths = [folder / SPEAKER / f"video{i:06}.{extension}" for i in range(count)]
        for seed, path in enumerate(self.paths[:distinct]):
            make(path, seed=seed)
        for i, path in enumerate(self.paths[distinct:]):
            os.link(self.paths[i % distinct], path)

    def tasks(self) -> list[VideoTask]:
        """Return a task for every video, with new part files."""
        self._written += 1
        parts = self._folder / f"parts{self._written}"
        return [
            VideoTask(
                key=VideoKey(SPEAKER, path.stem),
                utterances=tuple(
                    Utterance(SPEAKER, path.stem, f"{n:05}", first, first + FRAMES - 1)
                    for n, first in enumerate(FIRST_FRAMES)
                ),
                digest=0,
                source=SourceSpec("folder", str(self._folder)),
                part=parts / f"{path.stem}.arrow",
                tmp=self._folder,
                schema=self._schema,
                options=ClipOptions(),
            )
            for path in self.paths
        ]


def with_faces(task: VideoTask, *, first_frames: Sequence[int] = FIRST_FRAMES) -> VideoTask:
    """Return a task whose utterances are 3 to 8 s long and have a face to crop."""
    intervals = zip(task.utterances, first_frames, FACE_FRAMES, strict=True)
    utterances = tuple(
        replace(utterance, first_frame=first, last_frame=first + frames - 1)
        for utterance, first, frames in intervals
    )
    tracks = tuple(map(moving_face, utterances))
    schema = arrow_schema("audio-visual")
    return replace(task, utterances=utterances, tracks=tracks, schema=schema)


def moving_face(utterance: Utterance) -> FaceTrack:
    """Return a face of about 220 pixels that nods and sways around the centre of 720 lines."""
    frames = np.arange(utterance.first_frame, utterance.last_frame + 1, dtype=np.int32)
    seconds = frames / FRAMES_PER_SECOND
    jitter = np.random.default_rng(utterance.first_frame).normal(0, 1.5, (4, len(frames)))
    size = 200 + 10 * np.sin(0.8 * seconds)
    middle_x = MAX_ANNOTATED_LINES * 8 / 9 + 150 * np.sin(0.5 * seconds)
    middle_y = MAX_ANNOTATED_LINES / 2 + 30 * np.sin(2 * seconds)
    boxes = [middle_x - size / 2, middle_y - 0.6 * size, size, 1.2 * size]
    return FaceTrack(utterance, frames, np.rint(np.transpose(boxes + jitter)).astype(np.int16))
