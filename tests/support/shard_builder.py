"""Shards of known sound: voices that differ from each other, sealed as the package seals them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from voxblink2_lib.media.encoding import encode
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import SAMPLES_PER_FRAME, AudioFormat, Clip, Utterance, VideoKey
from voxblink2_lib.store import shard_check
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import make_rows, seal_shard, write_part

RATE = 16_000
SCHEMA = arrow_schema("audio")
Array = npt.NDArray[np.float32]


def talk(samples: int, seed: int = 0) -> Array:
    """Return something like speech: a voice that rises and falls, syllables, some noise."""
    random = np.random.default_rng(seed)
    seconds = np.arange(samples) / RATE
    pitch = random.uniform(90, 220) + 30 * np.sin(2 * np.pi * 1.3 * seconds + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voiced = sum(np.sin(number * phase) / number for number in range(1, 25))
    loud = np.clip(np.sin(2 * np.pi * 3 * seconds + random.uniform(0, 6)) + 0.3, 0, 1)
    sound = voiced * loud + 0.05 * random.standard_normal(samples)
    return np.asarray(0.4 * sound / np.abs(sound).max(), np.float32)


def clip(
    number: int,
    *,
    frames: int = 25,
    speaker: str = "id000001",
    video: str = "abcdefghijk",
    audio_format: AudioFormat = "wav",
    data: bytes | None = None,
) -> Clip:
    """Return a clip of ``talk(..., seed=number)``, or of other bytes."""
    utterance = Utterance(speaker, video, f"{number:05}", 25 * number, 25 * number + frames - 1)
    if data is None:
        data = encode(talk(frames * SAMPLES_PER_FRAME, number), audio_format=audio_format)
    return Clip(utterance, data)


def seal(shard: Path, clips: Sequence[Clip], *, audio_format: AudioFormat = "wav") -> Path:
    """Make a shard with these clips."""
    rows = make_rows(clips, schema=SCHEMA, audio_format=audio_format, source="files")
    part = shard.with_suffix(".part")
    key = VideoKey(clips[0].utterance.speaker_id, clips[0].utterance.video_id)
    write_part(part, rows, Outcome(key, "done", clips=len(clips)))
    seal_shard(0, [part], shard, SCHEMA)
    part.unlink()
    return shard


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a shard as Arrow reads them."""
    with pa.memory_map(str(path)) as file:
        rows: list[dict[str, Any]] = pa.ipc.open_stream(file).read_all().to_pylist()
    return rows


def note_checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that takes the names of the shards that are read to check them."""
    names: list[str] = []
    check = shard_check._check_shard

    def noted(path: Path) -> None:
        names.append(path.name)
        check(path)

    monkeypatch.setattr(shard_check, "_check_shard", noted)
    return names


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file, not its length."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def open_files() -> int:
    """Return how many files this process holds open."""
    return len(os.listdir("/proc/self/fd"))


def kibibytes(what: str) -> int:
    """Return a line of ``/proc/self/status``, such as ``RssAnon``."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))
