"""Taking what was purged out of a ledger, of all configurations, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.cut_jobs import CutJobs
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.reopened import ReopenedJobs, fact_of_job
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale, mark_video_stale
from voxblink2_lib.store.tail import CLOSE

_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_OF_VIDEO = "is_purged(speaker_id, video_id, null)"
_OF_UTTERANCE = "is_purged(speaker_id, video_id, utterance_id)"
_RULES = {
    **dict.fromkeys(("videos", "verdicts", "witnesses", "attempts", "split_videos"), _OF_VIDEO),
    "missing": _OF_UTTERANCE,
}
_REQUEST = "request"
TOMBSTONES = "tombstones"


class ClipsLost(NamedTuple):
    """What a video, of which something is left, has lost.

    Attributes:
        clips: their number.
        samples: of all of them.
        digest: of what is left of the video's annotations; ``None`` if there are none.
    """

    clips: int
    samples: int
    digest: int | None


class LedgerPurge:
    """Takes rows out of a ledger; all of it within :meth:`Ledger.together`.

    Args:
        database: an open ledger.
    """

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def count(self, tombstones: Tombstones) -> int:
        """Return how many rows have something of what was purged."""
        self._database.set_function("is_purged", 3, tombstones.covers)
        rows = sum(
            self._database.query(f"select count(*) from {table} where {rule}")[0][0]  # noqa: S608  # constants
            for table, rule in _RULES.items()
            if self._database.has_table(table)
        )
        facts = self._database.query("select name, value from facts")
        changed = [name for name, value in facts if _fact_without(name, value, tombstones) != value]
        return int(rows) + len(changed)

    def forget(self, tombstones: Tombstones) -> None:
        """Remove the rows of what was purged, and its ids from what is remembered of runs.

        The tombstones are kept, in case their file is lost.
        """
        with self._database.transaction() as connection:
            text = tombstones.finished().as_json()
            connection.execute("insert or replace into facts values (?, ?)", (TOMBSTONES, text))
            self._database.set_function("is_purged", 3, tombstones.covers)
            connection.execute(
                f"insert or ignore into stale_outcomes select config, job from videos where {_OF_VIDEO}"  # noqa: E501, S608  # constants
            )
            for table, rule in _RULES.items():
                connection.execute(f"delete from {table} where {rule}")  # noqa: S608  # constants
            for name, value in connection.execute("select name, value from facts").fetchall():
                left = _fact_without(name, value, tombstones)
                if left is None:
                    connection.execute("delete from facts where name = ?", (name,))
                elif left != value:
                    connection.execute("update facts set value = ? where name = ?", (left, name))
                if left != value:
                    mark_first_stale(connection, name.partition(".")[0])

    def remembered(self) -> Tombstones | None:
        """Return the tombstones that are kept; ``None`` if there are none."""
        text = self._database.fact(TOMBSTONES)
        with suppress(ValueError, KeyError, TypeError):
            return Tombstones.from_json(text) if text else None
        return None

    def replace(self, config: str, before: SealedShard, after: SealedShard) -> None:
        """Write that the rows of a shard that are left are in another one.

        Args:
            config: the configuration.
            before: the shard.
            after: on disk, of another number; without a name if no row is left.
        """
        with self._database.transaction() as connection:
            if after.name:
                connection.execute(
                    "insert into jobs (config, job, kind, shard, sha256, rows, bytes) "
                    "select config, ?, kind, ?, ?, ?, ? from jobs where config = ? and job = ?",
                    (
                        *(after.job, after.name, after.sha256, after.rows, after.size_bytes),
                        *(config, before.job),
                    ),
                )
                for table in ("videos", "split_videos"):
                    connection.execute(
                        f"update {table} set job = ? where config = ? and job = ?",  # noqa: S608  # constants
                        (after.job, config, before.job),
                    )
                mark_stale(connection, config, after.job)
            connection.execute(
                "delete from split_videos where config = ? and job = ?", (config, before.job)
            )
            connection.execute(CLOSE, (config, before.job))
            mark_stale(connection, config, before.job)

    def shrink(self, config: str, lost: Mapping[VideoKey, ClipsLost]) -> None:
        """Write of videos of which something is left what they have lost.

        One that has no clip any more is forgotten.
        """
        with self._database.transaction() as connection:
            for key, (clips, samples, digest) in lost.items():
                video = (config, *key)
                connection.execute(
                    "update videos set clips = clips - ?, samples = max(0, samples - ?), "  # noqa: S608  # a constant
                    f"digest = coalesce(?, digest) where {_IS_VIDEO}",
                    (clips, samples, digest, *video),
                )
                mark_video_stale(connection, config, key)
                for job in CutJobs(self._database, config).earlier_jobs(key):
                    mark_stale(connection, config, job)
                connection.execute(
                    f"delete from videos where {_IS_VIDEO} and clips <= 0 and status = 'done'",  # noqa: S608  # a constant
                    video,
                )

    def cut_again(self, config: str, job: int) -> None:
        """Write that a job is cut anew from its archive, which is read from its start."""
        cut = CutJobs(self._database, config)
        with self._database.transaction():
            cut.empty(job)
            cut.set_position(None)

    def crop_again(self, config: str, keys: Collection[VideoKey]) -> None:
        """Write that videos of open jobs are to be cropped again."""
        ReopenedJobs(self._database, config).forget(keys)

    def vacuum(self) -> None:
        """Write the file anew; see :meth:`LedgerDatabase.vacuum`."""
        self._database.vacuum()


def _fact_without(name: str, value: str, tombstones: Tombstones) -> str | None:
    """Return a fact without what was purged; ``None`` if nothing is to be kept of it."""
    setting = name.partition(".")[2]
    if name == TOMBSTONES:
        return value
    if fact_of_job("", "") in f".{setting}":
        return json.dumps(_without_videos(json.loads(value), tombstones))
    if not tombstones.mentioned_in(value):
        return value
    if setting == _REQUEST:
        return json.dumps(_without_ids(json.loads(value), tombstones))
    return None  # where an archive goes on: it is read from its start


def _without_ids(request: dict[str, Any], tombstones: Tombstones) -> dict[str, Any]:
    """Return what is remembered of a run, without ids.

    A list of which nothing is left would select everything; a run refuses what is no list of ids.
    """
    left = {}
    for name, value in request.items():
        if not isinstance(value, list):
            left[name] = value
            continue
        ids = [text for text in value if not tombstones.mentioned_in(text)]
        is_list = ids or not value or name == "exclude"
        left[name] = ids if is_list else "only ids that were purged"
    return {name: value for name, value in left.items() if not tombstones.mentioned_in(value)}


def _without_videos(record: dict[str, Any], tombstones: Tombstones) -> dict[str, Any]:
    """Return what is remembered of a job that is open again, without videos and utterances."""
    return {
        **record,
        "order": [key for key in record["order"] if not tombstones.covers(*key)],
        "hurt": [
            [key, [name for name in utterances if not tombstones.covers(key[0], key[1], name)]]
            for key, utterances in record["hurt"]
            if not tombstones.covers(*key)
        ],
    }
