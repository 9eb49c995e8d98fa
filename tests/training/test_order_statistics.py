"""A full shuffle mixes as a uniform permutation does; statistics of an order are what they say."""

from __future__ import annotations

import itertools
from math import comb
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import corpus_builder

from voxblink2_lib.training import Corpus, ShuffleSampler
from voxblink2_lib.training.shared_epochs import Epoch
from voxblink2_lib.training.statistics import expected_distinct, order_statistics

# 500 speakers with 400 utterances in 4 videos, in order. In 100 batches of 2,000 there are
# 400,000 pairs of a speaker and 100,000 of a video: one percent is more than three standard
# deviations of a uniform permutation.
SPEAKERS, VIDEOS, UTTERANCES, BATCH = 500, 4, 400, 2_000
ROWS = np.arange(SPEAKERS * UTTERANCES)
SPEAKER, VIDEO = ROWS // UTTERANCES, ROWS // (UTTERANCES // VIDEOS)


def full_shuffle() -> npt.NDArray[np.integer]:
    """Return an epoch of the sampler."""
    catalogue = corpus_builder.large_catalogue(SPEAKERS, UTTERANCES)
    sampler = ShuffleSampler(Corpus(catalogue, Path("nowhere")), batch_size=BATCH, seed=4)
    return sampler.epoch_batches(2).rows


ORDERS = {"sampler": full_shuffle(), "numpy": np.random.default_rng(4).permutation(len(ROWS))}


def pairs_in_batches(group: npt.NDArray[np.int64]) -> int:
    """Return how many pairs of utterances of a batch are of the same group."""
    counts = [np.unique(batch, return_counts=True)[1] for batch in group.reshape(-1, BATCH)]
    return int(sum((each * (each - 1) // 2).sum() for each in counts))


@pytest.mark.parametrize("name", ORDERS)
def test_pairs_of_a_speaker_and_a_video_in_a_batch_are_as_many_as_chance_has_it(name: str) -> None:
    rows = ORDERS[name]
    assert np.array_equal(np.sort(rows), ROWS)
    all_pairs = len(ROWS) // BATCH * comb(BATCH, 2)
    for group, size in ((SPEAKER, UTTERANCES), (VIDEO, UTTERANCES // VIDEOS)):
        expected = all_pairs * (size - 1) / (len(ROWS) - 1)
        assert abs(pairs_in_batches(group[rows]) / expected - 1) < 0.01


@pytest.mark.parametrize("name", ORDERS)
def test_speakers_in_a_batch_and_over_the_epoch_are_as_of_a_uniform_permutation(name: str) -> None:
    rows = ORDERS[name]
    bounds = np.arange(0, len(rows) + 1, 500)
    statistics = order_statistics(SPEAKER.astype(np.int32), Epoch(rows, bounds))
    assert abs(statistics.batch_speakers / statistics.uniform_batch_speakers - 1) < 0.01
    assert abs(statistics.speaker_parts / statistics.uniform_speaker_parts - 1) < 0.01
    # The utterances of a speaker, and of a video, are spread evenly over the epoch.
    places = np.argsort(rows)
    for size in (UTTERANCES, UTTERANCES // VIDEOS):
        spread = places.reshape(-1, size).std(axis=1, ddof=1).mean()
        assert abs(spread / (len(rows) / 12**0.5) - 1) < 0.01


def test_neighbours_of_an_epoch_are_neighbours_of_the_store_by_chance_only() -> None:
    for rows in ORDERS.values():
        same = np.count_nonzero(np.diff(VIDEO[rows]) == 0)
        assert abs(same - len(rows) * 99 / len(rows)) < 5 * 99**0.5


def test_an_epoch_in_the_order_of_the_shards_is_far_from_that() -> None:
    epoch = Epoch(ROWS, np.arange(0, len(ROWS) + 1, 500))
    statistics = order_statistics(SPEAKER.astype(np.int32), epoch)
    # A batch has 500 utterances of two or three speakers; a speaker is in one part or two.
    assert 2 <= statistics.batch_speakers < 2.3
    assert statistics.uniform_batch_speakers > 316
    assert 1 <= statistics.speaker_parts < 1.3


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_the_expected_number_of_speakers_is_that_of_all_draws(
    counts: list[int], data: st.DataObject
) -> None:
    speakers = [speaker for speaker, count in enumerate(counts) for _ in range(count)]
    size = data.draw(st.integers(1, min(5, len(speakers))))
    drawn = [len(set(each)) for each in itertools.combinations(speakers, size)]
    assert expected_distinct(np.array(counts), size) == pytest.approx(sum(drawn) / len(drawn))
