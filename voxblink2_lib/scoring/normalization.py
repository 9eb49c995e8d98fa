"""Score normalization with a cohort: s-norm and adaptive s-norm.

How much a cosine means depends on the scores that other speakers reach with the same recording.
Each side of a trial is compared with a cohort of other speakers; mean and deviation of these
cosines scale the score, and the two sides are averaged::

    s' = 1/2 ((s - mean_enrolment) / deviation_enrolment + (s - mean_test) / deviation_test)

They differ in the members of the cohort that count for a side: all of them (s-norm), those nearest
to this side (AS-norm 1), or those nearest to the other side (AS-norm 2).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.blockwise import MEMORY_BYTES, top_statistics, unit
from voxblink2_lib.scoring.crossed_cohorts import crossed_statistics
from voxblink2_lib.scoring.validation import (
    Floats,
    Rows,
    as_embeddings,
    as_scores,
    check_choice,
    check_finite,
    checked_rows,
)


def s_norm(
    scores: object,
    *,
    enrolment_rows: object,
    test_rows: object,
    embeddings: object,
    cohort: object,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> Floats:
    """Return scores normalized with the whole cohort, on both sides.

    Kenny, "Bayesian speaker verification with heavy-tailed priors", Odyssey 2010.

    Args:
        scores: cosines. Shape: [trials].
        enrolment_rows: rows of ``embeddings``. Shape: [trials].
        test_rows: rows of ``embeddings``. Shape: [trials].
        embeddings: embeddings. Shape: [utterances, dimensions].
        cohort: embeddings of other speakers, ideally one of each. Shape: [cohort, dimensions].
        memory_bytes: bound of the memory in addition to arguments and results.
        device: a PyTorch device such as ``"cuda"``; by default CUDA for large products where it is
            available, else NumPy.
        progress: called with the number of utterances done since the last call.

    Returns:
        Normalized scores, float64. Shape: [trials].

    Raises:
        ScoringError: shapes that do not match, values that are not finite, or an utterance that is
            equally far from the whole cohort, so that its scores cannot be scaled.
    """
    return as_norm(
        scores,
        enrolment_rows=enrolment_rows,
        test_rows=test_rows,
        embeddings=embeddings,
        cohort=cohort,
        top_n=None,
        memory_bytes=memory_bytes,
        device=device,
        progress=progress,
    )


def as_norm(
    scores: object,
    *,
    enrolment_rows: object,
    test_rows: object,
    embeddings: object,
    cohort: object,
    top_n: int | None = 300,
    variant: Literal[1, 2] = 1,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> Floats:
    """Return scores normalized with the nearest part of the cohort, on both sides.

    Matejka et al., "Analysis of score normalization in multilingual speaker recognition",
    Interspeech 2017: each side takes the ``top_n`` cohort members nearest to itself (AS-norm 1), or
    those nearest to the other side (AS-norm 2).

    Args:
        scores: cosines. Shape: [trials].
        enrolment_rows: rows of ``embeddings``. Shape: [trials].
        test_rows: rows of ``embeddings``. Shape: [trials].
        embeddings: embeddings. Shape: [utterances, dimensions].
        cohort: embeddings of other speakers, ideally one of each. Shape: [cohort, dimensions].
        top_n: how many of the cohort count, from 2 to all; ``None`` for all, which is s-norm.
        variant: 1 or 2; the second is computed by NumPy, pair by pair.
        memory_bytes: bound of the memory in addition to arguments and results.
        device: a PyTorch device such as ``"cuda"``; by default CUDA for large products where it is
            available, else NumPy.
        progress: called with the number of utterances done since the last call.

    Returns:
        Normalized scores, float64. Shape: [trials].

    Raises:
        ScoringError: as :func:`s_norm`; or ``top_n`` is out of range.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> embeddings, cohort = rng.normal(size=(4, 8)), rng.normal(size=(50, 8))
        >>> rows = {"enrolment_rows": [0, 0], "test_rows": [1, 2]}
        >>> as_norm([0.7, 0.1], **rows, embeddings=embeddings, cohort=cohort, top_n=10).round(2)
        array([ 0.94, -2.93])
    """
    check_choice("variant", variant, (1, 2))
    values = as_scores(scores, "scores")
    vectors = as_embeddings(embeddings, "embeddings")
    sides = [
        checked_rows(rows, name, trials=len(values), utterances=len(vectors))
        for rows, name in ((enrolment_rows, "enrolment_rows"), (test_rows, "test_rows"))
    ]
    if variant == 2 and top_n is not None:
        return _crossed_norm(
            values,
            vectors,
            sides,
            checked_cohort(cohort, dimensions=vectors.shape[1], top_n=top_n),
            top_n=top_n,
            memory_bytes=memory_bytes,
            progress=progress,
        )
    statistics = CohortStatistics.of(
        np.concatenate(sides),
        vectors,
        cohort,
        top_n=top_n,
        memory_bytes=memory_bytes,
        device=device,
        progress=progress,
    )
    return statistics.normalize(values, sides[0], sides[1])


def _crossed_norm(
    scores: Floats,
    vectors: Floats,
    sides: list[Rows],
    others: Floats,
    *,
    top_n: int,
    memory_bytes: int,
    progress: Advance | None,
) -> Floats:
    """Return the scores of AS-norm 2, whose statistics are of pairs."""
    used, used_rows = np.unique(np.concatenate(sides), return_inverse=True)
    enrolment, test = np.split(used_rows, 2)
    statistics = crossed_statistics(
        unit(vectors[used], "embeddings", used),
        others,
        (enrolment, test),
        top_n=top_n,
        memory_bytes=memory_bytes,
        progress=progress,
    )
    _check_spread(statistics[1], np.concatenate(sides), top_n)
    return _scaled(scores, statistics, np.split(np.arange(len(used_rows)), 2))


class CohortStatistics(NamedTuple):
    """How near utterances are to their nearest part of a cohort.

    Attributes:
        rows: rows of the embeddings that are compared with it, ascending. Shape: [rows].
        mean: mean of the cosines of each. Shape: [rows].
        deviation: population standard deviation of these. Shape: [rows].
    """

    rows: Rows
    mean: Floats
    deviation: Floats

    @classmethod
    def of(
        cls,
        rows: Rows,
        vectors: Floats,
        cohort: object,
        *,
        top_n: int | None,
        memory_bytes: int = MEMORY_BYTES,
        device: str | None = None,
        progress: Advance | None = None,
    ) -> CohortStatistics:
        """Compare utterances with a cohort; see :func:`as_norm`.

        Args:
            rows: rows of the embeddings, in any order and number.
            vectors: embeddings. Shape: [utterances, dimensions].
            cohort: embeddings of other speakers. Shape: [cohort, dimensions].
            top_n: how many of the cohort count; ``None`` for all.
            memory_bytes: see there.
            device: see there.
            progress: see there.

        Raises:
            ScoringError: see there.
        """
        others = checked_cohort(cohort, dimensions=vectors.shape[1], top_n=top_n)
        # Only utterances of trials are compared with the cohort.
        used = np.unique(rows)
        mean, deviation = top_statistics(
            unit(vectors[used], "embeddings", used),
            others,
            top_n=top_n,
            memory_bytes=memory_bytes,
            device=device,
            progress=progress,
        )
        _check_spread(deviation, used, top_n or len(others))
        return cls(used, mean, deviation)

    def normalize(self, scores: Floats, enrolment: Rows, test: Rows) -> Floats:
        """Return normalized scores of trials between rows that were compared. Shape: [trials].

        Raises:
            ScoringError: a score is too large.
        """
        at = [np.searchsorted(self.rows, side) for side in (enrolment, test)]
        return _scaled(scores, (self.mean, self.deviation), at)


def _scaled(values: Floats, statistics: tuple[Floats, Floats], sides: list[Rows]) -> Floats:
    """Return scores scaled by the mean and deviation in these rows, of both sides."""
    mean, deviation = statistics
    scaled: Floats = np.zeros(len(values))
    with np.errstate(over="ignore"):  # of scores that are no cosines; refused below
        for rows in sides:
            scaled += (values - mean[rows]) / (2 * deviation[rows])
    check_finite(scaled, "normalized scores")
    return scaled


def _check_spread(deviation: Floats, owners: Rows, count: int) -> None:
    """Refuse deviations that nothing can be scaled by. Shape of both: [statistics].

    Args:
        deviation: of the cosines of an utterance.
        owners: the row of that utterance, for the message.
        count: how many members of the cohort counted.
    """
    # Cosines of float32 vectors differ by rounding even where they are equal.
    if (flat := np.flatnonzero(deviation < 1e-7)).size:
        raise ScoringError(
            f"cohort: the {count:,} members nearest to row {owners[flat[0]]} of embeddings are all "
            "equally far from it; use a cohort of different speakers, or more of it."
        )


def checked_cohort(cohort: object, *, dimensions: int, top_n: int | None) -> Floats:
    """Return a cohort with rows of length 1, float32. Shape: [cohort, dimensions].

    Args:
        cohort: embeddings. Shape: [cohort, dimensions].
        dimensions: required number of dimensions.
        top_n: how many of them are to count; ``None`` for all.

    Raises:
        ScoringError: bad embeddings, or fewer than ``top_n`` or than two.
    """
    others = as_embeddings(cohort, "cohort", dimensions=dimensions)
    if len(others) < 2:
        raise ScoringError("cohort has one row; a deviation needs at least two.")
    if top_n is not None and not 2 <= top_n <= len(others):
        raise ScoringError(
            f"top_n must lie between 2 and the size of the cohort, {len(others):,}; got {top_n:,}."
        )
    return unit(others, "cohort")
