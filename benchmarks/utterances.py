"""Utterances for benchmarks of embedding, the same on every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 20.0
# Of a log-normal distribution: seven of ten utterances have 3 to 10 s.
_MEDIAN_SECONDS, _SPREAD = 5.5, 0.55

Waveform = npt.NDArray[np.float32]


def mixed_waveforms(count: int, *, seed: int = 1) -> list[Waveform]:
    """Return utterances of 1 to 20 s, mostly 3 to 10: parts of one voice with some noise."""
    rng = np.random.default_rng(seed)
    seconds = np.exp(rng.normal(np.log(_MEDIAN_SECONDS), _SPREAD, count))
    samples = (np.clip(seconds, SHORTEST_SECONDS, LONGEST_SECONDS) * RATE_HZ).astype(int)
    voice = _voice(3 * LONGEST_SECONDS, rng)
    starts = rng.integers(0, len(voice) - samples)
    return [voice[start : start + size] for start, size in zip(starts, samples, strict=True)]


def hours_of(waveforms: list[Waveform]) -> float:
    """Return the length of utterances together."""
    return sum(map(len, waveforms)) / RATE_HZ / 3600


def _voice(seconds: float, rng: np.random.Generator) -> Waveform:
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.3 * at)) / RATE_HZ
    buzz = sum(np.sin(k * phase) / k for k in range(1, 10))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * at), 0, 1)
    return (0.15 * syllables * buzz + 0.01 * rng.standard_normal(len(at))).astype(np.float32)
