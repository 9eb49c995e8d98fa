"""Which files of outcomes lag behind the ledger; it is written with what makes them lag."""

from __future__ import annotations

import sqlite3

from voxblink2_lib.records import VideoKey

_MARK = "insert or ignore into stale_outcomes"


def mark_stale(connection: sqlite3.Connection, config: str, job: int) -> None:
    """Take note that something of a job has changed."""
    connection.execute(f"{_MARK} values (?, ?)", (config, job))


def mark_video_stale(connection: sqlite3.Connection, config: str, key: VideoKey) -> None:
    """Take note that something of a video has changed, or that it leaves its job."""
    connection.execute(
        f"{_MARK} select config, job from videos "
        "where config = ? and speaker_id = ? and video_id = ?",
        (config, *key),
    )


def mark_retry_stale(connection: sqlite3.Connection, config: str, key: VideoKey) -> None:
    """Take note that a video leaves its job, if that is one of a retry: nothing may be left of it.

    The files of other jobs still have the video then. They are many, and not written for it.
    """
    connection.execute(
        f"{_MARK} select config, job from videos join jobs using (config, job) "
        "where kind = 'retry' and config = ? and speaker_id = ? and video_id = ?",
        (config, *key),
    )


def mark_first_stale(connection: sqlite3.Connection, config: str) -> None:
    """Take note that something has changed that is in the newest file, whichever that is."""
    connection.execute(
        f"{_MARK} select config, job from jobs where config = ? order by job limit 1", (config,)
    )
