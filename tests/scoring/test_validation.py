"""Arguments may be any array of numbers or strings; errors name the argument and the row."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.score_oracle import FLOAT32_MAX

from voxblink2_lib.errors import ScoringError, VoxBlink2Error
from voxblink2_lib.scoring import validation
from voxblink2_lib.scoring.det import Sweep
from voxblink2_lib.scoring.validation import (
    as_array,
    as_embeddings,
    as_labels,
    as_scores,
    as_speaker_labels,
    as_trials,
    check_finite,
    checked_rows,
    norms_of,
)
from voxblink2_lib.scoring.verification import eer

pandas: Any = importlib.import_module("pandas")  # has no type hints


def refused(message: str, call: Callable[[], object]) -> None:
    """Expect an error of ours that is a ValueError, too."""
    with pytest.raises(ScoringError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, VoxBlink2Error)


def kind_of(value: object) -> str | None:
    """Return how a test of such values is called."""
    if value is None or isinstance(value, type):
        return None
    return f"{type(value).__name__}-{getattr(value, 'dtype', '')}".removesuffix("-")


@pytest.fixture(params=[1, 3, 1 << 20])
def block_values(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk in small blocks, and in one."""
    monkeypatch.setattr(validation, "_BLOCK_VALUES", request.param)


# -- Scores ----------------------------------------------------------------------------------------

SCORES = [0.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (SCORES, np.float64),
        (tuple(SCORES), np.float64),
        (np.array(SCORES), np.float64),
        (np.array(SCORES, np.float32), np.float32),
        (np.array(SCORES, np.float16), np.float32),
        (np.array(SCORES, np.longdouble), np.float64),
        (np.array(SCORES, ">f4"), None),
        (np.array(SCORES, ">f8"), np.float64),
        (np.array([0, *SCORES, 0])[1:-1], np.float64),
        (np.repeat(SCORES, 2)[::2], np.float64),
        (torch.tensor(SCORES), np.float32),
        (torch.tensor(SCORES, dtype=torch.float64), np.float64),
        (torch.tensor(SCORES, dtype=torch.float16), np.float32),
        (torch.tensor(SCORES, dtype=torch.bfloat16), np.float32),
        (torch.tensor(SCORES, requires_grad=True), np.float32),
        (torch.tensor(SCORES, requires_grad=True, dtype=torch.bfloat16) * 1, np.float32),
        (torch.tensor([SCORES, SCORES]).T[:, 0], np.float32),
        (pandas.Series(SCORES), np.float64),
        (pandas.Series(SCORES, dtype="float32"), np.float32),
        (pandas.Series(SCORES, dtype="Float64"), np.float64),
    ],
    ids=kind_of,
)
def test_scores_may_be_held_by_anything(values: Any, dtype: Any) -> None:
    checked = as_scores(values, "scores")
    assert checked.tolist() == SCORES
    if dtype is not None:
        assert checked.dtype == dtype
    labels = [0, 0, 1]
    assert eer(values, labels) == eer(SCORES, labels)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"]
)
def test_whole_scores_lose_nothing(dtype: str) -> None:
    high = 1 if dtype == "bool" else min(int(np.iinfo(dtype).max), 2**53)
    checked = as_scores(np.array([0, high], dtype), "scores")
    assert checked.dtype == (np.float32 if dtype == "bool" else np.float64)
    assert checked.tolist() == [0, high]


def test_scores_of_a_float64_tensor_keep_their_last_bits() -> None:
    near = [1.0, 1.0 + 2**-50]
    assert as_scores(torch.tensor(near, dtype=torch.float64), "scores").tolist() == near
    assert eer(torch.tensor(near, dtype=torch.float64), [0, 1]).eer == 0
    large = torch.tensor([1e300, -1e300], dtype=torch.float64)
    assert as_scores(large, "scores").tolist() == [1e300, -1e300]


def test_arrays_of_the_right_type_are_not_copied(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        scores = np.array(SCORES, dtype)
        assert np.shares_memory(as_scores(scores, "scores"), scores)
    tensor = torch.tensor(SCORES)
    assert np.shares_memory(as_scores(tensor, "scores"), tensor.numpy())
    np.save(tmp_path / "scores.npy", np.array(SCORES))
    mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
    assert np.shares_memory(as_scores(mapped, "scores"), mapped)
    assert eer(mapped, [0, 0, 1]) == eer(SCORES, [0, 0, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"name is empty; at least one value is needed"),
        (np.empty(0, np.float32), r"name is empty"),
        (torch.empty(0), r"name is empty"),
        (1.0, r"name must have one dimension, got shape \(\)"),
        (None, r"name must have one dimension, got shape \(\)"),
        ((score for score in SCORES), r"name must have one dimension, got shape \(\)"),
        ([SCORES, SCORES], r"name must have one dimension, got shape \(2, 3\)"),
        (np.empty((0, 3)), r"name must have one dimension, got shape \(0, 3\)"),
        ([[1.0, 2.0], [3.0]], r"name has rows of different lengths; all must be equal"),
        (["0.5", "1"], r"name must be numbers, got <U3"),
        ([b"1"], r"name must be numbers, got \|S1"),
        ([1.0, None], r"name must be numbers, got object"),
        ([1j, 2], r"name must be numbers, got complex128"),
        (np.array(["2024-01-01"], "M8[D]"), r"name must be numbers, got datetime64\[D\]"),
        (pandas.Series(["a", "b"]), r"name must be numbers, got object"),
        ([0.5, math.nan], r"name must be finite, got nan in row 1"),
        ([math.inf, 0.5], r"name must be finite, got inf in row 0"),
        ([0.0, 0.5, -math.inf], r"name must be finite, got -inf in row 2"),
        (np.array([1, math.nan], np.float16), r"name must be finite, got nan in row 1"),
        (torch.tensor([1, math.inf]), r"name must be finite, got inf in row 1"),
    ],
)
def test_scores_that_cannot_be_used_are_named(values: Any, message: str) -> None:
    refused(message, lambda: as_scores(values, "name"))


@pytest.mark.usefixtures("block_values")
@pytest.mark.parametrize("row", [0, 1, 2, 3, 7, 9])
def test_the_first_row_that_is_not_finite_is_named(row: int) -> None:
    scores = np.zeros(10)
    scores[row:] = math.nan
    refused(rf"x must be finite, got nan in row {row}\.", lambda: check_finite(scores, "x"))
    vectors = np.zeros((10, 4), np.float32)
    vectors[row, 2], vectors[row:, 3] = -math.inf, math.nan
    refused(rf"x must be finite, got -inf in row {row}\.", lambda: check_finite(vectors, "x"))
    check_finite(vectors[:row], "x")


# -- Labels of trials ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 1, 0],
        (0, 1, 1, 0),
        [False, True, True, False],
        [0.0, 1.0, 1.0, -0.0],
        *(np.array([0, 1, 1, 0], dtype) for dtype in ("bool", "i1", "u1", ">i4", "i8", "f2", "f4")),
        torch.tensor([0, 1, 1, 0]),
        torch.tensor([False, True, True, False]),
        torch.tensor([0.0, 1.0, 1.0, 0.0], requires_grad=True),
        torch.tensor([0, 1, 1, 0], dtype=torch.bfloat16),
        pandas.Series([0, 1, 1, 0]),
        pandas.Series([False, True, True, False]),
        pandas.Series([0, 1, 1, 0], dtype="Int64"),
        pandas.Series([False, True, True, False], dtype="boolean"),
    ],
    ids=kind_of,
)
def test_labels_may_be_held_by_anything(values: Any) -> None:
    for block_values in (1, 3, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation, "_BLOCK_VALUES", block_values)
            checked = as_labels(values, "labels", rows=4, of="scores")
        assert checked.dtype == np.bool_
        assert checked.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2, 0], r"name must be 0 \(non-target\) or 1 \(target\), got 2 in row 2\."),
        ([0, 1, 1, -1], r"name must be 0 \(non-target\) or 1 \(target\), got -1 in row 3\."),
        ([0.5, 1, 1, 0], r"got 0\.5 in row 0\."),
        ([0, 1, math.nan, 2], r"got nan in row 2\."),
        ([0, 1, 1, math.inf], r"got inf in row 3\."),
        (np.array([0, 1, 255, 0], np.uint8), r"got 255 in row 2\."),
        (torch.tensor([0, 1, 1, 5]), r"got 5 in row 3\."),
        (["1", "0", "1", "0"], r"got '1' in row 0\."),
        (["target", "nontarget", "target", "target"], r"got 'target' in row 0\."),
        ([0, 1, 1], r"of has 4 values and name 3; both must agree"),
        ([], r"of has 4 values and name 0; both must agree"),
        ([[0], [1], [1], [0]], r"name must have one dimension, got shape \(4, 1\)"),
        (1, r"name must have one dimension, got shape \(\)"),
        (None, r"name must have one dimension, got shape \(\)"),
        ([[0, 1], [1]], r"name has rows of different lengths"),
    ],
)
def test_labels_that_cannot_be_used_are_named(values: Any, message: str) -> None:
    refused(message, lambda: as_labels(values, "name", rows=4, of="of"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, None, 0], r"labels .*None"),
        ([None, 1, 1, 0], r"labels .*None"),
        (np.array([0, "x", 1, 0], object), r"labels .*'x'"),
        (pandas.Series(["target", "nontarget", "target", "nontarget"]), r"labels .*'target'"),
    ],
)
def test_labels_held_as_objects_are_named_as_well(values: Any, message: str) -> None:
    refused(message, lambda: as_labels(values, "labels", rows=4, of="scores"))


def test_whole_numbers_held_as_objects_are_labels_or_are_named() -> None:
    values = np.array([0, 1, 1, 0], object)
    try:
        checked = as_labels(values, "labels", rows=4, of="scores")
    except ScoringError as error:
        assert "labels" in str(error)  # noqa: PT017 - either will do
    else:
        assert checked.tolist() == [False, True, True, False]


@given(labels=st.lists(st.integers(0, 1), min_size=1, max_size=40), row=st.integers(0, 39))
def test_the_first_label_that_is_neither_is_named(labels: list[int], row: int) -> None:
    row = min(row, len(labels) - 1)
    labels[row] = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_BLOCK_VALUES", 4)
        refused(
            rf"got 3 in row {row}\.", lambda: as_labels(labels, "labels", rows=len(labels), of="x")
        )


@pytest.mark.parametrize("trials", [1, 2, 1000])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_refused(trials: int, label: int) -> None:
    labels = np.full(trials, label)
    message = rf"labels are all {label}; error rates need target \(1\) and non-target \(0\) trials"
    refused(message, lambda: as_trials(np.arange(trials), labels))
    refused(message, lambda: Sweep.of(np.arange(trials), labels.astype(bool)))


# -- Embeddings ------------------------------------------------------------------------------------

VECTORS = [[0.5, -1.0, 2.0], [1.0, 0.0, 0.25]]


@pytest.mark.parametrize(
    "values",
    [
        VECTORS,
        tuple(map(tuple, VECTORS)),
        [np.array(row) for row in VECTORS],
        *(np.array(VECTORS, dtype) for dtype in ("f2", "f4", "f8", ">f4", ">f8", np.longdouble)),
        np.asfortranarray(VECTORS),
        np.repeat(VECTORS, 2, axis=0)[::2],
        torch.tensor(VECTORS),
        torch.tensor(VECTORS, dtype=torch.float64),
        torch.tensor(VECTORS, dtype=torch.bfloat16, requires_grad=True),
        torch.tensor(VECTORS).T.contiguous().T,
        pandas.DataFrame(VECTORS),
    ],
    ids=kind_of,
)
def test_embeddings_may_be_held_by_anything(values: Any) -> None:
    checked = as_embeddings(values, "embeddings")
    assert checked.dtype == np.float32
    assert checked.tolist() == VECTORS
    assert as_embeddings(values, "embeddings", dimensions=3).tolist() == VECTORS


def test_whole_embeddings_serve_and_float32_ones_are_not_copied(tmp_path: Path) -> None:
    assert as_embeddings([[1, 2], [3, 4]], "x").tolist() == [[1, 2], [3, 4]]
    assert as_embeddings(np.array([[1, 255]], np.uint8), "x").tolist() == [[1, 255]]
    vectors = np.array(VECTORS, np.float32)
    assert np.shares_memory(as_embeddings(vectors, "x"), vectors)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert np.shares_memory(as_embeddings(mapped, "x"), mapped)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"name is empty; at least one embedding is needed"),
        ([[], []], r"name is empty, its shape is \(2, 0\)"),
        (np.empty((0, 3)), r"name is empty, its shape is \(0, 3\)"),
        (np.empty((0, 3, 2)), r"name is empty"),
        ([1.0, 2.0], r"name must have the shape \(rows, dimensions\), got \(2,\)"),
        (3.0, r"name must have the shape \(rows, dimensions\), got \(\)"),
        (np.ones((1, 2, 3)), r"name must have the shape \(rows, dimensions\), got \(1, 2, 3\)"),
        (None, r"name must have the shape \(rows, dimensions\), got \(\)"),
        ([[1.0, 2.0], [3.0]], r"name has rows of different lengths; all must be equal"),
        ([["a", "b"]], r"name must be numbers, got <U1"),
        ([[True, False]], r"name must be numbers, got bool"),
        ([[1.0, None]], r"name must be numbers, got object"),
        ([[1j, 2]], r"name must be numbers, got complex128"),
        ([[1.0, 2.0], [math.nan, 1.0]], r"name must be finite, got nan in row 1"),
        ([[1.0, -math.inf]], r"name must be finite, got -inf in row 0"),
    ],
)
def test_embeddings_that_cannot_be_used_are_named(values: Any, message: str) -> None:
    refused(message, lambda: as_embeddings(values, "name"))


def test_embeddings_of_another_model_are_named() -> None:
    refused(
        r"probes has 3 dimensions where 192 are needed; embeddings of one model have the same num",
        lambda: as_embeddings(VECTORS, "probes", dimensions=192),
    )


@pytest.mark.parametrize("number", [1e39, -1e300])
def test_embeddings_too_large_for_float32_are_named_without_a_warning(number: float) -> None:
    refused(r"name .* row 1", lambda: as_embeddings([[1.0, 2.0], [number, 1.0]], "name"))


# -- Lengths of embeddings -------------------------------------------------------------------------


@pytest.mark.usefixtures("block_values")
def test_lengths_are_those_of_float64() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(50, 7)) * 10.0 ** generator.integers(-12, 13, (50, 1))
    vectors = vectors.astype(np.float32)
    checked = norms_of(vectors, "x")
    assert checked.dtype == np.float32
    np.testing.assert_allclose(checked, np.linalg.norm(vectors.astype(float), axis=1), rtol=1e-6)


@pytest.mark.usefixtures("block_values")
@pytest.mark.parametrize("row", [0, 5, 9])
def test_a_zero_row_is_named(row: int) -> None:
    vectors = np.ones((10, 3), np.float32)
    vectors[row:] = 0
    refused(rf"gallery: row {row} has the length 0", lambda: norms_of(vectors, "gallery"))


def test_a_row_too_long_for_float32_is_named() -> None:
    vectors = np.ones((3, 2), np.float32)
    vectors[2] = FLOAT32_MAX
    refused(r"gallery: row 2 has the length", lambda: norms_of(vectors, "gallery"))


# -- Labels of speakers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b"], ["b", "a", "b"]),
        (("b", "a"), ["b", "a"]),
        ([3, 1, -2], [3, 1, -2]),
        (range(3), [0, 1, 2]),
        (np.array([3, 1], np.uint8), [3, 1]),
        (np.array([2**62, 1], np.uint64), [2**62, 1]),
        (np.array(["b", "aaa"]), ["b", "aaa"]),
        (np.array(["b", "aaa"], object), ["b", "aaa"]),
        (torch.tensor([3, 1]), [3, 1]),
        (pandas.Series(["b", "aaa"]), ["b", "aaa"]),
        (pandas.Series(["b", "aaa"], dtype="category"), ["b", "aaa"]),
        (pandas.Series(["b", "aaa"], dtype="string"), ["b", "aaa"]),
        (pandas.Series([3, 1]), [3, 1]),
        (pandas.Series([3, 1], dtype="Int64"), [3, 1]),
        (["ü", "名", "id00001"], ["ü", "名", "id00001"]),
    ],
    ids=kind_of,
)
def test_speakers_may_be_held_by_anything(values: Any, expected: list[Any]) -> None:
    checked = as_speaker_labels(values, "speakers", rows=len(expected), of="scores")
    assert checked.tolist() == expected
    assert checked.dtype.kind in "iuU"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"name must be integers or strings, got float64"),
        ([True, False], r"name must be integers or strings, got bool"),
        ([b"a", b"b"], r"name must be integers or strings, got \|S1"),
        (["a", None], r"name must be integers or strings, all of one kind, got None in row 1"),
        ([None, 1], r"name must be integers or strings, all of one kind, got None in row 0"),
        (np.array(["a", 1], object), r"name must be .*, all of one kind, got 1 in row 1"),
        (pandas.Series(["a", None, "b"]), r"name must be .*, all of one kind, got nan in row 1"),
        (pandas.Series([1.5, 2]), r"name must be integers or strings, got float64"),
        ("ab", r"name must have one dimension, got shape \(\)"),
        ([["a"], ["b"]], r"name must have one dimension, got shape \(2, 1\)"),
        (np.array([["a"], ["b"]], object), r"name must have one dimension, got shape \(2, 1\)"),
        (["a", "b", "c"], r"of has 2 rows and name 3; both must agree"),
        (["a", ["b"]], r"name has rows of different lengths"),
    ],
)
def test_speakers_that_cannot_be_used_are_named(values: Any, message: str) -> None:
    refused(message, lambda: as_speaker_labels(values, "name", rows=2, of="of"))


# -- Rows of embeddings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [0, 4, 2],
        *(np.array([0, 4, 2], dtype) for dtype in ("u1", "i2", "i4", ">i4", "i8", "u8")),
        torch.tensor([0, 4, 2]),
        pandas.Series([0, 4, 2]),
    ],
    ids=kind_of,
)
def test_rows_may_be_held_by_anything(values: Any) -> None:
    checked = checked_rows(values, "rows", utterances=5, trials=3)
    assert checked.dtype == np.int64
    assert checked.tolist() == [0, 4, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 5, 2], r"name must lie between 0 and 4, the rows of embeddings; got 5 in row 1"),
        ([0, 1, -1], r"name must lie between 0 and 4, the rows of embeddings; got -1 in row 2"),
        (np.array([2**63, 0, 0], np.uint64), r"name must lie .*; got 9223372036854775808 in row 0"),
        ([0, 1], r"scores has 3 values and name 2; both must agree"),
        ([0.0, 1.0, 2.0], r"name must be rows of embeddings, integers in one dimension; got float"),
        ([True, False, True], r"name must be rows of embeddings, .*; got bool of shape \(3,\)"),
        (["0", "1", "2"], r"name must be rows of embeddings, .*; got <U1"),
        ([[0, 1, 2]], r"name must be rows of embeddings, .* of shape \(1, 3\)"),
        ([[0, 1], [2]], r"name has rows of different lengths"),
    ],
)
def test_rows_that_cannot_be_used_are_named(values: Any, message: str) -> None:
    refused(message, lambda: checked_rows(values, "name", utterances=5, trials=3))


# -- Arrays ----------------------------------------------------------------------------------------


def test_tensors_lose_neither_type_nor_values() -> None:
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool):
        tensor = torch.tensor([0, 1], dtype=dtype)
        assert as_array(tensor, "x").dtype == tensor.numpy().dtype
    half = as_array(torch.tensor([1.5], dtype=torch.bfloat16), "x")
    assert half.tolist() == [1.5]


# -- Masked arrays ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.masked_array([1.0, 2, 3, 0], mask=np.array([0, 0, 0, 1], bool)),
        np.ma.masked_array([1.0, 2, 3, 0], mask=False),
        [1.0, 2.0, 3.0, np.ma.masked],
    ],
    ids=["masked", "nothing masked", "list"],
)
def test_masked_scores_are_refused(masked: Any) -> None:
    with pytest.raises(ScoringError, match=r"scores is a masked array.*array\.data\[~array\.mask"):
        eer(masked, [1, 0, 1, 0])


def test_masked_labels_and_embeddings_are_refused() -> None:
    labels = np.ma.masked_array([1, 0, 1, 0], mask=np.array([0, 0, 0, 1], bool))
    with pytest.raises(ScoringError, match="labels is a masked array"):
        eer([1.0, 2.0, 3.0, 0.0], labels)
    rows = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=np.array([[0, 1], [0, 0]], bool))
    for embeddings in (rows, list(rows)):
        with pytest.raises(ScoringError, match="embeddings is a masked array"):
            as_embeddings(embeddings, "embeddings")
