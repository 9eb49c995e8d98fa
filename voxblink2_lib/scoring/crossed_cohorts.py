"""Statistics of adaptive s-norm 2: each side's cosines with the cohort that is near the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.validation import Floats, Rows

# Utterances whose nearest cohort is looked for at once.
_BLOCK_ROWS = 256


def crossed_statistics(
    vectors: Floats,
    cohort: Floats,
    sides: tuple[Rows, Rows],
    *,
    top_n: int,
    memory_bytes: int,
    progress: Advance | None = None,
) -> tuple[Floats, Floats]:
    """Return mean and deviation of each side's cosines with the cohort nearest to the other side.

    Args:
        vectors: float32, rows of length 1. Shape: [utterances, dimensions].
        cohort: float32, rows of length 1. Shape: [cohort, dimensions].
        sides: rows of ``vectors`` of the enrolment sides and of the test sides of trials, which
            together name every row. Shape of both: [trials].
        top_n: how many of the cohort are near.
        memory_bytes: bound of the memory in addition to arguments and results.
        progress: called with the number of utterances done since the last call.

    Returns:
        Mean and population deviation, float64: of all enrolment sides, then of all test sides.
        Shape of both: [2 * trials].
    """
    enrolment, test = sides
    count = len(vectors)
    # The same two utterances occur in several trials; each pair is compared once.
    pairs, places = np.unique(
        np.concatenate([test * count + enrolment, enrolment * count + test]), return_inverse=True
    )
    selecting, selected = np.divmod(pairs, count)
    ends = np.searchsorted(selecting, np.arange(count + 1))
    mean, deviation = np.empty((2, len(pairs)))
    most = max(1, memory_bytes // (4 * (vectors.shape[1] + 8 * top_n)))
    for row, near in _nearest(vectors, cohort, top_n, memory_bytes):
        members = cohort[near].T
        for start in range(ends[row], ends[row + 1], most):
            part = slice(start, min(start + most, ends[row + 1]))
            # Summed in ascending order, so that the order of the cohort does not matter.
            scores = np.sort(vectors[selected[part]] @ members, axis=1)
            mean[part] = scores.mean(axis=1, dtype=np.float64)
            deviation[part] = scores.std(axis=1, dtype=np.float64)
        if progress is not None:
            progress(1)
    return mean[places], deviation[places]


def _nearest(
    vectors: Floats, cohort: Floats, top_n: int, memory_bytes: int
) -> Iterator[tuple[int, Rows]]:
    """Yield each row with the rows of the cohort that are nearest to it."""
    # Cosines, and their rows by int64.
    size = max(1, min(_BLOCK_ROWS, memory_bytes // (12 * len(cohort))))
    for start in range(0, len(vectors), size):
        scores = vectors[start : start + size] @ cohort.T
        near = np.argpartition(scores, -top_n, axis=1)[:, -top_n:]
        yield from enumerate(near, start)
