"""All videos of a ledger in order, one after the other, with the utterances that they lack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any, NamedTuple

from voxblink2_lib.store.ledger_database import LedgerDatabase

_KEY = 2


class VideoEntry(NamedTuple):
    """What a ledger has of a video.

    Attributes:
        speaker_id, video_id: the video.
        status, reason: its class, and the words of the source.
        clips, samples: how many it has, and their length.
        digest: of the annotations that they were cropped by; 0 if that is not known.
        missing: reasons of the utterances without a clip, by their ids.
    """

    speaker_id: str
    video_id: str
    status: str
    reason: str
    clips: int
    samples: int
    digest: int
    missing: dict[str, str]


class LedgerVideos:
    """The videos of one configuration, sorted by speaker and video.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all queries see the same state, whatever a run writes meanwhile."""
        return self._database.snapshot()

    def count(self) -> int:
        """Return how many there are."""
        sql = "select count(*) from videos where config = ?"
        ((count,),) = self._database.query(sql, self._config)
        return int(count)

    def entries(self) -> Iterator[VideoEntry]:
        """Yield all of them, in constant memory."""
        lacking = groupby(self._rows("utterance_id, reason", "missing"), lambda row: row[:_KEY])
        key, group = next(lacking, (None, iter(())))
        for row in self._rows("status, reason, clips, samples, digest", "videos"):
            while key is not None and key < row[:_KEY]:
                key, group = next(lacking, (None, iter(())))
            missing = {name: reason for *_, name, reason in group} if key == row[:_KEY] else {}
            yield VideoEntry._make((*row, missing))

    def _rows(self, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
        return self._database.rows(
            f"select speaker_id, video_id, {columns} from {table} not indexed where config = ? "  # noqa: S608  # constants
            "order by speaker_id, video_id",
            self._config,
        )
