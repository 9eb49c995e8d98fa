"""Check arguments and convert them to arrays; errors name the argument and the row."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError

Floats = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# Checks process an array in blocks of this many values, so that none of them doubles its memory.
_BLOCK_VALUES = 1 << 20

# Lengths of embeddings whose products neither overflow nor underflow in float32.
_SHORTEST, _LONGEST = 1e-15, 1e15


def as_array(values: object, name: str) -> npt.NDArray[Any]:
    """Return a list, an array, or a PyTorch tensor on any device as an array.

    Raises:
        ScoringError: the rows are of different lengths, or an array is masked.
    """
    tensor: Any = values
    rows = values if isinstance(values, list | tuple) else [values]
    if any(isinstance(row, np.ma.MaskedArray) for row in rows):
        raise ScoringError(
            f"{name} is a masked array, whose mask would be ignored. Pass only what counts: "
            "array.data[~array.mask], and the same rows of all other arguments."
        )
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        # NumPy has no bfloat16.
        values = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ScoringError(f"{name} has rows of different lengths; all must be equal.") from error


def as_scores(values: object, name: str) -> Floats:
    """Return scores as float32 or float64. Shape: [scores].

    Raises:
        ScoringError: not one-dimensional, empty, not numbers, or not finite.
    """
    scores = _as_column(values, name)
    if scores.size == 0:
        raise ScoringError(f"{name} is empty; at least one value is needed.")
    if scores.dtype.kind not in "biuf":
        raise ScoringError(f"{name} must be numbers, got {scores.dtype}.")
    if scores.dtype not in (np.float32, np.float64):
        wide = scores.dtype.itemsize > 4 or scores.dtype.kind in "iu"
        scores = scores.astype(np.float64 if wide else np.float32)
    check_finite(scores, name)
    return scores


def as_labels(values: object, name: str, *, rows: int, of: str) -> Flags:
    """Return labels as flags: true for a target. Shape: [rows].

    Args:
        values: 0 or 1 for each score; also booleans, and 0.0 and 1.0.
        name: the argument's name, for messages.
        rows: required number of labels.
        of: name of the argument that has this number of rows.

    Raises:
        ScoringError: another length, or a value that is neither 0 nor 1; names the row.
    """
    labels = _as_column(values, name)
    check_length(labels, name, expected=rows, of=of)
    if labels.dtype == np.bool_:
        return labels
    if labels.dtype.kind not in "iuf":
        for row, label in enumerate(labels.tolist()):
            if not isinstance(label, int | float):
                raise ScoringError(
                    f"{name} must be 0 (non-target) or 1 (target), got {label!r} in row {row}."
                )
        labels = labels.astype(np.float64)  # numbers in an array of objects
    flags: Flags = np.equal(labels, 1)
    for start, block in _blocks(labels):
        wrong = np.flatnonzero(~flags[start : start + len(block)] & (block != 0))
        if wrong.size:
            row = start + int(wrong[0])
            raise ScoringError(
                f"{name} must be 0 (non-target) or 1 (target), got {labels[row].item()!r} "
                f"in row {row}."
            )
    return flags


def as_trials(scores: object, labels: object) -> tuple[Floats, Flags]:
    """Return checked scores and flags, both classes present. Shape of both: [trials].

    Raises:
        ScoringError: see :func:`as_scores` and :func:`as_labels`; or only one of the two classes.
    """
    values = as_scores(scores, "scores")
    targets = as_labels(labels, "labels", rows=len(values), of="scores")
    count = int(np.count_nonzero(targets))
    if count in {0, len(targets)}:
        raise ScoringError(
            f"labels are all {int(count > 0)}; error rates need target (1) and non-target (0) "
            "trials."
        )
    return values, targets


def as_embeddings(values: object, name: str, *, dimensions: int | None = None) -> Floats:
    """Return embeddings as float32; float32 is not copied. Shape: [rows, dimensions].

    Args:
        values: the argument.
        name: the argument's name, for messages.
        dimensions: required number of dimensions; any by default.

    Raises:
        ScoringError: not two-dimensional, empty, another number of dimensions, not finite; names
            the row.
    """
    vectors = as_array(values, name)
    if vectors.ndim != 2:
        raise ScoringError(
            f"{name} must have the shape (rows, dimensions), got {vectors.shape}."
            if vectors.size
            else f"{name} is empty; at least one embedding is needed."
        )
    if vectors.size == 0:
        raise ScoringError(f"{name} is empty, its shape is {vectors.shape}.")
    if vectors.dtype.kind not in "iuf":
        raise ScoringError(f"{name} must be numbers, got {vectors.dtype}.")
    if dimensions is not None and vectors.shape[1] != dimensions:
        raise ScoringError(
            f"{name} has {vectors.shape[1]} dimensions where {dimensions} are needed; "
            "embeddings of one model have the same number everywhere."
        )
    with np.errstate(over="ignore"):  # overflow of float32 gives infinity, which is refused
        vectors = vectors.astype(np.float32, copy=False)
    check_finite(vectors, name)
    return vectors


def check_finite(values: npt.NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ScoringError: names the first row that is not finite.
    """
    if (row := row_not_finite(values)) is not None:
        numbers = np.ravel(values[row])
        value = numbers[~np.isfinite(numbers)][0]
        raise ScoringError(f"{name} must be finite, got {value} in row {row}.")


def row_not_finite(values: npt.NDArray[Any]) -> int | None:
    """Return the first row with NaN or infinity, or ``None``; processes blocks of rows."""
    for start, block in _blocks(values):
        finite = np.isfinite(block)
        if not finite.all():
            return start + int(np.argmin(finite.reshape(len(block), -1).all(axis=1)))
    return None


def norms_of(vectors: Floats, name: str, rows: Rows | None = None) -> Floats:
    """Return the Euclidean length of each row, float32. Shape: [rows].

    Args:
        vectors: float32. Shape: [rows, dimensions].
        name: the argument's name, for messages.
        rows: which rows of that argument these are; by default all.

    Raises:
        ScoringError: a row is zero, so its cosine is not defined, or so short or long that products
            in float32 would underflow or overflow.
    """
    norms = np.empty(len(vectors), np.float32)
    for start, block in _blocks(vectors):
        # In float64: rounded at the end, the same row has the same length in any memory layout.
        squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        with np.errstate(over="ignore"):  # refused below
            norms[start : start + len(block)] = np.sqrt(squares)
    wrong = np.flatnonzero(~((norms >= _SHORTEST) & (norms <= _LONGEST)))
    if wrong.size:
        row = wrong[0] if rows is None else rows[wrong[0]]
        raise ScoringError(
            f"{name}: row {row} has the length {norms[wrong[0]]:g}; a cosine needs one that is "
            f"not zero, between {_SHORTEST:g} and {_LONGEST:g}."
        )
    return norms


def as_speaker_labels(
    values: object, name: str, *, rows: int | None = None, of: str = ""
) -> npt.NDArray[Any]:
    """Return labels of speakers as integers or strings. Shape: [rows].

    Raises:
        ScoringError: another length, or labels that are neither integers nor strings.
    """
    labels = _as_column(values, name)
    if labels.dtype.kind == "O":  # pandas and Arrow return strings as objects
        wrong = [row for row, label in enumerate(labels.flat) if not isinstance(label, str)]
        if wrong:
            raise ScoringError(
                f"{name} must be integers or strings, all of one kind, got "
                f"{labels.flat[wrong[0]]!r} in row {wrong[0]}."
            )
        labels = labels.astype(str)
    if labels.dtype.kind not in "iuU":
        raise ScoringError(f"{name} must be integers or strings, got {labels.dtype}.")
    if rows is not None:
        check_length(labels, name, expected=rows, of=of, unit="rows")
    return labels


def check_length(
    values: npt.NDArray[Any], name: str, *, expected: int, of: str, unit: str = "values"
) -> None:
    """Refuse an array whose length is not that of another argument.

    Raises:
        ScoringError: names both arguments and both lengths.
    """
    if len(values) != expected:
        raise ScoringError(
            f"{of} has {expected:,} {unit} and {name} {len(values):,}; both must agree."
        )


def check_number(name: str, value: object) -> None:
    """Refuse a value that is not a single number.

    Raises:
        ScoringError: names the argument and the value.
    """
    given = np.asarray(value)
    if given.ndim or given.dtype.kind not in "iuf":
        raise ScoringError(f"{name} must be a number, got {value!r}.")


def check_prior(p_target: float) -> None:
    """Refuse a prior probability of a target trial that is not between 0 and 1.

    Raises:
        ScoringError: names the value.
    """
    check_number("p_target", p_target)
    if not 0 < p_target < 1:
        raise ScoringError(f"p_target must lie between 0 and 1, got {p_target}.")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        ScoringError: names the argument, the value, and what is allowed.
    """
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ScoringError(f"{name} is {value!r}; allowed are {', '.join(others)} and {last}.")


def checked_rows(
    rows: object, name: str, *, utterances: int, trials: int | None = None, of: str = "scores"
) -> Rows:
    """Return rows of embeddings, int64. Shape: [trials].

    Args:
        rows: the argument.
        name: the argument's name, for messages.
        utterances: number of embeddings.
        trials: required number of rows; any by default.
        of: name of the argument that has this number of rows.

    Raises:
        ScoringError: not integers, not one-dimensional, another length, or no such row; names the
            first.
    """
    checked = as_array(rows, name)
    if checked.ndim != 1 or checked.dtype.kind not in "iu":
        raise ScoringError(
            f"{name} must be rows of embeddings, integers in one dimension; got {checked.dtype} "
            f"of shape {checked.shape}."
        )
    if trials is not None:
        check_length(checked, name, expected=trials, of=of)
    if (wrong := np.flatnonzero((checked < 0) | (checked >= utterances))).size:
        raise ScoringError(
            f"{name} must lie between 0 and {utterances - 1:,}, the rows of embeddings; got "
            f"{checked[wrong[0]]} in row {wrong[0]}."
        )
    return checked.astype(np.int64, copy=False)


def finite_or_none(threshold: object) -> object:
    """Return a threshold for JSON, which has no infinity."""
    return None if threshold in {math.inf, -math.inf} else threshold


def accept_renamed_keyword(
    old: str, new: str
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator for a function that goes on accepting the old name of a keyword.

    Args:
        old: name of the keyword in earlier releases; using it warns.
        new: its name today.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def accepting(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{old}= is the old name of {new}=; give only {new}=.")
                message = f"{old}= is now {new}=; the old name will be removed in the next release."
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accepting

    return decorate


def _as_column(values: object, name: str) -> npt.NDArray[Any]:
    column = as_array(values, name)
    if column.ndim != 1:
        raise ScoringError(f"{name} must have one dimension, got shape {column.shape}.")
    return column


def _blocks(values: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    rows = max(1, _BLOCK_VALUES // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        yield start, values[start : start + rows]
