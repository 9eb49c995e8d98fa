"""Trials, and their scores by cosine.

A trial list stores each utterance's name once and refers to names by row, so ten million trials
take about 170 MB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import counted
from voxblink2_lib.scoring.blockwise import cosines
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.validation import (
    Flags,
    Floats,
    Rows,
    as_embeddings,
    check_choice,
    checked_rows,
    norms_of,
)

Missing = Literal["error", "skip"]

_SPEAKER = re.compile(r"(?:^|/)(id\d{5,6})(?=[/-])")

# Returns where items of a list are, for messages.
Places = Callable[[Sequence[int]], list[str]]


def numbered_trials(rows: Sequence[int]) -> list[str]:
    """Return the places of trials that were read from no file.

    >>> numbered_trials([0, 4])
    ['trial 1', 'trial 5']
    """
    return [f"trial {row + 1:,}" for row in rows]


@dataclass(frozen=True, eq=False)
class TrialList:
    """Trials.

    Attributes:
        names: names of utterances, each once.
        enrolment: rows of ``names``. Shape: [trials].
        test: rows of ``names``. Shape: [trials].
        labels: true for a target trial; ``None`` if the list has no labels. Shape: [trials].
        places: returns where trials are, for messages: file and line, if it was read.
    """

    names: list[str]
    enrolment: Rows
    test: Rows
    labels: Flags | None
    places: Places = numbered_trials


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Scores of the trials that could be scored.

    Attributes:
        scores: cosines, float32. Shape: [scored].
        rows: rows of these trials in the list, ascending. Shape: [scored].
        enrolment: rows of the embeddings, of a model that of its first utterance.
            Shape: [scored].
        test: rows of the embeddings. Shape: [scored].
        labels: true for a target trial; ``None`` if the list has no labels. Shape: [scored].
        missing: names without an embedding.
    """

    scores: Floats
    rows: Rows
    enrolment: Rows
    test: Rows
    labels: Flags | None
    missing: list[str]


def cosine_scores(embeddings: object, enrolment_rows: object, test_rows: object) -> Floats:
    """Return the cosine of each trial, float32. Shape: [trials].

    Trials are processed in blocks, so the memory in addition to arguments and result is a few
    mebibytes. The same two embeddings give the same bits in whatever rows they are.

    Args:
        embeddings: embeddings. Shape: [utterances, dimensions].
        enrolment_rows: rows of ``embeddings``. Shape: [trials].
        test_rows: rows of ``embeddings``. Shape: [trials].

    Raises:
        ScoringError: bad embeddings, or rows that they do not have.

    Example:
        >>> cosine_scores([[1, 0], [3, 4]], [0, 0], [0, 1])
        array([1. , 0.6], dtype=float32)
    """
    vectors = as_embeddings(embeddings, "embeddings")
    enrolment = checked_rows(enrolment_rows, "enrolment_rows", utterances=len(vectors))
    test = checked_rows(
        test_rows, "test_rows", utterances=len(vectors), trials=len(enrolment), of="enrolment_rows"
    )
    norms = norms_of(vectors, "embeddings")
    return cosines(vectors, vectors, enrolment, test, (norms, norms))


def score_trials(
    trials: TrialList, embeddings: Embeddings, *, missing: Missing = "error"
) -> ScoredTrials:
    """Score a trial list by the cosines of its utterances' embeddings.

    Args:
        trials: the list.
        embeddings: embeddings with their names.
        missing: what to do about trials with an utterance without embedding: ``"error"``, or
            ``"skip"`` to leave them out, counted.

    Raises:
        ScoringError: a name has no embedding; or no trial is left.
    """
    check_choice("missing", missing, get_args(Missing))
    embedding_rows = embeddings.rows_of(trials.names)
    enrolment, test = embedding_rows[trials.enrolment], embedding_rows[trials.test]
    covered: Flags = (enrolment >= 0) & (test >= 0)
    absent = [trials.names[row] for row in np.flatnonzero(embedding_rows < 0)]
    if missing == "error" and not covered.all():
        row = int(np.flatnonzero(~covered)[0])
        side = trials.enrolment if enrolment[row] < 0 else trials.test
        raise ScoringError(
            f"{len(absent):,} of {len(trials.names):,} utterances have no embedding in "
            f"{embeddings.source}, so {np.count_nonzero(~covered):,} of {len(covered):,} trials "
            f"cannot be scored; the first is {trials.places([row])[0]}, "
            f"{shortened(trials.names[side[row]])} is missing. Names without a match: "
            f"{embeddings.index.unmatched_text(absent)}. To leave such trials out and have them "
            "counted: missing='skip' (--missing skip)."
        )
    if not covered.any():
        raise ScoringError(
            f"None of the {counted(len(covered), 'trial')} has both embeddings in "
            f"{embeddings.source}. Names without a match: "
            f"{embeddings.index.unmatched_text(absent)}."
        )
    rows = np.flatnonzero(covered)
    enrolment, test = enrolment[rows], test[rows]
    scores = cosine_scores(embeddings.vectors, enrolment, test)
    labels = None if trials.labels is None else trials.labels[rows]
    return ScoredTrials(scores, rows, enrolment, test, labels, absent)


def check_labelled(trials: TrialList, source: object = "the list of trials") -> None:
    """Refuse a list without labels.

    Args:
        trials: the list.
        source: where it was read from, for messages.

    Raises:
        ScoringError: it has none.
    """
    if trials.labels is None:
        raise ScoringError(
            f"{source} has no labels, without which there are no error rates. Name a list with "
            "labels (--trials KEY), or only write scores (score sv --out FILE)."
        )


def check_classes(trials: TrialList, embeddings: Embeddings) -> None:
    """Refuse trials of one class, before anything is scored.

    Raises:
        ScoringError: of the trials with both embeddings, all are target or all non-target trials.
    """
    present = embeddings.rows_of(trials.names) >= 0
    covered: Flags = present[trials.enrolment] & present[trials.test]
    count, targets = (
        np.count_nonzero(covered),
        np.count_nonzero(covered & np.asarray(trials.labels)),
    )
    if count and targets in {0, count}:
        (place,) = trials.places([int(np.argmax(covered))])
        raise ScoringError(
            f"labels are all {int(targets > 0)}; error rates need target (1) and non-target (0) "
            f"trials, here among the {count:,} with both embeddings, from {place} on."
        )


def trial_text(trials: TrialList, row: int) -> str:
    """Return the names of a trial, for messages."""
    sides = (trials.enrolment[row], trials.test[row])
    return " against ".join(shortened(trials.names[side]) for side in sides)


def speakers_of(names: Sequence[str]) -> list[str]:
    """Return the speaker of each name, ``id`` and five or six digits.

    Raises:
        ScoringError: a name does not contain its speaker; the message quotes it.
    """
    speakers = []
    for name in names:
        speaker = speaker_in(name)
        if speaker is None:
            raise ScoringError(
                f"{name!r} does not contain its speaker; names such as "
                "id10270/x6uYqmx31kE/00001.wav or id10270-x6uYqmx31kE-00001 do."
            )
        speakers.append(speaker)
    return speakers


def speaker_in(name: str) -> str | None:
    """Return the speaker that a name contains, if it does.

    >>> speaker_in("wav/id10270/x6uYqmx31kE/00001.wav"), speaker_in("noise.wav")
    ('id10270', None)
    """
    match = _SPEAKER.search(name)
    return match[1] if match else None
