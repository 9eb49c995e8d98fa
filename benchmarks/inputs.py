"""Make the media that benchmarks cut: speech-like sound, the same on every run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from voxblink2_lib.config import ClipOptions
from voxblink2_lib.pipeline import VideoTask
from voxblink2_lib.records import SAMPLE_RATE_HZ, Utterance, VideoKey
from voxblink2_lib.schema import arrow_schema
from voxblink2_lib.sources import SourceSpec

SECONDS = 60
# Five cuts of 6 s (150 frames), the last of which ends 0.4 s before the video does.
FIRST_FRAMES = (0, 335, 670, 1005, 1340)
FRAMES = 150
SPEAKER = "id000001"
# So many files differ; the others are second names of these.
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
    sound = path.with_suffix(".sound.wav")
    make_wav(sound, seed=seed, rate_hz=44_100)
    pictures = f"testsrc2=size=320x180:rate=25:duration={SECONDS}"
    ffmpeg("-f", "lavfi", "-i", pictures, "-i", sound, "-c:v", "libx264", "-preset", "ultrafast",
           "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "128k", "-ac", "2", path)  # fmt: skip
    sound.unlink()


def ffmpeg(*words: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-nostdin", *words], check=True)


class Videos:
    """A folder source of videos, and the tasks that cut them.

    Args:
        folder: where the media go; it is made.
        ending: ``"wav"`` or ``"mp4"``.
        count: how many videos.
    """

    def __init__(self, folder: Path, *, ending: str, count: int) -> None:
        self._folder = folder
        self._schema = arrow_schema("audio")
        self._written = 0
        make = make_wav if ending == "wav" else make_mp4
        (folder / SPEAKER).mkdir(parents=True)
        self.paths = [folder / SPEAKER / f"video{i:06}.{ending}" for i in range(count)]
        for seed, path in enumerate(self.paths[:DISTINCT]):
            make(path, seed=seed)
        for i, path in enumerate(self.paths[DISTINCT:]):
            os.link(self.paths[i % DISTINCT], path)

    def tasks(self) -> list[VideoTask]:
        """Return a task for every video, with part files that are not there yet."""
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
