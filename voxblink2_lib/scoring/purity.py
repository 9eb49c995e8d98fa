"""Whether the utterances of a speaker are of one voice, judged by their embeddings.

Cosines tell three kinds of mistakes in speaker labels apart:

- an utterance that is far from the speaker's other videos, in the median of them. From those, not
  from the other utterances: a video of somebody else would vouch for itself;
- a speaker with two voices: two groups of utterances, found by spherical k-means (Dhillon and
  Modha, Machine Learning 42, 2001), whose means are as far apart as strangers;
- a voice under two ids: two speakers whose means are as near as two halves of one speaker.

What is far and what is near comes from the data. ``far`` is the threshold of the equal error rate
between cosines with the own speaker and with another one, as if both were normally distributed with
the medians and the median absolute deviations that they have: wrong labels do not move it. ``near``
is what the halves of 95 of 100 speakers reach, halved by videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.blockwise import pairs_above, unit
from voxblink2_lib.scoring.validation import Flags, Floats, Rows

# A smaller group is a few utterances that are far, not a second voice.
_LEAST_GROUP = 2
_LEAST_SHARE = 0.05
_MOST_ROUNDS = 20
_POWER_STEPS = 8

# The share of speakers whose halves are nearer to each other than ``near``.
_NEARER = 0.95
_PAIRS_PER_SPEAKER = 10


class Pairs(NamedTuple):
    """Speakers that are near each other.

    Attributes:
        first: index of a speaker. Shape: [pairs].
        second: index of another, larger than the first. Shape: [pairs].
        cosine: of their means. Shape: [pairs].
    """

    first: Rows
    second: Rows
    cosine: Floats


@dataclass(frozen=True, eq=False)
class Purity:
    """What the embeddings say of the speakers' labels.

    Attributes:
        far: cosines below are of strangers.
        near: cosines of two speakers' means that are at least this are of one voice.
        own: cosine of each utterance with its speaker: the median of those with the means of the
            other videos; with the mean of the other utterances if there is one video; NaN if there
            is one utterance. Shape: [utterances].
        groups: cosine of the means of the two groups of each speaker; NaN if it has no two.
            Shape: [speakers].
        is_minor: whether an utterance is in the smaller group. Shape: [utterances].
        pairs: speakers that are near each other.
    """

    far: float
    near: float
    own: Floats
    groups: Floats
    is_minor: Flags
    pairs: Pairs

    @property
    def is_far(self) -> Flags:
        """Whether an utterance is far from its speaker. Shape: [utterances]."""
        return self.own < self.far

    @property
    def is_mixed(self) -> Flags:
        """Whether a speaker has two voices. Shape: [speakers]."""
        return self.groups < self.far


class Vectors(Protocol):
    """Embeddings that may stay on disk, of which some rows are read at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and of dimensions."""

    def __getitem__(self, rows: Rows, /) -> Floats:
        """Return some rows, float32. Shape: [rows, dimensions]."""


def measure_purity(
    vectors: Vectors,
    speaker: Rows,
    video: Rows,
    *,
    far: float | None = None,
    near: float | None = None,
    progress: Progress = no_progress,
) -> Purity:
    """Judge the labels of utterances. Vectors of one speaker at a time are in memory.

    Args:
        vectors: float32, may be mapped from a file. Shape: [utterances, dimensions].
        speaker: of each utterance, from 0 without gaps. Shape: [utterances].
        video: of each utterance, any numbers. Shape: [utterances].
        far: by default from the data; see above.
        near: by default from the data; see above.
        progress: shows the utterances and the speakers done.

    Raises:
        ScoringError: a vector is zero, there are fewer than two speakers with two utterances, or so
            many pairs that ``near`` means nothing.
    """
    order = np.argsort(speaker, kind="stable")
    ends = np.cumsum(np.bincount(speaker))
    own, others = np.full((2, len(order)), np.nan, np.float32)
    halves, groups = np.full((2, len(ends)), np.nan, np.float32)
    is_minor = np.zeros(len(order), bool)
    means = np.empty((len(ends), vectors.shape[1]), np.float32)
    with progress("Comparing", unit="utterance", total=len(order)) as advance:
        for number, end in enumerate(ends.tolist()):
            rows = order[ends[number - 1] if number else 0 : end]
            utterances = unit(np.asarray(vectors[rows]), "vectors", rows)
            # By their numbers: sums are rounded alike, in whatever order the rows come.
            ranks = np.lexsort((utterances[:, -1], utterances[:, 0], video[rows]))
            rows, utterances = rows[ranks], utterances[ranks]
            voice = _voice(utterances, video[rows])
            own[rows], halves[number], groups[number], means[number] = (
                *(voice.own, voice.halves, voice.groups), voice.mean,
            )  # fmt: skip
            is_minor[rows] = voice.is_minor
            if number:
                others[rows] = utterances @ means[number - 1]
            advance(len(rows))
    far = _threshold(own, others) if far is None else far
    near = _usual(halves) if near is None else near
    return Purity(far, near, own, groups, is_minor, _pairs(means, near, progress))


class _Voice(NamedTuple):
    """What is measured of one speaker; see :class:`Purity`."""

    own: Floats
    halves: float
    groups: float
    is_minor: Flags
    mean: Floats


def _voice(utterances: Floats, video: Rows) -> _Voice:
    """Measure the utterances of a speaker, sorted by video."""
    starts = np.flatnonzero(np.r_[True, video[1:] != video[:-1]])
    of_video = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(video)]))
    sums = np.add.reduceat(utterances, starts, axis=0)
    total = sums.sum(axis=0)
    own, halves = np.full(len(video), np.nan, np.float32), np.nan
    if len(starts) > 1:
        own = _with_other_videos(utterances, sums, of_video)
        halves = float(_cosines(sums[::2].sum(axis=0)[None], sums[1::2].sum(axis=0)[None])[0])
    elif len(video) > 1:
        own = _cosines(utterances, total - utterances)
    groups, is_minor = _two_groups(utterances)
    return _Voice(own, halves, groups, is_minor, total / max(float(np.linalg.norm(total)), 1e-12))


def _with_other_videos(utterances: Floats, sums: Floats, of_video: Rows) -> Floats:
    """Return the median cosine of each utterance with the means of the other videos.

    Of two in the middle the higher counts: one wrong video does not make two right ones far.
    """
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    products = utterances @ means.T
    products[np.arange(len(products)), of_video] = -np.inf  # sorted first: not one of the others
    products.sort(axis=1)
    return np.asarray(products[:, 1 + (len(sums) - 1) // 2], np.float32)


def _cosines(a: Floats, b: Floats) -> Floats:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.maximum(lengths, 1e-12), np.float32)


def _two_groups(utterances: Floats) -> tuple[float, Flags]:
    """Return the cosine of the means of two groups, and who is in the smaller one."""
    nobody = np.zeros(len(utterances), bool)
    if len(utterances) < 2 * _LEAST_GROUP:
        return np.nan, nobody
    is_second = _initial_groups(utterances)
    means = np.empty((2, utterances.shape[1]), np.float32)
    for _ in range(_MOST_ROUNDS):
        if is_second.all() or not is_second.any():
            return np.nan, nobody
        means[:] = utterances[~is_second].sum(axis=0), utterances[is_second].sum(axis=0)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        first, second = means @ utterances.T
        before, is_second = is_second, second > first
        if np.array_equal(before, is_second):
            break
    is_minor = is_second if 2 * is_second.sum() <= len(is_second) else ~is_second
    if is_minor.sum() < max(_LEAST_GROUP, _LEAST_SHARE * len(is_minor)):
        return np.nan, nobody
    return float(means[0] @ means[1]), is_minor


def _initial_groups(utterances: Floats) -> Flags:
    """Divide utterances at their mean, along the direction in which they differ most.

    That is the first principal component, by power iteration.
    """
    centred = utterances - utterances.mean(axis=0)
    # From the utterance that is farthest from the mean, which is not at a right angle to it.
    direction = centred[np.square(centred).sum(axis=1).argmax()]
    for _ in range(_POWER_STEPS):
        direction = centred.T @ (centred @ direction)
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
    return np.asarray(centred @ direction > 0)


def _threshold(own: Floats, others: Floats) -> float:
    """Return what is as many deviations below cosines of one voice as above those of two."""
    own, others = own[~np.isnan(own)], others[~np.isnan(others)]
    if not len(own) or not len(others):
        raise ScoringError(
            "Labels cannot be judged: expected are embeddings of two speakers or more, one of them "
            "with two utterances."
        )
    (of_own, own_spread), (of_others, others_spread) = _robust(own), _robust(others)
    share = others_spread / max(own_spread + others_spread, 1e-12)
    return of_others + share * (of_own - of_others)


def _robust(values: Floats) -> tuple[float, float]:
    """Return the median, and the median absolute deviation from it."""
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median)))


def _usual(halves: Floats) -> float:
    """Return what the halves of most speakers reach; infinity if nobody has two videos."""
    known = halves[~np.isnan(halves)]
    return float(np.quantile(known, 1 - _NEARER, method="lower")) if len(known) else np.inf


def _pairs(means: Floats, near: float, progress: Progress) -> Pairs:
    if np.isinf(near):
        empty = np.empty(0, np.int64)
        return Pairs(empty, empty, np.empty(0, np.float32))
    most = _PAIRS_PER_SPEAKER * len(means)
    with progress("Pairing", unit="speaker", total=len(means)) as advance:
        first, second, cosine = pairs_above(means, near, most=most, progress=advance)
    return Pairs(first, second, cosine)
