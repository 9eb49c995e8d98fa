"""Jobs of videos in the order in which an archive of cut audio has them.

How many videos an archive has, and which, is known at its end only. So jobs are cut as it is read:
a job is full when it has as many videos as its number says (:func:`job_size`). Where clips of one
video lie far apart in an archive, it is in more than one job. Then the last one is that of the
video, and those before are in the table ``split_videos``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import FORMAT
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale, mark_video_stale
from voxblink2_lib.store.tail import next_job

STREAM, POSITION = "archive", "archive_position"
_FULL_VIDEOS = 1024
# A small archive gives several shards as well, for as many readers: the first jobs are smaller.
_FIRST_VIDEOS, _JOBS_A_STEP, _STEPS = 32, 8, 3
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_ADD = """insert into videos (config, speaker_id, video_id, job, status)
    values (?, ?, ?, ?, 'planned') on conflict do update set job = excluded.job"""


def job_size(place: int) -> int:
    """Return how many videos a job has that is cut from an archive.

    Args:
        place: its place among the jobs of the archive, from 0.

    >>> [job_size(place) for place in (0, 8, 16, 24, 10_000)]
    [32, 128, 512, 1024, 1024]
    """
    steps = min(place // _JOBS_A_STEP, _STEPS)
    return min(_FULL_VIDEOS, _FIRST_VIDEOS << 2 * steps)


@dataclass(frozen=True, slots=True)
class Stream:
    """What a ledger remembers of the archive that was read last.

    Attributes:
        archive: what identifies it.
        plan: digest of what is selected of it.
        first_job: the first job that was cut from it.
        is_finished: all of it was read.
        problem: why what was read is not to be relied on; empty otherwise.
    """

    archive: str
    plan: str
    first_job: int
    is_finished: bool = False
    problem: str = ""


class KnownVideo(NamedTuple):
    """What a ledger has of a video.

    Attributes:
        status: its class.
        job: its job.
        is_cut: the job was cut from an archive.
        clips: how many it has.
        samples: their length.
    """

    status: str
    job: int
    is_cut: bool
    clips: int
    samples: int


class CutJobs:
    """What a ledger has of jobs that were cut from an archive, of one configuration.

    Args:
        database: an open ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    # -- The archive -------------------------------------------------------------------------------

    def stream(self) -> Stream | None:
        """Return which archive was read last; ``None`` if none was."""
        text = self._database.fact(f"{self._config}.{STREAM}")
        return Stream(**json.loads(text)) if text else None

    def position(self) -> dict[str, Any] | None:
        """Return up to where its clips are in the store; ``None`` if that is not known."""
        text = self._database.fact(f"{self._config}.{POSITION}")
        return dict(json.loads(text)) if text else None

    def set_stream(self, stream: Stream) -> None:
        """Write which archive is being read."""
        self._set(STREAM, json.dumps(asdict(stream)))

    def set_position(self, position: dict[str, Any] | None) -> None:
        """Write up to where clips are in the store; ``None`` for its start."""
        if position is not None:
            self._set(POSITION, json.dumps(position))
            return
        with self._database.transaction() as connection:
            connection.execute("delete from facts where name = ?", (f"{self._config}.{POSITION}",))

    def _set(self, name: str, value: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into facts values (?, ?)", (f"{self._config}.{name}", value)
            )
            mark_first_stale(connection, self._config)

    # -- Jobs --------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """Return the number of the next job."""
        with self._database.transaction() as connection:
            return next_job(connection, self._config, "cut")

    def jobs(self, *, first: int = 0) -> list[int]:
        """Return the numbers of the jobs from one on, in order."""
        if self._database.fact("format") != FORMAT:
            return []  # of earlier formats, whose jobs are of one kind
        rows = self._database.query(
            "select job from jobs where config = ? and kind = 'cut' and job >= ? order by job",
            self._config,
            first,
        )
        return [job for (job,) in rows]

    def open_jobs(self) -> list[int]:
        """Return the numbers of the jobs that are being cut: one, unless the archive is finished.

        Those that repair opened again have part files as others have.
        """
        if self._database.fact("format") != FORMAT:
            return []
        rows = self._database.query(
            "select job from jobs j where config = ? and kind = 'cut' and shard is null and "
            "not exists (select 1 from facts where name = ? || '.reopened.' || j.job) order by job",
            self._config,
            self._config,
        )
        return [job for (job,) in rows]

    def video(self, key: VideoKey) -> KnownVideo | None:
        """Return what is known of a video; ``None`` if nothing is."""
        rows = self._database.query(
            "select v.status, v.job, coalesce(j.kind = 'cut', 0), v.clips, v.samples from videos v "
            "left join jobs j on j.config = v.config and j.job = v.job "
            "where v.config = ? and v.speaker_id = ? and v.video_id = ?",
            self._config,
            *key,
        )
        if not rows:
            return None
        status, job, is_cut, *counts = rows[0]
        return KnownVideo(status, job, bool(is_cut), *counts)

    def give(self, job: int, keys: Iterable[VideoKey]) -> None:
        """Give videos to a job, which is made if there is none.

        One that has clips in another job that was cut from an archive is split.
        """
        config = self._config
        with self._database.transaction() as connection:
            connection.execute(
                "insert or ignore into jobs (config, job, kind) values (?, ?, 'cut')", (config, job)
            )
            mark_stale(connection, config, job)
            for key in keys:
                known = self.video(key)
                if known is not None and known.job != job:
                    mark_video_stale(connection, config, key)
                    if known.is_cut and known.status == "done":
                        connection.execute(
                            "insert or ignore into split_videos values (?, ?, ?, ?)",
                            (config, known.job, *key),
                        )
                connection.execute(_ADD, (config, *key, job))
                for earlier in self.earlier_jobs(key):
                    mark_stale(connection, config, earlier)

    def missing(self, key: VideoKey) -> tuple[MissingUtterance, ...]:
        """Return the utterances of a video that have no clip, sorted."""
        rows = self._database.query(
            f"select utterance_id, reason from missing where {_IS_VIDEO} order by utterance_id",  # noqa: S608  # a constant
            self._config,
            *key,
        )
        return tuple(map(MissingUtterance._make, rows))

    def empty(self, job: int) -> None:
        """Write that the clips of an open job are to be cut again."""
        config = self._config
        with self._database.transaction() as connection:
            connection.execute(
                "update videos set status = 'planned', reason = '', clips = 0, samples = 0 "
                "where config = ? and job = ?",
                (config, job),
            )
            mark_stale(connection, config, job)

    # -- Videos in more than one job ---------------------------------------------------------------

    def earlier_jobs(self, key: VideoKey) -> list[int]:
        """Return the jobs that have clips of a video besides its own, in order."""
        rows = self._database.query(
            f"select job from split_videos where {_IS_VIDEO} order by job",  # noqa: S608  # a constant
            self._config,
            *key,
        )
        return [job for (job,) in rows]

    def split_videos(self) -> list[VideoKey]:
        """Return the videos that have clips in more than one job, sorted."""
        if not self._database.has_table("split_videos"):
            return []
        rows = self._database.query(
            "select distinct speaker_id, video_id from split_videos where config = ? "
            "order by speaker_id, video_id",
            self._config,
        )
        return list(map(VideoKey._make, rows))

    def split_in(self, job: int) -> list[VideoKey]:
        """Return the videos that a job has clips of and that are in a later job, sorted."""
        return split_in(self._database, self._config, job)

    # -- The end of an archive ---------------------------------------------------------------------

    def set_missing(self, reason: str, utterances: dict[VideoKey, list[str]]) -> None:
        """Write which utterances of videos lack a clip for a reason, in place of those before.

        Args:
            reason: the reason.
            utterances: ids of utterances by their video; videos may have none.
        """
        config = self._config
        with self._database.transaction() as connection:
            for key, names in utterances.items():
                before = connection.execute(
                    f"select utterance_id from missing where {_IS_VIDEO} and reason = ? "  # noqa: S608  # a constant
                    "order by utterance_id",
                    (config, *key, reason),
                ).fetchall()
                if [name for (name,) in before] == sorted(names):
                    continue
                connection.execute(
                    f"delete from missing where {_IS_VIDEO} and reason = ?",  # noqa: S608  # a constant
                    (config, *key, reason),
                )
                connection.executemany(
                    "insert or ignore into missing values (?, ?, ?, ?, ?)",
                    ((config, *key, name, reason) for name in sorted(names)),
                )
                mark_video_stale(connection, config, key)
                for job in self.earlier_jobs(key):
                    mark_stale(connection, config, job)


def split_in(database: LedgerDatabase, config: str, job: int) -> list[VideoKey]:
    """Return the videos that a job has clips of and that are in a later job, sorted.

    Args:
        database: an open ledger.
        config: name of the configuration.
        job: number of the job.
    """
    if not database.has_table("split_videos"):
        return []
    rows = database.query(
        "select speaker_id, video_id from split_videos where config = ? and job = ? "
        "order by speaker_id, video_id",
        config,
        job,
    )
    return list(map(VideoKey._make, rows))
