"""Ids, frames to samples and seconds, and declarations of options."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.records import (
    SAMPLES_PER_FRAME,
    Utterance,
    VideoKey,
    check_ids,
    check_options,
    frame_start_sample,
    is_speaker_id,
    is_video_id,
    option,
    options_of,
    real_number,
    whole_number,
)

SPEAKER, VIDEO = "id000001", "abcdefghijk"
FRAMES = st.integers(0, 2**31 - 2)


def utterance(first: int, last: int, name: str = "00001") -> Utterance:
    return Utterance(SPEAKER, VIDEO, name, first, last)


# frame      0     1     2     3     4     5     6
# seconds    0   0.04  0.08  0.12  0.16  0.20  0.24
#                              [first      last]
#                              |=================)
# sample     0   640  1280   1920        ...    3840


def test_an_utterance_covers_its_last_frame_and_nothing_after() -> None:
    assert utterance(3, 5).samples == (1920, 3840)
    assert utterance(3, 5).seconds == (0.12, 0.24)


def test_one_frame_is_640_samples_and_40_milliseconds() -> None:
    assert SAMPLES_PER_FRAME == 640
    assert utterance(0, 0).samples == (0, 640)
    assert utterance(0, 0).seconds == (0.0, 0.04)
    assert utterance(24, 24).seconds == (0.96, 1.0)


@given(frame=FRAMES)
def test_frames_become_samples_exactly(frame: int) -> None:
    assert frame_start_sample(frame) == 640 * frame
    assert frame_start_sample(frame + 1) - frame_start_sample(frame) == 640


@given(cuts=st.lists(FRAMES, min_size=3, max_size=3, unique=True))
def test_neighbours_abut(cuts: list[int]) -> None:
    first, end, last = sorted(cuts)
    left, right = utterance(first, end), utterance(end + 1, last + 1)
    assert left.samples[1] == right.samples[0]
    assert left.seconds[1] == right.seconds[0]
    together = utterance(first, last + 1)
    assert (left.samples[0], right.samples[1]) == together.samples


@given(first=FRAMES, length=st.integers(1, 100_000))
def test_length_is_whole_frames_and_agrees_in_seconds(first: int, length: int) -> None:
    cut = utterance(first, first + length - 1)
    start, stop = cut.samples
    assert stop - start == 640 * length
    assert [round(seconds * 16_000) for seconds in cut.seconds] == [start, stop]


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (5, 4), (-3, -1)])
def test_frames_that_run_backwards_are_refused(first: int, last: int) -> None:
    with pytest.raises(
        ValueError, match=rf"{SPEAKER}/{VIDEO}/00001 run from {first} to {last}; the first must"
    ):
        utterance(first, last)


def test_the_name_is_the_path_that_lists_use() -> None:
    assert utterance(0, 1, "a-b_9").name == f"{SPEAKER}/{VIDEO}/a-b_9"


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="first_frame"):
        utterance(0, 1).first_frame = 3  # type: ignore[misc]


def test_utterances_sort_by_their_ids() -> None:
    assert sorted([utterance(9, 9, "b"), utterance(0, 0, "c"), utterance(5, 5, "a")]) == [
        utterance(5, 5, "a"),
        utterance(9, 9, "b"),
        utterance(0, 0, "c"),
    ]


@pytest.mark.parametrize("text", ["id000002", "id00012", "id999999"])
def test_speaker_ids(text: str) -> None:
    assert is_speaker_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "id0001",
        "id0000001",
        "ID000001",
        "id000001\n",
        "\nid000001",
        " id000001",
        "id00000١",  # noqa: RUF001  # an Arabic-Indic digit
        "id00000\uff11",
        "id00/001",
        "id00000\0",
    ],
)
def test_other_texts_are_no_speaker_ids(text: str) -> None:
    assert not is_speaker_id(text)
    with pytest.raises(ValueError, match="is not a speaker id"):
        check_ids(text, VIDEO, "00001")


@pytest.mark.parametrize("text", ["YJUT3czS6OI", "-JUT3czS6OI", "___________", "-----------"])
def test_video_ids(text: str) -> None:
    assert is_video_id(text)
    check_ids(SPEAKER, text, "00001")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "../../../ab",
        "YJUT3czS/OI",
        "YJUT3czS6O",
        "YJUT3czS6OIx",
        "YJUT3czS6OI\n",
        "YJUT3czS6O\n",
        "YJUT3czS6O\u0130",
        "YJUT3czS6O\u0661",
        "YJUT3cz%2fI",
        "YJUT3czS.OI",
        "YJUT3cz S6O",
        "YJUT3cz\0S6O",
    ],
)
def test_other_texts_are_no_video_ids(text: str) -> None:
    assert not is_video_id(text)
    with pytest.raises(ValueError, match="is not a video id"):
        check_ids(SPEAKER, text, "00001")


@pytest.mark.parametrize(
    "text", ["", "..", "a/b", "00001\n", "a.b", "a b", "é", "\u0661", "x" * 65]
)
def test_other_texts_are_no_utterance_ids(text: str) -> None:
    with pytest.raises(ValueError, match="is not an utterance id"):
        check_ids(SPEAKER, VIDEO, text)


@pytest.mark.parametrize("text", ["00001", "-00001", "_", "x" * 64])
def test_utterance_ids(text: str) -> None:
    check_ids(SPEAKER, VIDEO, text)


@given(text=st.text(max_size=14))
def test_whatever_passes_is_a_plain_name(text: str) -> None:
    if is_speaker_id(text) or is_video_id(text):
        assert text.isascii()
        assert not set(text) & set("/\\.\n\0 ")


def test_outcomes_are_equal_whatever_time_they_took() -> None:
    key = VideoKey(SPEAKER, VIDEO)
    missing = (MissingUtterance("00001", "too short"),)
    outcome = Outcome(key, "done", clips=1, missing=missing, seconds_taken=1.0)
    assert outcome == dataclasses.replace(outcome, seconds_taken=2.0)
    assert outcome != dataclasses.replace(outcome, clips=2)


# -- Options of users -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    count: int | None = option(None, "how many", rule=whole_number(1), parse=int)
    share: float = option(0.5, "which part", rule=real_number(0, 1))
    letter: str = option("a", "which letter", choices=("a", "b", "c"))
    plain: str = "no option"

    def __post_init__(self) -> None:
        check_options(self, ValueError)


def test_options_are_read_from_the_fields() -> None:
    options = options_of(Sample)
    assert list(options) == ["count", "share", "letter"]
    assert [entry.summary for entry in options.values()] == [
        "how many",
        "which part; default: 0.5",
        "which letter; default: a",
    ]
    assert Sample() == Sample(None, 0.5, "a", "no option")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("count", value, "a whole number of 1 or more") for value in (0, 1.0, True, "1")),
        *(("share", value, "a number from 0 to 1") for value in (-0.1, 1.1, math.nan, None, True)),
        *(("letter", value, "a, b or c") for value in ("d", "", None, 1)),
    ],
)
def test_a_value_against_its_rule_is_refused(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be {allowed}, got {value!r}\\.$"):
        Sample(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("count", None), ("count", 1), ("share", 0), ("share", 1), ("letter", "c")]
)
def test_a_value_by_its_rule_is_taken(name: str, value: Any) -> None:
    assert getattr(Sample(**{name: value}), name) == value


def test_rules_say_their_range() -> None:
    assert whole_number(1, 256).text == "a whole number from 1 to 256"
    assert real_number(0).text == "a number of 0 or more"
    assert not real_number(0).allows(math.inf)
    assert not whole_number(0).allows(math.inf)
