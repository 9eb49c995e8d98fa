"""Utterances of videos, and what is said in them, of an index that a run may replace meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.records import Utterance, UtteranceKey, VideoKey
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.speaker_index import INFO, SpeakerIndex

# Groups of transcripts that are read at a time: of fewer, the reading costs more than the looking.
_GROUPS_AT_ONCE = 16
# Rows of transcripts, and those of them that are wanted.
_Found: TypeAlias = tuple[range, list[int]]


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


class Matches(NamedTuple):
    """Transcripts that are wanted.

    Attributes:
        transcripts: in their order.
        following: number of the row at which to go on; ``None`` after the last.
        share: how much of all was looked at, from 0 to 1.
    """

    transcripts: list[Transcript]
    following: int | None
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
        rows = (row for table in tables for row in _rows(table))
        return {row.key: row for row in rows if row.key in wanted}

    def match(
        self,
        *,
        text: str,
        language: str,
        speaker_id: str = "",
        first: int = 0,
        most: int,
        until: float,
    ) -> Matches:
        """Return the next transcripts with some words, in a language.

        Args:
            text: words, or parts of words, all of which are in it; small and capital letters are
                the same.
            language: as the transcripts name it; empty for any.
            speaker_id: of this speaker only; empty for all.
            first: number of the row among all transcripts at which to begin.
            most: how many are returned.
            until: ``time.monotonic()`` at which to stop; one step is made in any case.

        Raises:
            StoreDamagedError: the index is damaged.
        """
        index = self._current()
        if index is None:
            return Matches([], None, 1.0)
        rows = index.rows_of(speaker_id) if speaker_id else index.rows
        rows = range(max(rows.start, first), rows.stop)
        transcripts: list[Transcript] = []
        searched = _in_order(
            lambda part: (part, _wanted(index, part, text, language)),
            index.parts(rows, _GROUPS_AT_ONCE),
        )
        with contextlib.closing(searched):
            for part, wanted in searched:
                share = part.stop / len(index.rows)
                room = most - len(transcripts)
                transcripts += _transcripts(index, wanted[:room])
                if len(wanted) > room:
                    return Matches(transcripts, wanted[room], share)
                if part.stop < rows.stop and time.monotonic() >= until:
                    return Matches(transcripts, part.stop, share)
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


def _in_order(
    search: Callable[[range], _Found], parts: Iterator[range]
) -> Generator[_Found, None, None]:
    """Yield what is found in parts, in their order, while the next ones are searched."""
    threads = usable_cores()
    waiting: deque[Future[_Found]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for part in parts:
                waiting.append(executor.submit(search, part))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _wanted(index: SpeakerIndex, rows: range, text: str, language: str) -> list[int]:
    """Return which of some rows are wanted. Only the columns that tell are read."""
    wanted = np.ones(len(rows), np.bool_)
    if language:
        column = index.read(rows, ["language"])["language"]
        wanted &= _flags(pc.match_like(column, _escaped(language), ignore_case=True))
    if text and wanted.any():
        column = index.read(rows, ["transcript"])["transcript"]
        for word in dict.fromkeys(text.split()):
            wanted &= _flags(pc.match_substring(column, word, ignore_case=True))
    return [rows[place] for place in np.flatnonzero(wanted).tolist()]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def _flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy())


def _transcripts(index: SpeakerIndex, rows: Sequence[int]) -> list[Transcript]:
    return list(_rows(index.at(rows))) if rows else []


def _rows(table: pa.Table) -> Iterator[Transcript]:
    for row in table.to_pylist():
        key = UtteranceKey(row["speaker_id"], row["video_id"], row["utterance_id"])
        yield Transcript(key, row["transcript"], row["language"])
