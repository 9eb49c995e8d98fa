"""The SQLite file of a ledger: its tables, opening, migration, transactions, names of errors."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreError, StoreFullError, next_command
from voxblink2_lib.files import atomic_write
from voxblink2_lib.redaction import redact, redacted_source
from voxblink2_lib.store.ledger_damage import damaged_ledger, is_damage, refuse_if_lost

FORMAT = "4"
# The formats before are read as they are, and changed by the first write: 2 had no facts with the
# attempts, both kept one verdict of a video, whatever source it was of, and one kind of jobs.
WITHOUT_FACTS = "2"
EARLIER = (WITHOUT_FACTS, "3")
# SQLite would go through all videos of a configuration for those of one job.
BY_JOB = "indexed by videos_by_job"
# What a person should hear of. Few attempts have it, so an index finds them; its condition must be
# word for word that of the query.
HAS_NOTES = """(json_extract(facts, '$.audio_tracks') > 1
    or json_extract(facts, '$.clipped_samples') > 0
    or json_extract(facts, '$.louder_channel') > 0)"""
SCHEMA = f"""
create table if not exists facts (
    name text primary key, value text not null) without rowid;
create table if not exists jobs (
    config text not null, job integer not null,
    shard text,               -- null until sealed; '' when no video of the job has a clip
    sha256 text, rows integer, bytes integer,
    kind text not null default 'planned',   -- see tail.py
    primary key (config, job)) without rowid;
create table if not exists videos (
    config text not null, speaker_id text not null, video_id text not null,
    job integer not null,     -- the last job that this video was given to
    status text not null,     -- planned, or the best answer over all sources
    reason text not null default '',     -- the words of that answer
    attempts integer not null default 0,
    next_at real,             -- Unix time of the next retry at any source; null: never by itself
    clips integer not null default 0, samples integer not null default 0,
    bytes_fetched integer not null default 0, seconds_taken real not null default 0,
    digest integer not null default 0,   -- of the annotations that the clips were cut by
    updated_at real,
    primary key (config, speaker_id, video_id)) without rowid;
create index if not exists videos_by_job on videos (config, job);
create index if not exists videos_by_status on videos (config, status, updated_at);
create index if not exists videos_due on videos (config, next_at) where next_at is not null;
create table if not exists sources (
    id integer primary key, name text not null unique);  -- without secrets
create table if not exists verdicts (    -- of each source that could not give a video
    config text not null, speaker_id text not null, video_id text not null,
    source integer not null,
    status text not null,     -- the class of its last answer
    reason text not null,
    tries integer not null,   -- such answers in a row since planned, or since the user reset it
    next_at real,             -- Unix time of the next retry; null: never by itself
    since real,               -- of the first answer that waits for a confirmation
    address text not null,    -- name of the route of the last answer
    updated_at real not null,
    primary key (config, speaker_id, video_id, source)) without rowid;
create index if not exists verdicts_due on verdicts (config, source, next_at)
    where next_at is not null;
create table if not exists witnesses (   -- the last video that came by each route
    source integer not null, address text not null,
    speaker_id text not null, video_id text not null, at real not null,
    primary key (source, address)) without rowid;
create table if not exists attempts (
    config text not null, speaker_id text not null, video_id text not null,
    attempt integer not null,
    at real not null,         -- Unix time of its end
    status text not null, reason text not null,
    address text not null,    -- name of the route; '' for a local source
    bytes integer not null, seconds real not null,
    facts text not null default '{{}}',  -- JSON: what was learned of the media
    primary key (config, speaker_id, video_id, attempt)) without rowid;
create index if not exists attempts_by_time on attempts (config, at);
create index if not exists attempts_with_notes on attempts (config) where {HAS_NOTES};
create table if not exists stale_outcomes (   -- jobs whose file lags behind, see outcome_files.py
    config text not null, job integer not null,
    primary key (config, job)) without rowid;
create table if not exists missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
insert or ignore into facts values ('format', '{FORMAT}');
"""  # noqa: S608  # constants
# Format 1 had no classes of failure: everything that failed is retried by the next run.
MIGRATE_1_TO_2 = """
begin immediate;
alter table videos add column tries integer not null default 0;
alter table videos add column next_at real;
alter table videos add column ambiguous_since real;
update videos set status = 'transient', next_at = 0 where status = 'failed';
update videos set status = 'media-unusable' where status = 'unusable';
update facts set value = '2' where name = 'format';
commit;
"""
# Format 2 kept no facts with an attempt; format 1 had no table of attempts at all.
MIGRATE_2_TO_3 = """
begin immediate;
create table if not exists attempts (
    config text not null, speaker_id text not null, video_id text not null,
    attempt integer not null, at real not null, status text not null, reason text not null,
    address text not null, bytes integer not null, seconds real not null,
    primary key (config, speaker_id, video_id, attempt)) without rowid;
alter table attempts add column facts text not null default '{}';
update facts set value = '3' where name = 'format';
commit;
"""
# Formats 2 and 3 kept the verdict with the video: of the source that was used last.
_OLD_SOURCES = """
insert into {schema}.sources (name)
    select '' union select redacted_source(value) from facts where name like '%.source';
"""
_OLD_VERDICTS = """
    select config, speaker_id, video_id, (select id from sources where name = coalesce(
        (select redacted_source(value) from facts where name = config || '.source'), '')) as source,
        status, reason, tries, next_at, ambiguous_since as since, '' as address,
        coalesce(updated_at, 0) as updated_at
    from videos where status not in ('planned', 'done', 'excluded')"""
# Of this connection alone, so that its queries see one format.
VIEWS_OF_EARLIER = f"""
create temp table sources (id integer primary key, name text not null unique);
{_OLD_SOURCES.format(schema="temp")}
create temp view verdicts as {_OLD_VERDICTS};
create temp table witnesses (source, address, speaker_id, video_id, at);
"""
_DROP_VIEWS = """
drop view if exists temp.verdicts;
drop table if exists temp.sources;
drop table if exists temp.witnesses;
"""
MIGRATE_3_TO_4 = f"""
begin immediate;
{SCHEMA}
{_OLD_SOURCES.format(schema="main")}
insert into verdicts {_OLD_VERDICTS};
alter table jobs add column kind text not null default 'planned';
alter table videos drop column tries;
alter table videos drop column ambiguous_since;
update facts set value = redacted_source(value) where name like '%.source';
update videos set reason = redact(reason) where reason like '%//%';
update verdicts set reason = redact(reason) where reason like '%//%';
update attempts set reason = redact(reason) where reason like '%//%';
update facts set value = '4' where name = 'format';
commit;
"""  # noqa: S608  # constants
# Tables of every format, and of this one.
_ALWAYS = {"facts", "jobs", "videos", "missing"}
_NOW = {*_ALWAYS, "sources", "verdicts", "witnesses", "attempts"}
# SQLite reports the second where the file that it maps beside the ledger finds no space.
_DISK_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


class LedgerDatabase:
    """A connection to a ledger, whose SQLite errors are raised as :class:`StoreError`.

    Args:
        connection: without an isolation level, so that no transaction begins by itself.
        path: the file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self._path

    @classmethod
    def open(cls, path: Path, *, readonly: bool) -> LedgerDatabase:
        """Open a ledger; for writing, create or migrate it first where necessary.

        Raises:
            StoreError: the file has another format, or cannot be created.
            StoreDamagedError: it is not a ledger, or lost one whose shards are still there.
        """
        if not (path.exists() and path.stat().st_size):
            refuse_if_lost(path)
            if not readonly:
                make_ledger(path)
        uri = _uri(path, readonly=readonly)
        try:
            connection = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreError(f"The ledger {path} cannot be opened: {error}.") from error
        # For migration: earlier versions stored secrets.
        for function in (redact, redacted_source):
            connection.create_function(function.__name__, 1, function, deterministic=True)
        database = cls(connection, path)
        try:
            database._check_tables()
            if not readonly:
                database._prepare_for_writing()
            database._check_format()
        except BaseException:
            database.close()
            raise
        return database

    def _check_tables(self) -> None:
        """Check that it is a ledger, before what it lacks is made."""
        names = {name for (name,) in self.query("select name from sqlite_master")}
        needed = _ALWAYS if "facts" not in names or self.fact("format") != FORMAT else _NOW
        if lacking := sorted(needed - names):
            raise damaged_ledger(self._path, f"it has no table {lacking[0]}")

    def _prepare_for_writing(self) -> None:
        with self._named_errors():
            # A new ledger has this mode; one that was copied with SQLite's tools may not.
            self._connection.execute("pragma journal_mode = wal")
            # The part files are the truth; losing the last rows in a power cut costs nothing,
            # since the next run reads the parts.
            self._connection.execute("pragma synchronous = normal")
            # What is replaced leaves no trace in the file.
            self._connection.execute("pragma secure_delete = on")
            if self.fact("format") == "1":
                self._migrate()
            # A run may be refused after this: an earlier format is changed when it is written.
            elif self.fact("format") == FORMAT:
                self._connection.executescript(SCHEMA)

    def _migrate(self) -> None:
        """Bring an earlier format to the present one in steps, each whole or not at all."""
        self._connection.executescript(_DROP_VIEWS)
        steps = {"1": MIGRATE_1_TO_2, WITHOUT_FACTS: MIGRATE_2_TO_3, "3": MIGRATE_3_TO_4}
        while script := steps.get(self.fact("format") or ""):
            self._connection.executescript(script)

    def _check_format(self) -> None:
        version = self.fact("format")
        if version == "1":
            store = self._path.absolute().parent
            raise StoreError(
                f"The ledger {self._path} has an earlier format. Run "
                f"{next_command('materialize', data_dir='RELEASE', store=store)} once to migrate "
                "it; nothing in it is lost."
            )
        if version not in {*EARLIER, FORMAT}:
            raise StoreError(
                f"The ledger {self._path} has format {version}, this version reads formats "
                f"{', '.join(EARLIER)} and {FORMAT}. Use the version of voxblink2 that made the "
                "store, or another store."
            )
        if version in EARLIER:
            with self._named_errors():
                self._connection.executescript(VIEWS_OF_EARLIER)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise as_store_error(error, self._path) from error

    def rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one."""
        with self._named_errors():
            yield from self._connection.execute(sql, values)

    def query(self, sql: str, *values: Any, **named: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, with its values in order or by their names."""
        with self._named_errors():
            return self._connection.execute(sql, named or values).fetchall()

    def fact(self, name: str) -> str | None:
        """Return the value of a row of the table ``facts``, or ``None``."""
        rows = self.query("select value from facts where name = ?", name)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the body writes, or nothing of it if the body raises."""
        with self._named_errors():
            try:
                if self.fact("format") in EARLIER:
                    self._migrate()
                self._connection.execute("begin immediate")
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the file throughout the body, whatever a run writes meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        self.query("begin")
        try:
            yield
        finally:
            self._connection.rollback()  # nothing was written


def make_ledger(path: Path) -> None:
    """Write an empty ledger, whole or not at all: others may open it at any moment.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / path.name
            with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
                # Here, since only a file that nobody else has open changes its mode for certain.
                connection.execute("pragma journal_mode = wal")
                connection.executescript(SCHEMA)
            with atomic_write(path) as file:
                file.write(draft.read_bytes())
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The ledger {path} cannot be made: {error}.") from error


def _uri(path: Path, *, readonly: bool) -> str:
    uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rw'}"
    if readonly and not os.access(path.parent, os.W_OK):
        # SQLite needs to write beside a file in WAL mode even to read it. Without permission to
        # write, the file can be read as it is, unless a writer has rows outside of it just now.
        log = Path(f"{path}-wal")
        if not log.exists() or not log.stat().st_size:
            uri += "&immutable=1"
    return uri


def as_store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return an error of SQLite as a :class:`StoreError`, or as one of its subclasses."""
    if is_damage(error):
        return damaged_ledger(path, error)
    if getattr(error, "sqlite_errorcode", None) in _DISK_FULL:
        return StoreFullError(
            f"No space is left for the ledger {path}. Everything finished is kept: free some "
            "space and run the same command again."
        )
    return StoreError(f"The ledger {path} cannot be used: {error}.")
