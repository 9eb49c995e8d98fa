"""What one source answered of each video, and which videos it is asked for.

A verdict belongs to a source: what is final there says nothing of another source, and a source is
never asked again for what it finally refused, whichever was used in between.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from voxblink2_lib.outcomes import (
    BEST_FIRST,
    GREATEST_WAIT_SECONDS,
    Evidence,
    Outcome,
    RetryDecision,
    Status,
    next_attempt,
)
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_schema import BY_JOB
from voxblink2_lib.store.stale_outcomes import mark_first_stale, mark_stale, mark_video_stale

_IS_VIDEO = "config = :config and speaker_id = :speaker_id and video_id = :video_id"
# Every video (v) with the verdict (w) of this source, where it has answered.
_WITH_VERDICT = """left join verdicts w on w.config = v.config
    and w.speaker_id = v.speaker_id and w.video_id = v.video_id and w.source = :source"""
_VIDEOS = f"videos v {_WITH_VERDICT}"
_IS_WANTED = "v.config = :config and v.status not in ('done', 'excluded')"
# A wait beyond the greatest was written by a clock that was wrong.
_IS_DUE = "(w.status is null or w.next_at <= :now or w.next_at > :now + :greatest)"
_PUT_VERDICT = """
insert or replace into verdicts values (:config, :speaker_id, :video_id, :source, :status, :reason,
    :tries, :next_at, :since, :route, :now)
"""
_UPDATE_VIDEO = f"""
update videos set status = :status, reason = :reason, attempts = :attempt, next_at = :next_at,
    clips = :clips, samples = :samples, bytes_fetched = bytes_fetched + :bytes,
    seconds_taken = :seconds, digest = :digest, updated_at = :now
where {_IS_VIDEO}
"""  # noqa: S608  # a constant
_ADD_ATTEMPT = """
insert or replace into attempts values (:config, :speaker_id, :video_id, :attempt, :now, :status,
    :reason, :route, :bytes, :seconds, :facts)
"""


class _Verdict(NamedTuple):
    """The answer of a source before the present one."""

    status: str
    tries: int
    since: float | None
    route: str


class Verdicts:
    """The answers of one source in a ledger.

    Args:
        database: the ledger.
        config: name of the configuration.
        source: name of the source, without secrets; empty if it is unknown.
    """

    def __init__(self, database: LedgerDatabase, config: str, source: str) -> None:
        self._database = database
        self._config = config
        self._name = source

    # -- What is asked for -------------------------------------------------------------------------

    def pending_videos(self, job: int) -> list[VideoKey]:
        """Return the videos of a job that can be tried now, sorted by speaker and video."""
        return self._keys(
            f"select v.speaker_id, v.video_id from videos v {BY_JOB} {_WITH_VERDICT} "  # noqa: S608  # constants
            f"where {_IS_WANTED} and v.job = :job and {_IS_DUE} order by v.speaker_id, v.video_id",
            job=job,
        )

    def count_pending(self, jobs: Collection[int] | None = None) -> int:
        """Return the number of videos of open jobs, or of some jobs, that can be tried now."""
        ((count,),) = self._query(
            # Only open jobs are gone through.
            f"select count(*) from jobs j cross join videos v {BY_JOB} {_WITH_VERDICT} "  # noqa: S608  # constants
            f"where j.config = :config and j.job = v.job and j.shard is null and {_IS_WANTED} "
            f"and {_IS_DUE} and (:jobs is null or j.job in (select value from json_each(:jobs)))",
            jobs=None if jobs is None else json.dumps([*jobs]),
        )
        return int(count)

    def due(
        self, *, again: Iterable[Status] = (), after_a_wait: bool = False, is_sealed: bool = True
    ) -> list[VideoKey]:
        """Return the videos of sealed jobs that this source may be asked for now, sorted.

        Args:
            again: classes of answers of this source that are asked for again, final or not.
            after_a_wait: only those with a back-off since their last attempt: a run that retried
                the others again and again would never end.
            is_sealed: of sealed jobs; otherwise of open ones.
        """
        return self._keys(
            f"select v.speaker_id, v.video_id from {_VIDEOS} "  # noqa: S608  # constants
            f"join jobs j on j.config = v.config and j.job = v.job where {_IS_WANTED} "
            "and (j.shard is not null) = :is_sealed "
            f"and ({_IS_DUE} or w.status in (select value from json_each(:again))) "
            "and (not :after_a_wait or w.next_at > w.updated_at) "
            "order by v.speaker_id, v.video_id",
            again=json.dumps([*again]),
            after_a_wait=after_a_wait,
            is_sealed=is_sealed,
        )

    def unanswered(self) -> list[VideoKey]:
        """Return the videos that are not done and of which this source has said nothing, sorted."""
        return self._keys(
            f"select v.speaker_id, v.video_id from {_VIDEOS} where {_IS_WANTED} "  # noqa: S608  # constants
            "and w.status is null order by v.speaker_id, v.video_id"
        )

    def missing(
        self, statuses: Iterable[Status] = (), *, since: float | None = None
    ) -> list[VideoKey]:
        """Return the videos that are not done, by what is known of them, sorted.

        Args:
            statuses: only those that users see in these classes; none means all that were tried.
            since: only those that this source answered at or after this Unix time.
        """
        classes = [*statuses]
        return self._keys(
            f"select v.speaker_id, v.video_id from {_VIDEOS} where {_IS_WANTED} "  # noqa: S608  # constants
            "and v.status <> 'planned' "
            "and (:statuses = '[]' or v.status in (select value from json_each(:statuses))) "
            "and (:since is null or w.updated_at >= :since) order by v.speaker_id, v.video_id",
            statuses=json.dumps(classes),
            since=since,
        )

    def other_speakers(self, known: Collection[VideoKey], count: int) -> list[VideoKey]:
        """Return a video each of some speakers that were not tried and are not among the known."""
        return self._keys(
            "select speaker_id, max(video_id) from videos where config = :config "
            "and status = 'planned' and speaker_id not in (select value from json_each(:known)) "
            "group by speaker_id order by speaker_id desc limit :count",
            known=json.dumps(sorted({key.speaker_id for key in known})),
            count=count,
        )

    def ask_again(self, keys: Iterable[VideoKey], *, forget: bool = False) -> None:
        """Make videos due at this source at once, with no tries counted; their answers are kept.

        Args:
            keys: the videos.
            forget: their answers do not count as the first of two.
        """
        with self._database.transaction() as connection:
            values = self._values() | {"forget": forget}
            for key in keys:
                connection.execute(
                    "update verdicts set next_at = 0, tries = 0, "  # noqa: S608  # a constant
                    "since = case when not :forget then since end "
                    f"where {_IS_VIDEO} and source = :source",
                    values | key._asdict(),
                )
                mark_video_stale(connection, self._config, key)

    # -- Which route works -------------------------------------------------------------------------

    def witness(self, route: str) -> VideoKey | None:
        """Return the last video that came by a route; if none did, by any other."""
        keys = self._keys(
            "select speaker_id, video_id from witnesses where source = :source "
            "order by address = :route desc, at desc limit 1",
            route=route,
        )
        return keys[0] if keys else None

    def last_done(self, count: int) -> list[VideoKey]:
        """Return the videos that came last, from whichever source, the last one first."""
        return self._keys(
            "select speaker_id, video_id from videos where config = :config and status = 'done' "
            "order by updated_at desc limit :count",
            count=count,
        )

    def record_witness(self, key: VideoKey, route: str, *, at: float) -> None:
        """Write that a video came by a route which was requested at a Unix time."""
        with self._database.transaction() as connection:
            connection.execute(
                "insert or replace into witnesses values (?, ?, ?, ?, ?)",
                (self._ensure_source(connection), route, *key, at),
            )
            mark_first_stale(connection, self._config)

    # -- Outcomes ----------------------------------------------------------------------------------

    def is_witnessed(self, outcome: Outcome) -> bool:
        """Return whether another video came by the route of a failure since the first such one."""
        return self._evidence(outcome, is_settled=True).is_witnessed

    def would_be_final(self, outcome: Outcome, *, is_witnessed: bool) -> bool:
        """Return whether a failure would never be asked for again.

        Args:
            outcome: the failure.
            is_witnessed: see :meth:`is_witnessed`, when it happened.
        """
        evidence = self._evidence(outcome, is_settled=True)._replace(is_witnessed=is_witnessed)
        return next_attempt(outcome, evidence, now=time.time()).next_at is None

    def record(
        self,
        outcome: Outcome,
        *,
        is_settled: bool = True,
        at: float | None = None,
        is_witnessed: bool | None = None,
    ) -> Status | None:
        """Write the outcome of a video.

        Args:
            outcome: what happened.
            is_settled: this run does not try it again. Otherwise it remains pending.
            at: when it happened (Unix time), if not now.
            is_witnessed: see :meth:`is_witnessed`, when it happened; ``None`` means as of now.

        Returns:
            The class of this answer, or ``None`` if the video is not in the ledger.
        """
        now = time.time() if at is None else at
        with self._database.transaction() as connection:
            row = connection.execute(
                f"select attempts, job from videos where {_IS_VIDEO}",  # noqa: S608  # a constant
                {"config": self._config, **outcome.key._asdict()},
            ).fetchone()
            if row is None:
                return None
            self._ensure_source(connection)
            evidence = self._evidence(outcome, is_settled=is_settled)
            if is_witnessed is not None:
                evidence = evidence._replace(is_witnessed=is_witnessed)
            decision = RetryDecision(outcome.status, now, evidence.since)
            if is_settled:
                decision = next_attempt(outcome, evidence, now=now)
            values = {**self._values(now), **_columns(outcome)}
            values |= {"attempt": row[0] + 1, "tries": evidence.tries}
            connection.execute(_ADD_ATTEMPT, values)
            self._put(connection, outcome, values | decision._asdict())
            mark_stale(connection, self._config, row[1])
            return decision.status

    def _evidence(self, outcome: Outcome, *, is_settled: bool) -> Evidence:
        rows = self._query(
            f"select status, tries, since, address from verdicts where {_IS_VIDEO} "  # noqa: S608  # a constant
            "and source = :source",
            **outcome.key._asdict(),
        )
        before = _Verdict(*rows[0]) if rows else None
        is_same = before is not None and before.status == outcome.status
        # Another answer in between begins counting and waiting anew.
        tries = (before.tries if before and is_same else 0) + is_settled
        if before is None or not is_same or before.since is None:
            return Evidence(tries)
        witnesses = self._query(
            "select 1 from witnesses where source = :source and address = :route "
            "and at > :since and at <= :now and (speaker_id, video_id) <> (:speaker_id, :video_id)",
            route=outcome.route,
            since=before.since,
            **outcome.key._asdict(),
        )
        return Evidence(tries, before.since, bool(witnesses), before.route != outcome.route)

    def _put(
        self, connection: sqlite3.Connection, outcome: Outcome, values: dict[str, Any]
    ) -> None:
        """Write the verdict of this source, and the best of all sources for users to see."""
        if outcome.status == "done":
            # The video says so itself, and no source is asked for it again.
            connection.execute(
                f"delete from verdicts where {_IS_VIDEO} and source = :source",  # noqa: S608  # a constant
                values,
            )
            best, is_best = values, True
        else:
            connection.execute(_PUT_VERDICT, values)
            answers = connection.execute(
                f"select status, reason, next_at, source = :source from verdicts where {_IS_VIDEO}",  # noqa: S608  # a constant
                values,
            ).fetchall()
            answers.sort(key=lambda row: (BEST_FIRST.index(row[0]), not row[3]))
            status, reason, _, is_best = answers[0]
            waits = [next_at for _, _, next_at, _ in answers if next_at is not None]
            best = {"status": status, "reason": reason, "next_at": min(waits, default=None)}
        connection.execute(_UPDATE_VIDEO, values | best)
        if is_best or best["status"] != "media-unusable":
            self._replace_missing(connection, outcome)

    def _replace_missing(self, connection: sqlite3.Connection, outcome: Outcome) -> None:
        connection.execute(
            f"delete from missing where {_IS_VIDEO}",  # noqa: S608  # a constant
            {"config": self._config, **outcome.key._asdict()},
        )
        connection.executemany(
            "insert into missing values (?, ?, ?, ?, ?)",
            ((self._config, *outcome.key, *missing) for missing in outcome.missing),
        )

    # -- Queries -----------------------------------------------------------------------------------

    def _ensure_source(self, connection: sqlite3.Connection) -> int:
        connection.execute("insert or ignore into sources (name) values (?)", (self._name,))
        return int(self._source_id() or 0)

    def _source_id(self) -> int | None:
        rows = self._database.query("select id from sources where name = ?", self._name)
        return rows[0][0] if rows else None

    def _values(self, now: float | None = None) -> dict[str, Any]:
        """Return what every query is about."""
        return {
            "config": self._config,
            "source": self._source_id(),
            "now": time.time() if now is None else now,
            "greatest": GREATEST_WAIT_SECONDS,
        }

    def _query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        return self._database.query(sql, **self._values(), **values)

    def _keys(self, sql: str, **values: Any) -> list[VideoKey]:
        return list(map(VideoKey._make, self._query(sql, **values)))


def _columns(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome by the names in the statements that write it."""
    return {
        **outcome.key._asdict(),
        "status": outcome.status,
        "reason": outcome.reason,
        "route": outcome.route,
        "clips": outcome.clips,
        "samples": outcome.samples,
        "bytes": outcome.bytes_fetched,
        "seconds": outcome.seconds_taken,
        "digest": outcome.digest,
        "facts": json.dumps(outcome.facts.as_dict()),
    }
