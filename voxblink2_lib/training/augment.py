"""Augmentation of waveforms: what all augmentations are, and how several are put together.

An augmentation is called with a waveform, float32 at 16 kHz, shape (samples,), and a generator of
random numbers, and returns a waveform of the same length. All that is random is drawn from the
generator, so that a resumed run gets the same waveforms as an uninterrupted one.

>>> from voxblink2_lib.training import Codec, DropChunks, RandomChoice, Sequential
>>> augment = Sequential(RandomChoice(0.5, DropChunks()), RandomChoice(0.2, Codec(["ulaw"])))
>>> augment(np.ones(16_000, np.float32), np.random.default_rng(1)).shape
(16000,)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soxr

from voxblink2_lib.errors import TrainingError
from voxblink2_lib.records import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]
Augmentation = Callable[[Waveform, np.random.Generator], Waveform]
_Number = TypeVar("_Number", int, float)


class Sequential:
    """Applies augmentations one after the other.

    A step that is not always applied is a :class:`RandomChoice`.

    Args:
        steps: augmentations.

    Raises:
        TrainingError: there are none, or one cannot be called.
    """

    def __init__(self, *steps: Augmentation) -> None:
        self._steps = _callables("steps", steps)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return the result of the last step."""
        for step in self._steps:
            waveform = step(waveform, generator)
        return waveform


class RandomChoice:
    """Applies one of several augmentations, or none.

    Args:
        probability: of applying one.
        choices: augmentations, all equally likely.

    Raises:
        TrainingError: the probability is none, or a choice cannot be called.
    """

    def __init__(self, probability: float, *choices: Augmentation) -> None:
        check_probability(probability)
        self._probability, self._choices = probability, _callables("choices", choices)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return the waveform, or the result of one of the choices."""
        if generator.random() >= self._probability:
            return waveform
        return self._choices[generator.integers(len(self._choices))](waveform, generator)


def change_speed(waveform: Waveform, speed: float, samples: int) -> Waveform:
    """Resample a waveform to play faster, and so at a higher pitch.

    Args:
        waveform: about ``samples * speed`` samples.
        speed: factor; below 1 is slower and lower.
        samples: length of the result.
    """
    if speed == 1:
        return of_length(waveform, samples)
    return of_length(soxr.resample(waveform, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ), samples)


# -- For augmentations -----------------------------------------------------------------------------


def fast_size(least: int) -> int:
    """Return a length that is transformed fast: a power of two, or three to fifteen times one.

    >>> fast_size(47_999), fast_size(33_000)
    (49152, 36864)
    """
    return min(factor << (-(-least // factor) - 1).bit_length() for factor in (1, 3, 5, 9, 15))


def of_length(waveform: Waveform, samples: int) -> Waveform:
    """Cut the end or add silence: rates are rounded, and codecs pad."""
    missing = samples - len(waveform)
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform[:samples]


def mean_power(waveform: Waveform) -> float:
    """Return the mean of the squares."""
    return float(np.square(waveform, dtype=np.float64).mean())


def unclipped(waveform: Waveform) -> Waveform:
    """Return the waveform, quieter if it exceeds full scale."""
    peak = np.float32(max(1.0, np.abs(waveform).max()))
    return np.asarray(waveform / peak)


def checked_range(
    name: str, ends: tuple[_Number, _Number], *, least: float
) -> tuple[_Number, _Number]:
    """Return the lowest and the highest of something.

    Raises:
        TrainingError: they are in another order, or below the least.
    """
    if not least <= ends[0] <= ends[1]:
        raise TrainingError(
            f"{name} is {ends}; expected are the lowest and the highest, {least:g} or more."
        )
    return ends


def check_probability(probability: float) -> None:
    """Check a probability.

    Raises:
        TrainingError: it is not between 0 and 1.
    """
    if not 0 <= probability <= 1:
        raise TrainingError(f"probability is {probability:g}; expected is a number from 0 to 1.")


def _callables(name: str, given: tuple[Augmentation, ...]) -> tuple[Augmentation, ...]:
    wrong = [item for item in given if not callable(item)]
    if wrong or not given:
        shown = repr(wrong[0]) if wrong else "none"
        raise TrainingError(
            f"The {name} are to be augmentations, one or more, each called with a waveform and a "
            f"generator; got {shown}."
        )
    return given
