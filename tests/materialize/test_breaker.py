"""Failures of a route told from failures of videos: what is held back, for how long, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.materialize.breaker import FIRST_LIMIT, MAX_LIMIT, Breaker, is_wordless
from voxblink2_lib.outcomes import POLICIES, STATUSES, Outcome, Status
from voxblink2_lib.records import VideoKey

KEY = VideoKey("id000001", "abcdefghijk")
CANARIES = [VideoKey("id000009", f"canary{number:05}") for number in range(3)]


def held(count: int) -> Breaker[int]:
    """Return a breaker that holds the answers 0, 1, 2, ..."""
    breaker: Breaker[int] = Breaker()
    for number in range(count):
        breaker.hold(number)
    return breaker


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "done"])
def test_clear_words_and_faults_of_the_route_are_no_riddle(status: Status) -> None:
    assert not is_wordless(Outcome(KEY, status, "words", is_explicit=True))
    is_of_video = POLICIES[status].scope == "video"
    assert is_wordless(Outcome(KEY, status, "", is_explicit=False)) == is_of_video


def test_so_many_in_a_row_put_the_route_in_question() -> None:
    assert not held(FIRST_LIMIT - 1).needs_canaries
    breaker = held(FIRST_LIMIT)
    assert breaker.needs_canaries
    breaker.ask(CANARIES)
    assert (breaker.is_in_question, breaker.needs_canaries) == (True, False)
    assert [breaker.next_canary() for _ in range(4)] == [*CANARIES, None]
    assert breaker.asked == CANARIES


def test_a_canary_that_comes_puts_the_videos_at_fault_and_doubles_the_limit() -> None:
    breaker = held(FIRST_LIMIT)
    limits: list[int] = []
    for _ in range(6):
        breaker.ask(CANARIES)
        breaker.next_canary()
        assert breaker.record_canary(has_come=True) == list(range((limits or [FIRST_LIMIT])[-1]))
        limits.append(breaker.limit)
        assert not breaker.is_in_question
        assert breaker.held == []
        for number in range(breaker.limit):
            breaker.hold(number)
    assert limits == [24, 48, 96, 192, MAX_LIMIT, MAX_LIMIT]


def test_a_canary_for_a_final_verdict_changes_no_limit() -> None:
    breaker: Breaker[int] = Breaker()
    breaker.hold_final(1)
    assert breaker.needs_canaries
    breaker.ask(CANARIES)
    breaker.next_canary()
    assert breaker.record_canary(has_come=True) == [1]
    assert (breaker.limit, breaker.has_worked) == (FIRST_LIMIT, True)


#   position      0       3           5
#                 |-------|-----------|
#   held          0 1 2   3 4         5 6
#                         requested
#                                     came, and is evidence for 0 1 2


def test_a_success_is_evidence_for_what_failed_before_it_was_requested() -> None:
    breaker = held(3)
    position = breaker.position
    for number in (3, 4):
        breaker.hold(number)
    assert breaker.record_success(position) == [0, 1, 2]
    assert breaker.held == [3, 4]
    # An earlier one says nothing new.
    assert breaker.record_success(1) == []
    assert breaker.record_words(breaker.position) == [3, 4]


def test_a_success_takes_the_route_out_of_question_once_fewer_are_left() -> None:
    breaker = held(FIRST_LIMIT + 3)
    breaker.ask(CANARIES)
    assert breaker.record_success(3) == [0, 1, 2]
    assert breaker.is_in_question
    assert breaker.record_success(4) == [3]
    assert not breaker.is_in_question


def test_words_release_nothing_while_the_route_is_in_question() -> None:
    """They may have been on their way since before."""
    breaker = held(FIRST_LIMIT)
    breaker.ask(CANARIES)
    assert breaker.record_words(breaker.position) == []
    assert len(breaker.held) == FIRST_LIMIT


@given(
    steps=st.lists(
        st.sampled_from(
            ["hold", "final", "words", "success", "ask", "canary", "comes", "fails", "release"]
        )
        | st.integers(0, 40),
        max_size=60,
    )
)
def test_every_answer_is_given_back_once_and_in_order(steps: list[str | int]) -> None:
    breaker: Breaker[int] = Breaker()
    count, given_back, position = 0, [], 0
    for step in steps:
        if step == "hold":
            breaker.hold(count)
            count += 1
        elif step == "final":
            breaker.hold_final(-1 - count)
        elif step == "words":
            given_back += breaker.record_words(position)
        elif step == "success":
            given_back += breaker.record_success(position)
        elif step == "ask" and breaker.needs_canaries:
            breaker.ask(CANARIES)
        elif step == "canary" and breaker.has_canary:
            breaker.next_canary()
        elif step in {"comes", "fails"}:
            given_back += breaker.record_canary(has_come=step == "comes")
        elif step == "release":
            given_back += breaker.release()
        elif isinstance(step, int):
            position = min(step, breaker.position)
        assert breaker.position == count
        assert FIRST_LIMIT <= breaker.limit <= MAX_LIMIT
        plain = [answer for answer in given_back if answer >= 0]
        assert plain + breaker.held == list(range(count))
