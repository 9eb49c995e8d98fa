"""A row of the corpus, with the key of all that is random about its use."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence


class SeededRow(int):
    """Index of a row, with the key of all random choices about its use.

    Attributes:
        key: seed, epoch, and place in the epoch.
    """

    key: tuple[int, int, int]

    def __new__(cls, row: int, key: tuple[int, int, int]) -> SeededRow:
        """Return the index with its key."""
        seeded = super().__new__(cls, row)
        seeded.key = key
        return seeded

    def __reduce__(self) -> tuple[type[SeededRow], tuple[int, tuple[int, int, int]]]:
        return SeededRow, (int(self), self.key)

    def generator(self) -> np.random.Generator:
        """Return a generator that depends on the key alone, so not on worker or rank."""
        seed, epoch, place = self.key
        # Counters of different places are so far apart that their numbers never meet.
        counter = np.array([0, 0, 0, place], np.uint64)
        words: Any = _Key(seed, epoch)  # NumPy's types do not know of it
        return np.random.Generator(np.random.Philox(words, counter=counter))


class _Key(ISeedSequence):
    """Gives Philox its key, as its argument ``key`` does.

    For that argument it asks the system for random numbers, too, and does not use them: more than
    half of the time that it takes to make a generator.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        # A list with a large number would be rounded.
        self._words = np.array([seed, epoch], np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> npt.NDArray[np.uint64]:  # noqa: ARG002  # Philox asks for two words of 64 bits
        return self._words
