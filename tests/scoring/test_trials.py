"""Scores of trials, which do not depend on the row; names of speakers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.score_oracle import Array, cosine

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.trial_lists import read_trials
from voxblink2_lib.scoring.trials import TrialList, cosine_scores, score_trials, speakers_of

Trial = tuple[str, str, bool]


def test_speakers_are_told_by_names() -> None:
    names = ["id10270/x6uYqmx31kE/00001.wav", "id000002-YJUT3czS6OI-00001", "wav/id10001/a/1.wav"]
    assert speakers_of(names) == ["id10270", "id000002", "id10001"]
    assert speakers_of([]) == []


@pytest.mark.parametrize(
    "name", ["", "x/1.wav", "id1/a.wav", "id1234567/a.wav", "pid10270/a", "id10270"]
)
def test_a_name_that_does_not_tell_its_speaker_is_named(name: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(f"{name!r} does not contain its speaker")):
        speakers_of(["id10270/a/1.wav", name])


# -- Cosines ---------------------------------------------------------------------------------------


def random_rows(seed: int, rows: int, dimensions: int) -> Array:
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(rows, dimensions)) * generator.uniform(0.1, 9, (rows, 1))
    ).astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 3, 192, 256])
@pytest.mark.parametrize("trials", [1, 2, 1024, 3000])
def test_scores_are_cosines(trials: int, dimensions: int) -> None:
    vectors = random_rows(1, 60, dimensions)
    rows = np.random.default_rng(2).integers(0, 60, (2, trials))
    result = cosine_scores(vectors, rows[0], rows[1])
    assert result.dtype == np.float32
    expected = [cosine(vectors[a], vectors[b]) for a, b in rows.T]
    # float32: a rounding error of 6e-8 for each of some sums of parts
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    assert (np.abs(result) <= 1 + 1e-6).all()


def embeddings_with_copies(dimensions: int) -> Iterator[Array]:
    """Yield the same rows in arrays that lie otherwise in memory."""
    plain = random_rows(3, 40, dimensions)
    plain[20:] = plain[:20]
    yield plain
    yield np.asfortranarray(plain)
    yield plain.astype(">f4")
    yield plain.astype(np.float64)
    yield np.repeat(plain, 2, axis=1)[:, ::2]
    yield plain[::-1].copy()[::-1]
    for odd_bytes in (1, 2, 4, 12):
        raw = np.empty(plain.nbytes + odd_bytes, np.uint8)
        odd = raw[odd_bytes:].view(np.float32).reshape(plain.shape)
        odd[:] = plain
        yield odd


@pytest.mark.parametrize("dimensions", [1, 3, 192, 256])
def test_equal_pairs_have_equal_bits_in_any_row_order_place_and_side(dimensions: int) -> None:
    generator = np.random.default_rng(4)
    rows = generator.integers(0, 40, (2, 2500))
    bits: dict[tuple[int, int], set[int]] = {}
    for vectors in embeddings_with_copies(dimensions):
        order = generator.permutation(2500)
        start = int(generator.integers(0, 1500))
        for pairs in (rows, rows[::-1], rows[:, order], rows[:, start : start + 999], rows[:, :1]):
            scores = cosine_scores(vectors, pairs[0], pairs[1])
            for pair, score in zip((pairs % 20).T, scores.view(np.uint32).tolist(), strict=True):
                first, second = sorted(pair.tolist())
                bits.setdefault((first, second), set()).add(score)
    assert len(bits) == 210
    assert {len(result) for result in bits.values()} == {1}


def test_lengths_do_not_matter_up_to_rounding() -> None:
    vectors = random_rows(5, 30, 64)
    lengths = 10.0 ** np.random.default_rng(0).integers(-12, 13, (30, 1))
    rows = np.random.default_rng(2).integers(0, 30, (2, 200))
    first = cosine_scores(vectors, rows[0], rows[1])
    other = cosine_scores(vectors * lengths, rows[0], rows[1])
    np.testing.assert_allclose(other, first, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1e-44, 1e-25, 1e-10, 1e10, 1e18, 1e25, 1e38])
def test_very_short_and_very_long_embeddings_have_their_cosine_or_are_refused(
    length: float,
) -> None:
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]]) * length
    try:
        result = cosine_scores(vectors, [0, 0, 1], [1, 0, 1])
    except ScoringError as error:
        assert "embeddings: row 0 has the length" in str(error)  # noqa: PT017 - either will do
    else:
        np.testing.assert_allclose(result, [0.6, 1, 1], rtol=1e-6)


def test_no_trials_have_no_scores() -> None:
    none = np.empty(0, np.int64)
    assert cosine_scores(random_rows(1, 3, 4), none, none).shape == (0,)


def test_lists_tensors_and_memory_maps_serve(tmp_path: Path) -> None:
    vectors = random_rows(6, 5, 8)
    expected = cosine_scores(vectors, [0, 1, 2], [3, 4, 2])
    np.save(tmp_path / "vectors.npy", vectors)
    for same in (
        vectors.tolist(),
        torch.tensor(vectors, requires_grad=True),
        np.load(tmp_path / "vectors.npy", mmap_mode="r"),
    ):
        np.testing.assert_array_equal(cosine_scores(same, [0, 1, 2], [3, 4, 2]), expected)
    rows = (np.array([0, 1, 2], np.uint8), torch.tensor([3, 4, 2]))
    np.testing.assert_array_equal(cosine_scores(vectors, *rows), expected)


@pytest.mark.parametrize(
    ("vectors", "enrolment", "test", "message"),
    [
        ([[1, 0], [0, 0]], [0], [0], r"embeddings: row 1 has the length 0"),
        ([[1, 0], [0, np.nan]], [0], [0], r"embeddings must be finite, got nan in row 1"),
        ([1, 2], [0], [0], r"embeddings must have the shape \(rows, dimensions\), got \(2,\)"),
        ([[1, 0], [0, 1]], [0], [2], r"test_rows must lie between 0 and 1, .*; got 2 in row 0"),
        ([[1, 0], [0, 1]], [0, -1], [0, 0], r"enrolment_rows must lie .*; got -1 in row 1"),
        ([[1, 0], [0, 1]], [0, 1], [0], r"enrolment_rows has 2 values and test_rows 1; both must"),
        ([[1, 0], [0, 1]], [0.0], [0], r"enrolment_rows must be rows of embeddings, integers"),
        ([[1, 0], [0, 1]], [[0]], [0], r"enrolment_rows must be rows .* of shape \(1, 1\)"),
    ],
)
def test_what_cannot_be_scored_is_named(
    vectors: Any, enrolment: Any, test: Any, message: str
) -> None:
    with pytest.raises(ScoringError, match=message) as caught:
        cosine_scores(vectors, enrolment, test)
    assert isinstance(caught.value, ValueError)


# -- Trials by name --------------------------------------------------------------------------------


def trial_list(trials: list[Trial]) -> TrialList:
    names = sorted({name for trial in trials for name in trial[:2]})
    return TrialList(
        names,
        np.array([names.index(enrol) for enrol, _, _ in trials]),
        np.array([names.index(test) for _, test, _ in trials]),
        np.array([label for _, _, label in trials]),
    )


LETTERS = [
    ("a", "b", True),
    ("a", "c", False),
    ("d", "a", False),
    ("b", "c", True),
    ("b", "a", True),
]


def embeddings_of(names: str) -> Embeddings:
    vectors = {name: random_rows(ord(name), 1, 6)[0] for name in names}
    return Embeddings(list(names), np.stack(list(vectors.values())), "memory")


@pytest.mark.parametrize("names", ["abcd", "dcba", "xaybzcd"])
def test_trials_are_scored_by_name(names: str) -> None:
    embeddings = embeddings_of(names)
    result = score_trials(trial_list(LETTERS), embeddings)
    by_name = dict(zip(names, embeddings.vectors, strict=True))
    expected = [cosine(by_name[a], by_name[b]) for a, b, _ in LETTERS]
    np.testing.assert_allclose(result.scores, expected, rtol=0, atol=1e-6)
    assert result.rows.tolist() == [0, 1, 2, 3, 4]
    assert [names[row] for row in result.enrolment] == [a for a, _, _ in LETTERS]
    assert [names[row] for row in result.test] == [b for _, b, _ in LETTERS]
    assert result.labels is not None
    assert result.labels.tolist() == [label for _, _, label in LETTERS]
    assert result.missing == []
    # The same pair the other way round ties exactly.
    assert result.scores[0] == result.scores[4]


@pytest.mark.parametrize("missing", ["error", "skip"])
def test_a_name_that_no_trial_asks_for_is_not_missed(missing: Any) -> None:
    trials = trial_list(LETTERS)
    two = TrialList(
        trials.names, trials.enrolment[[0, 4]], trials.test[[0, 4]], np.array([True, False])
    )
    assert len(score_trials(two, embeddings_of("ab"), missing=missing).scores) == 2


def test_missing_embeddings_are_an_error_that_counts_and_names_the_first() -> None:
    with pytest.raises(
        ScoringError,
        match=r"1 of 4 utterances have no embedding in memory, so 2 of 5 trials cannot be scored; "
        r"the first is trial 2, 'c' is missing\. Names without a match: 'c' \(nearest: '[abd]'\)\. "
        r".*missing='skip'",
    ):
        score_trials(trial_list(LETTERS), embeddings_of("abd"))


def test_the_name_in_the_message_is_one_of_the_trial_in_the_message() -> None:
    # b comes before c among the names, c before b among the trials.
    trials = trial_list([("a", "a", True), ("a", "c", False), ("b", "a", False)])
    with pytest.raises(ScoringError, match=r"the first is trial 2, 'c' is missing"):
        score_trials(trials, embeddings_of("a"))
    with pytest.raises(ScoringError, match=r"2 of 3 utterances .* so 2 of 3 trials"):
        score_trials(trials, embeddings_of("a"))


def test_missing_embeddings_are_skipped_and_counted() -> None:
    whole = score_trials(trial_list(LETTERS), embeddings_of("abcd"))
    result = score_trials(trial_list(LETTERS), embeddings_of("abc"), missing="skip")
    assert result.missing == ["d"]
    assert result.rows.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(result.scores, whole.scores[result.rows])
    assert whole.labels is not None
    np.testing.assert_array_equal(result.labels, whole.labels[result.rows])
    assert len(result.enrolment) == len(result.test) == 4
    result = score_trials(trial_list(LETTERS), embeddings_of("cb"), missing="skip")
    assert result.missing == ["a", "d"]
    assert result.rows.tolist() == [3]


@pytest.mark.parametrize("names", ["xyz", "d"])
def test_a_list_of_which_nothing_can_be_scored_is_an_error(names: str) -> None:
    with pytest.raises(
        ScoringError,
        match=r"None of the 5 trials has both embeddings in memory\. Names without a match: "
        rf"'a' \(nearest: '[{names}]'\), 'b' \(nearest: '[{names}]'\), 'c' \(nearest: ",
    ):
        score_trials(trial_list(LETTERS), embeddings_of(names), missing="skip")


def test_another_word_for_missing_is_refused() -> None:
    with pytest.raises(ScoringError, match=r"missing is 'ignore'; allowed are 'error' and 'skip'"):
        score_trials(trial_list(LETTERS), embeddings_of("a"), missing="ignore")  # type: ignore[arg-type]


def test_a_list_from_a_file_is_scored(tmp_path: Path) -> None:
    lines = [f"{int(label)} {enrol} {test}\n" for enrol, test, label in LETTERS]
    (tmp_path / "trials.txt").write_text("".join(lines))
    result = score_trials(read_trials(tmp_path / "trials.txt"), embeddings_of("dacb"))
    expected = score_trials(trial_list(LETTERS), embeddings_of("abcd"))
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.labels, expected.labels)
