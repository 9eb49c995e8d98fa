"""s-norm and AS-norm against the formula in loops; sides, order and blocks make no difference."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import Array, cosine

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring import blockwise, crossed_cohorts
from voxblink2_lib.scoring.normalization import as_norm, s_norm
from voxblink2_lib.scoring.verification import eer

MEBIBYTE = 1 << 20
# Cosines are float32, with errors up to some 1e-7; deviations here are above 0.02, so normalised
# scores, some tens large, are off by at most a few 1e-5.
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 5e-5}


def case(
    seed: int, *, trials: int = 40, utterances: int = 20, cohort: int = 50, dimensions: int = 16
) -> tuple[Array, dict[str, Any]]:
    """Return scores, and the other arguments."""
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(0.1, 10, (utterances, 1))
    embeddings = generator.normal(size=(utterances, dimensions)) * lengths
    rows = generator.integers(0, utterances, (2, trials))
    scores = [cosine(embeddings[a], embeddings[b]) for a, b in rows.T]
    return np.array(scores), {
        "enrolment_rows": rows[0],
        "test_rows": rows[1],
        "embeddings": embeddings,
        "cohort": generator.normal(size=(cohort, dimensions)) * generator.uniform(0.1, 9, 1),
    }


def slow_norm(
    scores: Array, arguments: dict[str, Any], top_n: int | None = None, variant: int = 1
) -> Array:
    """Normalise one score after the other, with plain sums in float64."""
    normalized = []
    sides = (arguments["enrolment_rows"], arguments["test_rows"])
    for score, *rows in zip(scores, *sides, strict=True):
        halves = []
        for row, other in (rows, rows[::-1]):
            chooser = arguments["embeddings"][row if variant == 1 else other]
            members = sorted(arguments["cohort"], key=lambda member: cosine(chooser, member))
            members = members[-(top_n or len(members)) :]
            near = [cosine(arguments["embeddings"][row], member) for member in members]
            mean = math.fsum(near) / len(near)
            variance = math.fsum((score - mean) ** 2 for score in near) / len(near)
            halves.append((float(score) - mean) / math.sqrt(variance))
        normalized.append(sum(halves) / 2)
    return np.array(normalized)


# -- The formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_s_norm_is_that_of_a_double_loop(seed: int, dtype: type[np.floating[Any]]) -> None:
    scores, arguments = case(seed)
    normalized = s_norm(scores.astype(dtype), **arguments)
    assert normalized.dtype == np.float64
    np.testing.assert_allclose(normalized, slow_norm(scores, arguments), **CLOSE)


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("top_n", [2, 3, 10, 49, 50])
@pytest.mark.parametrize("seed", range(2))
def test_as_norm_is_that_of_a_double_loop(seed: int, top_n: int, variant: Literal[1, 2]) -> None:
    scores, arguments = case(seed)
    if top_n == 2:  # two nearest members may be as near as rounding; then little is left to compare
        arguments["cohort"] = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 16)))[0]
    normalized = as_norm(scores, **arguments, top_n=top_n, variant=variant)
    np.testing.assert_allclose(normalized, slow_norm(scores, arguments, top_n, variant), **CLOSE)


@given(seed=st.integers(0, 10_000), trials=st.integers(1, 9), cohort=st.integers(5, 30))
def test_all_of_the_cohort_is_s_norm(seed: int, trials: int, cohort: int) -> None:
    scores, arguments = case(seed, trials=trials, cohort=cohort)
    first = as_norm(scores, **arguments, top_n=cohort)
    np.testing.assert_array_equal(first, s_norm(scores, **arguments))


def test_a_cohort_of_two_by_hand() -> None:
    # Enrolment [1, 0]: cosines 1 and 0, mean and deviation 1/2. Test [0.6, 0.8]: 0.6 and 0.8.
    normalized = s_norm(
        [0.6],
        enrolment_rows=[0],
        test_rows=[1],
        embeddings=[[2.0, 0.0], [3.0, 4.0]],
        cohort=[[5.0, 0.0], [0.0, 0.1]],
    )
    assert normalized == pytest.approx([((0.6 - 0.5) / 0.5 + (0.6 - 0.7) / 0.1) / 2], abs=1e-5)


def test_normalisation_helps_where_utterances_differ_in_how_near_all_others_are() -> None:
    #  Each utterance holds more or less of one direction that all have.
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(60, 24))
    common = 6 * generator.uniform(0, 1, (240, 1)) * np.ones(24) / math.sqrt(24)
    speakers = np.repeat(np.arange(60), 4)
    embeddings = centres[speakers] + 0.7 * generator.normal(size=(240, 24)) + common
    cohort = generator.normal(size=(300, 24)) + 3 * np.ones(24) / math.sqrt(24)
    sides = generator.integers(0, 240, (2, 20_000))
    sides[1, ::2] = sides[0, ::2] // 4 * 4 + generator.integers(0, 4, 10_000)
    sides = sides[:, sides[0] != sides[1]]
    labels = speakers[sides[0]] == speakers[sides[1]]
    raw = np.array([cosine(embeddings[a], embeddings[b]) for a, b in sides.T])
    arguments: dict[str, Any] = {
        "enrolment_rows": sides[0],
        "test_rows": sides[1],
        "embeddings": embeddings,
        "cohort": cohort,
    }
    normed = as_norm(raw, **arguments, top_n=100)
    assert eer(normed, labels).eer < 0.9 * eer(raw, labels).eer


# -- What must not matter --------------------------------------------------------------------------
@given(
    seed=st.integers(0, 10_000), top_n=st.sampled_from([None, 7]), variant=st.sampled_from([1, 2])
)
def test_enrolment_and_test_may_be_swapped(
    seed: int, top_n: int | None, variant: Literal[1, 2]
) -> None:
    scores, arguments = case(seed, trials=6)
    swapped = {
        **arguments,
        "enrolment_rows": arguments["test_rows"],
        "test_rows": arguments["enrolment_rows"],
    }
    first, other = (
        s_norm(scores, **options)
        if top_n is None
        else as_norm(scores, **options, top_n=top_n, variant=variant)
        for options in (arguments, swapped)
    )
    np.testing.assert_array_equal(first, other)


@given(seed=st.integers(0, 10_000), top_n=st.integers(5, 50), variant=st.sampled_from([1, 2]))
def test_the_order_of_the_cohort_does_not_matter(
    seed: int, top_n: int, variant: Literal[1, 2]
) -> None:
    scores, arguments = case(seed, trials=6)
    order = np.random.default_rng(seed).permutation(len(arguments["cohort"]))
    other = {**arguments, "cohort": arguments["cohort"][order]}
    np.testing.assert_allclose(
        as_norm(scores, **arguments, top_n=top_n, variant=variant),
        as_norm(scores, **other, top_n=top_n, variant=variant),
        **CLOSE,
    )
    np.testing.assert_allclose(s_norm(scores, **arguments), s_norm(scores, **other), **CLOSE)


@pytest.mark.parametrize("variant", [1, 2])
def test_the_order_of_trials_and_of_embeddings_does_not_matter(variant: Literal[1, 2]) -> None:
    scores, arguments = case(5)
    first = as_norm(scores, **arguments, top_n=20, variant=variant)
    generator = np.random.default_rng(0)
    trials, rows = generator.permutation(len(scores)), generator.permutation(20)
    at = np.argsort(rows)
    other = as_norm(
        scores[trials],
        enrolment_rows=at[arguments["enrolment_rows"]][trials],
        test_rows=at[arguments["test_rows"]][trials],
        embeddings=arguments["embeddings"][rows],
        cohort=arguments["cohort"],
        top_n=20,
        variant=variant,
    )
    np.testing.assert_allclose(other, first[trials], **CLOSE)


def test_lengths_of_embeddings_and_cohort_do_not_matter() -> None:
    scores, arguments = case(6)
    other = dict(arguments)
    for seed, name in enumerate(("embeddings", "cohort")):
        lengths = np.random.default_rng(seed).uniform(0.01, 100, (len(arguments[name]), 1))
        other[name] = arguments[name] * lengths
    np.testing.assert_allclose(s_norm(scores, **other), s_norm(scores, **arguments), **CLOSE)


def test_utterances_without_a_trial_do_not_matter() -> None:
    scores, arguments = case(7)
    more = np.concatenate([arguments["embeddings"], np.zeros((3, 16))])  # not even if zero
    np.testing.assert_array_equal(
        s_norm(scores, **{**arguments, "embeddings": more}), s_norm(scores, **arguments)
    )


@pytest.mark.parametrize("top_n", [None, 5, 200])
def test_least_memory_and_small_blocks_give_the_same(
    top_n: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, arguments = case(8, trials=300, utterances=90, cohort=400)

    def normed(**options: Any) -> Array:
        if top_n is None:
            return s_norm(scores, **arguments, **options)
        return as_norm(scores, **arguments, top_n=top_n, **options)

    expected = normed()
    np.testing.assert_allclose(normed(memory_bytes=MEBIBYTE), expected, **CLOSE)
    monkeypatch.setattr(blockwise, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(blockwise, "_BLOCK_COLUMNS", 33)
    np.testing.assert_allclose(normed(), expected, **CLOSE)
    np.testing.assert_allclose(normed(device="cpu"), expected, **CLOSE)


def test_little_memory_gives_the_same_second_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, arguments = case(8, trials=300, utterances=9, cohort=4000)

    def normed(**options: Any) -> Array:
        return as_norm(scores, **arguments, top_n=3900, variant=2, **options)

    expected = normed()
    # Nine rows of 4,000 cosines and 8 pairs at once.
    np.testing.assert_allclose(normed(memory_bytes=MEBIBYTE), expected, **CLOSE)
    monkeypatch.setattr(crossed_cohorts, "_BLOCK_ROWS", 2)
    np.testing.assert_allclose(normed(), expected, **CLOSE)


def test_a_cohort_of_several_real_blocks() -> None:
    # 9,000 members are two blocks of columns; at a mebibyte some 30 rows are one of rows.
    scores, arguments = case(9, trials=50, utterances=70, cohort=9000, dimensions=4)
    expected = s_norm(scores, **arguments)
    whole = as_norm(scores, **arguments, top_n=9000, memory_bytes=MEBIBYTE)
    np.testing.assert_allclose(whole, expected, **CLOSE)
    near = slow_norm(scores[:2], {k: v[:2] if "rows" in k else v for k, v in arguments.items()}, 40)
    normalized = as_norm(scores, **arguments, top_n=40, memory_bytes=MEBIBYTE)
    np.testing.assert_allclose(
        normalized[:2], near, rtol=1e-2
    )  # 40 of 9,000 in 4 dimensions are alike


@pytest.mark.parametrize("top_n", [None, 2, 30, 50])
def test_pytorch_gives_the_same_as_numpy(top_n: int | None) -> None:
    scores, arguments = case(10, trials=100)
    if top_n is None:
        first, other = (s_norm(scores, **arguments, device=device) for device in (None, "cpu"))
    else:
        first, other = (
            as_norm(scores, **arguments, top_n=top_n, device=device) for device in (None, "cpu")
        )
    spread = 1.0 if top_n != 2 else 0.1  # deviations of two neighbours are as small as that
    np.testing.assert_allclose(other, first, rtol=1e-4 / spread, atol=5e-5 / spread)


def test_lists_and_tensors_serve() -> None:
    scores, arguments = case(11, trials=5)
    expected = s_norm(scores, **arguments)
    lists = {name: value.tolist() for name, value in arguments.items()}
    np.testing.assert_array_equal(s_norm(scores.tolist(), **lists), expected)
    tensors: dict[str, Any] = {name: torch.tensor(value) for name, value in arguments.items()}
    np.testing.assert_allclose(s_norm(torch.tensor(scores), **tensors), expected, **CLOSE)


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": 1}, r"top_n must lie between 2 and the size of the cohort, 50; got 1"),
        ({"top_n": 0}, r"top_n must lie between 2 and the size of the cohort, 50; got 0"),
        ({"top_n": 51}, r"top_n must lie between 2 and the size of the cohort, 50; got 51"),
        ({"scores": [0.5, math.nan]}, r"scores must be finite, got nan in row 1"),
        ({"scores": [0.5]}, r"scores has 1 values and enrolment_rows 2; both must agree"),
        ({"test_rows": [1, 2, 3]}, r"scores has 2 values and test_rows 3; both must agree"),
        ({"enrolment_rows": [0, 20]}, r"enrolment_rows must lie between 0 and 19, .*got 20 in row"),
        ({"test_rows": [-1, 0]}, r"test_rows must lie between 0 and 19, .*got -1 in row 0"),
        ({"test_rows": [1.0, 0.0]}, r"test_rows must be rows of embeddings, integers .* float64"),
        ({"cohort": np.ones((9, 15))}, r"cohort has 15 dimensions where 16 are needed"),
        ({"cohort": np.empty((0, 16))}, r"cohort is empty, its shape is \(0, 16\)"),
        ({"cohort": []}, r"cohort is empty"),
        ({"embeddings": np.ones(16)}, r"embeddings must have the shape \(rows, dimensions\)"),
        ({"cohort": np.diag([1.0] * 15 + [math.inf])}, r"cohort must be finite, got inf in row 15"),
        ({"cohort": np.diag([1.0] * 15 + [0.0])}, r"cohort: row 15 has the length 0"),
        (
            {"cohort": np.ones((9, 16))},
            r"cohort: the .* nearest to row \d+ of embeddings are all equally far",
        ),
        ({"memory_bytes": 5}, r"memory_bytes must be at least 1,048,576, got 5"),
        ({"device": "nonsense"}, r"device is 'nonsense', and PyTorch cannot use it"),
    ],
)
def test_what_is_not_possible_is_named(options: dict[str, Any], message: str) -> None:
    scores, arguments = case(12, trials=2)
    arguments = {"scores": scores, **arguments, "top_n": 5, **options}
    with pytest.raises(ScoringError, match=message) as caught:
        as_norm(arguments.pop("scores"), **arguments)
    assert isinstance(caught.value, ValueError)


def test_a_cohort_of_one_is_too_small_for_s_norm() -> None:
    scores, arguments = case(13)
    arguments["cohort"] = arguments["cohort"][:1]
    with pytest.raises(ScoringError, match=r"cohort"):
        s_norm(scores, **arguments)


def test_a_zero_embedding_is_named_by_its_own_row() -> None:
    scores, arguments = case(14, trials=2)
    arguments["enrolment_rows"], arguments["test_rows"] = [3, 9], [3, 17]
    arguments["embeddings"][17] = 0
    with pytest.raises(ScoringError, match=r"embeddings: row 17 has the length 0"):
        s_norm(scores, **arguments)


def test_the_row_that_nothing_can_be_scaled_for_is_named_by_its_own_row() -> None:
    # Row 6 is as far from all of the cohort, the others are not.
    embeddings = np.eye(8)[[0, 1, 2, 0, 1, 2, 7]]
    with pytest.raises(
        ScoringError, match=r"the 5 members nearest to row 6 of embeddings are all equally far"
    ):
        s_norm(
            [0.1, 0.2],
            enrolment_rows=[2, 4],
            test_rows=[3, 6],
            embeddings=embeddings,
            cohort=np.eye(8)[:5],
        )


def test_a_cohort_of_copies_is_refused_although_products_round() -> None:
    generator = np.random.default_rng(15)
    voice = generator.normal(size=512)
    with pytest.raises(
        ScoringError,
        match=r"cohort: the 700 members nearest to row 0 of embeddings are all equally far",
    ):
        s_norm(
            [0.1],
            enrolment_rows=[0],
            test_rows=[1],
            embeddings=np.stack([voice, voice + 0.01]),
            cohort=np.outer(generator.uniform(0.3, 3, 700), voice),
        )


def test_normalized_scores_above_the_largest_number_are_refused() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(ScoringError, match=r"normalized scores must be finite, got .*inf in row 0"):
        s_norm([1.7e308], enrolment_rows=[0], test_rows=[1], embeddings=vectors, cohort=vectors[2:])
