"""Scores of a trial list from embeddings: of single utterances or of models, perhaps normalized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.enrolment import (
    MODEL_SCORES,
    EnrolledTrials,
    EnrolmentMap,
    ModelScore,
    enrolled_trials,
    model_vectors,
)
from voxblink2_lib.scoring.normalization import CohortStatistics
from voxblink2_lib.scoring.trials import (
    Missing,
    ScoredTrials,
    TrialList,
    cosine_scores,
    score_trials,
)
from voxblink2_lib.scoring.validation import Floats, Rows, check_choice

# Pairs of utterances that are scored at once; a pair takes some 60 bytes.
_PAIRS = 1 << 20

# Normalizes the scores of trials between rows of both sides.
_Normalize = Callable[[Floats, Rows, Rows], Floats]


class NormalizedTrials(NamedTuple):
    """Scored trials, and how their scores were normalized, for people."""

    scored: ScoredTrials
    normalization: str | None


class _Normalization(NamedTuple):
    """Adaptive s-norm by a cohort, or none."""

    cohort: Embeddings | None
    top_n: int
    progress: Progress

    def __str__(self) -> str:
        assert self.cohort
        return f"AS-norm, {self.top_n:,} nearest of {len(self.cohort.names):,}"

    def of(self, vectors: Floats, rows: Rows) -> _Normalize:
        """Return what normalizes the scores of trials between these rows of vectors."""
        if self.cohort is None:
            return lambda scores, *_: scores
        with self.progress("Normalizing", unit="utterance", total=len(np.unique(rows))) as advance:
            return CohortStatistics.of(
                rows, vectors, self.cohort.vectors, top_n=self.top_n, progress=advance
            ).normalize


def normalized_scores(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    models: EnrolmentMap | None = None,
    enrolment: ModelScore = "mean",
    cohort: Embeddings | None = None,
    top_n: int = 300,
    progress: Progress = no_progress,
) -> NormalizedTrials:
    """Score trials by cosine, and normalize the scores.

    Args:
        trials: the list, with labels or without.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out trials without an embedding.
        models: the utterances of each model, if the enrolment side of trials are models.
        enrolment: how the utterances of a model count. ``"mean"``: the mean of their embeddings;
            ``"normalized-mean"``: of embeddings scaled to length 1; ``"mean-of-scores"``: the mean
            of their scores, each of them normalized; ``"max"``: the largest of these.
        cohort: embeddings of other speakers, for adaptive s-norm.
        top_n: how many members of the cohort count.
        progress: shows the progress of normalizing.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials`; a model is missing;
            or a bad cohort.
    """
    check_choice("enrolment", enrolment, MODEL_SCORES)
    norm = _Normalization(cohort, top_n, progress)
    description = None if cohort is None else str(norm)
    if models is not None:
        enrolled = enrolled_trials(trials, embeddings, models, missing=missing)
        scores = _model_scores(enrolled, embeddings.vectors, enrolment, norm)
        labels = None if trials.labels is None else trials.labels[enrolled.rows]
        first = enrolled.utterances[enrolled.starts[enrolled.model]]
        missed = enrolled.missing
        scored = ScoredTrials(scores, enrolled.rows, first, enrolled.test, labels, missed)
        return NormalizedTrials(scored, description)
    scored = score_trials(trials, embeddings, missing=missing)
    sides = scored.enrolment, scored.test
    normalize = norm.of(embeddings.vectors, np.concatenate(sides))
    scores = normalize(scored.scores, *sides)
    return NormalizedTrials(replace(scored, scores=scores), description)


def _model_scores(
    enrolled: EnrolledTrials, vectors: Floats, enrolment: ModelScore, norm: _Normalization
) -> Floats:
    if enrolment in {"mean", "normalized-mean"}:
        used, test = np.unique(enrolled.test, return_inverse=True)
        both = np.concatenate([vectors[used], model_vectors(enrolled, vectors, enrolment)])
        sides = len(used) + enrolled.model, test
        normalize = norm.of(both, np.concatenate(sides))
        return normalize(cosine_scores(both, *sides), *sides)
    return _pooled_scores(enrolled, vectors, enrolment, norm)


def _pooled_scores(
    enrolled: EnrolledTrials, vectors: Floats, enrolment: ModelScore, norm: _Normalization
) -> Floats:
    """Return the mean or the largest score of the utterances of each model, a chunk at a time."""
    used = np.zeros(len(enrolled.counts), bool)
    used[enrolled.model] = True
    of_used = enrolled.utterances[np.repeat(used, enrolled.counts)]
    normalize = norm.of(vectors, np.concatenate([of_used, enrolled.test]))
    pooled = []
    for chunk in _chunks(enrolled.counts[enrolled.model]):
        # One pair for each utterance of the model of each trial.
        counts = enrolled.counts[enrolled.model[chunk]]
        starts = np.cumsum(counts) - counts
        shift = np.repeat(enrolled.starts[enrolled.model[chunk]] - starts, counts)
        utterances = enrolled.utterances[np.arange(len(shift)) + shift]
        sides = utterances, np.repeat(enrolled.test[chunk], counts)
        scores = normalize(cosine_scores(vectors, *sides), *sides)
        if enrolment == "max":
            pooled.append(np.maximum.reduceat(scores, starts))
        else:
            sums = np.add.reduceat(scores.astype(np.float64), starts)
            pooled.append((sums / counts).astype(scores.dtype))
    return np.concatenate(pooled)


def _chunks(counts: Rows) -> Iterator[slice]:
    """Yield trials with as many pairs together as are in memory at once, one trial at least."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + _PAIRS, side="right"))
        last = max(last, first + 1)
        yield slice(first, last)
        first = last
