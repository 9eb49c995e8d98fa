"""Timestamps of frames are corrected where they cannot be true, and nowhere else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_audio import MediaCache
from support.synthetic_video import VideoSpec, render, video_spec

from voxblink2_lib.media.shared_stamps import settled, true_stamps
from voxblink2_lib.media.video_index import read_frame_times

Stamps = npt.NDArray[np.int64]

rates = st.sampled_from([3600, 3003, 1500])
# Where a run of wrong stamps begins after the one before, how long it is, by how many frames.
runs = st.lists(
    st.tuples(st.integers(12, 40), st.integers(1, 3), st.sampled_from([-3, -2, -1, 1, 2, 3])),
    max_size=4,
)


@given(rate=rates, wrong=runs)
def test_frames_that_do_not_rise_get_their_times(
    rate: int, wrong: list[tuple[int, int, int]]
) -> None:
    true = np.arange(200, dtype=np.int64) * rate
    stamps, position = true.copy(), 0
    for gap, length, frames in wrong:
        position += gap
        stamps[position : position + length] += frames * rate
        position += length
    assert np.array_equal(settled(stamps, np.full(200, rate, np.int64)), true)


@given(st.lists(st.integers(901, 20_000), min_size=2, max_size=120), rates)
def test_times_that_rise_are_believed(gaps: list[int], rate: int) -> None:
    stamps = np.cumsum(np.array(gaps, np.int64))
    assert np.array_equal(settled(stamps, np.full(len(gaps), rate, np.int64)), stamps)


@given(lost=st.integers(1, 30), at=st.integers(40, 60))
def test_frames_after_a_loss_stay_where_they_are(lost: int, at: int) -> None:
    true = np.arange(120, dtype=np.int64) * 3600
    true[at:] += lost * 3600
    stamps = true.copy()
    stamps[90:92] += 3600
    assert np.array_equal(settled(stamps, np.full(120, 3600, np.int64)), true)


def test_unknown_durations_are_those_of_the_others() -> None:
    true = np.arange(60, dtype=np.int64) * 3600
    stamps, durations = true.copy(), np.full(60, 3600, np.int64)
    stamps[30] -= 2 * 3600
    durations[::4] = 0
    assert np.array_equal(settled(stamps, durations), true)
    assert np.array_equal(settled(stamps, np.zeros(60, np.int64)), stamps)


def test_a_few_frames_are_left_as_they_are() -> None:
    stamps = np.array([0, 3600, 3600, 10_800], np.int64)
    assert np.array_equal(settled(stamps, np.full(4, 3600, np.int64)), stamps)


MPEG2 = (("b", "3M"), ("bf", "2"), ("g", "12"))
H264 = (("preset", "veryfast"), ("crf", "25"), ("g", "24"), ("bf", "3"))


@pytest.mark.parametrize(
    "spec",
    [
        video_spec("order.ts", 25, 4, codec="mpeg2video", options=MPEG2, is_busy=True),
        video_spec("order264.ts", 25, 4, options=H264, is_busy=True),
    ],
    ids=lambda spec: spec.name,
)
def test_the_order_of_display_is_that_of_the_decoder(
    media_cache: MediaCache, spec: VideoSpec
) -> None:
    path = render(media_cache, spec)
    stamps = read_frame_times(path).packet_stamps
    shared, keyframe = stamps.copy(), int(np.argsort(stamps)[50])
    shared[keyframe] -= 2 * 3600
    durations = np.full(len(stamps), 3600, np.int64)
    assert np.array_equal(true_stamps(path, shared, durations), stamps)
