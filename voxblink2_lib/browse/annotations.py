"""Utterances of videos, and what is said in them, of an index that a run may replace meanwhile."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.records import Utterance, UtteranceKey, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.speaker_index import INFO, TRANSCRIPT_COLUMNS, SpeakerIndex

# Groups of transcripts that are read at a time: of fewer, the reading costs more than the looking.
_GROUPS_AT_ONCE = 16


class _Stamp(NamedTuple):
    """What shows that a file is the one that was opened."""

    inode: int
    modified_ns: int


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(status.st_ino, status.st_mtime_ns)


class Annotations:
    """The utterances of videos in an index.

    Args:
        folder: the index, which need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()  # a page is answered by several threads
        self._index: Index | None = None
        self._opened: _Stamp | None = None

    def of(self, keys: Collection[VideoKey]) -> dict[VideoKey, tuple[Utterance, ...]]:
        """Return the utterances of videos, sorted; those that are not in the index are left out.

        Raises:
            StoreDamagedError: the index is damaged.
        """
        with self._lock:
            index = self._current()
            return dict(index.utterances(set(keys))) if index else {}

    def _current(self) -> Index | None:
        stamp = _stamp(self._folder / "index.json")
        if stamp != self._opened:
            self._index = None
            self._index = Index(self._folder) if stamp else None
            self._opened = stamp
        return self._index


class Transcript(NamedTuple):
    """What is said in an utterance."""

    key: UtteranceKey
    text: str | None
    language: str | None


class Place(NamedTuple):
    """A row of the transcripts."""

    group: int
    row: int


FIRST = Place(0, 0)


class Matches(NamedTuple):
    """Transcripts that are wanted.

    Attributes:
        transcripts: in their order.
        place: where to go on; ``None`` after the last.
        share: how much of all was looked at, from 0 to 1.
    """

    transcripts: list[Transcript]
    place: Place | None
    share: float


class Transcripts:
    """The transcripts of an index.

    Args:
        folder: the index, which need not have any.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._index: SpeakerIndex | None = None
        self._opened: _Stamp | None = None

    def of(self, keys: Collection[UtteranceKey]) -> dict[UtteranceKey, Transcript]:
        """Return the transcripts of utterances that have one.

        Raises:
            StoreDamagedError: the index is damaged.
        """
        index, wanted = self._current(), set(keys)
        speakers = sorted({key.speaker_id for key in wanted}) if index else []
        tables = [table for speaker in speakers if index for table in index.transcripts(speaker)]
        rows = (row for table in tables for row in _rows(table, range(len(table))))
        return {row.key: row for row in rows if row.key in wanted}

    def match(
        self,
        *,
        text: str,
        language: str,
        speaker_id: str = "",
        place: Place = FIRST,
        most: int,
        until: float,
    ) -> Matches:
        """Return the next transcripts with some words, in a language.

        Args:
            text: words, or parts of words, all of which are in it; small and capital letters are
                the same.
            language: as the transcripts name it; empty for any.
            speaker_id: of this speaker only; empty for all.
            place: where to begin.
            most: how many are returned.
            until: ``time.monotonic()`` at which to stop; one step is made in any case.

        Raises:
            StoreDamagedError: the index is damaged.
        """
        index = self._current()
        if index is None:
            return Matches([], None, 1.0)
        parts = _parts(index, speaker_id, place.group)
        transcripts: list[Transcript] = []
        for part in parts:
            rows = np.flatnonzero(_is_wanted(part.texts, text, language))
            rows = rows[rows >= place.row] if part.first == place.group else rows
            room = most - len(transcripts)
            transcripts += part.read(rows[:room])
            share = part.stop / max(1, part.total)
            if len(rows) > room:
                return Matches(transcripts, Place(part.first, int(rows[room])), share)
            if part.stop < part.total and time.monotonic() >= until:
                return Matches(transcripts, Place(part.stop, 0), share)
        return Matches(transcripts, None, 1.0)

    def _current(self) -> SpeakerIndex | None:
        with self._lock:
            stamp = _stamp(self._folder / INFO)
            if stamp != self._opened:
                self._index = None
                try:
                    self._index = SpeakerIndex(self._folder) if stamp else None
                except FileNotFoundError:  # a run replaces it just now
                    return None
                self._opened = stamp
            return self._index


class _Part:
    """Some groups of transcripts.

    Attributes:
        texts: their columns ``transcript`` and ``language``.
        first: number of the first group.
        stop: the number after the last one.
        total: how many groups there are.
    """

    def __init__(self, index: SpeakerIndex, groups: range, rows: pa.Table | None = None) -> None:
        self._index = index
        self._groups = groups
        self._rows = rows
        names = ["transcript", "language"]
        self.texts = index.read_groups(groups, names) if rows is None else rows.select(names)
        self.first, self.stop = groups.start, groups.stop
        self.total = index.groups if rows is None else groups.stop

    def read(self, rows: npt.NDArray[np.int64]) -> list[Transcript]:
        """Return some rows. The ids are read only where they are wanted."""
        if not len(rows):
            return []
        if self._rows is None:
            self._rows = self._index.read_groups(self._groups, TRANSCRIPT_COLUMNS.names)
        return list(_rows(self._rows, rows.tolist()))


def _parts(index: SpeakerIndex, speaker_id: str, first: int) -> Iterator[_Part]:
    if speaker_id:
        tables = index.transcripts(speaker_id)
        if tables and first == 0:
            yield _Part(index, range(1), pa.concat_tables(tables))
        return
    for group in range(first, index.groups, _GROUPS_AT_ONCE):
        yield _Part(index, range(group, min(group + _GROUPS_AT_ONCE, index.groups)))


def _is_wanted(texts: pa.Table, text: str, language: str) -> npt.NDArray[np.bool_]:
    wanted = np.ones(len(texts), np.bool_)
    if language:
        is_same = pc.match_like(texts["language"], _escaped(language), ignore_case=True)
        wanted &= _flags(is_same)
    for word in text.split():
        has_word = pc.match_substring(texts["transcript"], word, ignore_case=True)
        wanted &= _flags(has_word)
    return wanted


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def _flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy())


def _rows(table: pa.Table, rows: Collection[int]) -> Iterator[Transcript]:
    for row in table.take(pa.array(list(rows), pa.int64())).to_pylist():
        key = UtteranceKey(row["speaker_id"], row["video_id"], row["utterance_id"])
        yield Transcript(key, row["transcript"], row["language"])
