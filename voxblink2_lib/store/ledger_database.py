"""The tables of a ledger, how a new one is made, and how an older one becomes one of these."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from voxblink2_lib.errors import StoreError, StoreFullError
from voxblink2_lib.files import atomic_write

FORMAT = "2"
SCHEMA = """
create table if not exists facts (
    name text primary key, value text not null) without rowid;
create table if not exists jobs (
    config text not null, job integer not null,
    shard text,               -- null until sealed; '' when no video of the job came
    sha256 text, rows integer, bytes integer,
    primary key (config, job)) without rowid;
create table if not exists videos (
    config text not null, speaker_id text not null, video_id text not null,
    job integer not null,     -- the last job that this video was given to
    status text not null,     -- planned, or the class of the last outcome
    reason text not null default '',
    attempts integer not null default 0,
    tries integer not null default 0,    -- attempts since planned, or since the user asked again
    next_at real,             -- Unix time from which it may be asked for; null: never by itself
    ambiguous_since real,     -- when it was first found ambiguous, if it is so since then
    clips integer not null default 0, samples integer not null default 0,
    bytes_fetched integer not null default 0, seconds_taken real not null default 0,
    digest integer not null default 0,   -- of the annotations that the clips were cut by
    updated_at real,
    primary key (config, speaker_id, video_id)) without rowid;
create index if not exists videos_by_job on videos (config, job);
create index if not exists videos_by_status on videos (config, status, updated_at);
create index if not exists videos_due on videos (config, next_at) where next_at is not null;
create table if not exists attempts (
    config text not null, speaker_id text not null, video_id text not null,
    attempt integer not null,
    at real not null,         -- Unix time of its end
    status text not null, reason text not null,
    address text not null,    -- name of the outgoing address; '' for what is on this machine
    bytes integer not null, seconds real not null,
    primary key (config, speaker_id, video_id, attempt)) without rowid;
create index if not exists attempts_by_time on attempts (config, at);
create table if not exists missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
insert or ignore into facts values ('format', '2');
"""
# From format 1, which knew no classes: what failed is asked for again by the next run.
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
# The second is said where the file that SQLite maps beside the ledger finds no space.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def make_ledger(path: Path) -> None:
    """Write an empty ledger, whole or not at all: others may open it at any moment.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder) / path.name
            with closing(sqlite3.connect(new, isolation_level=None)) as database:
                # Here, since only a file that nobody else has open changes its mode for certain.
                database.execute("pragma journal_mode = wal")
                database.executescript(SCHEMA)
            with atomic_write(path) as file:
                file.write(new.read_bytes())
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The ledger {path} cannot be made: {error}.") from error


def as_store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return an error of SQLite as one of ours; a full disk by its name."""
    if getattr(error, "sqlite_errorcode", None) in _FULL:
        return StoreFullError(
            f"No space is left for the ledger {path}. Everything finished is kept: free some "
            "space and run the same command again."
        )
    return StoreError(f"The ledger {path} cannot be used: {error}.")
