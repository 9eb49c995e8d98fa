"""Archives of cut audio as the authors hand them out, small, and every byte of them known."""

from __future__ import annotations

import gzip
import io
import tarfile
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

RATE_HZ = 16_000
UTTERANCES_PER_VIDEO, VIDEOS_PER_SPEAKER = 3, 2


def wav(seed: int, *, seconds: float = 0.25) -> bytes:
    """Return a WAV file of noise that gzip makes somewhat smaller, as it does speech."""
    samples = np.random.default_rng(seed).normal(0, 200, round(seconds * RATE_HZ)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def name(number: int) -> str:
    """Return the name of the member with a number."""
    video, utterance = divmod(number, UTTERANCES_PER_VIDEO)
    speaker = video // VIDEOS_PER_SPEAKER
    return f"audio/id{speaker:06}/video{video:06}/{utterance:05}.wav"


def members(count: int) -> list[tuple[str, bytes]]:
    """Return utterances with their names."""
    return [(name(number), wav(number)) for number in range(count)]


def tar(files: Iterable[tuple[str, bytes]], others: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """Return a tar of files, and at its end of members without content, such as links."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, data in files:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in others:
            archive.addfile(member)
    return stream.getvalue()


def write_parts(folder: Path, data: bytes, count: int = 7) -> list[Path]:
    """Cut some bytes into files that are named as the authors' parts."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(data) // count)
    paths = [folder / f"VB2_audio.tar.gz.{number:02}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(data[number * size : (number + 1) * size])
    return paths


def write_archive(folder: Path, count: int, parts: int = 7) -> list[Path]:
    """Write an archive of utterances in parts."""
    return write_parts(folder, gzip.compress(tar(members(count)), 1), parts)
