"""How well an order mixes speakers, beside an order of which all are equally likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxblink2_lib.training.shared_epochs import Epoch

_PARTS = 100
_MAX_BATCHES = 10_000


@dataclass(frozen=True, slots=True)
class OrderStatistics:
    """Statistics of an epoch, and what is expected of a uniform order of the same utterances.

    Attributes:
        batch_speakers: different speakers in a batch, the mean of up to 10,000 batches.
        uniform_batch_speakers: the same, expected of a uniform order.
        speaker_parts: in how many hundredths of the epoch a speaker occurs, the mean of speakers.
        uniform_speaker_parts: the same, expected of a uniform order.
    """

    batch_speakers: float
    uniform_batch_speakers: float
    speaker_parts: float
    uniform_speaker_parts: float


def order_statistics(speaker: npt.NDArray[np.int32], epoch: Epoch) -> OrderStatistics:
    """Measure an epoch.

    Args:
        speaker: of each utterance of the corpus, shape (n,).
        epoch: its batches.

    Example:
        Two batches, of two speakers each:

        >>> epoch = Epoch(np.array([0, 2, 3, 1]), np.array([0, 2, 4]))
        >>> order_statistics(np.array([0, 0, 1, 1], np.int32), epoch).batch_speakers
        2.0
    """
    rows, bounds = epoch
    speakers = speaker[rows]
    counts = np.bincount(speakers)
    counts = counts[counts > 0]
    part = np.arange(len(rows)) * _PARTS // len(rows)
    sizes = np.diff(bounds)
    expected = sum(
        number * expected_distinct(counts, int(size))
        for size, number in zip(*np.unique(sizes, return_counts=True), strict=True)
    )
    part_sizes = np.bincount(part)
    parts = sum(expected_distinct(counts, int(size)) for size in part_sizes if size)
    return OrderStatistics(
        _distinct_in_batches(speakers, bounds),
        float(expected / len(sizes)),
        _distinct(part, speakers) / len(counts),
        parts / len(counts),
    )


def expected_distinct(counts: npt.NDArray[np.int64], size: int) -> float:
    """Return how many speakers are expected among some utterances drawn without replacement.

    A speaker with c of n utterances is absent from s of them with the probability
    C(n - c, s) / C(n, s), which is a product of c factors (n - s - i) / (n - i).

    Args:
        counts: utterances of each speaker, shape (speakers,).
        size: number of utterances that are drawn.

    Example:
        Two of four utterances of two speakers are of one speaker in a third of all cases:

        >>> round(expected_distinct(np.array([2, 2]), 2), 6)
        1.666667
    """
    total = int(counts.sum())
    values, speakers = np.unique(counts, return_counts=True)
    factors = np.arange(int(values.max()))
    # Below zero where fewer than c utterances are not drawn: the speaker cannot be absent.
    shares = np.clip((total - size - factors) / (total - factors), 0, None)
    absent = np.cumprod(shares)[values - 1]
    return float(np.sum(speakers * (1 - absent)))


def _distinct_in_batches(speakers: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64]) -> float:
    """Return the mean number of different speakers of batches that are spread over the epoch."""
    batches = len(bounds) - 1
    chosen = np.linspace(0, batches - 1, min(batches, _MAX_BATCHES)).astype(np.int64)
    numbers = [len(np.unique(speakers[bounds[each] : bounds[each + 1]])) for each in chosen]
    return float(np.mean(numbers))


def _distinct(part: npt.NDArray[np.int64], speakers: npt.NDArray[np.int32]) -> int:
    """Return the number of different pairs of a part and a speaker."""
    keys = part * (int(speakers.max()) + 1) + speakers
    keys.sort()
    return 1 + int(np.count_nonzero(keys[1:] != keys[:-1]))
