"""Centring subtracts the mean of the embeddings that were named, and says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.centring import centre_embeddings
from voxblink2_lib.scoring.embeddings import Embeddings


def embeddings(seed: int, rows: int, dimensions: int = 6, shift: float = 3.0) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(shift, 1, (rows, dimensions))
    names = [f"{seed}-{row}" for row in range(rows)]
    return Embeddings(names, vectors.astype(np.float32), f"{seed}.npy", corpus="VoxCeleb1")


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40))
def test_the_mean_is_gone_from_all_and_nothing_else_is(seed: int, rows: int) -> None:
    given_, others = embeddings(seed, 9), embeddings(seed + 1, rows)
    centred = centre_embeddings(given_, others)
    mean = others.vectors.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(centred.vectors, given_.vectors - mean, atol=1e-5)
    assert centred.vectors.dtype == np.float32
    assert (centred.names, centred.source, centred.corpus) == (
        *(given_.names, given_.source),
        "VoxCeleb1",
    )
    assert centred.centred == f"centred by the mean of {rows} embeddings of {seed + 1}.npy"
    own = centre_embeddings(others, others)
    np.testing.assert_allclose(own.vectors.mean(axis=0), 0, atol=1e-5)


def test_embeddings_of_another_model_are_refused() -> None:
    with pytest.raises(ScoringError, match=r"2\.npy has 5 dimensions, 1\.npy has 6; the mean must"):
        centre_embeddings(embeddings(1, 3), embeddings(2, 3, dimensions=5))
