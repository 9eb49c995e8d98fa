"""A small speaker model on synthetic vectors, in NumPy: a linear map and a softmax of cosines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from voxblink2_lib.scoring import eer

UTTERANCES, VIDEO = 89, 5
SPEAKER_SIZE, INPUT_SIZE, EMBEDDING_SIZE = 24, 64, 24
SESSION, NOISE = 1.5, 3.0  # deviations, beside 1 of the speaker
BATCH, RATE, SCALE = 8, 2.0, 10.0
HELD_OUT_SPEAKERS, HELD_OUT_UTTERANCES = 300, 10
Vectors = npt.NDArray[Any]


def draw(seed: int, speakers: int, utterances: int) -> tuple[Vectors, Vectors]:
    """Return vectors of utterances, in the order of their speakers, and the speakers."""
    generator, world = np.random.default_rng(seed), np.random.default_rng(99)
    maps = world.normal(size=(2, SPEAKER_SIZE, INPUT_SIZE))
    speaker = np.repeat(np.arange(speakers), utterances)
    video = np.arange(len(speaker)) // VIDEO
    voices = generator.normal(size=(speakers, SPEAKER_SIZE))[speaker]
    sessions = generator.normal(size=(video[-1] + 1, SPEAKER_SIZE))[video]
    noise = generator.normal(size=(len(speaker), INPUT_SIZE))
    vectors = voices @ maps[0] + SESSION * sessions @ maps[1] + NOISE * noise
    return (vectors / 8).astype(np.float32), speaker


def train_and_score(order: Callable[..., Vectors], speakers: int, seed: int) -> float:
    """Train for an epoch in an order, and return the error rate of other speakers."""
    vectors, speaker = draw(1 + seed, speakers, UTTERANCES)
    generator = np.random.default_rng(seed)
    weights = (generator.normal(size=(INPUT_SIZE, EMBEDDING_SIZE)) / 8).astype(np.float32)
    head = (generator.normal(size=(speakers, EMBEDDING_SIZE)) / 5).astype(np.float32)
    rows = order(len(vectors), np.random.default_rng((seed, 0)))
    steps = len(rows) // BATCH
    for step in range(steps):
        batch = rows[step * BATCH : (step + 1) * BATCH]
        rate = np.float32(RATE * (0.01 + 0.5 * (1 + np.cos(np.pi * step / steps))))
        head_step, weights_step = _gradients(vectors[batch], speaker[batch], weights, head)
        head -= rate * head_step
        weights -= rate * np.float32(0.2) * weights_step
    return _error_rate(weights)


def _gradients(inputs: Vectors, labels: Vectors, weights: Vectors, head: Vectors) -> list[Vectors]:
    """Return the gradients of the mean cross-entropy for the head and for the weights."""
    embeddings = inputs @ weights
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True) + 1e-6
    units = embeddings / norms
    logits = SCALE * (units @ head.T)
    errors = np.exp(logits - logits.max(1, keepdims=True))
    errors /= errors.sum(1, keepdims=True)
    errors[np.arange(len(labels)), labels] -= 1
    errors *= SCALE / len(labels)
    of_units = errors @ head
    of_embeddings = (of_units - units * (of_units * units).sum(1, keepdims=True)) / norms
    return [errors.T @ units, inputs.T @ of_embeddings]


def _error_rate(weights: Vectors) -> float:
    vectors, speaker = draw(7, HELD_OUT_SPEAKERS, HELD_OUT_UTTERANCES)
    embeddings = vectors @ weights
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(speaker), 1)
    scores = (embeddings @ embeddings.T)[first, second]
    return eer(scores, speaker[first] == speaker[second]).eer
