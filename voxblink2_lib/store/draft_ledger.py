"""A ledger that is being made from what is known of jobs and videos, each time the later of two."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.cut_jobs import POSITION
from voxblink2_lib.store.job_outcomes import JobOutcomes, VideoOutcomes, VideoRow
from voxblink2_lib.store.ledger_database import make_ledger
from voxblink2_lib.store.ledger_purge import TOMBSTONES
from voxblink2_lib.store.ledger_schema import STORE_ID
from voxblink2_lib.store.salvage import ConfigKey, OldLedger, OldVideo
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale
from voxblink2_lib.store.tail import JobKind
from voxblink2_lib.store.video_rows import put_video, put_witness, source_id

_LAST_CONFIG, _REQUEST = "last_config", "request"
# A run compares the selection with the ledger unless its plan is this one. An archive is read from
# its start: what was cut after the newest file was written is not in the files.
_NOT_KEPT = {"plan", POSITION}
_EXCLUDED = "excluded"
# Of equal attempts, the answer is in the job that the video moved to last.
_ORDER: dict[JobKind, int] = {"planned": 0, "retry": 1, "cut": 2, "recovered": 2}
_IS_VIDEO = "config = ? and speaker_id = ? and video_id = ?"
_UNANSWERED = (
    "create temp table unanswered as select v.config, speaker_id, video_id from videos v "
    "join jobs j on j.config = v.config and j.job = v.job where shard is null and status <> 'done'",
    "create unique index temp.unanswered_key on unanswered (config, speaker_id, video_id)",
)


class DraftLedger:
    """A new ledger.

    Args:
        path: the file; it must not exist yet.
        tombstones: what was purged, and is left out.
    """

    def __init__(self, path: Path, tombstones: Tombstones) -> None:
        make_ledger(path)
        self._tombstones = tombstones
        self._connection = sqlite3.connect(path, isolation_level=None)
        # A draft is flushed when it is whole.
        self._connection.execute("pragma synchronous = off")
        self._connection.execute("begin")
        if tombstones:
            self._connection.execute(
                "insert into facts values (?, ?)", (TOMBSTONES, tombstones.finished().as_json())
            )
        self._kinds: dict[tuple[str, int], JobKind] = {}
        self._newest: dict[str, JobOutcomes] = {}

    def close(self) -> None:
        """Write all to the file."""
        if self._connection.in_transaction:
            for config in CONFIG_NAMES:  # it has other settings now: not that of the plan
                mark_first_stale(self._connection, config)
            self._connection.execute("commit")
        self._connection.close()

    def counts(self) -> tuple[int, int]:
        """Return the numbers of jobs and of videos."""
        (videos,) = self._connection.execute("select count(*) from videos").fetchone()
        return len(self._kinds), videos

    # -- From files of outcomes --------------------------------------------------------------------

    def add(self, outcomes: JobOutcomes) -> None:
        """Add a job and its videos, but for those of which something later is here."""
        self._add_job(outcomes)
        newest = self._newest.get(outcomes.config)
        if newest is None or outcomes.written_at > newest.written_at:
            self._newest[outcomes.config] = outcomes
        for name in outcomes.sources:
            source_id(self._connection, name)
        for video in outcomes.videos:
            key = ConfigKey(outcomes.config, *video.key)
            is_purged = self._tombstones.covers(*video.key)
            if not is_purged and self._is_later(key, video.row, outcomes.job):
                self._put(key, outcomes.job, video)

    def add_clips(self, outcomes: JobOutcomes) -> None:
        """Add of which videos a job that was cut from an archive has clips, as its digests say."""
        videos = {tuple(name.split("/")[:2]) for name in outcomes.digests or ()}
        self._connection.executemany(
            "insert or ignore into split_videos values (?, ?, ?, ?)",
            ((outcomes.config, outcomes.job, *key) for key in sorted(videos)),
        )

    def forget_whole_videos(self) -> None:
        """Leave out the videos that have clips in one job only, when all files are added."""
        self._connection.execute(
            "delete from split_videos where exists (select 1 from videos v where "
            "v.config = split_videos.config and v.job = split_videos.job and "
            "v.speaker_id = split_videos.speaker_id and v.video_id = split_videos.video_id)"
        )

    def add_settings(self) -> None:
        """Add what the newest file says of everything that is not of a job."""
        for config, outcomes in self._newest.items():
            for name, value in outcomes.settings.items():
                self._add_fact(config, name, value)
        for outcomes in sorted(self._newest.values(), key=lambda outcomes: outcomes.written_at):
            for witness in outcomes.witnesses:
                if self._tombstones.covers(witness.speaker_id, witness.video_id):
                    continue
                put_witness(self._connection, witness)
        # What a run remembers of itself says also which configuration was the last.
        runs = [outcomes for outcomes in self._newest.values() if _REQUEST in outcomes.settings]
        if runs:
            last = max(runs, key=lambda outcomes: outcomes.written_at)
            self._connection.execute(
                "insert or ignore into facts values (?, ?)", (_LAST_CONFIG, last.config)
            )
        for statement in _UNANSWERED:
            self._connection.execute(statement)

    # -- From an old ledger ------------------------------------------------------------------------

    def add_later(self, old: OldLedger, *, is_last: bool) -> int:
        """Add what an old ledger has that is later.

        Args:
            old: the ledger.
            is_last: nothing was written after it, so what it says of a video is the last answer.

        Returns:
            Of how many videos it had something later, or anything at all.
        """
        later = 0
        for video in old.videos(self._next_known):
            if not self._is_of_a_ledger(video):
                continue
            is_known = not self._is_later(video.key, video.row, video.job)
            is_added = not is_known and self._add_old(old, video)
            later += is_added
            if is_last and (is_known or is_added):
                self._connection.execute(f"delete from unanswered where {_IS_VIDEO}", video.key)  # noqa: S608  # a constant
        for name, value in old.facts().items():
            config, _, setting = name.partition(".")
            if config in CONFIG_NAMES and isinstance(value, str):
                self._add_fact(config, setting, value)
            elif name == STORE_ID and isinstance(value, str):
                self._connection.execute(
                    "insert or ignore into facts values (?, ?)", (STORE_ID, value)
                )
        return later

    def unanswered(self) -> list[ConfigKey]:
        """Return the videos of open jobs that did not come, and were not read since."""
        return [ConfigKey(*row) for row in self._connection.execute("select * from unanswered")]

    def _is_of_a_ledger(self, video: OldVideo) -> bool:
        row = video.row
        numbers_are_right = type(video.job) is int and type(row.attempts) is int
        is_purged = self._tombstones.covers(*video.key[1:])
        return numbers_are_right and not is_purged and video.key.config in CONFIG_NAMES

    def _next_known(self, after: ConfigKey) -> ConfigKey | None:
        row = self._connection.execute(
            "select config, speaker_id, video_id from videos "
            "where (config, speaker_id, video_id) > (?, ?, ?) "
            "order by config, speaker_id, video_id limit 1",
            after,
        ).fetchone()
        return ConfigKey(*row) if row else None

    def _add_old(self, old: OldLedger, video: OldVideo) -> bool:
        config, job = video.key.config, video.job
        if (config, job) not in self._kinds and video.row.status != _EXCLUDED:
            known = old.job(config, job)
            if known is None:
                return False
            self._add_job(known)
        outcomes = old.video(video)
        if outcomes is None:
            return False
        self._put(video.key, job, outcomes)
        if (config, job) in self._kinds:
            mark_stale(self._connection, config, job)
        return True

    # -- Rows --------------------------------------------------------------------------------------

    def _is_later(self, key: ConfigKey, row: VideoRow, job: int) -> bool:
        """Return whether a row of a video is later than the one that is here, if any is."""
        here = self._connection.execute(
            f"select attempts, job from videos where {_IS_VIDEO}",  # noqa: S608  # a constant
            key,
        ).fetchone()
        if here is None:
            return True
        return self._order(key.config, row.attempts, job) > self._order(key.config, *here)

    def _order(self, config: str, attempts: int, job: int) -> tuple[int, int, int]:
        kind = self._kinds.get((config, job), "planned")
        return attempts, _ORDER[kind], job

    def _add_job(self, outcomes: JobOutcomes) -> None:
        shard = outcomes.shard
        entry = (shard.name, shard.sha256, shard.rows, shard.size_bytes) if shard else (None,) * 4
        self._kinds[outcomes.config, outcomes.job] = outcomes.kind
        self._connection.execute(
            "insert or replace into jobs (config, job, shard, sha256, rows, bytes, kind) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (outcomes.config, outcomes.job, *entry, outcomes.kind),
        )

    def _put(self, key: ConfigKey, job: int, video: VideoOutcomes) -> None:
        covers = self._tombstones.covers
        missing = tuple(each for each in video.missing if not covers(*key[1:], each[0]))
        put_video(self._connection, key, job, replace(video, missing=missing))

    def _add_fact(self, config: str, setting: str, value: str) -> None:
        if setting not in _NOT_KEPT and not self._tombstones.mentioned_in(value):
            self._connection.execute(
                "insert or ignore into facts values (?, ?)", (f"{config}.{setting}", value)
            )
