"""Read quality measures of trials (durations, noise ...), by trial or by utterance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.scoring.condition_files import (
    UTTERANCE,
    ValueForm,
    rows_of_trials,
    value_form,
)
from voxblink2_lib.scoring.list_files import Block, is_number, read_blocks
from voxblink2_lib.scoring.names import NameIndex
from voxblink2_lib.scoring.trial_lists import TrialCollector
from voxblink2_lib.scoring.trials import TrialList
from voxblink2_lib.scoring.validation import Floats


def read_quality(
    path: str | Path, trials: TrialList, *, columns: Sequence[str] = (), is_log: bool = False
) -> dict[str, Floats]:
    """Read quality measures, and find those of each trial.

    The file has lines ``utterance number`` (Kaldi's ``utt2dur``), ``enrol test number``, or columns
    below a header of these names. A measure of utterances becomes two of trials, which do not
    depend on the side: ``min NAME`` and ``max NAME`` of both utterances.

    Args:
        path: the file, in any form that :func:`~voxblink2_lib.scoring.trial_lists.read_trials`
            reads. Names may be spelled differently.
        trials: the list.
        columns: the measures below a header; by default all columns that are not names, labels or
            scores.
        is_log: take natural logarithms of all numbers.

    Returns:
        The measures by name, float64. Shape of each: [trials].

    Raises:
        ScoringError: the file is missing or empty; a line has no such number; an utterance or a
            trial has none, or two.
    """
    path = Path(path)
    form = value_form(path, columns, noun="measure")
    prefix = "log " if is_log else ""
    if form.is_by_trial:
        by_trial = _by_trial(path, form, trials, is_log)
        return {prefix + name: numbers for name, numbers in by_trial.items()}
    measures = {}
    for name, numbers in _by_utterance(path, form, trials, is_log).items():
        sides = numbers[trials.enrolment], numbers[trials.test]
        measures[f"min {prefix}{name}"] = np.minimum(*sides)
        measures[f"max {prefix}{name}"] = np.maximum(*sides)
    return measures


def _by_trial(path: Path, form: ValueForm, trials: TrialList, is_log: bool) -> dict[str, Floats]:
    blocks: dict[str, list[Floats]] = {name: [] for name in form.conditions}

    def keep(block: Block) -> None:
        for name, parts in blocks.items():
            parts.append(_numbers(block, name, is_log))

    listed = TrialCollector(path, form.kind, also=keep).read()
    lines = {name: np.concatenate(parts) for name, parts in blocks.items()}
    rows = rows_of_trials(path, listed, trials, lines.values())
    return {name: numbers[rows] for name, numbers in lines.items()}


def _by_utterance(
    path: Path, form: ValueForm, trials: TrialList, is_log: bool
) -> dict[str, Floats]:
    """Return the measures of each name of a list. Shape of each: [names]."""
    collected: dict[str, tuple[float, ...]] = {}
    for block in read_blocks(path, form.kind):
        columns = [_numbers(block, name, is_log).tolist() for name in form.conditions]
        names = block.columns[UTTERANCE].to_pylist()
        for item, (name, *numbers) in enumerate(zip(names, *columns, strict=True)):
            if (known := collected.setdefault(name, tuple(numbers))) != tuple(numbers):
                raise ScoringError(
                    f"{block.place(item)}: {shortened(name)} has {numbers} here, and "
                    f"{list(known)} before. Keep one of the lines."
                )
    index = NameIndex([*collected], str(path))
    rows = index.rows_of(trials.names)
    if absent := [trials.names[row] for row in np.flatnonzero(rows < 0)]:
        raise ScoringError(
            f"{len(absent):,} of {len(trials.names):,} names have no measure in {path}. "
            f"Names without a match: {index.unmatched_text(absent)}. Add lines 'utterance number'."
        )
    table = np.array([*collected.values()], np.float64)[rows]
    return dict(zip(form.conditions, table.T, strict=True))


def _numbers(block: Block, column: str, is_log: bool) -> Floats:
    """Return a column of numbers, or of their logarithms. Shape: [items].

    Raises:
        ScoringError: a word is no finite number, or not above 0 where a logarithm is taken.
    """
    words = block.columns[column].to_pylist()
    for item, word in enumerate(words):
        if not is_number(word) or (is_log and float(word) <= 0):
            allowed = "numbers above 0, for logarithms" if is_log else "finite decimal numbers"
            raise ScoringError(
                f"{block.place(item)} has the {column} {shortened(word)}; allowed are {allowed}."
            )
    numbers = np.array([float(word) for word in words])
    return np.log(numbers) if is_log else numbers
