"""What the ledger has of whole jobs, for the files beside the shards."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from functools import cached_property
from typing import Any, NamedTuple

from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.cut_jobs import split_in
from voxblink2_lib.store.job_outcomes import (
    AttemptRow,
    JobOutcomes,
    VerdictRow,
    VideoOutcomes,
    VideoRow,
    WitnessRow,
)
from voxblink2_lib.store.ledger_damage import damaged_ledger
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import BY_JOB, FORMAT
from voxblink2_lib.store.tail import JobKind

# Settings are in the file of each job: one of a million ids would be there a thousand times.
_LONGEST_SETTING, _MOST_IDS = 16_384, 100
_SAME_VIDEO = "t.config = v.config and t.speaker_id = v.speaker_id and t.video_id = v.video_id"
_ORDER = "order by v.speaker_id, v.video_id"


class _Videos(NamedTuple):
    """Some videos: from where they are read, and which they are."""

    table: str
    condition: str


_OF_JOB = _Videos(f"videos v {BY_JOB}", "v.config = :config and v.job = :job")
_THIS_ONE = _Videos(
    "videos v",
    "v.config = :config and v.speaker_id = :speaker_id and v.video_id = :video_id",
)


class LedgerOutcomes:
    """All that a ledger has of each job of one configuration.

    Settings are read once, for all jobs: one of a million ids takes longer than a job.

    Args:
        database: the ledger.
        config: name of the configuration.
    """

    def __init__(self, database: LedgerDatabase, config: str) -> None:
        self._database = database
        self._config = config

    def jobs(self) -> dict[int, JobKind]:
        """Return the kinds of the jobs of which something is left; none in earlier formats.

        Nothing is left of a retry whose videos are all elsewhere, nor of a superseded shard.
        """
        if self._database.fact("format") != FORMAT:
            return {}
        rows = self._database.query(
            "select job, kind from jobs j where config = ? and (kind = 'planned' "
            "or shard is null or shard <> '' or exists (select 1 from videos v "
            "where v.config = j.config and v.job = j.job)) order by job",
            self._config,
        )
        return dict(rows)

    def stale(self) -> list[int]:
        """Return the jobs whose file lags behind, also those of which nothing is left."""
        if not self._database.has_table("stale_outcomes"):
            return [*self.jobs()]  # of a version that wrote no such files
        rows = self._database.query(
            "select job from stale_outcomes where config = ? order by job", self._config
        )
        return [job for (job,) in rows]

    def mark_written(self, job: int) -> None:
        """Take note that the file of a job is up to date."""
        with self._database.transaction() as connection:
            connection.execute(
                "delete from stale_outcomes where config = ? and job = ?", (self._config, job)
            )

    def read(self, job: int) -> JobOutcomes | None:
        """Return what belongs into the file of a job; ``None`` if nothing of it is left.

        Raises:
            StoreDamagedError: the ledger has what no ledger can have.
        """
        rows = self._database.query(
            "select kind, shard, sha256, rows, bytes from jobs where config = ? and job = ?",
            self._config,
            job,
        )
        if not rows:
            return None
        ((kind, *shard),) = rows
        try:
            outcomes = self._outcomes(job, kind, shard)
        except (TypeError, ValueError) as error:
            raise damaged_ledger(self._database.path, f"job {job}: {error}") from error
        is_empty = kind != "planned" and shard[0] == "" and not outcomes.videos
        return None if is_empty else outcomes

    def difference(self, stored: JobOutcomes) -> str:
        """Return in what a file that should be up to date differs; an empty text if in nothing.

        Videos that have moved to another job since may still be in it, as they were then. Settings
        are of no job: only the file of the first one is up to date about them.

        Args:
            stored: what the file has.

        Raises:
            StoreDamagedError: the ledger has what no ledger can have.
        """
        known = self.read(stored.job)
        videos = {video.key: video for video in known.videos} if known else {}
        before = {video.key: video for video in stored.videos}
        if any(before.get(key) != video for key, video in videos.items()):
            return "videos"
        if not all(self._has_video(key) for key in before.keys() - videos.keys()):
            return "videos"
        if known is None:
            return ""
        is_first = stored.job == next(iter(self.jobs()), None)
        names = ("kind", "shard", *(["settings"] if is_first else []))
        return next((name for name in names if getattr(stored, name) != getattr(known, name)), "")

    def _has_video(self, key: VideoKey) -> bool:
        sql = "select 1 from videos where config = ? and speaker_id = ? and video_id = ?"
        return bool(self._database.query(sql, self._config, *key))

    def _outcomes(self, job: int, kind: JobKind, shard: list[Any]) -> JobOutcomes:
        return JobOutcomes(
            config=self._config,
            job=job,
            kind=kind,
            shard=None if shard[0] is None else SealedShard(job, *shard),
            videos=self._videos(job),
            settings=self._settings,
            sources=tuple(
                name for (name,) in self._database.query("select name from sources order by id")
            ),
            witnesses=tuple(
                WitnessRow(*row)
                for row in self._database.query(
                    "select s.name, w.address, w.speaker_id, w.video_id, w.at "
                    "from witnesses w join sources s on s.id = w.source order by s.id, w.address"
                )
            ),
            written_at=time.time(),
        )

    @cached_property
    def _settings(self) -> dict[str, str]:
        prefix = f"{self._config}."
        return {
            name.removeprefix(prefix): _storable(value)
            for name, value in self._database.query("select name, value from facts")
            if name.startswith(prefix)
        }

    def _videos(self, job: int) -> tuple[VideoOutcomes, ...]:
        """Return the videos of a job, and those that have clips in it and are in a later one."""
        videos = self._outcomes_of(_OF_JOB, job=job)
        for key in split_in(self._database, self._config, job):
            videos += self._outcomes_of(_THIS_ONE, **key._asdict())
        return tuple(sorted(videos, key=lambda video: video.key))

    def _outcomes_of(self, which: _Videos, **values: Any) -> list[VideoOutcomes]:
        def by_video(
            table: str, columns: str, last: str, join: str = ""
        ) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
            rows: dict[tuple[str, str], list[tuple[Any, ...]]] = defaultdict(list)
            for speaker_id, video_id, *others in self._query(
                f"select v.speaker_id, v.video_id, {columns} from {which.table} "  # noqa: S608  # constants
                f"cross join {table} t on {_SAME_VIDEO} {join} "
                f"where {which.condition} {_ORDER}, {last}",
                values,
            ):
                rows[speaker_id, video_id].append(tuple(others))
            return rows

        verdicts = by_video(
            "verdicts",
            f"s.name, {_listed(VerdictRow, 1)}",
            "s.id",
            "join sources s on s.id = t.source",
        )
        missing = by_video("missing", _listed(MissingUtterance), "t.utterance_id")
        attempts = by_video("attempts", _listed(AttemptRow), "t.attempt")
        rows = self._query(
            f"select {', '.join(VideoRow._fields)} from {which.table} "  # noqa: S608  # constants
            f"where {which.condition} {_ORDER}",
            values,
        )
        return [
            VideoOutcomes(
                row,
                tuple(map(VerdictRow._make, verdicts.get(row[:2], ()))),
                tuple(map(MissingUtterance._make, missing.get(row[:2], ()))),
                tuple(map(AttemptRow._make, attempts.get(row[:2], ()))),
            )
            for row in map(VideoRow._make, rows)
        ]

    def _query(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._database.query(sql, config=self._config, **values)


def _listed(record: Any, first: int = 0) -> str:
    return ", ".join(f"t.{name}" for name in record._fields[first:])


def _storable(value: str) -> str:
    is_long = len(value) > _LONGEST_SETTING and value.startswith("{")
    return _without_long_lists(value) if is_long else value


def _without_long_lists(value: str) -> str:
    """Return a setting; in place of a long list of ids, how many it has.

    A run that goes on after the ledger was rebuilt refuses that, and wants the list again.
    """
    return json.dumps({name: _counted(inner) for name, inner in json.loads(value).items()})


def _counted(value: Any) -> Any:
    is_long = isinstance(value, list) and len(value) > _MOST_IDS
    return f"{len(value):,} ids, which were not kept" if is_long else value
