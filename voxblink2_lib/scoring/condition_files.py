"""Read conditions of trials (gender, language, channel ...), by trial or by utterance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.scoring.enrolment import EnrolmentMap, values_of_names
from voxblink2_lib.scoring.list_files import (
    LABEL,
    Block,
    ListKind,
    plain_header,
    read_blocks,
)
from voxblink2_lib.scoring.list_text import numbered_lines, read_chunks, split_words
from voxblink2_lib.scoring.names import NameIndex
from voxblink2_lib.scoring.trial_lists import ENROL, TEST, TRIAL_HEADERS, TrialCollector
from voxblink2_lib.scoring.trials import TrialList, trial_text
from voxblink2_lib.scoring.validation import Rows

UTTERANCE = "utterance"
_UTTERANCE_HEADERS = {
    *("utterance", "utteranceid", "utt", "uttid", "name", "segment", "segmentid"),
    *("file", "wav", "path"),
}
_SCORE_HEADERS = {"score", "scores", "llr", "similarity"}

# More values are no condition, but numbers that are not sorted into bins yet.
_MOST_VALUES = 200

_ACCEPTED = (
    "Allowed are 'utterance value', 'enrol test value', or columns below a header of utterance, or "
    "of enrol and test, and one for each condition, also as Parquet."
)


@dataclass(frozen=True, eq=False)
class Condition:
    """The value of a condition for each trial of a list.

    Attributes:
        name: its column.
        values: its values, sorted.
        codes: row of ``values`` of each trial. Shape: [trials].
    """

    name: str
    values: list[str]
    codes: Rows


class ValueForm(NamedTuple):
    """What the columns of a file are that has values of utterances or of trials.

    Attributes:
        keys: the columns that say what a line is about, with their names in headers.
        conditions: the other columns that are read; without a header one, named by its noun.
        has_header: they are named in the file.
        noun: what such a column has, for messages.
    """

    keys: dict[str, set[str]]
    conditions: Sequence[str]
    has_header: bool
    noun: str

    @property
    def is_by_trial(self) -> bool:
        """Whether a line is about a trial; otherwise, it is about an utterance."""
        return UTTERANCE not in self.keys

    @property
    def kind(self) -> ListKind:
        """The list to be read."""
        named = {name: {plain_header(name)} for name in self.conditions}
        order = [*self.keys, *self.conditions]
        places = {column: place for place, column in enumerate(order)}
        return ListKind(
            f"the {self.noun} of an utterance or a trial",
            _ACCEPTED,
            {**self.keys, **named} if self.has_header else {},
            frozenset(order),
            lambda words: None if self.has_header or len(words) != len(order) else places,
        )


def read_conditions(
    path: str | Path,
    trials: TrialList,
    *,
    columns: Sequence[str] = (),
    models: EnrolmentMap | None = None,
) -> list[Condition]:
    """Read conditions, and find the value of each trial.

    The file is of trials, ``enrol test value``, or of utterances, ``utterance value``. Below a
    header, there may be several conditions, one a column, among others (a key of NIST is such a
    file). A trial of two utterances with the same value has this value; else its value is the pair
    ``enrolment/test``, in this order.

    Args:
        path: the file, in any form that :func:`~voxblink2_lib.scoring.trial_lists.read_trials`
            reads. Names may be spelled differently.
        trials: the list.
        columns: the conditions below a header; by default all columns that are not names, labels or
            scores.
        models: the utterances of each model; a model without a value has that of its first one.

    Raises:
        ScoringError: the file is missing or empty; a line is no such line; a column is missing; a
            trial has no value, or two.
    """
    path = Path(path)
    form = value_form(path, columns, noun="condition")
    if form.is_by_trial:
        return _by_trial(path, form, trials)
    return _by_utterance(path, form, trials, models)


# -- Columns ---------------------------------------------------------------------------------------


def value_form(path: Path, columns: Sequence[str], *, noun: str) -> ValueForm:
    """Return what the columns of a file are, by its first line.

    Args:
        path: the file.
        columns: the columns below a header that are read; by default all with values.
        noun: what such a column has, for messages.

    Raises:
        ScoringError: the file is missing or empty, or lacks such a column.
    """
    trial = {side: TRIAL_HEADERS[side] for side in (ENROL, TEST)}
    utterance = {UTTERANCE: _UTTERANCE_HEADERS}
    for words in _first_lines(path):
        plain = [plain_header(word) for word in words]
        for keys in (trial, utterance):
            if all(sum(word in names for word in plain) == 1 for names in keys.values()):
                chosen = _chosen(path, words, keys, columns, noun)
                return ValueForm(keys, chosen, has_header=True, noun=noun)
    if columns:
        raise ScoringError(
            f"{path} has no header, so it has no column {shortened(columns[0])}. {_ACCEPTED}"
        )
    is_trial = any(len(words) == 3 for words in _first_lines(path))
    return ValueForm(trial if is_trial else utterance, [noun], has_header=False, noun=noun)


def _first_lines(path: Path) -> list[list[str]]:
    """Return the words of the first line, by each way to separate them; or the columns."""
    if path.suffix.lower() == ".parquet":
        with as_own_error(ScoringError, f"{path}: cannot be read as Parquet", _ACCEPTED):
            return [pq.read_schema(path).names]
    for chunk in read_chunks(path):
        for _, line in numbered_lines(chunk):
            return [split_words(line, separator) for separator in ("\t", ";", ",", None)]
    raise ScoringError(f"{path} is empty. {_ACCEPTED}")


def _chosen(
    path: Path,
    words: Sequence[str],
    keys: dict[str, set[str]],
    columns: Sequence[str],
    noun: str,
) -> list[str]:
    """Return the columns of values in a header."""
    taken = set().union(_SCORE_HEADERS, TRIAL_HEADERS[LABEL], *keys.values())
    others = [word for word in words if word and plain_header(word) not in taken]
    if not others:
        raise ScoringError(f"{path} has no column of a {noun}. {_ACCEPTED}")
    for column in columns or others:
        if (count := others.count(column)) != 1:
            raise ScoringError(
                f"{path} has {count or 'no'} column{'s' * (count > 1)} {shortened(column)}; "
                f"{noun}s in it are {shortened(', '.join(dict.fromkeys(others)), quoted=False)}."
            )
    return [*dict.fromkeys(columns or others)]


class _Codes:
    """Collects a column of values, as rows of its different values."""

    def __init__(self) -> None:
        self._row_by_value: dict[str, int] = {}
        self._parts: list[Rows] = []

    def add(self, words: pa.ChunkedArray) -> None:
        for chunk in words.dictionary_encode().chunks:
            known = self._row_by_value
            rows = [known.setdefault(value, len(known)) for value in chunk.dictionary.to_pylist()]
            self._parts.append(np.array(rows, np.int64)[chunk.indices.to_numpy()])

    @property
    def values(self) -> list[str]:
        return [*self._row_by_value]

    @property
    def rows(self) -> Rows:
        return np.concatenate(self._parts)


def _condition(name: str, values: Sequence[str], codes: Rows) -> Condition:
    """Return a condition with only the values that occur, sorted."""
    used, codes = np.unique(codes, return_inverse=True)
    texts = [values[row] for row in used]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    return Condition(name, [texts[row] for row in order], np.argsort(order)[codes])


def _check_count(path: Path, name: str, count: int) -> None:
    if count > _MOST_VALUES:
        raise ScoringError(
            f"{path}: {shortened(name)} has {count:,} values among the trials, more than "
            f"{_MOST_VALUES}. Sort numbers into bins, or name the columns that are conditions "
            "(--condition FILE COLUMN ...)."
        )


# -- By utterance ----------------------------------------------------------------------------------


def _by_utterance(
    path: Path, form: ValueForm, trials: TrialList, models: EnrolmentMap | None
) -> list[Condition]:
    collected = _read_values(path, form)
    conditions = []
    for name in form.conditions:
        given = {utterance: values[name] for utterance, values in collected.items()}
        words = values_of_names(trials, given, models=models, source=str(path), noun="value")
        values, codes = np.unique(words, return_inverse=True)
        _check_count(path, name, len(values))
        pairs, rows = np.unique(
            codes[trials.enrolment] * len(values) + codes[trials.test], return_inverse=True
        )
        sides = (np.divmod(pair, len(values)) for pair in pairs)
        texts = [str(values[a] if a == b else f"{values[a]}/{values[b]}") for a, b in sides]
        conditions.append(_condition(name, texts, rows))
    return conditions


def _read_values(path: Path, form: ValueForm) -> dict[str, dict[str, str]]:
    """Return the value of each condition, by utterance."""
    collected: dict[str, dict[str, str]] = {}
    for block in read_blocks(path, form.kind):
        columns = [block.columns[name].to_pylist() for name in form.conditions]
        names = block.columns[UTTERANCE].to_pylist()
        for item, (name, *words) in enumerate(zip(names, *columns, strict=True)):
            values = dict(zip(form.conditions, words, strict=True))
            if (known := collected.setdefault(name, values)) != values:
                raise ScoringError(
                    f"{block.place(item)}: {shortened(name)} has {_values_text(values)} here, and "
                    f"{_values_text(known)} before. Keep one of the lines."
                )
    if not collected:
        raise ScoringError(f"{path} contains no condition. {_ACCEPTED}")
    return collected


def _values_text(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {shortened(value)}" for name, value in values.items())


# -- By trial --------------------------------------------------------------------------------------


def _by_trial(path: Path, form: ValueForm, trials: TrialList) -> list[Condition]:
    collected = {name: _Codes() for name in form.conditions}

    def keep(block: Block) -> None:
        for name, codes in collected.items():
            codes.add(block.columns[name])

    listed = TrialCollector(path, form.kind, also=keep).read()
    at = rows_of_trials(path, listed, trials, [codes.rows for codes in collected.values()])
    conditions = [
        _condition(name, codes.values, codes.rows[at]) for name, codes in collected.items()
    ]
    for condition in conditions:
        _check_count(path, condition.name, len(condition.values))
    return conditions


def rows_of_trials(
    path: Path, listed: TrialList, trials: TrialList, codes: Iterable[npt.NDArray[Any]]
) -> Rows:
    """Return the line that each trial of a list is in.

    Args:
        path: the file, for messages.
        listed: the trials of its lines.
        trials: the list.
        codes: the values of its lines, one array for each column. Shape of each: [lines].

    Raises:
        ScoringError: a trial has no line, or two with different values.
    """
    index = NameIndex(listed.names, str(path))
    rows = index.rows_of(trials.names)
    enrolment, test = rows[trials.enrolment], rows[trials.test]
    pairs = listed.enrolment * len(listed.names) + listed.test
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    wanted = enrolment * len(listed.names) + test
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    covered = (enrolment >= 0) & (test >= 0) & (ordered[places] == wanted)
    if (absent := np.flatnonzero(~covered)).size:
        names = [trials.names[row] for row in np.flatnonzero(rows < 0)]
        nearest = f" Names without a match: {index.unmatched_text(names)}." if names else ""
        raise ScoringError(
            f"{len(absent):,} of {len(covered):,} trials have no value in {path}; the first is "
            f"{trials.places([int(absent[0])])[0]}, {trial_text(trials, int(absent[0]))}.{nearest} "
            "Add lines 'enrol test value'."
        )
    for column in codes:
        differs = (ordered[1:] == ordered[:-1]) & (column[order][1:] != column[order][:-1])
        if (wrong := np.flatnonzero(differs)).size:
            first, second = int(order[wrong[0]]), int(order[wrong[0] + 1])
            raise ScoringError(
                f"{' and '.join(listed.places([first, second]))} are the same trial, "
                f"{trial_text(listed, first)}, with two values. Keep one of them."
            )
    return order[places]
