"""What a class of outcome means for the next try of a video."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.outcomes import (
    BEST_FIRST,
    CONFIRM_SECONDS,
    GREATEST_WAIT_SECONDS,
    POLICIES,
    STATUSES,
    Evidence,
    MediaFacts,
    MissingUtterance,
    Outcome,
    RetryDecision,
    Status,
    jitter,
    needs_confirmation,
    next_attempt,
)
from voxblink2_lib.records import VideoKey

KEY = VideoKey("id000001", "abcdefghijk")
KEYS = st.from_regex(r"\A[A-Za-z0-9_-]{11}\Z").map(lambda name: VideoKey("id000001", name))
NOW = 1_760_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR
FINAL: tuple[Status, ...] = (
    *("done", "excluded", "age-or-membership", "private", "geo", "gone", "media-unusable"),
)
NOT_OF_THE_VIDEO: tuple[Status, ...] = ("rate-limited", "blocked", "credentials", "environment")


def wait(status: Status, tries: int = 1, *, key: VideoKey = KEY) -> float | None:
    decision = next_attempt(Outcome(key, status), Evidence(tries), now=NOW)
    assert decision.status == status
    return None if decision.next_at is None else decision.next_at - NOW


def test_every_class_has_a_policy_with_a_description() -> None:
    assert set(POLICIES) == set(STATUSES)
    assert all(policy.description for policy in POLICIES.values())
    assert len({policy.description for policy in POLICIES.values()}) == len(POLICIES)


def test_the_scope_is_what_is_at_fault() -> None:
    scopes = {status: policy.scope for status, policy in POLICIES.items()}
    assert {status for status, scope in scopes.items() if scope != "video"} == {*NOT_OF_THE_VIDEO}
    assert [status for status, scope in scopes.items() if scope == "machine"] == ["environment"]
    # A route is paused or closed; nothing else is.
    closes = {status: policy.closes_after for status, policy in POLICIES.items()}
    assert {status: count for status, count in closes.items() if count} == {
        "blocked": 1,
        "credentials": 8,
    }


@pytest.mark.parametrize("status", FINAL)
@pytest.mark.parametrize("tries", [1, 2, 100])
def test_what_is_final_is_never_retried_by_itself(status: Status, tries: int) -> None:
    assert wait(status, tries) is None


@pytest.mark.parametrize("status", NOT_OF_THE_VIDEO)
@pytest.mark.parametrize("tries", [1, 2, 100])
def test_what_is_no_fault_of_the_video_is_retried_by_the_next_run(
    status: Status, tries: int
) -> None:
    assert wait(status, tries) == 0


def test_waits_of_temporary_failures_double() -> None:
    for tries in range(1, 8):
        waited = wait("transient", tries)
        assert waited is not None
        assert waited == pytest.approx(900 * 2 ** (tries - 1) * jitter(KEY, tries))


def test_a_video_that_fails_too_often_is_given_up() -> None:
    assert [wait("transient", tries) is None for tries in (7, 8, 9, 100)] == [
        *(False, True, True, True)
    ]


@given(key=KEYS, tries=st.integers(1, 7))
def test_waits_are_spread_and_never_longer_than_a_day_and_a_quarter(
    key: VideoKey, tries: int
) -> None:
    waited = wait("transient", tries, key=key)
    assert waited is not None
    plain = min(DAY, 900 * 2 ** (tries - 1))
    assert 0.75 * plain <= waited <= 1.25 * plain <= 1.25 * DAY


def test_waits_are_capped_at_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = {"transient": POLICIES["transient"].__class__("x", 900, doubles=True)}
    monkeypatch.setattr("voxblink2_lib.outcomes.POLICIES", patient)
    for tries in (8, 20, 1000):
        assert wait("transient", tries) == pytest.approx(DAY * jitter(KEY, tries))


@pytest.mark.parametrize("status", ["not-yet", "not-original"])
def test_what_may_still_come_is_retried_daily_for_a_month(status: Status) -> None:
    assert [wait(status, tries) for tries in (1, 2, 29, 30)] == [DAY, DAY, DAY, None]


# When a video was first found ambiguous, and when it is again:
#
#     hours   0            19   20        24            48
#             |------------|----|---------|-------------|
#             first        same day?      next_at
#                               [confirmed, if another video came by the route in between ->

UNCONFIRMED: tuple[Status, ...] = ("ambiguous", "private", "geo", "gone", "media-unusable")


def again(
    hours: float,
    status: Status = "ambiguous",
    *,
    tries: int = 2,
    is_witnessed: bool = True,
    is_other_route: bool = False,
) -> RetryDecision:
    evidence = Evidence(tries, NOW, is_witnessed, is_other_route)
    return next_attempt(unclear(status), evidence, now=NOW + hours * HOUR)


def unclear(status: Status) -> Outcome:
    return Outcome(KEY, status, is_explicit=False)


@pytest.mark.parametrize("status", UNCONFIRMED)
def test_one_answer_without_words_is_retried_another_day(status: Status) -> None:
    first = next_attempt(unclear(status), Evidence(), now=NOW)
    assert first == RetryDecision(status, NOW + DAY, NOW)
    assert needs_confirmation(unclear(status))
    assert needs_confirmation(Outcome(KEY, status)) == (status == "ambiguous")


@pytest.mark.parametrize("status", UNCONFIRMED)
@pytest.mark.parametrize("hours", [0.0, 0.001, 1.0, 19.0, 19.999])
def test_the_same_day_waits_for_the_same_moment(hours: float, status: Status) -> None:
    assert again(hours, status) == RetryDecision(status, NOW + DAY, NOW)
    assert again(hours, status, tries=1000) == RetryDecision(status, NOW + DAY, NOW)


@pytest.mark.parametrize("status", UNCONFIRMED)
@pytest.mark.parametrize("hours", [CONFIRM_SECONDS / HOUR, 24.0, 10_000.0])
def test_another_day_is_final_if_the_route_worked_in_between(hours: float, status: Status) -> None:
    assert again(hours, status).status == ("gone" if status == "ambiguous" else status)
    assert again(hours, status).next_at is None
    waits = again(hours, status, is_witnessed=False)
    assert waits.status == status
    assert waits.since == NOW
    assert waits.next_at == max(NOW + DAY, NOW + hours * HOUR + DAY * (hours >= 24))


def test_another_route_confirms_media_on_the_same_day_and_no_message() -> None:
    assert again(1.0, "media-unusable", is_other_route=True).next_at is None
    assert again(1.0, "media-unusable", is_other_route=True, is_witnessed=False).next_at
    assert again(1.0, "ambiguous", is_other_route=True).next_at == NOW + DAY


@pytest.mark.parametrize("hours", [-5.0, -10_000.0])
def test_a_clock_that_was_set_back_confirms_nothing(hours: float) -> None:
    decision = again(hours)
    assert decision.status == "ambiguous"
    assert decision.next_at == NOW + hours * HOUR + DAY


@given(
    status=st.sampled_from(STATUSES),
    tries=st.integers(1, 100),
    since=st.none() | st.floats(0, 1e10),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    now=st.floats(0, 1e10),
)
def test_no_wait_is_longer_than_the_greatest(
    status: Status,
    tries: int,
    since: float | None,
    flags: tuple[bool, bool, bool],
    now: float,
) -> None:
    outcome = Outcome(KEY, status, is_explicit=flags[2])
    decision = next_attempt(outcome, Evidence(tries, since, *flags[:2]), now=now)
    assert decision.next_at is None or now <= decision.next_at <= now + GREATEST_WAIT_SECONDS


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ambiguous"])
def test_only_ambiguous_confirms_ambiguous(status: Status) -> None:
    since = next_attempt(Outcome(KEY, status), Evidence(2, NOW - 10 * DAY, True), now=NOW)
    assert since == next_attempt(Outcome(KEY, status), Evidence(2), now=NOW)
    assert since.status == status


def test_the_best_answer_has_a_place_for_every_class() -> None:
    assert sorted(BEST_FIRST) == sorted(STATUSES)
    assert BEST_FIRST[0] == "done"


@given(key=KEYS, tries=st.integers(1, 1000))
def test_jitter_is_within_a_quarter(key: VideoKey, tries: int) -> None:
    assert 0.75 <= jitter(key, tries) <= 1.25
    assert jitter(key, tries) == jitter(key, tries)


def test_jitter_spreads_out_and_differs_from_try_to_try() -> None:
    factors = [jitter(VideoKey("id000001", f"video{n:06}"), 1) for n in range(1000)]
    for low in (0.75, 0.85, 0.95, 1.05, 1.15):
        assert 150 < sum(low <= factor < low + 0.1 for factor in factors) < 250
    assert len({jitter(KEY, tries) for tries in range(1, 9)}) == 8


def test_jitter_is_the_same_in_every_process() -> None:
    code = (
        "from voxblink2_lib.outcomes import jitter; from voxblink2_lib.records import VideoKey; "
        "print(jitter(VideoKey('id000001', 'abcdefghijk'), 3))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{jitter(KEY, 3)}\n"}


# What a part file of the version before holds.
STORED = (
    '{"key": ["id000001", "abcdefghijk"], "status": "done", "reason": "1 of 3", "clips": 2, '
    '"samples": 80000, "missing": [["00002", "is too short"]], "bytes_fetched": 12345, '
    '"seconds_taken": 1.5, "address": "10.0.0.1:8080", "digest": 7}'
)


def test_an_outcome_of_the_version_before_is_read_and_written_as_it_was() -> None:
    outcome = Outcome.from_dict(json.loads(STORED))
    assert outcome == Outcome(
        KEY,
        "done",
        "1 of 3",
        clips=2,
        samples=80_000,
        missing=(MissingUtterance("00002", "is too short"),),
        bytes_fetched=12_345,
        route="10.0.0.1:8080",
        digest=7,
    )
    assert outcome.seconds_taken == 1.5
    assert json.dumps(outcome.as_dict()) == STORED


def test_an_outcome_keeps_what_was_learned_of_its_media() -> None:
    facts = MediaFacts(audio_id="140-2", language="de", height=360, reference_height=720)
    outcome = Outcome(KEY, "done", clips=2, facts=facts)
    stored = json.loads(json.dumps(outcome.as_dict()))
    # What is unknown is left out.
    assert stored["facts"] == {
        **{"audio_id": "140-2", "language": "de", "height": 360, "reference_height": 720}
    }
    assert Outcome.from_dict(stored) == outcome


@pytest.mark.parametrize("stored", [{"no such fact": 1}, {"": 0}])
def test_facts_of_another_kind_are_refused(stored: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        MediaFacts.from_dict(stored)
