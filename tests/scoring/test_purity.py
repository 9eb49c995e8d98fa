"""Wrong labels are found among right ones, and cosines equal those of a plain loop."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.blockwise import pairs_above
from voxblink2_lib.scoring.purity import Purity, measure_purity

Array = npt.NDArray[np.float32]
SPEAKERS, VIDEOS, UTTERANCES = 60, 6, 5
EACH = VIDEOS * UTTERANCES


class World(NamedTuple):
    """Embeddings of synthetic voices, and who is said to speak."""

    vectors: Array
    speaker: npt.NDArray[np.int64]
    video: npt.NDArray[np.int64]


def world_of(truth: npt.NDArray[np.int64], *, seed: int = 1, noise: float = 0.08) -> World:
    """Return utterances whose voices are ``truth``, labelled in order."""
    random = np.random.default_rng(seed)
    voices = random.standard_normal((truth.max() + 1, 64))
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    vectors = voices[truth] + noise * random.standard_normal((len(truth), 64))
    vectors *= random.uniform(0.5, 20, (len(truth), 1))  # lengths tell nothing
    rows = np.arange(len(truth))
    return World(vectors.astype(np.float32), rows // EACH, rows // UTTERANCES)


def right_labels() -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(SPEAKERS), EACH)


def measured(world: World, rows: list[int] | slice = slice(None)) -> Purity:
    return measure_purity(world.vectors[rows], world.speaker[rows], world.video[rows])


def judged(truth: npt.NDArray[np.int64]) -> Purity:
    return measured(world_of(truth))


def test_right_labels_are_left_alone() -> None:
    purity = judged(right_labels())
    assert not purity.is_far.any()
    assert not purity.is_mixed.any()
    assert not len(purity.pairs.first)


def test_an_utterance_of_somebody_else_is_far() -> None:
    truth = right_labels()
    wrong = [3, 7 * EACH + 11, 40 * EACH]
    truth[wrong] = (truth[wrong] + 1) % SPEAKERS
    purity = judged(truth)
    assert np.flatnonzero(purity.is_far).tolist() == wrong
    assert not purity.is_mixed.any()


def test_a_video_of_somebody_else_does_not_vouch_for_itself() -> None:
    truth = right_labels()
    video = slice(9 * EACH + 2 * UTTERANCES, 9 * EACH + 3 * UTTERANCES)
    truth[video] = 30
    purity = judged(truth)
    assert np.flatnonzero(purity.is_far).tolist() == list(range(video.start, video.stop))
    assert np.flatnonzero(purity.is_mixed).tolist() == [9]
    assert np.flatnonzero(purity.is_minor & (world_of(truth).speaker == 9)).tolist() == list(
        range(video.start, video.stop)
    )


def test_a_speaker_with_two_voices_in_each_video_is_found() -> None:
    truth = right_labels()
    mine = np.arange(5 * EACH, 6 * EACH)
    second = mine[mine % UTTERANCES < 2]
    truth[second] = 50
    purity = judged(truth)
    assert np.flatnonzero(purity.is_mixed).tolist() == [5]
    assert np.flatnonzero(purity.is_minor[mine]).tolist() == (second - mine[0]).tolist()


def test_a_voice_under_two_ids_is_a_pair() -> None:
    truth = right_labels()
    truth[20 * EACH : 21 * EACH] = 21
    truth[33 * EACH : 34 * EACH] = 3
    purity = judged(truth)
    assert {*zip(purity.pairs.first, purity.pairs.second, strict=True)} == {(20, 21), (3, 33)}
    assert (purity.pairs.cosine >= purity.near).all()
    assert (np.diff(purity.pairs.cosine) <= 0).all()


def test_thresholds_may_be_named() -> None:
    world = world_of(right_labels())
    purity = measure_purity(world.vectors, world.speaker, world.video, far=0.999, near=1.0)
    assert (purity.far, purity.near) == (0.999, 1.0)
    assert purity.is_far.mean() > 0.9
    assert not len(purity.pairs.first)


@given(st.permutations(range(4 * EACH)))
def test_the_order_of_rows_changes_nothing(order: list[int]) -> None:
    world = world_of(right_labels()[: 4 * EACH])
    straight, shuffled = measured(world), measured(world, order)
    np.testing.assert_array_equal(shuffled.own, straight.own[order])
    np.testing.assert_array_equal(shuffled.groups, straight.groups)
    np.testing.assert_array_equal(shuffled.is_minor, straight.is_minor[order])
    assert (shuffled.far, shuffled.near) == (straight.far, straight.near)


def slow_cosine(a: Array, b: Array) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_cosines_are_those_of_a_plain_loop() -> None:
    vectors, speaker, video = world_of(right_labels()[: 3 * EACH], noise=0.3)
    speaker[-EACH:], speaker[-1] = 2, 3  # the last has one utterance
    video[EACH : 2 * EACH] = 99  # and the second one video
    own = measure_purity(vectors, speaker, video).own
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(len(vectors) - 1):
        mine = speaker == speaker[row]
        cosines = [
            slow_cosine(unit[row], unit[mine & (video == other)].sum(axis=0))
            for other in np.unique(video[mine])
            if other != video[row]
        ]
        if not cosines:
            others = mine & (np.arange(len(mine)) != row)
            cosines = [slow_cosine(unit[row], unit[others].sum(axis=0))]
        assert own[row] == pytest.approx(statistics.median_high(cosines), abs=1e-5)
    assert np.isnan(own[-1])


def test_who_has_one_utterance_cannot_be_judged() -> None:
    purity = measured(world_of(right_labels()[: 2 * EACH]), [0, 1, EACH])
    assert np.isnan(purity.own).tolist() == [False, False, True]
    assert np.isnan(purity.groups).all()


@pytest.mark.parametrize("rows", [[0, 1], [0, EACH]])
def test_too_little_is_refused(rows: list[int]) -> None:
    world = world_of(right_labels()[: 2 * EACH])
    with pytest.raises(ScoringError, match="two speakers or more, one of them with two utterances"):
        measured(world, rows)


def test_a_zero_vector_is_refused_with_its_row() -> None:
    vectors, speaker, video = world_of(right_labels()[: 2 * EACH])
    vectors[EACH + 7] = 0
    with pytest.raises(ScoringError, match=f"row {EACH + 7}"):
        measure_purity(vectors, speaker, video)


def test_pairs_are_those_of_all_products() -> None:
    random = np.random.default_rng(2)
    vectors = random.standard_normal((300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products = np.triu(vectors.astype(np.float64) @ vectors.T, 1)
    first, second, cosine = pairs_above(vectors, 0.5, most=10_000, memory_bytes=1 << 20)
    assert {*zip(first, second, strict=True)} == {*zip(*np.nonzero(products >= 0.5), strict=True)}
    np.testing.assert_allclose(cosine, products[first, second], atol=1e-6)
    on_torch = pairs_above(vectors, 0.5, most=10_000, device="cpu")
    np.testing.assert_array_equal(on_torch[0], first)
    with pytest.raises(ScoringError, match=r"More than 10 of 300 rows .* Choose a higher one"):
        pairs_above(vectors, 0.1, most=10)
