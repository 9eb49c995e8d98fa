"""Score normalisation with a cohort: s-norm and adaptive s-norm.

A raw cosine says little without knowing how close strangers come to the same recording. Each side
of a trial is compared with a cohort of other speakers; mean and deviation of these cosines scale
the score, and the two sides are averaged::

    s' = 1/2 ((s - mean_enrolment) / deviation_enrolment + (s - mean_test) / deviation_test)
"""

from __future__ import annotations

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Advance
from voxblink2_lib.scoring.blockwise import MEMORY_BYTES, top_statistics, unit
from voxblink2_lib.scoring.validation import (
    Floats,
    as_embeddings,
    as_scores,
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
    """Return scores normalised with the whole cohort, on both sides.

    Kenny, "Bayesian speaker verification with heavy-tailed priors", Odyssey 2010.

    Args:
        scores: [trials], cosines.
        enrolment_rows: [trials], rows of ``embeddings``.
        test_rows: [trials], rows of ``embeddings``.
        embeddings: [utterances, dimensions].
        cohort: [cohort, dimensions], embeddings of other speakers, best one for each.
        memory_bytes: bound of what is held beside arguments and results.
        device: a PyTorch device such as ``"cuda"``; by default CUDA for large products where it is
            there, else NumPy.
        progress: called with how many utterances were done more.

    Returns:
        float64 [trials].

    Raises:
        ScoringError: shapes that do not fit, values that are not finite, or an utterance that is
            equally far from the whole cohort, so that nothing can be scaled.
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
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: Advance | None = None,
) -> Floats:
    """Return scores normalised with the nearest part of the cohort, on both sides.

    Matejka et al., "Analysis of score normalization in multilingual speaker recognition",
    Interspeech 2017: each side takes the ``top_n`` cohort members nearest to itself (AS-norm 1).

    Args:
        scores: [trials], cosines.
        enrolment_rows: [trials], rows of ``embeddings``.
        test_rows: [trials], rows of ``embeddings``.
        embeddings: [utterances, dimensions].
        cohort: [cohort, dimensions], embeddings of other speakers, best one for each.
        top_n: how many of the cohort count, from 2 to all of it; none for all, which is s-norm.
        memory_bytes: bound of what is held beside arguments and results.
        device: a PyTorch device such as ``"cuda"``; by default CUDA for large products where it is
            there, else NumPy.
        progress: called with how many utterances were done more.

    Returns:
        float64 [trials].

    Raises:
        ScoringError: as :func:`s_norm`; or ``top_n`` is not possible.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> embeddings, cohort = rng.normal(size=(4, 8)), rng.normal(size=(50, 8))
        >>> rows = {"enrolment_rows": [0, 0], "test_rows": [1, 2]}
        >>> as_norm([0.7, 0.1], **rows, embeddings=embeddings, cohort=cohort, top_n=10).round(2)
        array([ 0.94, -2.93])
    """
    values = as_scores(scores, "scores")
    vectors = as_embeddings(embeddings, "embeddings")
    others = as_embeddings(cohort, "cohort", dimensions=vectors.shape[1])
    count = len(others) if top_n is None else top_n
    if len(others) < 2:
        raise ScoringError("cohort has one row; a deviation needs at least two.")
    if not 2 <= count <= len(others):
        raise ScoringError(
            f"top_n must lie between 2 and the size of the cohort, {len(others):,}; got {count:,}."
        )
    sides = [
        checked_rows(rows, name, trials=len(values), utterances=len(vectors))
        for rows, name in ((enrolment_rows, "enrolment_rows"), (test_rows, "test_rows"))
    ]
    # Utterances that no trial asks for cost nothing.
    used, at = np.unique(np.concatenate(sides), return_inverse=True)
    mean, deviation = top_statistics(
        unit(vectors[used], "embeddings", used),
        unit(others, "cohort"),
        top_n=top_n,
        memory_bytes=memory_bytes,
        device=device,
        progress=progress,
    )
    # Cosines of float32 vectors differ by rounding even where they are equal.
    if (flat := np.flatnonzero(deviation < 1e-7)).size:
        raise ScoringError(
            f"cohort: the {count:,} members nearest to row {used[flat[0]]} of embeddings are all "
            "equally far from it; use a cohort of different speakers, or more of it."
        )
    enrolment, test = np.split(at, 2)
    scaled: Floats = (values - mean[enrolment]) / deviation[enrolment]
    scaled += (values - mean[test]) / deviation[test]
    return scaled / 2
