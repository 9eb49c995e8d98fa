"""Parts of speech taken out: of waveforms in time and frequency, and of their features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.training.augment import Waveform, check_probability, checked_range, fast_size

Flags = npt.NDArray[np.bool_]

# A notch as wide as the narrowest allowed one rings for less than that.
_RINGING_SAMPLES = SAMPLE_RATE_HZ // 10
_NARROWEST_HZ = 20.0


class DropChunks:
    """Silences some chunks of a waveform (compare Ravanelli et al., SpeechBrain, 2021).

    At least half of the waveform stays: of short ones, shorter chunks are dropped.

    Args:
        chunks: lowest and highest number of chunks.
        seconds: lowest and highest length of a chunk.
    """

    def __init__(
        self,
        *,
        chunks: tuple[int, int] = (1, 5),
        seconds: tuple[float, float] = (0.0625, 0.125),
    ) -> None:
        self._chunks = checked_range("chunks", chunks, least=1)
        self._seconds = checked_range("seconds", seconds, least=0)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return the waveform with zeros in the chunks."""
        waveform = waveform.copy()
        chunks = int(generator.integers(*self._chunks, endpoint=True))
        longest = len(waveform) // (2 * chunks)
        for seconds in generator.uniform(*self._seconds, chunks):
            length = min(round(seconds * SAMPLE_RATE_HZ), longest)
            start = generator.integers(len(waveform) - length + 1)
            waveform[start : start + length] = 0
        return waveform


class DropFrequencies:
    """Takes bands of frequencies out of a waveform (compare Ravanelli et al., SpeechBrain, 2021).

    Args:
        bands: lowest and highest number of bands.
        width_hz: lowest and highest width of a band.
    """

    def __init__(
        self,
        *,
        bands: tuple[int, int] = (1, 3),
        width_hz: tuple[float, float] = (100.0, 400.0),
    ) -> None:
        self._bands = checked_range("bands", bands, least=1)
        self._width_hz = checked_range("width_hz", width_hz, least=_NARROWEST_HZ)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return the waveform without the bands."""
        size = fast_size(len(waveform) + _RINGING_SAMPLES)
        spectrum = np.fft.rfft(waveform, size)
        for _ in range(generator.integers(*self._bands, endpoint=True)):
            width_hz = generator.uniform(*self._width_hz)
            middle_hz = generator.uniform(0, SAMPLE_RATE_HZ / 2)
            _notch(spectrum, middle_hz * size / SAMPLE_RATE_HZ, width_hz * size / SAMPLE_RATE_HZ)
        return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def _notch(spectrum: npt.NDArray[np.complexfloating], middle: float, width: float) -> None:
    """Take bins out of a spectrum in place; at its edges a notch rises as a cosine.

    Args:
        spectrum: shape (bins,).
        middle: of the notch, in bins.
        width: in bins, where the gain is a half; nothing is left in half of that.
    """
    first, last = max(0, round(middle - 0.75 * width)), round(middle + 0.75 * width)
    distance = np.abs(np.arange(first, min(last + 1, len(spectrum))) - middle) / width
    rise = np.clip(2 * distance - 0.5, 0, 1)
    spectrum[first : first + len(rise)] *= ((1 - np.cos(np.pi * rise)) / 2).astype(np.float32)


class Masks(NamedTuple):
    """Which frames and which bands of an utterance are masked.

    Attributes:
        frames: shape (frames,).
        bands: shape (bands,).
    """

    frames: Flags
    bands: Flags


class SpecAugment:
    """Masks frames and bands of features (Park et al., SpecAugment, Interspeech 2019).

    What is masked becomes 0, the mean over time of every band. There is no time warping, which
    gains least in that paper. At most half of the frames and half of the bands are masked.

    Args:
        probability: of masking anything of an utterance.
        time_masks: number of masks in time.
        frames: largest length of each.
        frequency_masks: number of masks in frequency.
        bands: largest height of each.

    Raises:
        TrainingError: a number is not allowed.
    """

    def __init__(
        self,
        probability: float = 0.6,
        *,
        time_masks: int = 1,
        frames: int = 10,
        frequency_masks: int = 1,
        bands: int = 8,
    ) -> None:
        check_probability(probability)
        if min(time_masks, frames, frequency_masks, bands) < 0:
            raise TrainingError(
                f"time_masks, frames, frequency_masks and bands are {time_masks}, {frames}, "
                f"{frequency_masks} and {bands}; expected are numbers of 0 or more."
            )
        self._probability = probability
        self._in_time, self._in_frequency = (time_masks, frames), (frequency_masks, bands)

    def draw(self, *, frames: int, bands: int, generator: np.random.Generator) -> Masks:
        """Return masks of an utterance of some frames and bands.

        Args:
            frames: number of frames of its features.
            bands: number of bands of its features.
            generator: of random numbers.
        """
        is_masked = generator.random() < self._probability
        in_time = _stripes(frames, *self._in_time, generator)
        in_frequency = _stripes(bands, *self._in_frequency, generator)
        return Masks(is_masked & in_time, is_masked & in_frequency)


def _stripes(places: int, count: int, widest: int, generator: np.random.Generator) -> Flags:
    """Return some masks of 0 to ``widest`` places, anywhere, shape (places,)."""
    flags = np.zeros(places, np.bool_)
    for _ in range(count):
        width = int(generator.integers(min(widest, places // (2 * count)), endpoint=True))
        start = int(generator.integers(places - width, endpoint=True))
        flags[start : start + width] = True
    return flags
