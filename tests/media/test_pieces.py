"""Where pieces of audio begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.media.pieces import PieceBoundaries, TimedFrame

FRAME_SECONDS = 0.02


def frame(number: int, *, layout: str = "mono") -> Any:
    return SimpleNamespace(
        number=number,
        samples=320,
        sample_rate=16_000,
        format=SimpleNamespace(name="fltp"),
        layout=SimpleNamespace(name=layout, nb_channels=1),
    )


def begins(stamps: Iterable[float | None], *, layouts: Sequence[str] = ()) -> dict[int, float]:
    """Return the frames that begin a piece, with its time; all come out once, in order."""
    boundaries = PieceBoundaries()
    timed: list[TimedFrame] = []
    for number, stamp in enumerate(stamps):
        layout = layouts[number] if layouts else "mono"
        timed += boundaries.add(frame(number, layout=layout), stamp)
    timed += boundaries.finish()
    assert [each.frame.number for each in timed] == list(range(len(timed)))
    return {
        each.frame.number: round(each.begins_at, 9) for each in timed if each.begins_at is not None
    }


def regular(count: int, *, start: float = 0.0) -> list[float]:
    return [start + number * FRAME_SECONDS for number in range(count)]


@given(
    start=st.floats(-10, 10),
    jitter=st.lists(st.floats(-0.0049, 0.0049), min_size=1, max_size=100),
)
def test_small_jitter_is_one_piece(start: float, jitter: list[float]) -> None:
    stamps = [
        stamp + late for stamp, late in zip(regular(len(jitter)), [0.0, *jitter[1:]], strict=True)
    ]
    assert list(begins(start + stamp for stamp in stamps)) == [0]


@given(st.lists(st.floats(0.006, 0.02), min_size=2, max_size=60))
def test_larger_jitter_to_both_sides_is_one_piece(jitter: list[float]) -> None:
    late = [0.0, *((-1) ** number * each for number, each in enumerate(jitter)), 0.0]
    stamps = regular(len(late))
    assert list(begins(map(sum, zip(stamps, late, strict=True)))) == [0]


@pytest.mark.parametrize("lost", [1, 2, 3, 10, 500])
@pytest.mark.parametrize("after", [1, 5, 8, 40])
def test_after_lost_packets_a_piece_begins(lost: int, after: int) -> None:
    stamps = [*regular(10), *regular(after, start=(10 + lost) * FRAME_SECONDS)]
    assert begins(stamps) == {0: 0.0, 10: round((10 + lost) * FRAME_SECONDS, 9)}


def test_two_holes_soon_after_each_other() -> None:
    stamps = [*regular(5), *regular(3, start=0.12), *regular(5, start=0.20)]
    assert begins(stamps) == {0: 0.0, 5: 0.12, 8: 0.20}


@pytest.mark.parametrize("lost", [1, 3, 40])
def test_the_rounding_of_milliseconds_does_not_count(lost: int) -> None:
    start = (10 + lost) * FRAME_SECONDS
    stamps = [*regular(10), *(start + 0.0007 + number * FRAME_SECONDS for number in range(20))]
    assert begins(stamps) == {0: 0.0, 10: round(start, 9)}


def test_a_jump_back_begins_a_piece() -> None:
    assert begins([*regular(5, start=3.0), *regular(5)]) == {0: 3.0, 5: 0.0}


def test_a_clock_that_drifts_is_followed() -> None:
    stamps = [number * FRAME_SECONDS * 1.001 for number in range(3000)]
    starts = begins(stamps)
    assert 5 < len(starts) < 20
    assert all(starts[number] == pytest.approx(stamps[number], abs=1e-3) for number in starts)


def test_frames_without_a_time_follow_the_one_before() -> None:
    assert begins([0.5, None, None, 0.56, None]) == {0: 0.5}
    assert begins([None, None]) == {0: 0.0}


def test_another_format_begins_a_piece() -> None:
    layouts = ["mono"] * 4 + ["stereo"] * 3
    assert begins(regular(7), layouts=layouts) == {0: 0.0, 4: 0.08}


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=60))
def test_no_time_stamps_lose_a_frame(stamps: list[float | None]) -> None:
    starts = begins(stamps)
    assert not stamps or 0 in starts
