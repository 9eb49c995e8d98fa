"""The display times of video frames, read from packets without decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_audio import MediaCache
from support.synthetic_video import (
    CLOSED_GOPS,
    OPEN_GOPS,
    PLAIN,
    UNSTEADY,
    VideoSpec,
    packets_of_video,
    render,
    render_with_hidden,
    video_spec,
    x264_options,
)
from support.video_oracle import nearest

from voxblink2_lib.errors import MediaError
from voxblink2_lib.media.video_index import FrameTimes, read_frame_times

NTSC = Fraction(30_000, 1001)


# -- Times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate", [25, 30, NTSC, Fraction(24_000, 1001), Fraction(75, 2), 60], ids=str
)
@pytest.mark.parametrize("name", ["rate.mp4", "rate.mkv"])
def test_a_constant_rate_is_exact_whatever_the_clock(
    media_cache: MediaCache, name: str, rate: Fraction
) -> None:
    spec = video_spec(name, rate, 3, size=(64, 48))
    times = read_frame_times(render(media_cache, spec))
    expected = [float(time) for time in spec.times]
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)
    assert times.end_seconds == pytest.approx(float(spec.times[-1] + 1 / rate), abs=1e-3)
    assert np.all(np.diff(times.stamps) > 0)


@pytest.mark.parametrize("name", ["unsteady.mp4", "unsteady.mkv"])
@pytest.mark.parametrize("late", [Fraction(0), Fraction(777, 1000)], ids=str)
def test_a_variable_rate_is_taken_from_the_timestamps(
    media_cache: MediaCache, name: str, late: Fraction
) -> None:
    spec = VideoSpec(name, UNSTEADY[:120], Fraction(1, 1000), size=(64, 48), late=late)
    times = read_frame_times(render(media_cache, spec))
    expected = [float(time) for time in spec.times]
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)


def test_a_jittering_rate_is_not_constant(media_cache: MediaCache) -> None:
    # A millisecond from 25 fps is far more than the rounding of this clock.
    times = tuple(Fraction(40 * n + n % 2, 1000) for n in range(75))
    path = render(media_cache, VideoSpec("jitter.ts", times, Fraction(1, 1000), size=(64, 48)))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
    seconds = read_frame_times(path).seconds
    np.testing.assert_allclose(seconds, [float(time) for time in times], rtol=0, atol=1e-9)


def test_packets_are_listed_in_decoding_order(media_cache: MediaCache) -> None:
    path = render(media_cache, OPEN_GOPS)
    times, packets = read_frame_times(path), packets_of_video(path)
    assert times.packet_stamps.tolist() == [packet.pts for packet in packets]
    assert times.packet_is_key.tolist() == [packet.is_key for packet in packets]
    assert times.stamps.tolist() == sorted(packet.pts for packet in packets)
    assert times.packet_stamps.tolist() != times.stamps.tolist()


def test_reading_stops_soon_after_what_is_needed(media_cache: MediaCache) -> None:
    spec = video_spec("long.mp4", 25, 12, options=x264_options(50, 3), size=(64, 48))
    path = render(media_cache, spec)
    whole, part = read_frame_times(path), read_frame_times(path, until_seconds=3)
    assert len(whole.stamps) == 300
    # Everything up to then and a little more, without a gap.
    assert 75 < len(part.packet_stamps) < 150
    count = int(np.sum(part.seconds <= 3))
    np.testing.assert_array_equal(part.seconds[:count], whole.seconds[:count])
    assert count == 76
    assert part.end_seconds > 3


@pytest.mark.parametrize("clock", ["1/30", "1/1000"])
def test_frames_that_are_never_displayed_have_no_time(media_cache: MediaCache, clock: str) -> None:
    path = render_with_hidden(media_cache, PLAIN, clock=clock)
    assert len(packets_of_video(path)) > len(PLAIN.times)
    times = read_frame_times(path)
    expected = [float(time) for time in PLAIN.times]
    assert len(times.seconds) == len(expected)
    np.testing.assert_allclose(times.seconds, expected, rtol=0, atol=1e-9)


# -- The nearest frame -----------------------------------------------------------------------------


def times_at(seconds: Sequence[Fraction | float]) -> FrameTimes:
    """Return frames that are displayed at some times."""
    stamps = np.arange(len(seconds))
    return FrameTimes(
        stamps=stamps,
        seconds=np.array([float(time) for time in seconds]),
        end_seconds=float(seconds[-1]),
        packet_stamps=stamps,
        packet_is_key=stamps == 0,
    )


@given(
    gaps=st.lists(st.integers(1, 90), max_size=30),
    # With 20 ms as unit most distances are equal now and then.
    unit=st.sampled_from([Fraction(1, 1000), Fraction(1, 50), Fraction(1001, 60_000)]),
)
def test_the_nearest_frame_is_found_and_of_two_the_earlier(gaps: list[int], unit: Fraction) -> None:
    times = [unit * sum(gaps[:count]) for count in range(len(gaps) + 1)]
    frames = range(int(times[-1] * 25) + 3)
    seconds = np.array([float(Fraction(frame, 25)) for frame in frames])
    indices = times_at(times).nearest(seconds)
    assert indices.tolist() == [nearest(times, frame) for frame in frames]


@pytest.mark.parametrize("rate", [Fraction(25, 2), Fraction(75, 2), Fraction(125, 2)], ids=str)
def test_ties_go_to_the_earlier_for_a_whole_minute(rate: Fraction) -> None:
    times = [index / rate for index in range(int(61 * rate))]
    indices = times_at(times).nearest(np.arange(60 * 25) * 640 / 16_000)
    for frame, index in enumerate(indices.tolist()):
        due = Fraction(frame, 25)
        # Exactly: the first that is nearer than the one after it, or as near.
        assert 0 <= due - times[index] + Fraction(1, 2) / rate <= 1 / rate
        assert times[index] - due != Fraction(1, 2) / rate


def test_the_only_frame_is_nearest_to_every_time() -> None:
    assert times_at([0.0]).nearest(np.array([0.0, 3.0, 99.0])).tolist() == [0, 0, 0]


# -- Damaged files ---------------------------------------------------------------------------------


def test_an_unknown_codec_is_reported(media_cache: MediaCache, tmp_path: Path) -> None:
    path = tmp_path / "unknown.mp4"
    path.write_bytes(render(media_cache, CLOSED_GOPS).read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match="video stream has an unknown codec"):
        read_frame_times(path)


def test_a_truncated_file_has_the_frames_of_its_beginning(
    media_cache: MediaCache, tmp_path: Path
) -> None:
    path = tmp_path / "half.mkv"
    data = render(media_cache, replace(CLOSED_GOPS, name="closed.mkv")).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    times = read_frame_times(path)
    assert 30 < len(times.stamps) < 70
    np.testing.assert_allclose(times.seconds[:30], np.arange(30) / 25, rtol=0, atol=1e-9)
    assert times.end_seconds == pytest.approx(times.seconds[-1] + 0.04, abs=1e-3)
