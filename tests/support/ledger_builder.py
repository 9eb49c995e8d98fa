"""Makes ledgers for tests, row by row, without a run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import SCHEMA
from voxblink2_lib.store.ledger_statistics import LedgerStatistics

DAY = 1_760_054_400.0  # 2025-10-10 00:00 UTC


class LedgerBuilder:
    """A ledger in memory, or in a file.

    Args:
        path: the file.
        config: the configuration of rows by default.
    """

    def __init__(self, path: Path | str = ":memory:", *, config: str = "audio") -> None:
        self._path = Path(path)
        self.database = sqlite3.connect(path)
        self.database.executescript(SCHEMA)
        self._config = config
        self._videos = 0

    def __enter__(self) -> LedgerBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.commit()
        self.database.close()

    @property
    def statistics(self) -> LedgerStatistics:
        return LedgerStatistics(LedgerDatabase(self.database, self._path), self._config)

    def video(
        self,
        status: str,
        *,
        speaker: str = "id000001",
        video: str | None = None,
        reason: str = "",
        clips: int = 0,
        seconds: float = 0.0,
        at: float | None = DAY,
        next_at: float | None = None,
        size_bytes: int = 0,
        config: str | None = None,
    ) -> str:
        """Add a video; ``seconds`` is the length of its clips. Return its id."""
        self._videos += 1
        video = f"video{self._videos:06}" if video is None else video
        at = None if status == "planned" else at
        self.database.execute(
            "insert into videos (config, speaker_id, video_id, job, status, reason, attempts, "
            "next_at, clips, samples, bytes_fetched, updated_at) "
            "values (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(config or self._config, speaker, video, status, reason, int(at is not None)),
                *(next_at, clips, round(seconds * 16_000), size_bytes, at),
            ),
        )
        return video

    def attempt(
        self, at: float, *, status: str = "done", size_bytes: int = 0, seconds: float = 1.0
    ) -> None:
        """Add an attempt that ended at a time."""
        self.database.execute(
            "insert into attempts select ?, 'id000001', 'abcdefghijk', count(*), ?, ?, '', '', "
            "?, ?, '{}' from attempts",
            (self._config, at, status, size_bytes, seconds),
        )
