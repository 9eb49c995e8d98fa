"""What sources answered: which videos they are asked for, when again, and what users see."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clocks import StoppedTime
from support.property_settings import fewer_examples

from voxblink2_lib.outcomes import BEST_FIRST, MissingUtterance, Outcome, Status
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.verdicts import Verdicts

PROPERTY = fewer_examples(2)
A, B, C, D = (VideoKey("id000001", f"{letter * 11}") for letter in "abcd")
E = VideoKey("id000002", "-" * 11)
HOUR = 3600.0
DAY = 24 * HOUR
SEALED = SealedShard(0, "audio-00000.arrow", "ab" * 32, 1, 99)
ROUTE = "direct"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, "audio") as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedTime:
    stopped = StoppedTime(1_760_000_000.0)
    monkeypatch.setattr("voxblink2_lib.store.verdicts.time", stopped)
    return stopped


def answers(ledger: Ledger, source: str = "youtube") -> Verdicts:
    return ledger.verdicts(source)


def problems(ledger: Ledger) -> list[tuple[VideoKey, str, str, int]]:
    return [
        (VideoKey(video.speaker_id, video.video_id), video.status, video.reason, video.attempts)
        for video in ledger.statistics.missing()
        if video.status != "planned"
    ]


def unclear(key: VideoKey, status: Status, reason: str = "", route: str = ROUTE) -> Outcome:
    """Return a failure that the source did not put into words of its own."""
    return Outcome(key, status, reason, route=route, is_explicit=False)


def comes(
    ledger: Ledger, key: VideoKey, at: float, *, route: str = ROUTE, source: str = "youtube"
) -> None:
    """Let another video come by a route."""
    verdicts = answers(ledger, source)
    verdicts.record(Outcome(key, "done", clips=1, route=route))
    verdicts.record_witness(key, route, at=at)


# -- When a video is tried again -------------------------------------------------------------------


def test_what_is_final_is_never_due(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B, C, D, E]])
    for key, status in zip(
        (A, B, C, D, E), ("done", "gone", "private", "geo", "media-unusable"), strict=True
    ):
        assert answers(ledger).record(Outcome(key, status, clips=1)) == status  # type: ignore[arg-type]
    assert (
        answers(ledger).pending_videos(0),
        answers(ledger).count_pending(),
        ledger.waiting(),
    ) == (
        [],
        0,
        (0, None),
    )
    ledger.seal(SEALED)
    clock.now += 1000 * DAY
    assert answers(ledger).due() == []


def test_what_failed_for_now_is_due_after_its_wait(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B], [C]])
    assert answers(ledger).record(Outcome(A, "transient", "HTTP 503")) == "transient"
    answers(ledger).record(Outcome(B, "done", clips=1))
    answers(ledger).record(Outcome(C, "not-yet", "premieres tomorrow"))
    count, first = ledger.waiting()
    assert count == 2
    assert first is not None
    assert 0.75 * 900 <= first - clock.now <= 1.25 * 900
    clock.now = first - 1
    assert (
        answers(ledger).pending_videos(0),
        answers(ledger).count_pending(),
        answers(ledger).due(),
    ) == ([], 0, [])
    # Of an open job it is tried there; of a sealed one it is due for a new job.
    clock.now = first
    assert (
        answers(ledger).pending_videos(0),
        answers(ledger).count_pending(),
        answers(ledger).due(),
    ) == ([A], 1, [])
    ledger.seal(SEALED)
    assert (answers(ledger).count_pending(), answers(ledger).due()) == (0, [A])
    ledger.add_jobs([answers(ledger).due()])
    assert (ledger.job_videos(2), answers(ledger).pending_videos(2), answers(ledger).due()) == (
        [(A, "transient")],
        [A],
        [],
    )
    assert ledger.waiting()[0] == 2


def test_the_wait_doubles_over_new_jobs_until_a_video_is_given_up(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A]])
    waits: list[float] = []
    for job in range(8):
        answers(ledger).record(Outcome(A, "transient", "HTTP 503"))
        ledger.seal(SealedShard(job, "", "", 0, 0))
        _, first = ledger.waiting()
        if first is None:
            break
        waits.append(first - clock.now)
        clock.now = first
        ledger.add_jobs([answers(ledger).due()])
    assert len(waits) == 7
    for number, wait in enumerate(waits):
        assert 0.75 <= wait / (900 * 2**number) <= 1.25
    clock.now += 1000 * DAY
    assert answers(ledger).due() == []
    assert problems(ledger) == [(A, "transient", "HTTP 503", 8)]


def test_an_unsettled_outcome_leaves_the_video_to_be_tried(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A]])
    for status in ("transient", "rate-limited", "blocked", "credentials"):
        outcome = Outcome(A, status, "later", bytes_fetched=5)
        assert answers(ledger).record(outcome, is_settled=False) == status
        assert (answers(ledger).pending_videos(0), answers(ledger).count_pending()) == ([A], 1)
        assert ledger.statistics.videos() == {status: 1}
    # They do not count as tries: the first settled one waits as long as a first one does.
    answers(ledger).record(Outcome(A, "transient", "later"))
    assert answers(ledger).pending_videos(0) == []
    count, first = ledger.waiting()
    assert (count, answers(ledger).count_pending()) == (1, 0)
    assert first is not None
    assert first - clock.now <= 1.25 * 900
    assert problems(ledger) == [(A, "transient", "later", 5)]
    assert ledger.statistics.totals().bytes_fetched == 20


@pytest.mark.parametrize("status", ["rate-limited", "blocked", "credentials", "environment"])
def test_what_is_no_fault_of_the_video_is_for_the_next_run_and_not_for_this_one(
    status: str, ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A, B]])
    answers(ledger).record(Outcome(A, status, "not now"))  # type: ignore[arg-type]
    answers(ledger).record(Outcome(B, "transient", "not now"))
    ledger.seal(SEALED)
    assert answers(ledger).due() == [A]
    assert answers(ledger).due(after_a_wait=True) == []
    clock.now += HOUR
    assert answers(ledger).due() == [A, B]
    assert answers(ledger).due(after_a_wait=True) == [B]


# -- Evidence --------------------------------------------------------------------------------------


#     hours   0        19         24                 48
#             |--------|----------|------------------|
#             first    same day   asked again        asked again
#                 B comes                            (if nothing came since)


def test_ambiguous_is_gone_when_another_day_says_the_same_of_a_route_that_works(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A, B]])
    start = clock.now
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "ambiguous"
    assert ledger.waiting() == (1, start + DAY)
    # The same day says nothing new, however often it is asked.
    clock.now = start + 19 * HOUR
    comes(ledger, B, clock.now)
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "ambiguous"
    assert ledger.waiting() == (1, start + DAY)
    clock.now = start + DAY
    assert answers(ledger).pending_videos(0) == [A]
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "gone"
    assert ledger.waiting() == (0, None)
    assert problems(ledger) == [(A, "gone", "unavailable", 3)]


@pytest.mark.parametrize("status", ["ambiguous", "private", "geo", "gone", "media-unusable"])
def test_nothing_is_final_while_nothing_came_by_the_route(
    status: Status, ledger: Ledger, clock: StoppedTime
) -> None:
    """A network that answers everybody with its own page, for weeks."""
    ledger.add_jobs([[A, B, C]])
    comes(ledger, B, clock.now)
    clock.now += HOUR
    for _ in range(30):
        assert answers(ledger).record(unclear(A, status, "no")) == status
        assert ledger.waiting() == (1, clock.now + DAY)
        clock.now += DAY
        # What comes by another route, or from another source, says nothing of this one.
        comes(ledger, C, clock.now, route="10.0.0.1:8080")
        comes(ledger, C, clock.now, source="http://elsewhere.example.org")
        assert not answers(ledger).is_witnessed(unclear(A, status))
        assert not answers(ledger).would_be_final(unclear(A, status), is_witnessed=False)
        assert answers(ledger).would_be_final(unclear(A, status), is_witnessed=True)
    comes(ledger, B, clock.now)
    final = "gone" if status == "ambiguous" else status
    assert answers(ledger).record(unclear(A, status, "no")) == final
    assert ledger.waiting() == (0, None)


def test_a_video_is_no_witness_of_itself(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A]])
    answers(ledger).record(unclear(A, "ambiguous"))
    clock.now += HOUR
    answers(ledger).record_witness(A, ROUTE, at=clock.now)
    clock.now += DAY
    assert answers(ledger).record(unclear(A, "ambiguous")) == "ambiguous"
    answers(ledger).record_witness(B, ROUTE, at=clock.now)
    assert answers(ledger).witness(ROUTE) == B
    # One that came by another route is better than none.
    assert answers(ledger).witness("10.0.0.1:8080") == B
    assert answers(ledger, "http://elsewhere.example.org").witness(ROUTE) is None
    assert answers(ledger).record(unclear(A, "ambiguous")) == "gone"


@pytest.mark.parametrize("status", ["private", "geo", "gone", "age-or-membership"])
def test_clear_words_are_final_at_once(status: Status, ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    assert answers(ledger).would_be_final(Outcome(A, status), is_witnessed=False)
    assert answers(ledger).record(Outcome(A, status, "removed by the uploader")) == status
    assert ledger.waiting() == (0, None)


def test_media_are_unusable_for_good_by_another_route_on_the_same_day(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A, B]])
    other = "10.0.0.1:8080"
    answers(ledger).record(unclear(A, "media-unusable", "is cut off"))
    clock.now += HOUR
    comes(ledger, B, clock.now)
    assert answers(ledger).record(unclear(A, "media-unusable", "is cut off")) == "media-unusable"
    assert ledger.waiting()[0] == 1, "the same route, the same day"
    comes(ledger, B, clock.now, route=other)
    clock.now += HOUR
    comes(ledger, B, clock.now, route=other)
    answers(ledger).record(unclear(A, "media-unusable", "is cut off", other))
    assert ledger.waiting() == (0, None)


def test_another_answer_in_between_begins_the_day_anew(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B]])
    answers(ledger).record(unclear(A, "ambiguous", "unavailable"))
    clock.now += DAY
    answers(ledger).record(Outcome(A, "transient", "HTTP 503"))
    clock.now += HOUR
    comes(ledger, B, clock.now)
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "ambiguous"
    assert ledger.waiting() == (1, clock.now + DAY)
    clock.now += DAY
    comes(ledger, B, clock.now)
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "gone"


def test_the_day_is_kept_in_a_new_job(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A]])
    answers(ledger).record(unclear(A, "ambiguous", "unavailable"))
    ledger.seal(SealedShard(0, "", "", 0, 0))
    clock.now += DAY
    answers(ledger).record_witness(B, ROUTE, at=clock.now)
    ledger.add_jobs([answers(ledger).due()])
    assert answers(ledger).record(unclear(A, "ambiguous", "unavailable")) == "gone"


def test_a_clock_that_was_years_ahead_leaves_no_wait(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B]])
    now = clock.now
    clock.now += 4 * 365 * DAY
    answers(ledger).record(Outcome(A, "not-yet"))
    answers(ledger).record(unclear(B, "ambiguous"))
    clock.now = now
    assert answers(ledger).pending_videos(0) == [A, B]
    # What was learned ahead of time confirms nothing before a day has passed.
    answers(ledger).record_witness(C, ROUTE, at=now)
    assert answers(ledger).record(unclear(B, "ambiguous")) == "ambiguous"
    assert answers(ledger).pending_videos(0) == [A]


# -- Several sources -------------------------------------------------------------------------------


def test_what_is_final_of_one_source_says_nothing_of_another(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    first, second = answers(ledger, "youtube"), answers(ledger, "http://b.example.org/{video_id}")
    for key in (A, B):
        first.record(Outcome(key, "gone", "removed by the uploader"))
    assert (first.pending_videos(0), second.pending_videos(0)) == ([], [A, B])
    ledger.seal(SealedShard(0, "", "", 0, 0))
    assert (first.due(), second.due()) == ([], [A, B])
    assert second.record(Outcome(A, "private", "Private video")) == "private"
    assert second.record(Outcome(B, "done", clips=1)) == "done"
    # Back at the first, and again at the second, nothing is asked again.
    assert (first.due(), second.due()) == ([], [])
    assert problems(ledger) == [(A, "private", "Private video", 2)]
    assert ledger.statistics.videos() == {"private": 1, "done": 1}


@PROPERTY
@given(
    given_answers=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([status for status in BEST_FIRST if status != "excluded"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_users_see_the_best_of_the_last_answers(
    tmp_path_factory: pytest.TempPathFactory, given_answers: list[tuple[str, Status]]
) -> None:
    last: dict[str, Status] = {}
    with Ledger(tmp_path_factory.mktemp("best") / "l.sqlite", "audio") as ledger:
        ledger.add_jobs([[A]])
        for source, status in given_answers:
            answers(ledger, source).record(Outcome(A, status, f"{source} says {status}"))
            if status == "done":
                last.pop(source, None)
                expected: Status = "done"
            else:
                last[source] = status
                expected = min(last.values(), key=BEST_FIRST.index)
            assert ledger.statistics.videos() == {expected: 1}
            if expected != "done":
                ((_, _, reason, attempts),) = problems(ledger)
                assert reason in {f"{name} says {expected}" for name in last}
                assert last[reason.partition(" ")[0]] == expected
                assert attempts <= len(given_answers)


# -- What a user asks for again --------------------------------------------------------------------


def test_utterances_that_were_missing_go_with_the_answer_that_named_them(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    answers(ledger, "b").record(Outcome(A, "private", "private"))
    missing = (MissingUtterance("00001", "no audio"),)
    answers(ledger).record(Outcome(A, "media-unusable", "cropped nothing", missing=missing))
    assert ledger.statistics.missing_utterances() == 1
    answers(ledger, "b").record(Outcome(A, "private", "private"))
    assert ledger.statistics.missing_utterances() == 1
    answers(ledger).record(unclear(A, "ambiguous"))
    assert problems(ledger) == [(A, "private", "private", 4)]
    assert ledger.statistics.missing_utterances() == 0


def test_ask_again_keeps_words(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B, C, D]])
    answers(ledger).record(Outcome(A, "private", "Private video"))
    answers(ledger).record(Outcome(B, "geo", "not in your country"))
    comes(ledger, C, clock.now)
    for _ in range(8):
        answers(ledger).record(Outcome(D, "transient", "HTTP 503"))
    assert ledger.waiting() == (0, None)
    before = problems(ledger)
    keys = answers(ledger).missing(["private", "transient", "age-or-membership"])
    assert keys == [A, D]
    answers(ledger).ask_again(keys)
    assert answers(ledger).pending_videos(0) == [A, D]
    assert problems(ledger) == before
    ledger.seal(SEALED)
    assert answers(ledger).due() == [A, D]
    # The tries of D are counted anew.
    answers(ledger).record(Outcome(D, "transient", "HTTP 503"))
    _, first = ledger.waiting()
    assert first is not None
    assert first - clock.now <= 1.25 * 900


def test_a_second_answer_confirms_unless_the_first_is_forgotten(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A, B]])
    for key in (A, B):
        answers(ledger).record(unclear(key, "ambiguous"))
    clock.now += HOUR
    answers(ledger).record_witness(C, ROUTE, at=clock.now)
    answers(ledger).ask_again([A])
    answers(ledger).ask_again([B], forget=True)
    clock.now += DAY
    assert answers(ledger).record(unclear(A, "ambiguous")) == "gone"
    assert answers(ledger).record(unclear(B, "ambiguous")) == "ambiguous"


def test_a_video_of_a_clock_that_was_ahead_is_no_witness(
    ledger: Ledger, clock: StoppedTime
) -> None:
    ledger.add_jobs([[A]])
    answers(ledger).record_witness(C, ROUTE, at=clock.now + 1000 * DAY)
    for _ in range(3):
        assert answers(ledger).record(unclear(A, "ambiguous")) == "ambiguous"
        clock.now += DAY


def test_a_held_answer_counts_from_when_it_was_given(ledger: Ledger, clock: StoppedTime) -> None:
    """Another video came after it, and before it was written."""
    ledger.add_jobs([[A, B]])
    given = clock.now
    clock.now += HOUR
    answers(ledger).record_witness(C, ROUTE, at=clock.now)
    clock.now += HOUR
    for key in (A, B):
        answers(ledger).record(unclear(key, "ambiguous"), at=given, is_witnessed=False)
    assert ledger.waiting() == (2, given + DAY)
    clock.now += DAY
    assert answers(ledger).is_witnessed(unclear(A, "ambiguous"))
    # What came only after the second answer was given is no success between the two.
    status = answers(ledger).record(unclear(B, "ambiguous"), is_witnessed=False)
    assert status == "ambiguous"


def test_answers_of_a_bad_day(ledger: Ledger, clock: StoppedTime) -> None:
    ledger.add_jobs([[A, B, C, D]])
    answers(ledger).record(Outcome(A, "gone"))
    clock.now += DAY
    bad_day = clock.now
    answers(ledger).record(Outcome(B, "gone"))
    comes(ledger, C, clock.now)
    clock.now += HOUR
    answers(ledger, "http://b.example.org").record(Outcome(A, "gone"))
    assert answers(ledger).missing(since=bad_day) == [B]
    assert answers(ledger).missing(["private"], since=bad_day) == []
    assert answers(ledger).missing(since=bad_day + 1) == []
    assert answers(ledger).missing() == [A, B]


def test_other_speakers_were_not_tried_and_are_not_among_the_known(ledger: Ledger) -> None:
    others = [VideoKey(f"id00001{n}", f"video{v:06}") for n in range(6) for v in range(2)]
    ledger.add_jobs([[A, B, E, *others]])
    answers(ledger).record(Outcome(others[11], "gone"))
    keys = answers(ledger).other_speakers([A, others[0]], 5)
    assert keys == [others[10], *(others[2 * n + 1] for n in (4, 3, 2, 1))]
    assert answers(ledger).other_speakers([], 99)[-1] == B


def test_what_configurations_wait_for_is_their_own(path: Path, clock: StoppedTime) -> None:
    with Ledger(path, "audio") as audio, Ledger(path, "audio-visual") as other:
        for ledger in (audio, other):
            ledger.add_jobs([[A]])
            answers(ledger).record(Outcome(A, "transient"))
            ledger.seal(SealedShard(0, "", "", 0, 0))
        audio.exclude([B])
        answers(other).ask_again(answers(other).missing(["transient"]))
        assert (answers(audio).due(), answers(other).due()) == ([], [A])
        other.exclude([])
        assert audio.statistics.videos() == {"transient": 1, "excluded": 1}


# -- Ledgers of before -----------------------------------------------------------------------------


def test_a_ledger_that_is_not_migrated_yet_says_the_same(path: Path) -> None:
    """Of format 3, which kept one verdict with the video."""
    with Ledger(path, "audio") as ledger:
        ledger.set_setting("source", "youtube")
        ledger.add_jobs([[A, B, C, D]])
    database = sqlite3.connect(path)
    database.executescript(FORMAT_3)
    database.close()
    for readonly in (True, False):
        with Ledger(path, "audio", readonly=readonly) as ledger:
            assert answers(ledger).pending_videos(0) == [B, D]
            assert answers(ledger, "elsewhere").pending_videos(0) == [A, B, D]
            assert answers(ledger).count_pending() == 2
            assert answers(ledger).missing(["gone"]) == [A]
            assert answers(ledger).would_be_final(unclear(B, "ambiguous"), is_witnessed=True)
    before = path.read_bytes()
    with Ledger(path, "audio") as ledger:
        assert path.read_bytes() == before
        answers(ledger).record_witness(C, ROUTE, at=1.5e9)
        assert answers(ledger).pending_videos(0) == [B, D]
        assert answers(ledger).record(unclear(B, "ambiguous")) == "gone"
        assert ledger.statistics.videos() == {"done": 1, "gone": 2, "planned": 1}


FORMAT_3 = """
drop table sources; drop table verdicts; drop table witnesses;
alter table jobs drop column kind;
alter table videos add column tries integer not null default 0;
alter table videos add column ambiguous_since real;
update facts set value = '3' where name = 'format';
update videos set status = 'gone', tries = 1 where video_id = 'aaaaaaaaaaa';
update videos set status = 'ambiguous', tries = 1, ambiguous_since = 1e9, next_at = 1e9
    where video_id = 'bbbbbbbbbbb';
update videos set status = 'done', clips = 1 where video_id = 'ccccccccccc';
"""


# -- Two million videos ----------------------------------------------------------------------------


def test_what_is_asked_of_each_job_and_video_goes_through_no_table(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B], [C, D]])
    verdicts = answers(ledger)
    bare = unclear(A, "ambiguous")
    verdicts.record(bare)
    comes(ledger, B, 1.0)
    queries: list[str] = []
    connection = ledger._database._connection
    connection.set_trace_callback(queries.append)
    verdicts.pending_videos(1)
    ledger.job_videos(1)
    ledger.recovered.done_videos(1)
    verdicts.last_done(2)
    verdicts.witness(ROUTE)
    verdicts.is_witnessed(bare)
    verdicts.would_be_final(bare, is_witnessed=True)
    verdicts.record(bare)
    verdicts.record(Outcome(A, "done", clips=1, route=ROUTE))
    verdicts.record_witness(A, ROUTE, at=2.0)
    verdicts.ask_again([C])
    ledger.waiting()
    ledger.drop([D])
    connection.set_trace_callback(None)
    steps = [
        (sql, row[3])
        for sql in dict.fromkeys(queries)
        if not sql.startswith(("begin", "commit"))
        for row in connection.execute(f"explain query plan {sql}")
    ]
    assert len(steps) > 15
    for sql, step in steps:
        assert not step.startswith("SCAN"), sql
        # The configuration alone is the whole table.
        assert not re.search(r"\(config=\?\)", step), sql
