"""Sounds of tests of augmentation, and what is measured of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from support.shard_builder import RATE, Array

SECOND = 16_000


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hz: float, samples: int, *, rate: int = RATE, peak: float = 0.1) -> Array:
    phase = 2 * np.pi * hz * np.arange(samples) / rate
    return np.asarray(peak * np.sin(phase), np.float32)


def write(path: Path, sound: npt.NDArray[np.floating], rate: int = RATE) -> Path:
    """Write floats as they are; returns the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, format="WAV", subtype="FLOAT")
    return path.parent


def power(sound: Array) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64)))


def loudest_hz(sound: Array) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18))
    return float(spectrum.argmax() * RATE / (1 << 18))


def strength(sound: Array, hz: float) -> float:
    """Return the amplitude of a tone in a sound."""
    turns = np.exp(-2j * np.pi * hz * np.arange(len(sound)) / RATE)
    return float(2 * np.abs(np.mean(sound * turns)))


def lag(waveform: Array, expected: Array) -> int:
    """Return by how many samples a sound comes later than another, up to 2,000."""
    size = 1 << (2 * len(waveform)).bit_length()
    spectrum = np.fft.rfft(waveform, size) * np.conj(np.fft.rfft(expected, size))
    likeness = np.fft.irfft(spectrum, size)
    return int(np.argmax(np.roll(likeness, 2_000)[:4_001])) - 2_000
