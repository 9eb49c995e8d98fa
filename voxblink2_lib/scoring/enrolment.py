"""Models of several enrolled utterances, and the speakers of utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import counted
from voxblink2_lib.scoring.embeddings import Embeddings
from voxblink2_lib.scoring.list_text import read_words
from voxblink2_lib.scoring.names import NameIndex
from voxblink2_lib.scoring.open_set import mean_models
from voxblink2_lib.scoring.trial_lists import (
    ENROL,
    TEST,
    TRIAL_HEADERS,
    labelled_places,
    read_labelled,
)
from voxblink2_lib.scoring.trials import Missing, TrialList, speakers_of
from voxblink2_lib.scoring.validation import Flags, Floats, Rows

ModelScore = Literal["mean", "normalized-mean", "mean-of-scores", "max"]
MODEL_SCORES: tuple[ModelScore, ...] = get_args(ModelScore)

_ACCEPTED = (
    "Allowed are 'model utterance', one or more lines for a model, 'model utterance utterance', or "
    "columns below a header such as 'modelid segmentid'."
)


@dataclass(frozen=True, eq=False)
class EnrolmentMap:
    """The enrolled utterances of each model.

    Attributes:
        utterances: names of utterances by the name of their model.
        source: the file, for messages.
    """

    utterances: Mapping[str, Sequence[str]]
    source: str

    @cached_property
    def index(self) -> NameIndex:
        """The names of models, to be looked for."""
        return NameIndex([*self.utterances], self.source)


def read_enrolment(path: str | Path) -> EnrolmentMap:
    """Read which utterances each model is made of.

    Args:
        path: text with lines ``model utterance [utterance ...]``, such as ``spk2utt`` of Kaldi and
            ``enroll.map`` of CN-Celeb, or NIST's columns ``modelid`` and ``segmentid``.

    Raises:
        ScoringError: the file cannot be read, or a line names no utterance; names the line.
    """
    utterances: dict[str, dict[str, None]] = {}
    for number, words in _pairs(Path(path)):
        if len(words) < 2:
            raise ScoringError(
                f"{path}, line {number:,}: {shortened(words[0])} has no utterance. {_ACCEPTED}"
            )
        model, *names = words
        utterances.setdefault(model, {}).update(dict.fromkeys(names))
    if not utterances:
        raise ScoringError(f"{path} contains no model. {_ACCEPTED}")
    return EnrolmentMap({model: [*names] for model, names in utterances.items()}, str(path))


def _pairs(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line: a model and its utterances."""
    columns: list[int] | None = None
    for row, (number, words) in enumerate(read_words(path, _ACCEPTED)):
        if row == 0:
            plain = [word.lower().replace("_", "") for word in words]
            columns = [
                place
                for names in (TRIAL_HEADERS[ENROL], TRIAL_HEADERS[TEST] | {"utterance", "utt"})
                for place, word in enumerate(plain)
                if word in names
            ]
            if len(columns) == 2:
                continue
            columns = None
        chosen = (
            words if columns is None else [words[place] for place in columns if place < len(words)]
        )
        yield number, [word for word in chosen if word] or [""]


# -- Models of a trial list ------------------------------------------------------------------------


class EnrolledTrials(NamedTuple):
    """The trials of a list whose model and test utterance have embeddings.

    Attributes:
        rows: rows of these trials in the list, ascending. Shape: [scored].
        model: model of each. Shape: [scored].
        test: row of the test embedding of each. Shape: [scored].
        utterances: rows of the embeddings of all models, one model after the other.
            Shape: [enrolled].
        starts: where each model begins among them, and their number. Shape: [models + 1].
        missing: names without an embedding.
    """

    rows: Rows
    model: Rows
    test: Rows
    utterances: Rows
    starts: Rows
    missing: list[str]

    @property
    def counts(self) -> Rows:
        """Number of utterances of each model. Shape: [models]."""
        return np.diff(self.starts)


def enrolled_trials(
    trials: TrialList, embeddings: Embeddings, models: EnrolmentMap, *, missing: Missing
) -> EnrolledTrials:
    """Find the embeddings of models and test utterances.

    Args:
        trials: the list; the enrolment side are names of models.
        embeddings: embeddings with their names.
        models: the utterances of each model.
        missing: ``"error"``, or ``"skip"`` to leave out utterances without an embedding, models of
            which none is left, and the trials of both.

    Raises:
        ScoringError: a model or an embedding is missing; or nothing is left.
    """
    used, model = np.unique(trials.enrolment, return_inverse=True)
    names = [trials.names[row] for row in used]
    places = models.index.rows_of(names)
    unknown = [name for name, place in zip(names, places, strict=True) if place < 0]
    _refuse_missing("model", unknown, models.index, missing)
    lists = [models.utterances[models.index.names[place]] if place >= 0 else [] for place in places]
    enrolled = [name for utterances in lists for name in utterances]
    tested, test = np.unique(trials.test, return_inverse=True)
    tests = [trials.names[row] for row in tested]
    matches = embeddings.rows_of([*enrolled, *tests])
    absent = [name for name, row in zip([*enrolled, *tests], matches, strict=True) if row < 0]
    absent = list(dict.fromkeys(absent))
    _refuse_missing("utterance", absent, embeddings.index, missing)
    rows, test_rows = np.split(matches, [len(enrolled)])
    owner = np.repeat(np.arange(len(lists)), [len(utterances) for utterances in lists])[rows >= 0]
    counts = np.bincount(owner, minlength=len(lists))
    covered: Flags = (counts[model] > 0) & (test_rows[test] >= 0)
    if not covered.any():
        raise ScoringError(
            f"None of the {counted(len(covered), 'trial')} has its embeddings in "
            f"{embeddings.source}. Names without a match: "
            f"{embeddings.index.unmatched_text(absent)}."
        )
    return EnrolledTrials(
        rows=np.flatnonzero(covered),
        model=model[covered],
        test=test_rows[test][covered],
        utterances=rows[rows >= 0],
        starts=np.concatenate([[0], np.cumsum(counts)]),
        missing=[*unknown, *absent],
    )


def _refuse_missing(what: str, names: Sequence[str], index: NameIndex, missing: Missing) -> None:
    if names and missing == "error":
        raise ScoringError(
            f"{counted(len(names), what, 'are', of='of the trials')} not in {index.source}. Names "
            f"without a match: {index.unmatched_text(names)}. To leave them out and have them "
            "counted: missing='skip' (--missing skip)."
        )


def model_vectors(enrolled: EnrolledTrials, vectors: Floats, score: ModelScore) -> Floats:
    """Return the mean embedding of each model, of length 1. Shape: [models, dimensions].

    A model without embeddings, of which no trial is scored, is a row of ones.
    """
    owner = np.repeat(np.arange(len(enrolled.counts)), enrolled.counts)
    models = np.ones((len(enrolled.counts), vectors.shape[1]), np.float32)
    models[enrolled.counts > 0] = mean_models(vectors[enrolled.utterances], owner, score)
    return models


# -- Speakers --------------------------------------------------------------------------------------


def read_speakers(path: str | Path) -> dict[str, str]:
    """Read the speaker of each utterance, as in ``utt2spk`` of Kaldi.

    Raises:
        ScoringError: the file cannot be read, or an utterance has two speakers.
    """
    speakers: dict[str, str] = {}
    for item, (name, speaker) in enumerate(zip(*read_labelled(path), strict=True)):
        if speakers.setdefault(name, speaker) != speaker:
            (place,) = labelled_places(Path(path), [item])
            raise ScoringError(
                f"{place}: {shortened(name)} has the speaker {shortened(speaker)} here, and "
                f"{shortened(speakers[name])} before. Keep one of the lines."
            )
    return speakers


def speakers_of_names(
    trials: TrialList,
    *,
    speakers: Mapping[str, str] | None = None,
    models: EnrolmentMap | None = None,
    source: str = "utt2spk",
) -> npt.NDArray[np.str_]:
    """Return the speaker of each name of a trial list. Shape: [names].

    Args:
        trials: the list.
        speakers: speaker by utterance; by default, names contain their speaker.
        models: the utterances of each model; a model's speaker is that of its first utterance,
            unless its own name has one.
        source: where speakers were read from, for messages.

    Raises:
        ScoringError: a name has no speaker.
    """
    if speakers is not None:
        return values_of_names(trials, speakers, models=models, source=source)
    return np.array(speakers_of(_names_with_values(trials, None, models)))


def values_of_names(
    trials: TrialList,
    values: Mapping[str, str],
    *,
    models: EnrolmentMap | None = None,
    source: str,
    noun: str = "speaker",
) -> npt.NDArray[np.str_]:
    """Return the value of each name of a trial list, such as its speaker. Shape: [names].

    Args:
        trials: the list.
        values: value by utterance.
        models: the utterances of each model; a model's value is that of its first utterance, unless
            its own name has one.
        source: where values were read from, for messages.
        noun: what a value is, for messages.

    Raises:
        ScoringError: a name has no value.
    """
    index = NameIndex([*values], source)
    return _values_in(index, values, _names_with_values(trials, index, models), noun)


def _names_with_values(
    trials: TrialList, index: NameIndex | None, models: EnrolmentMap | None
) -> list[str]:
    """Return the names of a list; for a model that is not in an index, its first utterance."""
    names = list(trials.names)
    if models is None:
        return names
    has_value = np.zeros(len(names), bool) if index is None else index.rows_of(names) >= 0
    places = models.index.rows_of(names)
    for row in np.flatnonzero((places >= 0) & ~has_value):
        names[row] = models.utterances[models.index.names[places[row]]][0]
    return names


def _values_in(
    index: NameIndex, values: Mapping[str, str], names: Sequence[str], noun: str = "speaker"
) -> npt.NDArray[np.str_]:
    """Return the value of each name; all must have one."""
    rows = index.rows_of(names)
    if unknown := [names[row] for row in np.flatnonzero(rows < 0).tolist()]:
        raise ScoringError(
            f"{len(unknown):,} of {len(names):,} names have no {noun} in {index.source}. Names "
            f"without a match: {index.unmatched_text(unknown)}. Add lines 'utterance {noun}'."
        )
    return np.array([*values.values()])[rows]


def speaker_means(embeddings: Embeddings, speakers: Mapping[str, str], source: str) -> Embeddings:
    """Return one embedding of each speaker, the mean of theirs, such as for a cohort.

    Raises:
        ScoringError: an embedding has no speaker.
    """
    labels = _values_in(NameIndex([*speakers], source), speakers, embeddings.names)
    names, owner = np.unique(labels, return_inverse=True)
    means = mean_models(embeddings.vectors, owner, "mean")
    return Embeddings(
        names.tolist(),
        means,
        embeddings.source,
        corpus=embeddings.corpus,
        averaged=tuple(embeddings.names),
        model=embeddings.model,
    )
