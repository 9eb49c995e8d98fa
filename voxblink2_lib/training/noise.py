"""Noise, music and babble beside speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from voxblink2_lib.training.augment import Waveform, checked_range, mean_power, unclipped
from voxblink2_lib.training.sound_files import audio_files, random_part


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
        self._paths = audio_files(folder)
        self._snr_db = checked_range("snr_db", snr_db, least=-100)
        self._files = checked_range("files", files, least=1)

    def __call__(self, waveform: Waveform, generator: np.random.Generator) -> Waveform:
        """Return speech with noise."""
        noise = np.zeros_like(waveform)
        low, high = self._files
        for _ in range(generator.integers(low, high, endpoint=True)):
            path = self._paths[generator.integers(len(self._paths))]
            noise += random_part(path, len(waveform), generator)
        ratio = 10 ** (generator.uniform(*self._snr_db) / 10)
        power = mean_power(noise)
        if power > 0:
            noise *= np.float32(np.sqrt(mean_power(waveform) / (ratio * power)))
        return unclipped(waveform + noise)
