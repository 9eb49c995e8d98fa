"""Which files of outcomes lag behind the ledger; it is written with what makes them lag."""

from __future__ import annotations

import sqlite3

from voxblink2_lib.records import VideoKey

_MARK = "insert or ignore into stale_outcomes"
_MARK_VIDEO = f"""
{_MARK} select config, job from videos where config = ? and speaker_id = ? and video_id = ?
    and job >= ?
"""  # noqa: S608  # a constant
# Of the first job of which something is left, see LedgerOutcomes.jobs.
_MARK_FIRST = f"""
{_MARK} select config, job from jobs j where config = ? and job >= 0 and (kind = 'planned'
    or shard is null or shard <> '' or exists (select 1 from videos v
    where v.config = j.config and v.job = j.job)) order by job limit 1
"""  # noqa: S608  # a constant
_MARK_FORMER = f"{_MARK} select config, job from jobs where config = ? and kind <> 'recovered'"  # noqa: S608  # a constant


def mark_stale(connection: sqlite3.Connection, config: str, job: int) -> None:
    """Take note that something of a job has changed."""
    connection.execute(f"{_MARK} values (?, ?)", (config, job))


def mark_video_stale(
    connection: sqlite3.Connection, config: str, key: VideoKey, *, least_job: int = 0
) -> None:
    """Take note that something of a video has changed, or that it leaves its job.

    Args:
        connection: in a transaction.
        config: the configuration.
        key: the video.
        least_job: only if it is in this job or a later one.
    """
    connection.execute(_MARK_VIDEO, (config, *key, least_job))


def mark_first_stale(connection: sqlite3.Connection, config: str) -> None:
    """Take note that something has changed that is in the newest file, whichever that is."""
    connection.execute(_MARK_FIRST, (config,))


def mark_former_stale(connection: sqlite3.Connection, config: str) -> None:
    """Take note that a video is gone which any job may have had before it moved to another."""
    connection.execute(_MARK_FORMER, (config,))
