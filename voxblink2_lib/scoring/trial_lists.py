"""Read trial lists and lists of labelled utterances."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.scoring.list_files import LABEL, Block, Columns, ListKind, read_blocks
from voxblink2_lib.scoring.trials import TrialList
from voxblink2_lib.scoring.validation import Flags, Rows

ENROL, TEST = "enrolment", "test"

_TARGET = ("1", "1.0", "+1", "target", "tgt", "true")
_NONTARGET = (
    *("0", "0.0", "-1", "-1.0", "nontarget", "non-target", "non_target", "nontgt"),
    *("imp", "impostor", "imposter", "false"),
)
_IS_TARGET = dict.fromkeys(_TARGET, True) | dict.fromkeys(_NONTARGET, False)

LABEL_WORDS = (
    "Labels are 1|0, 1.0|0.0, 1|-1, target|nontarget, tgt|imp, true|false, in any letters."
)

# For each look-up, all names so far are put into a table: it is done for many names at once.
_NAMES_AT_ONCE = 400_000

# Names of columns in headers, without "_", "-" and spaces.
TRIAL_HEADERS = {
    ENROL: {
        *("enrol", "enroll", "enrolment", "enrollment", "enrolid", "enrollid", "enrolmentid"),
        *("enrollmentid", "model", "modelid", "utt1", "utterance1", "file1", "wav1", "path1"),
    },
    TEST: {
        *("test", "testid", "segment", "segmentid"),
        *("utt2", "utterance2", "file2", "wav2", "path2"),
    },
    LABEL: {"label", "labels", "target", "targettype", "istarget", "key"},
}


def is_label(word: str) -> bool:
    """Return whether a word says that a trial is a target trial, or that it is none."""
    return word.lower() in _IS_TARGET


def _trial_columns(words: Sequence[str]) -> Columns | None:
    """Return the columns of a line without a header; other words may follow or lie between."""
    count = len(words)
    if count == 2 and not is_label(words[0]):
        return {ENROL: 0, TEST: 1}
    if count > 2:
        if is_label(words[2]):
            return {ENROL: 0, TEST: 1, LABEL: 2}
        if is_label(words[0]):
            return {LABEL: 0, ENROL: 1, TEST: 2}
        labels = [place for place in range(3, count) if is_label(words[place])]
        if len(labels) == 1:
            return {ENROL: 0, TEST: 1, LABEL: labels[0]}
    return None


_TRIALS = ListKind(
    "a trial",
    "Allowed are '1 enrol test', 'enrol test target|nontarget', 'enrol test', with spaces, tabs, "
    "commas or semicolons, each line with as many words as the first; or columns below a header of "
    f"enrol, test and perhaps label, also as Parquet. {LABEL_WORDS}",
    TRIAL_HEADERS,
    frozenset({ENROL, TEST}),
    _trial_columns,
)

_LABELLED = ListKind(
    "an utterance and its label",
    "Each line holds an utterance and its label.",
    {"utterance": {"utterance", "utteranceid", "utt", "name"}, LABEL: {LABEL, "speaker", "spk"}},
    frozenset({"utterance", LABEL}),
    lambda words: {"utterance": 0, LABEL: 1} if len(words) == 2 else None,
)


def read_trials(path: str | Path) -> TrialList:
    r"""Read a trial list.

    A line is ``1 enrol test`` (VoxCeleb, VoxBlink2), ``enrol test target|nontarget`` (Kaldi; or
    other words for the label, CN-Celeb's 1 and 0, SRE keys with words between), or ``enrol test``
    without a label, separated by spaces, tabs, commas or semicolons, in quotes or not. Below a
    header, columns have any order, and others are ignored. Blank lines and comments (``#``) are
    skipped. The file may be UTF-8 or UTF-16, compressed by gzip, or Parquet with such columns.
    Names are not changed.

    Args:
        path: the list, or the folder of the release, which has one in ``data/test_vox``.

    Raises:
        ScoringError: the file is missing or empty, or a line is not a trial; names the line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n")
        ...     file.flush()
        ...     trials = read_trials(file.name)
        >>> trials.names, trials.enrolment, trials.test, trials.labels
        (['a/1.wav', 'a/2.wav', 'b/1.wav'], array([0, 0]), array([1, 2]), array([ True, False]))
    """
    return TrialCollector(trial_file(path), _TRIALS).read()


def trial_file(path: str | Path) -> Path:
    """Return the list that is meant: itself, or that in the folder of the release."""
    inner = (Path(path) / name for name in ("data/test_vox/trials", "test_vox/trials", "trials"))
    return next(filter(os.path.isfile, inner), Path(path))


class TrialCollector:
    """Collects the trials of a list, block by block, in no more memory than they need.

    Args:
        path: the list.
        kind: its kind; of its columns, only those of trials are collected here.
        also: called with each block.
    """

    def __init__(
        self, path: Path, kind: ListKind, also: Callable[[Block], object] | None = None
    ) -> None:
        self._path, self._kind, self._also = path, kind, also
        self._names = pa.array([], pa.string())
        # These grow in place, where a list of arrays would be in memory twice at the end.
        self._enrolment, self._test, self._labels = array("q"), array("q"), array("b")

    def read(self) -> TrialList:
        """Return the trials.

        Raises:
            ScoringError: see :func:`read_trials`.
        """
        waiting: list[pa.ChunkedArray] = []
        for block in read_blocks(self._path, self._kind):
            waiting += [block.columns[ENROL], block.columns[TEST]]
            if sum(map(len, waiting)) >= _NAMES_AT_ONCE:
                self._add(waiting)
                waiting = []
            if LABEL in block.columns:
                self._labels.frombytes(_flags(block, self._kind).tobytes())
            if self._also:
                self._also(block)
        self._add(waiting)
        if not self._enrolment:
            raise ScoringError(f"{self._path} contains no trial. {self._kind.accepted}")
        enrolment = np.frombuffer(self._enrolment, np.int64)
        test = np.frombuffer(self._test, np.int64)
        labels = np.frombuffer(self._labels, np.bool_) if self._labels else None
        places = partial(item_places, self._path, self._kind)
        return TrialList(self._names.to_pylist(), enrolment, test, labels, places)

    def _add(self, sides: Sequence[pa.ChunkedArray]) -> None:
        """Add trials: names of enrolment sides and of test sides, in turn."""
        rows = self._rows(sides)
        start = 0
        for place, side in enumerate(sides):
            part = rows[start : start + len(side)]
            (self._test if place % 2 else self._enrolment).frombytes(part.tobytes())
            start += len(side)

    def _rows(self, sides: Sequence[pa.ChunkedArray]) -> Rows:
        """Return the row of each name; new names get the next ones."""
        both = pa.chunked_array([chunk for side in sides for chunk in side.chunks], pa.string())
        known = pc.fill_null(pc.index_in(both, value_set=self._names), -1)
        rows: Rows = known.to_numpy().astype(np.int64)
        is_new = rows < 0
        if is_new.any():
            new = both.filter(pa.array(is_new)).combine_chunks().dictionary_encode()
            rows[is_new] = len(self._names) + new.indices.to_numpy().astype(np.int64)
            self._names = pa.concat_arrays([self._names, new.dictionary])
        return rows


def _flags(block: Block, kind: ListKind) -> Flags:
    parts: list[Flags] = [np.empty(0, bool)]
    for chunk in block.columns[LABEL].chunks:
        known = [_IS_TARGET.get(word.lower(), -1) for word in chunk.dictionary.to_pylist()]
        values = np.array(known, np.int8)[chunk.indices.to_numpy(zero_copy_only=False)]
        if (wrong := np.flatnonzero(values < 0)).size:
            item = sum(map(len, parts)) + int(wrong[0])
            word = shortened(chunk[int(wrong[0])].as_py())
            raise ScoringError(f"{block.place(item)}: the label is {word}. {kind.accepted}")
        parts.append(values == 1)
    return np.concatenate(parts)


def item_places(path: Path, kind: ListKind, items: Sequence[int]) -> list[str]:
    """Return file and line of items of a list, which is read again up to the last of them."""
    places: dict[int, str] = {}
    first = 0
    for block in read_blocks(path, kind):
        end = first + len(next(iter(block.columns.values())))
        places |= {item: block.place(item - first) for item in items if first <= item < end}
        first = end
        if first > max(items):
            break
    return [places[item] for item in items]


def labelled_places(path: Path, items: Sequence[int]) -> list[str]:
    """Return file and line of items of such a list as :func:`read_labelled` reads."""
    return item_places(path, _LABELLED, items)


def read_labelled(path: str | Path) -> tuple[list[str], list[str]]:
    """Read a list of ``utterance label``, such as the gallery and the probes of an OSSI protocol.

    Returns:
        Names and labels.

    Raises:
        ScoringError: the file is missing or empty, or a line is not two words; names the line.
    """
    names: list[str] = []
    labels: list[str] = []
    for block in read_blocks(Path(path), _LABELLED):
        names += block.columns["utterance"].to_pylist()
        labels += block.columns[LABEL].to_pylist()
    return names, labels
