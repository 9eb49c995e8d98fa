"""Intervals of DIR at FAR: the library's own rates, as wide as they should be, marked where not."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from support.score_oracle import Array

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.open_set import open_set_identification
from voxblink2_lib.scoring.open_set_intervals import IdentifiedProbes, identification_intervals

FAR = (0.3, 0.1, 0.01, 0.001)


def probes_of_speakers(
    seed: int, *, speakers: int, each: int, effect: float, distance: float = 2.0
) -> tuple[Array, Array, Array]:
    """Return scores, which of them are known, and speakers, half of them known."""
    generator = np.random.default_rng(seed)
    spoken = np.repeat(np.arange(2 * speakers), each)
    known = spoken < speakers
    habit = generator.normal(0, effect, 2 * speakers)
    return generator.normal(distance * known + habit[spoken]), known, spoken


def identified(seed: int, *, by_speaker: bool, **design: Any) -> IdentifiedProbes:
    scores, known, spoken = probes_of_speakers(seed, **design)
    return IdentifiedProbes.of(scores, known, known, spoken if by_speaker else None)


# -- Rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_values_and_errors_are_those_of_the_identification(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gallery, probes = generator.normal(size=(6, 4)), generator.normal(size=(90, 4)).round()
    probes[(probes == 0).all(axis=1)] = 1
    labels = generator.integers(0, 12, 90)
    result = open_set_identification(gallery, range(6), probes, labels, far=FAR, interval="probes")
    assert result.intervals is not None
    assert list(result.intervals) == list(FAR)
    for far, interval in result.intervals.items():
        assert interval.value == pytest.approx(result.dir[far], abs=1e-15)
        assert interval.errors == result.errors[far]
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        misses, accepts = interval.errors
        assert misses == pytest.approx(result.known * (1 - result.dir[far]))
        assert accepts <= far * result.unknown


@pytest.mark.parametrize("seed", range(20))
def test_a_weight_is_so_many_copies_of_a_probe(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, known = generator.integers(0, 9, 40).astype(float), np.arange(40) < 20
    right = known & (generator.random(40) < 0.8)
    weights = generator.integers(0, 4, 40)
    weights[[0, 39]] = 1
    once = IdentifiedProbes.of(scores, known, right, None)
    order = np.argsort(-scores, kind="stable")
    copied = IdentifiedProbes.of(
        scores.repeat(weights), known.repeat(weights), right.repeat(weights), None
    )
    each_once = np.ones(weights.sum(), np.int64)
    for far in (0.0, 0.2, 0.5, 1.0):
        above = once.rates(once.above(far, weights[order]), weights[order])
        assert above == pytest.approx(copied.rates(copied.above(far, each_once), each_once))


# -- Width -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_speaker", "design"),
    [
        (False, {"speakers": 200, "each": 2, "effect": 0.0}),
        (True, {"speakers": 60, "each": 8, "effect": 0.7}),
    ],
    ids=["probes", "speakers"],
)
def test_intervals_cover_the_true_rate(by_speaker: bool, design: dict[str, Any]) -> None:
    # Both normal: the threshold is the upper tenth of the unknown.
    deviation = (1 + design["effect"] ** 2) ** 0.5
    truth = NormalDist().cdf(2 / deviation - NormalDist().inv_cdf(0.9))
    covered = 0
    for seed in range(40):
        probes = identified(seed, by_speaker=by_speaker, **design)
        interval = identification_intervals(probes, [0.1], resamples=100, seed=seed)[0.1]
        assert interval.mark is None
        covered += interval.low <= truth <= interval.high
    assert covered >= 33  # 38 are expected; four standard deviations


@pytest.mark.slow
@pytest.mark.parametrize("by_speaker", [False, True], ids=["probes", "speakers"])
def test_intervals_cover_as_often_as_they_say(by_speaker: bool) -> None:
    design = {"speakers": 100, "each": 6, "effect": 0.7 * by_speaker}
    truth = NormalDist().cdf(2 / (1 + design["effect"] ** 2) ** 0.5 - NormalDist().inv_cdf(0.9))
    covered = 0
    for seed in range(400):
        probes = identified(seed, by_speaker=by_speaker, **design)
        interval = identification_intervals(probes, [0.1], resamples=300, seed=seed)[0.1]
        covered += interval.low <= truth <= interval.high
    assert 0.9 <= covered / 400 <= 0.99  # 93 to 97%, and three standard deviations


def test_a_far_that_so_few_unknown_probes_cannot_show_has_no_lower_end() -> None:
    probes = identified(0, by_speaker=False, speakers=120, each=1, effect=0)
    interval = identification_intervals(probes, [0.001], resamples=50)[0.001]
    assert interval.errors.false_accepts == 0
    assert interval.mark == "fewer than 30 errors of a kind"
    assert interval.low == 0
    assert interval.high > interval.value


def test_speakers_of_unknown_probes_need_not_be_in_a_list() -> None:
    few = identified(0, by_speaker=True, speakers=39, each=20, effect=0.1, distance=1.0)
    interval = identification_intervals(few, [0.1], resamples=50)[0.1]
    assert interval.mark == "fewer than 40 speakers"


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "speaker"}, r"interval is 'speaker'; allowed are None, 'probes' and 'spea"),
        ({"method": "voxblink2"}, r"intervals are of exact rates; method is 'voxblink2'"),
        ({"interval": "speakers"}, r"probe_speakers is missing"),
        ({"interval": "speakers", "probe_speakers": ["a"]}, r"probes has 4 rows and probe_sp.* 1"),
        (
            {"interval": "speakers", "probe_speakers": [0, 1, 7, 8]},
            r"speakers: 2 of known or unknown probes; at least 10 are needed",
        ),
    ],
    ids=["interval", "method", "no speakers", "length", "few"],
)
def test_what_is_not_possible_is_named(options: dict[str, Any], message: str) -> None:
    given = {"interval": "probes", **options}
    with pytest.raises(ScoringError, match=message):
        open_set_identification(
            [[1, 0], [0, 1]], [0, 1], [[2, 1], [1, 3], [-1, 1], [-1, -1]], [0, 1, 7, 8], **given
        )
