"""Scores of a trial list from embeddings: of single utterances or of models, perhaps normalized."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, get_args

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
from voxblink2_lib.scoring.normalization import CohortStatistics, as_norm
from voxblink2_lib.scoring.source_models import check_same_model
from voxblink2_lib.scoring.trials import (
    Missing,
    ScoredTrials,
    TrialList,
    cosine_scores,
    score_trials,
)
from voxblink2_lib.scoring.validation import Floats, Rows, check_choice

Norm = Literal["s-norm", "as-norm1", "as-norm2"]

# Pairs of utterances that are scored at once; a pair takes some 60 bytes.
_PAIRS = 1 << 20

# Normalizes the scores of trials between rows of both sides.
_Normalize = Callable[[Floats, Rows, Rows], Floats]


class NormalizedTrials(NamedTuple):
    """Scored trials, and how embeddings were centred and scores normalized, for people."""

    scored: ScoredTrials
    normalization: str | None


class _Normalization(NamedTuple):
    """Normalization by a cohort, or none."""

    cohort: Embeddings | None
    norm: Norm
    top_n: int
    progress: Progress

    def text(self, embeddings: Embeddings) -> str | None:
        """Return what is done to embeddings and scores, for people; nothing if that is nothing."""
        parts = [embeddings.centred] if embeddings.centred else []
        if self.cohort is not None:
            size = len(self.cohort.names)
            parts.append(
                f"s-norm, cohort of {size:,}"
                if self.norm == "s-norm"
                else f"AS-norm {self.norm[-1]}, {self.top_n:,} nearest of {size:,}"
            )
        return "; ".join(parts) or None

    def of(self, vectors: Floats, rows: Rows) -> _Normalize:
        """Return what normalizes the scores of trials between these rows of vectors."""
        if self.cohort is None:
            return lambda scores, *_: scores
        cohort, count = self.cohort.vectors, len(np.unique(rows))
        if self.norm == "as-norm2":  # statistics of pairs, not of utterances
            return partial(self._crossed, vectors)
        top_n = None if self.norm == "s-norm" else self.top_n
        with self.progress("Normalizing", unit="utterance", total=count) as advance:
            return CohortStatistics.of(
                rows, vectors, cohort, top_n=top_n, progress=advance
            ).normalize

    def _crossed(self, vectors: Floats, scores: Floats, enrolment: Rows, test: Rows) -> Floats:
        assert self.cohort is not None
        count = len(np.unique(np.concatenate([enrolment, test])))
        with self.progress("Normalizing", unit="utterance", total=count) as advance:
            return as_norm(
                scores,
                enrolment_rows=enrolment,
                test_rows=test,
                embeddings=vectors,
                cohort=self.cohort.vectors,
                top_n=self.top_n,
                variant=2,
                progress=advance,
            )


def normalized_scores(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    models: EnrolmentMap | None = None,
    enrolment: ModelScore = "mean",
    cohort: Embeddings | None = None,
    norm: Norm = "as-norm1",
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
        cohort: embeddings of other speakers, to normalize scores.
        norm: ``"s-norm"``, with the whole cohort; ``"as-norm1"``, with the members nearest to each
            side; ``"as-norm2"``, with those nearest to the other side: see
            :func:`~voxblink2_lib.scoring.normalization.as_norm`.
        top_n: how many members are near.
        progress: shows the progress of normalizing.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials`; a model is missing;
            or a bad cohort, such as embeddings of another speaker model.
    """
    check_choice("enrolment", enrolment, MODEL_SCORES)
    if cohort is not None:
        check_same_model((embeddings.model, embeddings.source), (cohort.model, cohort.source))
    check_choice("norm", norm, get_args(Norm))
    normalization = _Normalization(cohort, norm, top_n, progress)
    description = normalization.text(embeddings)
    if models is not None:
        enrolled = enrolled_trials(trials, embeddings, models, missing=missing)
        scores = _model_scores(enrolled, embeddings.vectors, enrolment, normalization)
        labels = None if trials.labels is None else trials.labels[enrolled.rows]
        first = enrolled.utterances[enrolled.starts[enrolled.model]]
        missed = enrolled.missing
        scored = ScoredTrials(scores, enrolled.rows, first, enrolled.test, labels, missed)
        return NormalizedTrials(scored, description)
    scored = score_trials(trials, embeddings, missing=missing)
    sides = scored.enrolment, scored.test
    normalize = normalization.of(embeddings.vectors, np.concatenate(sides))
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
