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
        ("full", 7, 0, ""),
    ],
)
def test_an_order_is_what_it_always_was(kind: str, seed: int, epoch: int, expected: str) -> None:
    assert digest(MAKES[kind], seed, epoch) == expected
