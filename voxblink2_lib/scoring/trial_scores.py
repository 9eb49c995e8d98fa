"""Scores of a trial list from embeddings: of single utterances or of models, perhaps normalized."""

from __future__ import annotations

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
from voxblink2_lib.scoring.normalization import as_norm
from voxblink2_lib.scoring.source_models import check_same_model
from voxblink2_lib.scoring.trials import (
    Missing,
    ScoredTrials,
    TrialList,
    cosine_scores,
    score_trials,
)
from voxblink2_lib.scoring.validation import Floats, Rows, check_choice


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

    def apply(self, scores: Floats, vectors: Floats, enrolment: Rows, test: Rows) -> Floats:
        """Normalize the scores of trials between rows of vectors. Shape: [trials]."""
        if self.cohort is None:
            return scores
        count = len(np.unique(np.concatenate([enrolment, test])))
        with self.progress("Normalizing", unit="utterance", total=count) as advance:
            return as_norm(
                scores,
                enrolment_rows=enrolment,
                test_rows=test,
                embeddings=vectors,
                cohort=self.cohort.vectors,
                top_n=self.top_n,
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
            or a bad cohort, such as embeddings of another speaker model.
    """
    check_choice("enrolment", enrolment, MODEL_SCORES)
    if cohort is not None:
        check_same_model((embeddings.model, embeddings.source), (cohort.model, cohort.source))
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
    scores = norm.apply(scored.scores, embeddings.vectors, scored.enrolment, scored.test)
    return NormalizedTrials(replace(scored, scores=scores), description)


def _model_scores(
    enrolled: EnrolledTrials, vectors: Floats, enrolment: ModelScore, norm: _Normalization
) -> Floats:
    if enrolment in {"mean", "normalized-mean"}:
        used, test = np.unique(enrolled.test, return_inverse=True)
        both = np.concatenate([vectors[used], model_vectors(enrolled, vectors, enrolment)])
        sides = len(used) + enrolled.model, test
        return norm.apply(cosine_scores(both, *sides), both, *sides)
    # One pair for each utterance of the model of each trial.
    counts = enrolled.counts[enrolled.model]
    starts = np.cumsum(counts) - counts
    shift = np.repeat(enrolled.starts[enrolled.model] - starts, counts)
    utterances = enrolled.utterances[np.arange(len(shift)) + shift]
    sides = utterances, np.repeat(enrolled.test, counts)
    scores = norm.apply(cosine_scores(vectors, *sides), vectors, *sides)
    if enrolment == "max":
        return np.maximum.reduceat(scores, starts)
    means = np.add.reduceat(scores, starts, dtype=np.float64) / counts
    return means.astype(scores.dtype)
