"""Scores of trials in files: read them in any usual form, write them, and find them by trial."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.scoring.list_files import LABEL, SCORE, Block, Columns, ListKind, is_number
from voxblink2_lib.scoring.list_text import is_skipped, split_words
from voxblink2_lib.scoring.names import NameIndex
from voxblink2_lib.scoring.trial_lists import (
    ENROL,
    LABEL_WORDS,
    TEST,
    TRIAL_HEADERS,
    TrialCollector,
    is_label,
)
from voxblink2_lib.scoring.trials import Missing, Places, ScoredTrials, TrialList, trial_text
from voxblink2_lib.scoring.validation import Flags, Floats, Rows, check_choice

# Forms of a line without a header, the first that fits a line first.
_FORMS = (
    (ENROL, TEST, SCORE, LABEL),
    (ENROL, TEST, LABEL, SCORE),
    (SCORE, ENROL, TEST, LABEL),
    (LABEL, ENROL, TEST, SCORE),
    (ENROL, TEST, SCORE),
    (SCORE, ENROL, TEST),
)

SUFFIXES = (".txt", ".csv", ".tsv", ".parquet")
_SEPARATORS = {".txt": " ", ".csv": ",", ".tsv": "\t"}

# Rows of a text file that are written at once.
_ROWS = 1 << 19


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """Scores that were read from a file.

    Attributes:
        trials: the trials; their labels are ``None`` if the file has none.
        scores: float64, or float32 if that loses nothing. Shape: [trials].
        source: the file, for messages.
    """

    trials: TrialList
    scores: Floats
    source: str

    def scored(self) -> ScoredTrials:
        """Return the scores as those of a trial list that has just these trials."""
        trials, rows = self.trials, np.arange(len(self.scores))
        return ScoredTrials(self.scores, rows, trials.enrolment, trials.test, trials.labels, [])


# -- Reading ---------------------------------------------------------------------------------------


def _score_columns(words: Sequence[str]) -> Columns | None:
    """Return the columns of a line without a header; ``None`` if two may be the score."""
    fits = [
        {column: place for place, column in enumerate(form)}
        for form in _FORMS
        if len(form) == len(words) and _fits(form, words)
    ]
    # A score in front and one behind: one of them is a name that is a number.
    if len(words) == 3 and len(fits) == 2:
        fits = [columns for columns in fits if not words[columns[SCORE]].lstrip("+-").isdigit()]
        return fits[0] if len(fits) == 1 else None
    return fits[0] if fits else None


def _fits(form: Sequence[str], words: Sequence[str]) -> bool:
    tests = {SCORE: is_number, LABEL: is_label}
    pairs = zip(form, words, strict=True)
    return all(column not in tests or tests[column](word) for column, word in pairs)


_SCORES = ListKind(
    "the score of a trial",
    "Allowed are 'enrol test score', 'enrol test score label', 'score enrol test', and those with "
    "the label in front or before the score, with spaces, tabs, commas or semicolons; or columns "
    f"below a header of enrol, test, score and perhaps label, also as Parquet. {LABEL_WORDS}",
    {**TRIAL_HEADERS, SCORE: {"score", "scores", "llr", "similarity"}},
    frozenset({ENROL, TEST, SCORE}),
    _score_columns,
)


def read_scores(path: str | Path) -> ScoreFile:
    r"""Read the scores of trials.

    A line is ``enrol test score`` (Kaldi), ``enrol test score label``, or ``score enrol test``
    (VoxSRC); below a header, columns have any order, and others are ignored (NIST). The file may
    have any form that :func:`~voxblink2_lib.scoring.trial_lists.read_trials` reads, and the same
    words for labels.

    Args:
        path: the file.

    Raises:
        ScoringError: the file is missing or empty, or a line has no finite score; names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("a b 0.75 target\na c -0.5 nontarget\n")
        ...     file.flush()
        ...     scores = read_scores(file.name)
        >>> scores.scores, scores.trials.names, scores.trials.labels
        (array([ 0.75, -0.5 ], dtype=float32), ['a', 'b', 'c'], array([ True, False]))
    """
    values = array("d")

    def keep(block: Block) -> None:
        values.frombytes(block.columns[SCORE].to_numpy().tobytes())

    trials = TrialCollector(Path(path), _SCORES, also=keep).read()
    scores = np.frombuffer(values)
    with np.errstate(over="ignore"):  # is not equal then
        narrow = scores.astype(np.float32)
    # What was float32 is float32 again, so that its rates have the same bits.
    return ScoreFile(trials, narrow if (narrow == scores).all() else scores, str(path))


# -- Finding scores by trial -----------------------------------------------------------------------


def match_scores(
    file: ScoreFile, trials: TrialList, *, missing: Missing = "error"
) -> tuple[ScoredTrials, int]:
    """Find the scores of the trials of a list.

    Args:
        file: the scores; their own labels must be those of the list, if they have any.
        trials: the list. Names may be spelled differently, see
            :meth:`~voxblink2_lib.scoring.names.NameIndex.rows_of`.
        missing: what to do about trials without a score: ``"error"``, or ``"skip"`` to leave them
            out, counted.

    Returns:
        The scored trials, and how many scores are of other trials.

    Raises:
        ScoringError: a trial has no score, or two that differ; no trial has one; or labels differ.
    """
    check_choice("missing", missing, get_args(Missing))
    index = NameIndex(file.trials.names, file.source)
    rows = index.rows_of(trials.names)
    enrolment, test = rows[trials.enrolment], rows[trials.test]
    pairs, order = _sorted_pairs(file)
    trial_pairs = np.where((enrolment < 0) | (test < 0), -1, enrolment * len(index.names) + test)
    places = np.minimum(np.searchsorted(pairs, trial_pairs), len(pairs) - 1)
    covered: Flags = pairs[places] == trial_pairs
    absent = [trials.names[row] for row in np.flatnonzero(rows < 0)]
    if not covered.all() and (missing == "error" or not covered.any()):
        row = int(np.flatnonzero(~covered)[0])
        names = f" Names without a match: {index.unmatched_text(absent)}." if absent else ""
        skip = " To leave them out and have them counted: missing='skip' (--missing skip)."
        raise ScoringError(
            f"{np.count_nonzero(~covered):,} of {len(covered):,} trials have no score in "
            f"{file.source}; the first is {trials.places([row])[0]}, {trial_text(trials, row)}."
            f"{names}"
            f"{skip * bool(covered.any())}"
        )
    kept = np.flatnonzero(covered)
    at = order[places[kept]]
    labels = None if trials.labels is None else trials.labels[kept]
    _check_labels(file, labels, at, trials.places, kept)
    used = np.zeros(len(pairs), bool)
    used[places[kept]] = True
    others = len(pairs) - int(np.count_nonzero(used))
    sides = file.trials.enrolment[at], file.trials.test[at]
    return ScoredTrials(file.scores[at], kept, *sides, labels, absent), others


def _check_labels(
    file: ScoreFile, labels: Flags | None, rows: Rows, places: Places, kept: Rows
) -> None:
    """Refuse labels of a list that are not those beside the scores."""
    if labels is None or file.trials.labels is None:
        return
    if (wrong := np.flatnonzero(file.trials.labels[rows] != labels)).size:
        row = int(wrong[0])
        here, there = ("target" if label else "non-target" for label in (labels[row], ~labels[row]))
        raise ScoringError(
            f"{file.trials.places([int(rows[row])])[0]}: {trial_text(file.trials, rows[row])} is a "
            f"{there} trial there, and a {here} trial in the list ({places([int(kept[row])])[0]}); "
            f"labels differ in {len(wrong):,} of {len(labels):,} trials. Mend one of the files."
        )


def _sorted_pairs(file: ScoreFile) -> tuple[Rows, Rows]:
    """Return the trials as numbers, sorted, each once, and the row of the first of each."""
    trials = file.trials
    pairs = trials.enrolment * len(trials.names) + trials.test
    order = np.argsort(pairs, kind="stable")
    ordered, scores = pairs[order], file.scores[order]
    repeated: Flags = ordered[1:] == ordered[:-1]
    if (wrong := np.flatnonzero(repeated & (scores[1:] != scores[:-1]))).size:
        first, second = int(order[wrong[0]]), int(order[wrong[0] + 1])
        raise ScoringError(
            f"{' and '.join(trials.places([first, second]))} are the same trial, "
            f"{trial_text(trials, first)}, with the scores {file.scores[first]:g} and "
            f"{file.scores[second]:g}. Keep one of them."
        )
    is_first = np.append(True, ~repeated)
    return ordered[is_first], order[is_first]


# -- Writing ---------------------------------------------------------------------------------------


def check_scores_path(path: str | Path) -> None:
    """Refuse a path that scores cannot be written to.

    Raises:
        ScoringError: its extension is no format, its folder is missing, or it is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ScoringError(
            f"{path} cannot be written as scores: its extension is {path.suffix!r}; allowed are "
            f"{', '.join(SUFFIXES)}."
        )
    check_place(path)


def check_place(path: str | Path) -> None:
    """Refuse a path that no file can be written to.

    Raises:
        ScoringError: its folder is missing, or it is a folder.
    """
    if Path(path).is_dir() or not Path(path).parent.is_dir():
        raise ScoringError(f"{path} cannot be written: it is a folder, or in one that is missing.")


def write_scores(path: str | Path, trials: TrialList, scored: ScoredTrials) -> None:
    """Write scored trials, with labels if they have any.

    Text has so many digits that the same scores are read again. ``.txt`` has lines of ``enrol test
    score [target|nontarget]``, ``.csv`` and ``.tsv`` have a header.

    Args:
        path: the file; its extension is the format, ``.txt``, ``.csv``, ``.tsv`` or ``.parquet``.
        trials: the list.
        scored: its scores.

    Raises:
        ScoringError: the path is not such a file, or a name cannot be written as text.
        StoreError: the disk is full or fails.
    """
    check_scores_path(path)
    suffix = Path(path).suffix.lower()
    names = pa.array(trials.names, pa.string())
    if suffix != ".parquet":
        _check_names(Path(path), trials.names, _SEPARATORS[suffix])
    with atomic_write(Path(path)) as file:
        if suffix == ".parquet":
            with pq.ParquetWriter(
                file, _table(names, trials, scored, slice(0, 0)).schema
            ) as writer:
                for part in _parts(scored):
                    writer.write_table(_table(names, trials, scored, part))
            return
        separator = _SEPARATORS[suffix]
        if suffix != ".txt":
            columns = ["enrol", "test", "score", *([] if scored.labels is None else ["label"])]
            file.write(separator.join(columns).encode() + b"\n")
        for part in _parts(scored):
            lines = _lines(_table(names, trials, scored, part), separator)
            file.write("\n".join([*lines, ""]).encode())


def _parts(scored: ScoredTrials) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, len(scored.scores), _ROWS)]


def _table(names: pa.Array, trials: TrialList, scored: ScoredTrials, part: slice) -> pa.Table:
    rows = scored.rows[part]
    sides = {"enrol": trials.enrolment[rows], "test": trials.test[rows]}
    columns = {side: names.take(pa.array(places)) for side, places in sides.items()}
    columns["score"] = pa.array(scored.scores[part])
    if scored.labels is not None:
        columns["label"] = pa.array(scored.labels[part])
    return pa.table(columns)


def _lines(table: pa.Table, separator: str) -> list[str]:
    columns = [table.column("enrol"), table.column("test")]
    # The shortest text of the float64 is that number again; that of a float32 would not be.
    columns.append(table.column("score").cast(pa.float64()).cast(pa.string()))
    if "label" in table.column_names:
        columns.append(pc.if_else(table.column("label"), "target", "nontarget"))
    lines: list[str] = pc.binary_join_element_wise(*columns, separator).to_pylist()
    return lines


def _check_names(path: Path, names: Sequence[str], separator: str) -> None:
    for name in names:
        words = split_words(name, None if separator == " " else separator)
        # Without a header, such a name may be taken for the score or the label.
        is_clear = separator != " " or not (is_number(name) or is_label(name))
        if words != [name] or is_skipped(name) or not name.isprintable() or not is_clear:
            raise ScoringError(
                f"{path}: {shortened(name)} cannot be written in this format so that the same is "
                "read again. Name a file that ends with .parquet."
            )
