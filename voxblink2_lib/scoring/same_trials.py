"""Scores of several systems for the same trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.scoring.score_files import ScoreFile, match_scores
from voxblink2_lib.scoring.trials import ScoredTrials, TrialList, trial_text
from voxblink2_lib.scoring.validation import Floats, Rows

_EXAMPLES = 3


class ScoredSystems(NamedTuple):
    """The same trials as several systems score them.

    Attributes:
        trials: the list.
        scores: of each system. Shape of each: [trials].
        others: how many scores of each system are of no trial of the list.
    """

    trials: TrialList
    scores: list[Floats]
    others: list[int]


def systems_of(
    files: Sequence[ScoreFile], trials: TrialList | None = None, *, source: str = ""
) -> ScoredSystems:
    """Return the scores of each trial of a list, by every system.

    Args:
        files: the scores of each system, in any order of trials; names may be spelled differently.
        trials: the list; by default, the trials of the first file that has labels, or of the first.
            Then all files must have the same ones.
        source: where the list was read from, for messages.

    Raises:
        ScoringError: a trial has no score, or two that differ; labels differ; or the files have
            different trials.
    """
    is_same = trials is None
    if trials is None:
        first = next((file for file in files if file.trials.labels is not None), files[0])
        trials, source = first.trials, first.source
    systems = ScoredSystems(trials, [], [])
    for file in files:
        matched, others = match_scores(file, trials, missing="skip")
        absent = _absent(matched, len(trials.enrolment))
        if absent.size:
            raise _no_scores(absent, trials, source, file.source)
        if others and is_same:
            _refuse_others(file, trials, source)
        systems.scores.append(matched.scores)
        systems.others.append(others)
    return systems


def _absent(matched: ScoredTrials, count: int) -> Rows:
    """Return which of so many trials have no score."""
    has_score = np.zeros(count, bool)
    has_score[matched.rows] = True
    return np.flatnonzero(~has_score)


def _refuse_others(file: ScoreFile, trials: TrialList, source: str) -> None:
    """Raise because of the trials that only this file has."""
    bare = np.zeros(len(trials.enrolment), np.float32)
    known = ScoreFile(trials, bare, source)
    matched, _ = match_scores(known, file.trials, missing="skip")
    absent = _absent(matched, len(file.scores))
    raise _no_scores(absent, file.trials, file.source, source)


def _no_scores(absent: Rows, trials: TrialList, source: str, other: str) -> ScoringError:
    """Return what to say of trials of one file that another lacks."""
    examples = [trial_text(trials, row) for row in absent[:_EXAMPLES].tolist()]
    return ScoringError(
        f"{len(absent):,} of {len(trials.enrolment):,} trials of {source} have no score in "
        f"{other}; the first: {'; '.join(examples)}. Give all systems the same trials, or name a "
        "list of trials that all have (--trials KEY)."
    )
