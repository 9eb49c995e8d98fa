"""Scores of a trial list from embeddings, normalized with a cohort if one is given."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.normalization import as_norm
from voxblink2_lib.scoring.trials import Missing, ScoredTrials, TrialList, score_trials


class NormalizedTrials(NamedTuple):
    """Scored trials, and how their scores were normalized, for people."""

    scored: ScoredTrials
    normalization: str | None


def normalized_scores(
    trials: TrialList,
    embeddings: Embeddings,
    *,
    missing: Missing = "error",
    cohort: Embeddings | None = None,
    top_n: int = 300,
    progress: Progress = no_progress,
) -> NormalizedTrials:
    """Score trials by cosine, and normalize the scores.

    Args:
        trials: the list, with labels or without.
        embeddings: embeddings with their names.
        missing: ``"error"``, or ``"skip"`` to leave out trials without an embedding.
        cohort: embeddings of other speakers, for adaptive s-norm.
        top_n: how many members of the cohort count.
        progress: shows the progress of normalizing.

    Raises:
        ScoringError: see :func:`~voxblink2_lib.scoring.trials.score_trials`; or a bad cohort.
    """
    scored = score_trials(trials, embeddings, missing=missing)
    if cohort is None:
        return NormalizedTrials(scored, None)
    # No more utterances than these; fewer where trials were skipped.
    count = len(trials.names) - len(scored.missing)
    with progress("Normalizing", unit="utterance", total=count) as advance:
        scores = as_norm(
            scored.scores,
            enrolment_rows=scored.enrolment,
            test_rows=scored.test,
            embeddings=embeddings.vectors,
            cohort=cohort.vectors,
            top_n=top_n,
            progress=advance,
        )
    normalization = f"AS-norm, {top_n:,} nearest of {len(cohort.names):,}"
    return NormalizedTrials(replace(scored, scores=scores), normalization)
