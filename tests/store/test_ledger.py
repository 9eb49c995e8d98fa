"""What the ledger stores, and what it refuses to open."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clocks import StoppedTime
from support.property_settings import fewer_examples

from voxblink2_lib.errors import StoreError
from voxblink2_lib.outcomes import MediaFacts, MissingUtterance, Outcome
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store import ledger_database
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_schema import MIGRATE_1_TO_2, MIGRATE_2_TO_3, MIGRATE_3_TO_4
from voxblink2_lib.store.ledger_statistics import LouderChannel, SoundNotes
from voxblink2_lib.store.tail import FIRST_RETRY_JOB, Tail
from voxblink2_lib.store.verdicts import Verdicts

PROPERTY = fewer_examples(2)
A, B, C, D = (VideoKey("id000001", f"{letter * 11}") for letter in "abcd")
E = VideoKey("id000002", "-" * 11)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, "audio") as opened:
        yield opened


def rows(ledger: Ledger) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values())[:3] for row in ledger.planned_videos().to_pylist())


def problems(ledger: Ledger) -> list[tuple[VideoKey, str, str, int]]:
    return [
        (VideoKey(video.speaker_id, video.video_id), video.status, video.reason, video.attempts)
        for video in ledger.statistics.missing()
        if video.status != "planned"
    ]


def answers(ledger: Ledger, source: str = "youtube") -> Verdicts:
    return ledger.verdicts(source)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedTime:
    stopped = StoppedTime(1_760_000_000.0)
    monkeypatch.setattr("voxblink2_lib.store.verdicts.time", stopped)
    return stopped


# -- Planning --------------------------------------------------------------------------------------


def test_a_fresh_ledger_is_empty(ledger: Ledger) -> None:
    assert ledger.planned_videos().num_rows == 0
    assert ledger.planned_videos().column_names == [
        *("speaker_id", "video_id", "status", "digest", "is_open")
    ]
    assert ledger.statistics.videos() == {}
    assert ledger.statistics.totals() == (0, 0, 0)
    assert (ledger.open_jobs(), ledger.shards(), answers(ledger).count_pending()) == ([], [], 0)
    assert (answers(ledger).due(), ledger.waiting()) == ([], (0, None))
    assert ledger.statistics.coverage()[:3] == (0, 0, 0)
    assert list(ledger.statistics.missing()) == []


def test_whoever_opens_a_ledger_while_it_is_made_finds_a_whole_one(path: Path) -> None:
    """Looked at after each line of the making; several loads of one store do this."""
    before, reads = sys.gettrace(), 0

    def look(*_: object) -> Callable[..., Any]:
        nonlocal reads
        if path.exists():
            with Ledger(path, "audio", readonly=True) as reader:
                reads += reader.planned_videos().num_rows == 0
        return look

    sys.settrace(look)
    try:
        with Ledger(path, "audio"):
            pass
    finally:
        sys.settrace(before)
    assert reads > 10


def test_jobs_are_numbered_on(ledger: Ledger) -> None:
    ledger.add_jobs([[B, A], [E]])
    ledger.add_jobs([])
    ledger.add_jobs([[C]])
    assert ledger.open_jobs() == [0, 1, 2]
    assert ledger.job_videos(0) == [(A, "planned"), (B, "planned")]
    assert rows(ledger) == [(*key, "planned") for key in (A, B, C, E)]
    assert ledger.statistics.videos() == {"planned": 4}


def test_jobs_are_added_all_or_none(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])

    def failing() -> Iterator[list[VideoKey]]:
        yield [B]
        yield [C]
        raise OSError("the index went away")

    with pytest.raises(OSError, match="the index went away"):
        ledger.add_jobs(failing())
    assert ledger.open_jobs() == [0]
    assert rows(ledger) == [(*A, "planned")]
    ledger.add_jobs([[B]])
    assert ledger.open_jobs() == [0, 1]


def test_a_video_moves_to_its_new_job(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    answers(ledger).record(Outcome(A, "gone", "gone"))
    answers(ledger).record(Outcome(B, "done", clips=1, samples=640))
    ledger.seal(SealedShard(0, "audio-00000.arrow", "ab" * 32, 1, 99))
    assert rows(ledger) == [(*A, "gone"), (*B, "done")]
    ledger.add_jobs([[A]])
    # What is known of it is kept until there is another answer.
    assert rows(ledger) == [(*A, "gone"), (*B, "done")]
    assert problems(ledger) == [(A, "gone", "gone", 1)]
    assert (ledger.job_videos(0), ledger.job_videos(1)) == ([(B, "done")], [(A, "gone")])
    assert ledger.open_jobs() == [1]


def test_drop_forgets_what_never_came_and_keeps_what_is_done(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B, C, D]])
    answers(ledger).record(Outcome(A, "done", clips=1, samples=640))
    answers(ledger).record(Outcome(B, "gone", "gone"))
    answers(ledger).record(
        Outcome(C, "media-unusable", "bad", missing=(MissingUtterance("00001", "bad"),))
    )
    ledger.drop([A, B, C, E])
    assert ledger.job_videos(0) == [(A, "done"), (D, "planned")]
    assert problems(ledger) == []


def test_drop_forgets_missing_utterances_as_well(ledger: Ledger) -> None:
    missing = (MissingUtterance("00001", "bad"), MissingUtterance("00002", "bad"))
    ledger.add_jobs([[A, B]])
    answers(ledger).record(Outcome(A, "media-unusable", "bad", missing=missing))
    answers(ledger).record(Outcome(B, "done", clips=1, samples=640, missing=missing[:1]))
    ledger.drop([A, B])
    assert ledger.statistics.missing_utterances() == 1
    assert ledger.statistics.missing_names(0) == {"id000001/bbbbbbbbbbb/00001"}


# -- What happened ---------------------------------------------------------------------------------


def test_outcomes_are_recorded(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B, C], [D, E]])
    answers(ledger).record(Outcome(A, "done", clips=3, samples=1920, bytes_fetched=1000))
    answers(ledger).record(Outcome(B, "gone", "HTTP 404 'Not Found'; drop table videos"))
    answers(ledger).record(Outcome(E, "media-unusable", "no audio", bytes_fetched=10))
    assert ledger.statistics.videos() == {"done": 1, "gone": 1, "media-unusable": 1, "planned": 2}
    assert ledger.statistics.totals() == (3, 1920, 1010)
    assert answers(ledger).count_pending() == 2
    assert ledger.statistics.coverage()[:3] == (0, 1, 1)
    assert problems(ledger) == [
        (B, "gone", "HTTP 404 'Not Found'; drop table videos", 1),
        (E, "media-unusable", "no audio", 1),
    ]


def test_a_later_outcome_replaces_the_earlier(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    answers(ledger).record(Outcome(A, "transient", "HTTP 503", bytes_fetched=5))
    answers(ledger).record(Outcome(A, "gone", "HTTP 404", bytes_fetched=6))
    assert problems(ledger) == [(A, "gone", "HTTP 404", 2)]
    answers(ledger).record(Outcome(A, "done", clips=2, samples=1280, bytes_fetched=100))
    assert problems(ledger) == []
    assert ledger.statistics.totals() == (2, 1280, 111)


def test_missing_utterances_are_replaced(ledger: Ledger) -> None:
    first, second, third = (MissingUtterance(f"0000{index}", "short") for index in (1, 2, 3))
    ledger.add_jobs([[A], [B]])
    answers(ledger).record(Outcome(A, "done", clips=1, missing=(first, second)))
    answers(ledger).record(Outcome(B, "done", clips=1, missing=(first,)))
    assert ledger.statistics.missing_utterances() == 3
    answers(ledger).record(Outcome(A, "done", clips=2, missing=(third,)))
    assert ledger.statistics.missing_utterances() == 2
    assert ledger.statistics.missing_names(0) == {"id000001/aaaaaaaaaaa/00003"}
    assert ledger.statistics.missing_names(1) == {"id000001/bbbbbbbbbbb/00001"}
    answers(ledger).record(Outcome(A, "done", clips=3))
    assert ledger.statistics.missing_names(0) == set()


def test_an_outcome_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    twice = (MissingUtterance("00001", "short"),) * 2
    with pytest.raises(StoreError, match=r"The ledger .* cannot be used: UNIQUE constraint failed"):
        answers(ledger).record(Outcome(A, "done", clips=1, missing=twice))
    assert ledger.statistics.videos() == {"planned": 1}
    assert ledger.statistics.missing_utterances() == 0


def test_an_outcome_of_an_unknown_video_leaves_no_trace(ledger: Ledger) -> None:
    answers(ledger).record(
        Outcome(A, "media-unusable", "bad", missing=(MissingUtterance("00001", "bad"),))
    )
    assert (ledger.statistics.videos(), ledger.statistics.missing_utterances()) == ({}, 0)


def test_shards(ledger: Ledger) -> None:
    ledger.add_jobs([[A], [B], [C]])
    second = SealedShard(1, "audio-00001.arrow", "ab" * 32, 7, 700)
    first = SealedShard(0, "audio-00000.arrow", "cd" * 32, 1, 1 << 40)
    ledger.seal(second)
    ledger.seal(first)
    ledger.seal(SealedShard(2, "", "", 0, 0))
    assert ledger.shards() == [first, second]
    assert ledger.open_jobs() == []


def test_configurations_do_not_see_each_other(path: Path) -> None:
    with Ledger(path, "audio") as audio, Ledger(path, "audio-visual") as other:
        audio.add_jobs([[A], [B]])
        other.add_jobs([[A]])
        answers(audio).record(
            Outcome(A, "done", clips=1, missing=(MissingUtterance("00001", "x"),))
        )
        other.drop([A])
        assert rows(audio) == [(*A, "done"), (*B, "planned")]
        assert rows(other) == []
        assert (other.open_jobs(), other.statistics.missing_utterances()) == ([0], 0)


@PROPERTY
@given(
    jobs=st.lists(
        st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), unique=True),
        max_size=5,
    )
)
def test_each_video_is_in_its_last_job(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[list[tuple[str, str]]]
) -> None:
    planned = [[VideoKey(f"id00000{ord(a) - 96}", b * 11) for a, b in job] for job in jobs]
    last = {key: number for number, job in enumerate(planned) for key in job}
    with Ledger(tmp_path_factory.mktemp("jobs") / "l.sqlite", "audio") as ledger:
        ledger.add_jobs(planned)
        assert ledger.open_jobs() == list(range(len(jobs)))
        for number in range(len(jobs)):
            expected = sorted(key for key, job in last.items() if job == number)
            assert ledger.job_videos(number) == [(key, "planned") for key in expected]
        assert ledger.planned_videos().num_rows == len(last)


def test_excluded_videos_are_in_no_job(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    ledger.exclude([C, E])
    assert ledger.statistics.videos() == {"planned": 2, "excluded": 2}
    assert rows(ledger) == [(*A, "planned"), (*B, "planned")]
    assert (ledger.open_jobs(), answers(ledger).count_pending(), answers(ledger).due()) == (
        [0],
        2,
        [],
    )
    assert ledger.statistics.coverage()[:3] == (0, 0, 1)
    # Those of before are forgotten, and may be planned again.
    ledger.exclude([D])
    assert ledger.statistics.videos() == {"planned": 2, "excluded": 1}
    ledger.exclude([])
    ledger.add_jobs([[D]])
    assert ledger.job_videos(1) == [(D, "planned")]
    assert ledger.statistics.videos() == {"planned": 3}


def test_every_attempt_is_kept(path: Path, ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B]])
    first = Outcome(A, "rate-limited", "wait", bytes_fetched=7, seconds_taken=0.5, route="direct")
    answers(ledger).record(first, is_settled=False)
    clock.now += 60
    answers(ledger).record(
        Outcome(A, "transient", "HTTP 503", seconds_taken=1.5, route="10.0.0.1:8080")
    )
    clock.now += 60
    answers(ledger).record(Outcome(A, "done", clips=1, bytes_fetched=900, seconds_taken=2.5))
    answers(ledger).record(Outcome(E, "done", clips=1))  # not known
    database = sqlite3.connect(path)
    rows_of_attempts = database.execute(
        "select video_id, attempt, at, status, reason, address, bytes, seconds from attempts "
        "order by video_id, attempt"
    ).fetchall()
    database.close()
    start = clock.now - 120
    assert rows_of_attempts == [
        (A.video_id, 1, start, "rate-limited", "wait", "direct", 7, 0.5),
        (A.video_id, 2, start + 60, "transient", "HTTP 503", "10.0.0.1:8080", 0, 1.5),
        (A.video_id, 3, start + 120, "done", "", "", 900, 2.5),
    ]


def facts_of_attempts(path: Path) -> list[tuple[str, int, dict[str, object]]]:
    database = sqlite3.connect(path)
    rows_of_attempts = database.execute(
        "select video_id, attempt, facts from attempts order by video_id, attempt"
    ).fetchall()
    database.close()
    return [(video, attempt, json.loads(text)) for video, attempt, text in rows_of_attempts]


def test_every_attempt_keeps_what_was_learned_of_its_media(path: Path, ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    dubbed = MediaFacts(reference_height=720, client="web")
    answers(ledger).record(Outcome(A, "not-original", "dubbed", facts=dubbed))
    chosen = replace(dubbed, audio_id="140-1", language="de", clipped_samples=3)
    answers(ledger).record(Outcome(A, "done", clips=1, facts=chosen))
    answers(ledger).record(Outcome(B, "transient", "HTTP 503"))
    assert facts_of_attempts(path) == [
        (A.video_id, 1, dubbed.as_dict()),
        (A.video_id, 2, chosen.as_dict()),
        (B.video_id, 1, {}),
    ]


def test_the_last_attempt_of_a_video_says_what_its_sound_is(path: Path) -> None:
    facts = {
        A: MediaFacts(audio_tracks=1),
        B: MediaFacts(audio_tracks=2, clipped_samples=5),
        C: MediaFacts(audio_tracks=3, louder_channel=2),
        D: MediaFacts(clipped_samples=7, louder_channel=1),
    }
    with Ledger(path, "audio") as ledger, Ledger(path, "audio-visual") as other:
        ledger.add_jobs([[A, B, C, D, E]])
        other.add_jobs([[E]])
        answers(other).record(Outcome(E, "done", clips=1, facts=facts[B]))
        answers(ledger).record(Outcome(A, "media-unusable", "silence", facts=facts[C]))
        for key, learned in facts.items():
            answers(ledger).record(Outcome(key, "done", clips=1, facts=learned))
        louder = (LouderChannel(*C, 2), LouderChannel(*D, 1))
        assert ledger.statistics.sound_notes() == SoundNotes(2, 12, 2, louder)
        assert other.statistics.sound_notes() == SoundNotes(1, 5, 1)


# -- From the first format -------------------------------------------------------------------------


FORMAT_1 = """
create table facts (name text primary key, value text not null) without rowid;
create table jobs (
    config text not null, job integer not null,
    shard text, sha256 text, rows integer, bytes integer,
    primary key (config, job)) without rowid;
create table videos (
    config text not null, speaker_id text not null, video_id text not null,
    job integer not null, status text not null, reason text not null default '',
    attempts integer not null default 0,
    clips integer not null default 0, samples integer not null default 0,
    bytes_fetched integer not null default 0, seconds_taken real not null default 0,
    digest integer not null default 0, updated_at real,
    primary key (config, speaker_id, video_id)) without rowid;
create index videos_by_job on videos (config, job);
create table missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
insert into facts values ('format', '1'), ('audio.audio_format', 'wav');
insert into jobs values ('audio', 0, 'audio-00000.arrow', 'abab', 7, 700);
insert into jobs (config, job) values ('audio', 1);
insert into videos values
    ('audio', 'id000001', 'aaaaaaaaaaa', 0, 'done', '', 1, 7, 640, 900, 1.5, 42, 1.7e9),
    ('audio', 'id000001', 'bbbbbbbbbbb', 0, 'failed', 'HTTP 404', 3, 0, 0, 10, 0.5, 0, 1.7e9),
    ('audio', 'id000001', 'ccccccccccc', 0, 'unusable', 'is empty', 1, 0, 0, 10, 0.5, 0, 1.7e9),
    ('audio', 'id000001', 'ddddddddddd', 1, 'planned', '', 0, 0, 0, 0, 0, 0, null);
insert into missing values ('audio', 'id000001', 'aaaaaaaaaaa', '00009', 'too short');
"""


def fact(path: Path, name: str) -> str:
    database = sqlite3.connect(path)
    ((value,),) = database.execute("select value from facts where name = ?", (name,)).fetchall()
    database.close()
    return str(value)


def make_format_5(path: Path) -> None:
    Ledger(path, "audio").close()
    database = sqlite3.connect(path)
    database.execute("update facts set value = '5' where name = 'format'")
    database.commit()
    database.close()


FORMAT_2 = """
create table facts (name text primary key, value text not null) without rowid;
create table jobs (
    config text not null, job integer not null,
    shard text, sha256 text, rows integer, bytes integer,
    primary key (config, job)) without rowid;
create table videos (
    config text not null, speaker_id text not null, video_id text not null,
    job integer not null, status text not null, reason text not null default '',
    attempts integer not null default 0, tries integer not null default 0,
    next_at real, ambiguous_since real,
    clips integer not null default 0, samples integer not null default 0,
    bytes_fetched integer not null default 0, seconds_taken real not null default 0,
    digest integer not null default 0, updated_at real,
    primary key (config, speaker_id, video_id)) without rowid;
create index videos_by_job on videos (config, job);
create table attempts (
    config text not null, speaker_id text not null, video_id text not null,
    attempt integer not null, at real not null, status text not null, reason text not null,
    address text not null, bytes integer not null, seconds real not null,
    primary key (config, speaker_id, video_id, attempt)) without rowid;
create index attempts_by_time on attempts (config, at);
create table missing (
    config text not null, speaker_id text not null, video_id text not null,
    utterance_id text not null, reason text not null,
    primary key (config, speaker_id, video_id, utterance_id)) without rowid;
insert into facts values ('format', '2'), ('audio.audio_format', 'wav');
insert into jobs values ('audio', 0, 'audio-00000.arrow', 'abab', 7, 700);
insert into videos values
    ('audio', 'id000001', 'aaaaaaaaaaa', 0, 'done', '', 2, 2, null, null,
     7, 640, 900, 1.5, 42, 1.7e9),
    ('audio', 'id000001', 'bbbbbbbbbbb', 0, 'not-yet', 'premieres', 1, 1, 0, null,
     0, 0, 10, 0.5, 0, 1.7e9);
insert into attempts values
    ('audio', 'id000001', 'aaaaaaaaaaa', 1, 1.6e9, 'transient', 'HTTP 503', 'direct', 0, 0.5),
    ('audio', 'id000001', 'aaaaaaaaaaa', 2, 1.7e9, 'done', '', 'direct', 900, 1.5),
    ('audio', 'id000001', 'bbbbbbbbbbb', 1, 1.7e9, 'not-yet', 'premieres', 'direct', 10, 0.5);
insert into missing values ('audio', 'id000001', 'aaaaaaaaaaa', '00009', 'too short');
"""


@pytest.fixture
def second(path: Path) -> Path:
    """A ledger of the second format, which kept no facts with its attempts."""
    database = sqlite3.connect(path)
    database.executescript(FORMAT_2)
    database.close()
    return path


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger as the first version wrote it: a sealed job and an open one."""
    database = sqlite3.connect(path)
    database.executescript(FORMAT_1)
    database.close()
    return path


def test_a_ledger_of_the_first_format_becomes_one_of_ours(old: Path, clock: StoppedTime) -> None:
    for _ in range(2):
        with Ledger(old, "audio") as ledger:
            assert fact(old, "format") == "1"
            assert ledger.setting("audio_format") == "wav"
            assert ledger.statistics.videos() == {
                **{"done": 1, "transient": 1, "media-unusable": 1, "planned": 1}
            }
            assert rows(ledger) == [
                (*A, "done"),
                (*B, "transient"),
                (*C, "media-unusable"),
                (*D, "planned"),
            ]
            assert ledger.planned_videos()["digest"].to_pylist()[0] == 42
            assert ledger.statistics.totals() == (7, 640, 920)
            assert ledger.shards() == [SealedShard(0, "audio-00000.arrow", "abab", 7, 700)]
            assert ledger.statistics.missing_names(0) == {"id000001/aaaaaaaaaaa/00009"}
            # It had no classes: what failed is asked for again by the next run.
            assert (
                answers(ledger, "").due(),
                ledger.open_jobs(),
                answers(ledger, "").pending_videos(1),
            ) == ([B], [1], [D])
            # Of which source that was is unknown: another one is asked for all once.
            assert answers(ledger).due() == [B, C]
    with Ledger(old, "audio") as ledger:
        answers(ledger, "").record(Outcome(B, "gone", "HTTP 404"))
        assert fact(old, "format") == "4"
        assert problems(ledger)[0] == (B, "gone", "HTTP 404", 4)
        ledger.exclude([E])
        assert (ledger.waiting(), ledger.statistics.traffic_over_time().series["attempts"]) == (
            (0, None),
            (1,),
        )


def test_a_ledger_of_the_first_format_is_not_changed_by_a_reader(old: Path) -> None:
    before = old.read_bytes()
    with Ledger(old, "audio", readonly=True) as ledger:
        assert ledger.statistics.videos()["done"] == 1
        assert problems(ledger)[0][:2] == (B, "transient")
        with pytest.raises(StoreError, match="readonly"):
            ledger.set_setting("audio_format", "flac")
    assert old.read_bytes() == before


def test_a_change_of_format_is_whole_or_not_at_all(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = MIGRATE_1_TO_2.replace("update facts", "update no_such_table")
    with Ledger(old, "audio") as ledger:
        monkeypatch.setitem(ledger_database._STEPS, "1", broken)
        with pytest.raises(StoreError, match="no such table: no_such_table"):
            ledger.set_setting("audio_format", "wav")
    assert fact(old, "format") == "1"
    monkeypatch.undo()
    with Ledger(old, "audio") as ledger:
        assert ledger.statistics.videos()["transient"] == 1
        assert answers(ledger, "").due() == [B]


def check_second(ledger: Ledger) -> None:
    assert ledger.setting("audio_format") == "wav"
    assert ledger.statistics.videos() == {"done": 1, "not-yet": 1}
    assert ledger.statistics.totals() == (7, 640, 910)
    assert ledger.statistics.sound_notes() == SoundNotes()
    assert ledger.shards() == [SealedShard(0, "audio-00000.arrow", "abab", 7, 700)]
    assert ledger.statistics.missing_names(0) == {"id000001/aaaaaaaaaaa/00009"}
    assert problems(ledger) == [(B, "not-yet", "premieres", 1)]
    assert answers(ledger, "").due() == [B]


def test_a_ledger_of_the_second_format_is_read_as_it_is(second: Path) -> None:
    before = second.read_bytes()
    with Ledger(second, "audio", readonly=True) as ledger:
        check_second(ledger)
    assert second.read_bytes() == before


def test_a_ledger_of_the_second_format_becomes_one_of_ours(second: Path) -> None:
    database = sqlite3.connect(second)
    attempts = database.execute("select * from attempts").fetchall()
    database.close()
    with Ledger(second, "audio") as ledger:
        check_second(ledger)
        # A run that is refused after it has looked leaves the ledger as it was.
        assert fact(second, "format") == "2"
        ledger.set_setting("audio_format", "wav")
        check_second(ledger)
    assert fact(second, "format") == "4"
    facts = MediaFacts(audio_id="140", audio_tracks=2)
    with Ledger(second, "audio") as ledger:
        answers(ledger, "").record(Outcome(B, "done", clips=1, samples=640, facts=facts))
        assert ledger.statistics.sound_notes() == SoundNotes(videos_with_tracks=1)
    assert facts_of_attempts(second) == [
        *((A.video_id, 1, {}), (A.video_id, 2, {}), (B.video_id, 1, {})),
        (B.video_id, 2, {"audio_id": "140", "audio_tracks": 2}),
    ]
    database = sqlite3.connect(second)
    kept = database.execute("select * from attempts").fetchall()
    database.close()
    assert [row[:-1] for row in kept][: len(attempts)] == attempts


def test_the_second_change_of_format_is_whole_or_not_at_all(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        ledger_database._STEPS, "2", MIGRATE_2_TO_3.replace("update facts", "update no_such_table")
    )
    with (
        Ledger(second, "audio") as ledger,
        pytest.raises(StoreError, match="no such table: no_such_table"),
    ):
        answers(ledger, "").record(Outcome(B, "gone", "HTTP 404"))
    monkeypatch.undo()
    with Ledger(second, "audio") as ledger:
        check_second(ledger)
        answers(ledger, "").record(Outcome(B, "gone", "HTTP 404"))
    assert [row[:2] for row in facts_of_attempts(second)][-1] == (B.video_id, 2)


@pytest.fixture
def third(second: Path) -> Path:
    """A ledger of the third format, which had jobs of one kind."""
    database = sqlite3.connect(second)
    database.executescript(MIGRATE_2_TO_3)
    database.close()
    return second


def test_a_ledger_of_the_third_format_is_read_as_it_is(third: Path) -> None:
    before = third.read_bytes()
    with Ledger(third, "audio", readonly=True) as ledger:
        check_second(ledger)
        recovered = ledger.recovered
        assert (recovered.retry_jobs(), recovered.superseded()) == ([], [])
    assert third.read_bytes() == before


def test_a_ledger_of_the_third_format_becomes_one_of_ours(third: Path) -> None:
    with Ledger(third, "audio") as ledger:
        check_second(ledger)
        assert fact(third, "format") == "3", "a run may be refused after this"
        ledger.add_jobs([[B]], kind="retry")
        assert fact(third, "format") == "4"
        # Shards of the past are no tail, whatever is in them.
        assert ledger.recovered.tail(full=1024) is None
        assert ledger.recovered.retry_jobs() == [FIRST_RETRY_JOB]
        assert ledger.shards() == [SealedShard(0, "audio-00000.arrow", "abab", 7, 700)]


def test_the_third_change_of_format_is_whole_or_not_at_all(
    third: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        ledger_database._STEPS, "3", MIGRATE_3_TO_4.replace("update facts", "update no_such_table")
    )
    with (
        Ledger(third, "audio") as ledger,
        pytest.raises(StoreError, match="no such table: no_such_table"),
    ):
        ledger.set_setting("audio_format", "wav")
    monkeypatch.undo()
    with Ledger(third, "audio") as ledger:
        check_second(ledger)
        ledger.set_setting("audio_format", "wav")
        check_second(ledger)


# -- Recovered videos ------------------------------------------------------------------------------


def test_retry_jobs_are_numbered_apart(ledger: Ledger) -> None:
    ledger.add_jobs([[A], [B]])
    ledger.add_jobs([[A]], kind="retry")
    ledger.add_jobs([[B]], kind="retry")
    ledger.add_jobs([[C]])
    assert ledger.open_jobs() == [0, 1, 2, FIRST_RETRY_JOB, FIRST_RETRY_JOB + 1]
    assert ledger.recovered.retry_jobs() == [FIRST_RETRY_JOB, FIRST_RETRY_JOB + 1]
    assert ledger.recovered.next_number() == 3


def test_a_switch_is_whole(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B, C]])
    ledger.seal(SealedShard(0, "", "", 0, 0))
    ledger.add_jobs([[A], [B, C]], kind="retry")
    for key in (A, B):
        answers(ledger).record(Outcome(key, "done", clips=1))
    answers(ledger).record(Outcome(C, "gone", "HTTP 404"))
    assert ledger.recovered.done_videos(FIRST_RETRY_JOB + 1) == [B]
    first = SealedShard(1, "audio-00001.arrow", "ab", 1, 9)
    ledger.recovered.switch(first, [A], tail=None, closed=[FIRST_RETRY_JOB])
    assert ledger.shards() == [first]
    tail = ledger.recovered.tail(full=2)
    assert tail == Tail(first, 1)
    assert ledger.recovered.tail(full=1) is None
    second = SealedShard(2, "audio-00002.arrow", "cd", 2, 18)
    ledger.recovered.switch(second, [B], tail=tail, closed=[FIRST_RETRY_JOB + 1])
    assert ledger.shards() == [second]
    assert ledger.job_videos(2) == [(A, "done"), (B, "done")]
    assert ledger.job_videos(FIRST_RETRY_JOB + 1) == [(C, "gone")]
    assert ledger.recovered.superseded() == [1]
    assert (ledger.open_jobs(), ledger.recovered.retry_jobs()) == ([], [])
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        ledger.recovered.switch(second, [], tail=Tail(second, 2), closed=[])
    assert ledger.shards() == [second]


# -- Opening ---------------------------------------------------------------------------------------


def test_all_is_there_after_opening_again(path: Path) -> None:
    with Ledger(path, "audio") as ledger:
        ledger.set_setting("audio_format", "flac")
        ledger.add_jobs([[A], [B]])
        answers(ledger).record(Outcome(A, "done", clips=1, samples=640))
        ledger.seal(SealedShard(0, "audio-00000.arrow", "ab" * 32, 1, 99))
    for readonly in (False, True):
        with Ledger(path, "audio", readonly=readonly) as ledger:
            assert ledger.setting("audio_format") == "flac"
            assert ledger.setting("nothing") is None
            assert rows(ledger) == [(*A, "done"), (*B, "planned")]
            assert len(ledger.shards()) == 1


def test_odd_characters_in_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "a store? 100%#é"
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([[A]])
    assert (folder / "ledger.sqlite").is_file()
    with Ledger(folder / "ledger.sqlite", "audio", readonly=True) as ledger:
        assert ledger.open_jobs() == [0]


def test_readonly_cannot_write_and_makes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match=r"The ledger .*\.sqlite cannot be opened: unable to open"):
        Ledger(path, "audio", readonly=True)
    assert not path.exists()
    Ledger(path, "audio").close()
    with (
        Ledger(path, "audio", readonly=True) as ledger,
        pytest.raises(StoreError, match="cannot be used: attempt to write a readonly database"),
    ):
        ledger.add_jobs([[A]])


@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_is_not_sqlite(path: Path, readonly: bool) -> None:
    data = b"not a database, but long enough to be looked at" * 100
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"The ledger .* is damaged \(file is not a database\)"):
        Ledger(path, "audio", readonly=readonly)
    assert path.read_bytes() == data


@pytest.mark.parametrize("readonly", [False, True])
def test_a_folder_in_place_of_the_ledger(path: Path, readonly: bool) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=r"The ledger .* cannot be opened: "):
        Ledger(path, "audio", readonly=readonly)


def test_another_database_is_not_read(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("create table other (x)")
    database.close()
    for readonly in (False, True):
        with pytest.raises(StoreError, match=r"is damaged \(it has no table facts\)"):
            Ledger(path, "audio", readonly=readonly)
    database = sqlite3.connect(path)
    assert database.execute("select name from sqlite_master").fetchall() == [("other",)]
    database.close()


@pytest.mark.parametrize("readonly", [False, True])
def test_another_format(path: Path, readonly: bool) -> None:
    make_format_5(path)
    with pytest.raises(
        StoreError, match=r"has format 5, this version reads formats 1 to 4.*another store"
    ):
        Ledger(path, "audio", readonly=readonly)


def test_a_ledger_that_is_refused_is_closed(path: Path) -> None:
    make_format_5(path)
    with pytest.raises(StoreError, match="format 5") as caught:
        Ledger(path, "audio")
    traceback = caught.value.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    refused = traceback.tb_frame.f_locals["self"]
    with pytest.raises(StoreError, match="closed database"):
        refused.fact("format")


# -- At the same time ------------------------------------------------------------------------------


READER = """
import sys, pathlib
from voxblink2_lib.store.ledger import Ledger
with Ledger(pathlib.Path(sys.argv[1]), "audio", readonly=True) as ledger:
    print(sorted(ledger.statistics.videos().items()), ledger.open_jobs())
"""


def read_elsewhere(path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", READER, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_another_process_reads_while_one_writes(path: Path, ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    answers(ledger).record(Outcome(A, "done", clips=1))
    assert read_elsewhere(path) == "[('done', 1), ('planned', 1)] [0]"


def test_a_reader_sees_the_state_before_an_open_transaction(path: Path, ledger: Ledger) -> None:
    ledger.add_jobs([[A]])

    def looking() -> Iterator[list[VideoKey]]:
        yield [B]
        with Ledger(path, "audio", readonly=True) as reader:
            assert reader.open_jobs() == [0]
            assert reader.statistics.videos() == {"planned": 1}
        yield [C]

    ledger.add_jobs(looking())
    with Ledger(path, "audio", readonly=True) as reader:
        assert reader.open_jobs() == [0, 1, 2]
        answers(ledger).record(Outcome(A, "gone", "gone"))
        assert reader.statistics.videos() == {"gone": 1, "planned": 2}


def test_a_writer_that_is_killed_leaves_whole_outcomes(path: Path) -> None:
    code = """
import os, signal, sys, pathlib
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import VideoKey
ledger = Ledger(pathlib.Path(sys.argv[1]), "audio")
a, b = VideoKey("id000001", "a" * 11), VideoKey("id000001", "b" * 11)
ledger.add_jobs([[a, b]])
ledger.verdicts("x").record(Outcome(a, "done", clips=1))
def jobs():
    yield [b]
    os.kill(os.getpid(), signal.SIGKILL)
ledger.add_jobs(jobs())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode < 0
    with Ledger(path, "audio") as ledger:
        assert ledger.job_videos(0) == [(A, "done"), (B, "planned")]
        assert ledger.open_jobs() == [0]
