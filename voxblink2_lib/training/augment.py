"""Augmentation of waveforms: noise, rooms, codecs and speed.

An augmentation is called with a waveform, float32 at 16 kHz, shape (samples,), and a generator of
random numbers, and returns a waveform of the same length. All that is random is drawn from the
generator, so that a resumed run gets the same waveforms as an uninterrupted one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]
_Number = TypeVar("_Number", int, float)
Augmentation = Callable[[Waveform, np.random.Generator], Waveform]

_EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3"}

# name -> rate, and format and subtype of libsndfile
_CODECS = {
    "mp3": (SAMPLE_RATE_HZ, "MP3", "MPEG_LAYER_III"),
    "vorbis": (SAMPLE_RATE_HZ, "OGG", "VORBIS"),
    "opus": (SAMPLE_RATE_HZ, "OGG", "OPUS"),
    "gsm": (8_000, "WAV", "GSM610"),
    "ulaw": (8_000, "WAV", "ULAW"),
}
CODECS = tuple(_CODECS)
_COMPRESSIBLE = {"mp3", "vorbis", "opus"}


class RandomChoice:
    """Applies one of several augmentations, or none.

    Args:
        probability: of applying one.
        choices: augmentations, all equally likely.
    """

    def __init__(self, probability: float, *choices: Augmentation) -> None:
        if not 0 <= probability <= 1 or not choices:
            raise TrainingError(
                f"probability is {probability:g} with {len(choices)} choices; expected are 0 to 1, "
                "and one choice or more."
            )
        self._probability, self._choices = probability, choices

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return the waveform, or the result of one of the choices."""
        if generator.random() >= self._probability:
            return waveform
        return self._choices[generator.integers(len(self._choices))](waveform, generator)


class AddNoise:
    """Adds noise, music or babble: a random part of one or several files.

    Args:
        folder: of audio files, searched with its subfolders, such as ``musan/noise``.
        snr_db: lowest and highest ratio of the mean powers of speech and noise, in decibels.
        files: lowest and highest number of files that are added at once; several for babble.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        snr_db: tuple[float, float] = (0.0, 15.0),
        files: tuple[int, int] = (1, 1),
    ) -> None:
        self._paths = _audio_files(folder)
        self._snr_db = _range("snr_db", snr_db, least=-100)
        self._files = _range("files", files, least=1)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return speech with noise."""
        noise = np.zeros_like(waveform)
        low, high = self._files
        for _ in range(generator.integers(low, high, endpoint=True)):
            path = self._paths[generator.integers(len(self._paths))]
            noise += _random_part(path, len(waveform), generator)
        ratio = 10 ** (generator.uniform(*self._snr_db) / 10)
        power = _power(noise)
        if power > 0:
            noise *= np.float32(np.sqrt(_power(waveform) / (ratio * power)))
        return _unclipped(waveform + noise)


class Reverberate:
    """Convolves with the impulse response of a room, whose loudest sample becomes time zero.

    Args:
        folder: of impulse responses, searched with its subfolders, such as ``RIRS_NOISES``.
    """

    def __init__(self, folder: str | Path) -> None:
        self._paths = _audio_files(folder)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return reverberated speech of the same power."""
        path = self._paths[generator.integers(len(self._paths))]
        response = _mono(path)
        first = int(np.abs(response).argmax())
        size = 1 << (len(waveform) + len(response) - 2).bit_length()
        spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
        wet = np.fft.irfft(spectrum, size)[first : first + len(waveform)].astype(np.float32)
        power = _power(wet)
        if power > 0:
            wet *= np.float32(np.sqrt(_power(waveform) / power))
        return _unclipped(wet)


class Codec:
    """Encodes and decodes, like telephones and web sites, at random quality where it applies.

    Args:
        names: of codecs: ``mp3``, ``vorbis`` and ``opus`` at 16 kHz, ``gsm`` and ``ulaw`` at 8.
    """

    def __init__(self, names: Sequence[str] = CODECS) -> None:
        unknown = [name for name in names if name not in _CODECS]
        if unknown or not names:
            raise TrainingError(
                f"The codecs {list(names)} are not all available. Available: {', '.join(CODECS)}."
            )
        self._names = tuple(names)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return speech that was encoded and decoded."""
        name = self._names[generator.integers(len(self._names))]
        quality = generator.uniform(0.2, 0.9)
        rate, form, subtype = _CODECS[name]
        if rate != SAMPLE_RATE_HZ:
            waveform, length = soxr.resample(waveform, SAMPLE_RATE_HZ, rate), len(waveform)
            # Filtered loud speech can exceed full scale, where libsndfile wraps around.
            waveform = np.clip(waveform, -1, 1)
        else:
            length = len(waveform)
        file = io.BytesIO()
        level = {"compression_level": quality} if name in _COMPRESSIBLE else {}
        soundfile.write(file, waveform, rate, format=form, subtype=subtype, **level)
        file.seek(0)
        decoded = soundfile.read(file, dtype="float32")[0]
        if rate != SAMPLE_RATE_HZ:
            decoded = soxr.resample(decoded, rate, SAMPLE_RATE_HZ)
        return _of_length(decoded, length)


def change_speed(waveform: Waveform, speed: float, samples: int) -> Waveform:
    """Resample a waveform to play faster, and so at a higher pitch.

    Args:
        waveform: about ``samples * speed`` samples.
        speed: factor; below 1 is slower and lower.
        samples: length of the result.
    """
    if speed == 1:
        return _of_length(waveform, samples)
    return _of_length(soxr.resample(waveform, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ), samples)


def _of_length(waveform: Waveform, samples: int) -> Waveform:
    """Cut the end or add silence: rates are rounded, and codecs pad."""
    missing = samples - len(waveform)
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform[:samples]


def _audio_files(folder: str | Path) -> list[Path]:
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


def _random_part(path: Path, samples: int, generator: np.random.Generator) -> Waveform:
    """Return a random part of a file; a short file is repeated."""
    try:
        with soundfile.SoundFile(path) as file:
            frames = -(-samples * file.samplerate // SAMPLE_RATE_HZ)
            file.seek(int(generator.integers(max(1, file.frames - frames + 1))))
            part = _at_16_khz(file.read(frames, dtype="float32", always_2d=True), file.samplerate)
    except soundfile.LibsndfileError as error:
        raise TrainingError(f"{path} cannot be decoded: {error}") from error
    if not len(part):
        raise TrainingError(f"{path} has no samples.")
    return np.resize(part, samples) if len(part) < samples else part[:samples]


def _mono(path: Path) -> Waveform:
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise TrainingError(f"{path} cannot be decoded: {error}") from error
    first = channels[:, :1]
    if not first.any():
        raise TrainingError(f"{path} is silent; an impulse response was expected.")
    return _at_16_khz(first, rate)


def _at_16_khz(channels: npt.NDArray[np.float32], rate: int) -> Waveform:
    mono = channels.mean(axis=1)
    resampled = mono if rate == SAMPLE_RATE_HZ else soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    return np.asarray(resampled, np.float32)


def _power(waveform: Waveform) -> float:
    return float(np.square(waveform, dtype=np.float64).mean())


def _unclipped(waveform: Waveform) -> Waveform:
    peak = np.float32(max(1.0, np.abs(waveform).max()))
    return np.asarray(waveform / peak)


def _range(name: str, ends: tuple[_Number, _Number], *, least: float) -> tuple[_Number, _Number]:
    if not least <= ends[0] <= ends[1]:
        raise TrainingError(
            f"{name} is {ends}; expected are the lowest and the highest, {least:g} or more."
        )
    return ends
