"""Centring: embeddings without what all have in common, so that cosines tell speakers apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.embeddings import Embeddings


def centre_embeddings(embeddings: Embeddings, others: Embeddings) -> Embeddings:
    """Return embeddings without the mean of others, such as a cohort's.

    Garcia-Romero and Espy-Wilson, "Analysis of i-vector length normalization in speaker recognition
    systems", Interspeech 2011.

    Args:
        embeddings: embeddings of any utterances.
        others: embeddings that the mean is of, in the same number of dimensions.

    Raises:
        ScoringError: the dimensions differ.

    Example:
        >>> def named(name, *vectors):
        ...     names = [f"{name}{row}" for row in range(len(vectors))]
        ...     return Embeddings(names, np.array(vectors, np.float32), f"{name}.npy")
        >>> centre_embeddings(named("u", [1, 2]), named("c", [0, 1], [2, 1])).vectors
        array([[0., 1.]], dtype=float32)
    """
    dimensions, expected = others.vectors.shape[1], embeddings.vectors.shape[1]
    if dimensions != expected:
        raise ScoringError(
            f"{others.source} has {dimensions} dimensions, {embeddings.source} has {expected}; the "
            "mean must be of embeddings of the same model."
        )
    mean = others.vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    text = f"centred by the mean of {len(others.names):,} embeddings of {others.source}"
    return replace(embeddings, vectors=embeddings.vectors - mean, centred=text)
