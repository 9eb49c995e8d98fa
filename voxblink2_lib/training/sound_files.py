"""Files of noises and responses of rooms, for augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.augment import Waveform

_EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def audio_files(folder: str | Path) -> list[Path]:
    """Return the audio files of a folder and its subfolders, sorted.

    Raises:
        TrainingError: there are none.
    """
    paths = sorted(
        path
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in _EXTENSIONS and path.is_file()
    )
    if not paths:
        raise TrainingError(
            f"There are no audio files in {folder}; looked for {', '.join(sorted(_EXTENSIONS))}."
        )
    return paths


def random_part(path: Path, samples: int, generator: np.random.Generator) -> Waveform:
    """Return a random part of a file at 16 kHz; a short file is repeated.

    Raises:
        TrainingError: it cannot be decoded, or is empty.
    """
    try:
        with soundfile.SoundFile(path) as file:
            frames = -(-samples * file.samplerate // SAMPLE_RATE_HZ)
            file.seek(int(generator.integers(max(1, file.frames - frames + 1))))
            part = at_16_khz(file.read(frames, dtype="float32", always_2d=True), file.samplerate)
    except soundfile.LibsndfileError as error:
        raise _undecodable(path, error) from error
    if not len(part):
        raise TrainingError(f"{path} has no samples.")
    return np.resize(part, samples) if len(part) < samples else part[:samples]


def seconds_of(path: Path) -> float:
    """Return the duration of a file, from its header.

    Raises:
        TrainingError: it is no audio file.
    """
    try:
        return float(soundfile.info(path).duration)
    except soundfile.LibsndfileError as error:
        raise _undecodable(path, error) from error


def first_channel(path: Path, *, most_seconds: float) -> tuple[Waveform, int]:
    """Return the first channel of a file, at most some seconds of it, and its rate.

    Raises:
        TrainingError: it cannot be decoded.
    """
    try:
        with soundfile.SoundFile(path) as file:
            frames = int(most_seconds * file.samplerate)
            channels = file.read(frames, dtype="float32", always_2d=True)
            return channels[:, 0], file.samplerate
    except soundfile.LibsndfileError as error:
        raise _undecodable(path, error) from error


def at_16_khz(channels: npt.NDArray[np.float32], rate: int) -> Waveform:
    """Return the mean of channels, shape (samples, channels), at 16 kHz."""
    mono = channels.mean(axis=1)
    resampled = mono if rate == SAMPLE_RATE_HZ else soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    return np.asarray(resampled, np.float32)


def _undecodable(path: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{path} cannot be decoded: {error}")
