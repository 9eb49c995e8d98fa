"""A corpus of short videos whose media are 16 kHz WAV.

Such media are cut without PyTorch, which a worker process would load for four seconds.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from support.release_builder import voxblink2, write_release
from support.synthetic_audio import truth
from voxblink2_lib.records import SAMPLE_RATE_HZ

SECONDS = 3.7
UTTERANCE_FRAMES = 30
# The utterance of each video begins a frame later than that of the one before, up to this one.
_MAX_FIRST_FRAME = 50


def video_ids(count: int) -> list[str]:
    """Return ids of videos, in order."""
    return [f"video{number:06}" for number in range(count)]


def make_release(folder: Path, videos: Sequence[str], *, per_speaker: int = 10) -> Path:
    """Write a release of videos with one utterance each; return the folder."""
    files = {}
    for number, video in enumerate(videos):
        speaker = f"id{number // per_speaker:06}"
        first = number % _MAX_FIRST_FRAME
        rows = [(frame, 1, 1, 9, 9) for frame in range(first, first + UTTERANCE_FRAMES)]
        files[f"meta/{speaker}/{video}/00001.txt"] = voxblink2(rows, speaker=speaker, video=video)
    return write_release(folder, files)


def make_corpus(folder: Path, videos: Sequence[str], *, per_speaker: int = 10) -> Path:
    """Write such a release, and the media of its videos under ``media``; return the folder."""
    make_release(folder, videos, per_speaker=per_speaker)
    for path in (folder / "meta").glob("*/*"):
        media = folder / "media" / path.parent.name / f"{path.name}.wav"
        media.parent.mkdir(parents=True, exist_ok=True)
        media.write_bytes(wav())
    return folder


@functools.cache
def wav() -> bytes:
    """Return a medium that holds the utterance of every video."""
    samples = truth(np.arange(round(SECONDS * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()
