"""The order of a corpus, seed and epoch never changes: a run is continued by a later version."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from support import corpus_builder
from support.corpus_builder import Make

CORPUS = corpus_builder.corpus(
    np.repeat(np.arange(40), np.arange(5, 45)),
    samples=np.random.Generator(np.random.MT19937(5)).permutation(980) * 100 + 16_000,
    shards=[300, 400, 280],
    clip_bytes=130_000,
)
MAKES = {
    "full": corpus_builder.shuffle(32),
    "mixed": corpus_builder.shuffle(32, order="mixed-20"),
    "speakers": corpus_builder.by_speaker(8, 3),
    "balanced": corpus_builder.balanced(32),
    "buckets": corpus_builder.bucket(40.0, 6),
}


def digest(make: Make, seed: int, epoch: int) -> str:
    """Return a digest of the rows and bounds of an epoch."""
    batches = make(CORPUS, seed, 0, 1).epoch_batches(epoch)
    values = [np.asarray(each, "<i8").tobytes() for each in batches]
    return hashlib.sha256(b"".join(values)).hexdigest()[:16]


@pytest.mark.parametrize(
    ("kind", "seed", "epoch", "expected"),
    [
        ("full", 7, 0, "586f96549df680d5"),
        ("full", 2**64 - 1, 3, "99bab77056794de9"),
        ("mixed", 7, 0, "b7c18530ecea8b24"),
        ("mixed", 2**64 - 1, 3, "ebd5b71d729017ef"),
        ("speakers", 7, 0, "a5bedc860ffe191e"),
        ("speakers", 2**64 - 1, 3, "2796f653cef7b7b0"),
        ("balanced", 7, 0, "cc5c4272559878d1"),
        ("balanced", 2**64 - 1, 3, "7d728dc97bb2c7c6"),
        ("buckets", 7, 0, "916cf452fc5a434a"),
        ("buckets", 2**64 - 1, 3, "e109649f9df0f886"),
    ],
)
def test_an_order_is_what_it_always_was(kind: str, seed: int, epoch: int, expected: str) -> None:
    assert digest(MAKES[kind], seed, epoch) == expected
