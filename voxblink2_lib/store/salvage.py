"""Read what a damaged ledger still gives, row by row."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.job_outcomes import (
    AttemptRow,
    JobOutcomes,
    VerdictRow,
    VideoOutcomes,
    VideoRow,
)

# What a broken file makes the module raise, also where a value is not of the type that it was.
_ERRORS = (sqlite3.Error, OverflowError, MemoryError)
_KEY = "config, speaker_id, video_id"
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"


class ConfigKey(NamedTuple):
    """A video of one configuration."""

    config: str
    speaker_id: str
    video_id: str


# Before the first one of all.
FIRST = ConfigKey("", "", "")


class OldVideo(NamedTuple):
    """A row of an old ledger, of which nothing is checked."""

    key: ConfigKey
    job: Any
    row: VideoRow


class OldLedger:
    """A ledger of which any part may be broken.

    Args:
        path: the file; it is copied, with what was written to it last, and not opened itself.
        folder: where to. It must not exist yet.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        folder.mkdir()
        for suffix in ("", "-wal"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        self._connection = sqlite3.connect(folder / path.name, isolation_level=None)
        self._connection.text_factory = lambda data: data.decode(errors="replace")

    def close(self) -> None:
        """Close the copy."""
        self._connection.close()

    def facts(self) -> dict[str, str]:
        """Return names and values of facts."""
        rows = self._readable("select name, value from facts")
        return {name: value for name, value in rows if isinstance(name, str)}

    def videos(self, next_known: Callable[[ConfigKey], ConfigKey | None]) -> Iterator[OldVideo]:
        """Yield the rows of videos that can be read.

        Args:
            next_known: returns the first video after one that is known to have been there, so that
                reading can go on behind what is broken.
        """
        if not any(self._readable("select 1 from videos")):
            return  # not even its first page can be read, or it has no videos
        columns = f"{_KEY}, job, {', '.join(VideoRow._fields[2:])}"
        last: ConfigKey | None = FIRST
        while last is not None:
            end = last
            sql = f"select {columns} from videos where ({_KEY}) > (?, ?, ?) order by {_KEY}"  # noqa: S608  # constants
            try:
                for row in self._connection.execute(sql, end):
                    end = ConfigKey(*row[:3])
                    yield _as_video(row)
                return
            except _ERRORS:
                last = next_known(end)
        # No video is known behind the broken place: from the other end, up to there.
        sql = f"select {columns} from videos where ({_KEY}) > (?, ?, ?) order by config desc, speaker_id desc, video_id desc"  # noqa: E501, S608  # constants
        yield from map(_as_video, self._readable(sql, *end))

    def video(self, old: OldVideo) -> VideoOutcomes | None:
        """Return all that is there of a video; ``None`` if it cannot be read, or is not right."""
        try:
            return VideoOutcomes(
                old.row,
                self._records(
                    VerdictRow,
                    f"select name, {', '.join(VerdictRow._fields[1:])} from verdicts w "  # noqa: S608  # constants
                    f"join sources s on s.id = w.source where {_IS_VIDEO} order by s.id",
                    old.key,
                ),
                self._details(MissingUtterance, "missing", old.key),
                self._details(AttemptRow, "attempts", old.key),
            )
        except (*_ERRORS, TypeError, ValueError):
            return None

    def job(self, config: str, job: int) -> JobOutcomes | None:
        """Return a job without its videos; ``None`` if it cannot be read, or is not right."""
        sql = "select kind, shard, sha256, rows, bytes from jobs where config = ? and job = ?"
        try:
            ((kind, *shard),) = self._connection.execute(sql, (config, job)).fetchall()
            entry = None if shard[0] is None else SealedShard(job, *shard)
            return JobOutcomes(config, job, kind, entry, ())
        except (*_ERRORS, TypeError, ValueError):
            return None

    def _details(self, kind: Any, table: str, key: ConfigKey) -> tuple[Any, ...]:
        columns = ", ".join(kind._fields)
        sql = f"select {columns} from {table} where {_IS_VIDEO} order by {kind._fields[0]}"  # noqa: S608  # constants
        return self._records(kind, sql, key)

    def _records(self, kind: Any, sql: str, key: ConfigKey) -> tuple[Any, ...]:
        return tuple(map(kind._make, self._connection.execute(sql, key)))

    def _readable(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield rows up to the first that cannot be read."""
        try:
            yield from self._connection.execute(sql, values)
        except _ERRORS:
            return


def _as_video(row: tuple[Any, ...]) -> OldVideo:
    config, speaker_id, video_id, job, *rest = row
    key = ConfigKey(config, speaker_id, video_id)
    return OldVideo(key, job, VideoRow(speaker_id, video_id, *rest))
