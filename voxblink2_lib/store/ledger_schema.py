"""The tables of a ledger, and how those of earlier formats are brought to the present ones."""

from __future__ import annotations

FORMAT = "4"
# The formats before are read as they are, and changed by the first write: 2 had no facts with the
# attempts, both kept one verdict of a video, whatever source it was of, and one kind of jobs. The
# first, from before version 0.1, is read through a copy of format 3.
FIRST_FORMAT = "1"
WITHOUT_FACTS = "2"
EARLIER = (WITHOUT_FACTS, "3")
# Which store it is, also where it is copied to. An older store has it after its next write.
STORE_ID = "store_id"
GIVE_ID = "insert or ignore into facts values ('store_id', lower(hex(randomblob(16))))"
# SQLite would go through all videos of a configuration for those of one job.
BY_JOB = "indexed by videos_by_job"
# What a person should hear of. Few attempts have it, so an index finds them; its condition must be
# word for word that of the query.
HAS_NOTES = """(json_extract(facts, '$.audio_tracks') > 1
    or json_extract(facts, '$.clipped_samples') > 0
    or json_extract(facts, '$.louder_channel') > 0)"""
VIDEO_INDEXES = {
    "videos_by_job": "(config, job)",
    "videos_by_status": "(config, status, updated_at)",
    "videos_due": "(config, next_at) where next_at is not null",
}
CREATE_VIDEO_INDEXES = tuple(
    f"create index if not exists {name} on videos {columns};"
    for name, columns in VIDEO_INDEXES.items()
)
_VIDEO_INDEXES = "\n".join(CREATE_VIDEO_INDEXES)
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
{_VIDEO_INDEXES}
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
create table if not exists split_videos (   -- jobs with clips of a video that is in a later one
    config text not null, job integer not null,
    speaker_id text not null, video_id text not null,
    primary key (config, job, speaker_id, video_id)) without rowid;
create index if not exists splits_by_video on split_videos (config, speaker_id, video_id);
create table if not exists missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
insert or ignore into facts values ('format', '{FORMAT}');
"""  # noqa: S608  # constants
# The first ledgers of format 1 had no digests; 0 means that it is not known.
HAS_DIGESTS = "select 1 from pragma_table_info('videos') where name = 'digest'"
ADD_DIGESTS = "alter table videos add column digest integer not null default 0"
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
DROP_VIEWS = """
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
