"""Scores and embeddings for tests, and slow metrics straight from their definitions.

The references are independent of the library. Rates are fractions of integers, so they are exact: a
trial is accepted when its score is at least the threshold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Array = npt.NDArray[Any]

GOLDEN = Path(__file__).parents[1] / "golden" / "scores.json"

INFINITY = math.inf
FLOAT32_MAX = float(np.finfo(np.float32).max)


# -- Golden recipes --------------------------------------------------------------------------------


def golden(kind: str) -> list[dict[str, Any]]:
    """Return the cases of ``"sv"`` or ``"ossi"`` with the results of the published scripts."""
    cases: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))[kind]
    return cases


def golden_trials(case: dict[str, Any]) -> tuple[Array, Array]:
    g = np.random.default_rng(case["seed"])
    labels = (g.random(case["n"]) < case["p_target_rate"]).astype(int)
    return g.normal(labels * case["separation"], 1.0), labels


class Protocol(NamedTuple):
    """An open-set protocol: what ``open_set_identification`` takes, in its order."""

    gallery: Array
    gallery_labels: Array
    probes: Array
    probe_labels: Array


def golden_protocol(case: dict[str, Any]) -> Protocol:
    speakers, each, dim = case["speakers"], case["enrol_per_speaker"], case["dim"]
    known_probes, unknown_probes = case["known_probes"], case["unknown_probes"]
    noise = case["noise"]
    g = np.random.default_rng(case["seed"])
    centres = g.normal(size=(speakers, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    gallery_labels = np.repeat(np.arange(speakers), each)
    gallery = centres[gallery_labels] * g.uniform(0.5, 2.0, (speakers * each, 1))
    gallery = gallery + noise * g.normal(size=(speakers * each, dim))
    known_labels = g.integers(0, speakers, known_probes)
    known = centres[known_labels] + noise * g.normal(size=(known_probes, dim))
    unknown = g.normal(size=(unknown_probes, dim))
    unknown /= np.linalg.norm(unknown, axis=1, keepdims=True)
    unknown += noise * g.normal(size=(unknown_probes, dim))
    return Protocol(
        gallery.astype(np.float32),
        gallery_labels,
        np.concatenate([known, unknown]).astype(np.float32),
        np.concatenate([known_labels, np.full(unknown_probes, speakers)]),
    )


# -- Trials to draw --------------------------------------------------------------------------------

# Neighbours, both zeros, the smallest and the largest numbers; all of them float32, too.
NASTY = (
    *(-FLOAT32_MAX, -1e30, -1.0, -1e-30, -1e-45, -0.0, 0.0, 1e-45, 3e-45, 1e-38, 0.1),
    *(1.0, float(np.nextafter(np.float32(1), np.float32(2))), 2.0, 16777216.0, 1e30, FLOAT32_MAX),
)
NASTIER = (*NASTY, -1.7e308, -1e308, -5e-324, 5e-324, 1e-310, 1.0 + 2**-52, 1e308, 1.7e308)


def both_classes(trials: int) -> st.SearchStrategy[list[int]]:
    """Draw labels of both classes, in any order."""
    return st.lists(st.integers(0, 1), min_size=trials, max_size=trials).filter(
        lambda labels: 0 < sum(labels) < len(labels)
    )


@st.composite
def ranked(draw: st.DrawFn, max_trials: int = 40) -> tuple[Array, Array]:
    """Draw ranks of scores, with heavy ties, and labels."""
    trials = draw(st.integers(2, max_trials))
    ranks = draw(st.integers(1, 12))
    values = st.lists(st.integers(0, ranks - 1), min_size=trials, max_size=trials)
    return np.array(draw(values)), np.array(draw(both_classes(trials)))


@st.composite
def rising(draw: st.DrawFn, ranks: int) -> Array:
    """Draw so many different numbers in ascending order, float32 or float64."""
    single = draw(st.booleans())
    dtype: Any = np.float32 if single else np.float64
    numbers = st.one_of(
        st.sampled_from(NASTY if single else NASTIER).map(lambda number: float(dtype(number))),
        st.floats(-4, 4, width=32),
        st.floats(allow_nan=False, allow_infinity=False, width=32 if single else 64),
    )
    values = draw(st.lists(numbers, min_size=ranks, max_size=ranks, unique=True))
    return np.array(sorted(values), dtype)


@st.composite
def scored(draw: st.DrawFn, max_trials: int = 40) -> tuple[Array, Array]:
    """Draw scores, float32 or float64, with heavy ties and extreme values, and labels."""
    ranks, labels = draw(ranked(max_trials))
    return draw(rising(int(ranks.max()) + 1))[ranks], labels


# -- References of verification --------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """What happens at one threshold."""

    threshold: float
    fnr: Fraction
    fpr: Fraction


def point_at(
    scores: Sequence[float],
    labels: Iterable[int],
    threshold: float,
    weights: Sequence[Fraction] | None = None,
) -> Point:
    missed: Fraction | int = 0
    accepted: Fraction | int = 0
    targets: Fraction | int = 0
    nontargets: Fraction | int = 0
    given: Sequence[Fraction | int] = weights or [1] * len(scores)
    for score, label, weight in zip(scores, labels, given, strict=True):
        accept = score >= threshold
        targets += weight if label else 0
        nontargets += 0 if label else weight
        missed += weight if label and not accept else 0
        accepted += weight if not label and accept else 0
    return Point(float(threshold), Fraction(missed, targets), Fraction(accepted, nontargets))


def points_of(
    scores: Array, labels: Array, weights: Sequence[Fraction] | None = None
) -> list[Point]:
    """Return the point at each distinct score, and at infinity; thresholds rise."""
    values, flags = scores.tolist(), labels.tolist()
    thresholds = [*sorted(set(values)), INFINITY]
    return [point_at(values, flags, threshold, weights) for threshold in thresholds]


def crossing_of(before: Point, after: Point) -> tuple[Fraction, Fraction]:
    """Return the rate at which the line between two points has FNR = FPR, and the share of it."""
    gap, end = before.fpr - before.fnr, after.fpr - after.fnr
    share = gap / (gap - end)
    return before.fnr + share * (after.fnr - before.fnr), share


def slow_eer(
    scores: Array, labels: Array, weights: Sequence[Fraction] | None = None
) -> tuple[Fraction, float, tuple[float, float]]:
    """Return the rate, the threshold, and the thresholds that it lies between."""
    for before, after in pairwise(points_of(scores, labels, weights)):
        if after.fnr >= after.fpr:
            rate, share = crossing_of(before, after)
            at = before.threshold
            if after.threshold < INFINITY:
                at = float((1 - share) * Fraction(at) + share * Fraction(after.threshold))
            return rate, at, (before.threshold, after.threshold)
    raise AssertionError("the rates always cross")


def slow_hull_eer(scores: Array, labels: Array) -> Fraction:
    """Return the least rate at which any line between two operating points crosses FNR = FPR."""
    points = points_of(scores, labels)
    below = [point for point in points if point.fnr < point.fpr]
    beyond = [point for point in points if point.fnr >= point.fpr]
    return min(crossing_of(before, after)[0] for before in below for after in beyond)


def slow_cost(point: Point, weights: tuple[float, float]) -> float:
    return weights[0] * float(point.fnr) + weights[1] * float(point.fpr)


def written_costs(p_target: float, c_miss: float, c_fa: float) -> tuple[Fraction, Fraction]:
    """Return the costs of all misses and of all false acceptances, of the numbers as written."""
    prior = Fraction(str(p_target))
    return Fraction(str(c_miss)) * prior, Fraction(str(c_fa)) * (1 - prior)


def slow_min_dcf(
    scores: Array,
    labels: Array,
    *,
    p_target: float,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    weights: Sequence[Fraction] | None = None,
) -> tuple[Fraction, float]:
    """Return the cost and the lowest threshold that has it."""
    miss, accept = written_costs(p_target, c_miss, c_fa)
    points = points_of(scores, labels, weights)
    cost, at = min((miss * point.fnr + accept * point.fpr, point.threshold) for point in points)
    return cost / min(miss, accept), at


def slow_cllr(scores: Array, labels: Array) -> float:
    """Return the cost of log-likelihood ratios, score by score."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    for score, label in zip(scores.tolist(), labels.tolist(), strict=True):
        wrong = -score if label else score
        # ln(1 + e^wrong), which must not overflow
        costs[bool(label)].append(max(wrong, 0.0) + math.log1p(math.exp(-abs(wrong))))
    return sum(math.fsum(of_class) / len(of_class) for of_class in costs.values()) / (
        2 * math.log(2)
    )


def slow_hull(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the first and last of points in order, and those below all lines between others."""

    def below_all_lines(row: int) -> bool:
        x, y = unique[row]
        return all(
            (x - x0) * (y1 - y) > (y - y0) * (x1 - x)
            for x0, y0 in unique[:row]
            for x1, y1 in unique[row + 1 :]
        )

    unique = list(dict.fromkeys(points))
    return [point for row, point in enumerate(unique) if below_all_lines(row)]


# -- References of cosines -------------------------------------------------------------------------


def cosine(a: Array, b: Array) -> float:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(x @ y / math.sqrt(float(x @ x) * float(y @ y)))


def all_cosines(a: Array, b: Array) -> Array:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    product: Array = x @ y.T
    return product


def apart(
    generator: np.random.Generator, *, rows: int, models: int, dimensions: int
) -> tuple[Array, Array, Array]:
    """Return rows, models, and for each row which model is nearest, by more than rounding."""
    a = generator.normal(size=(rows, dimensions)).astype(np.float32)
    b = generator.normal(size=(models, dimensions)).astype(np.float32)
    exact = all_cosines(a, b)
    if models > 1:
        best = np.sort(exact, axis=1)
        clear = best[:, -1] - best[:, -2] > 1e-5
        a, exact = a[clear], exact[clear]
    return a, b, exact.argmax(axis=1)
